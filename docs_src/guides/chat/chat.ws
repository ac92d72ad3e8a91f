ann > POST /ticket
ann > body ann
ann < 200
ann < body $ann_ticket
ann > connect /room?ticket=$ann_ticket
ann > subprotocol lilya.channels.v1
ann < accept lilya.channels.v1
ann > json {"type": "join", "channel": "room:lobby", "presence": true}
ann < json {"type": "joined", "channel": "room:lobby", "position": "$start", "member": "$ann", "members": [{"id": "$ann", "info": "ann"}], "count": 1}
ann < json {"type": "presence", "channel": "room:lobby", "event": "join", "member": {"id": "$ann", "info": "ann"}, "sockets": 1}
bob > POST /ticket
bob > body bob
bob < 200
bob < body $bob_ticket
bob > connect /room?ticket=$bob_ticket
bob > subprotocol lilya.channels.v1
bob < accept lilya.channels.v1
bob > json {"type": "join", "channel": "room:lobby", "presence": true}
bob < json {"type": "joined", "channel": "room:lobby", "position": "$start", "member": "$bob", "members": [{"id": "$ann", "info": "ann"}, {"id": "$bob", "info": "bob"}], "count": 2}
bob < json {"type": "presence", "channel": "room:lobby", "event": "join", "member": {"id": "$bob", "info": "bob"}, "sockets": 1}
ann < json {"type": "presence", "channel": "room:lobby", "event": "join", "member": {"id": "$bob", "info": "bob"}, "sockets": 1}
bob > json {"type": "publish", "channel": "room:lobby", "key": "b1", "data": "Hello, Ann"}
bob < json {"type": "published", "channel": "room:lobby", "key": "b1", "id": "$hello"}
bob < json {"type": "event", "channel": "room:lobby", "id": "$hello", "key": "b1", "data": {"from": "bob", "text": "Hello, Ann"}}
ann < json {"type": "event", "channel": "room:lobby", "id": "$hello", "key": "b1", "data": {"from": "bob", "text": "Hello, Ann"}}

# Bob's connection breaks, and he misses something.
bob > close 1001
ann < json {"type": "presence", "channel": "room:lobby", "event": "leave", "member": {"id": "$bob", "info": "bob"}, "sockets": 0}
ann > json {"type": "publish", "channel": "room:lobby", "key": "a1", "data": "Hello, Bob"}
ann < json {"type": "published", "channel": "room:lobby", "key": "a1", "id": "$answer"}
ann < json {"type": "event", "channel": "room:lobby", "id": "$answer", "key": "a1", "data": {"from": "ann", "text": "Hello, Bob"}}

# He comes back, and continues after the last message that he has seen.
bob > connect /room?ticket=$bob_ticket
bob > subprotocol lilya.channels.v1
bob < accept lilya.channels.v1
bob > json {"type": "join", "channel": "room:lobby", "since": "$hello"}
bob < json {"type": "joined", "channel": "room:lobby", "position": "$hello", "member": "$again"}
bob < json {"type": "event", "channel": "room:lobby", "id": "$answer", "key": "a1", "data": {"from": "ann", "text": "Hello, Bob"}}
ann < json {"type": "presence", "channel": "room:lobby", "event": "join", "member": {"id": "$again", "info": "bob"}, "sockets": 1}

# He does not know whether his message has arrived, and sends it again. It stays in the room once.
bob > json {"type": "publish", "channel": "room:lobby", "key": "b1", "data": "Hello, Ann"}
bob < json {"type": "published", "channel": "room:lobby", "key": "b1", "id": "$hello"}
bob > close
ann < json {"type": "presence", "channel": "room:lobby", "event": "leave", "member": {"id": "$again", "info": "bob"}, "sockets": 0}
ann > close
