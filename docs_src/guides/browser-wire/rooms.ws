ann > connect /
ann > subprotocol lilya.channels.v1
ann > subprotocol bearer
ann > subprotocol token-of-ann
ann < accept lilya.channels.v1
ann > json {"type": "join", "channel": "room:1", "history": 10, "presence": true}
ann < json {"type": "joined", "channel": "room:1", "position": "$start", "member": "$ann", "members": [{"id": "$ann", "info": {"name": "ann"}, "key": "ann"}], "count": 1}
ann < json {"type": "presence", "channel": "room:1", "event": "join", "member": {"id": "$ann", "info": {"name": "ann"}, "key": "ann"}, "sockets": 1}
bob > connect /
bob > subprotocol lilya.channels.v1
bob > subprotocol bearer
bob > subprotocol token-of-bob
bob < accept lilya.channels.v1
bob > json {"type": "join", "channel": "room:1"}
bob < json {"type": "joined", "channel": "room:1", "position": "$start", "member": "$bob"}
ann < json {"type": "presence", "channel": "room:1", "event": "join", "member": {"id": "$bob", "info": {"name": "bob"}, "key": "bob"}, "sockets": 1}
bob > json {"type": "publish", "channel": "room:1", "key": "b1", "data": "Hello, Ann"}
bob < json {"type": "published", "channel": "room:1", "key": "b1", "id": "$hello"}
bob < json {"type": "event", "channel": "room:1", "id": "$hello", "key": "b1", "data": {"from": "bob", "text": "Hello, Ann"}}
ann < json {"type": "event", "channel": "room:1", "id": "$hello", "key": "b1", "data": {"from": "bob", "text": "Hello, Ann"}}
bob > json {"type": "request", "id": "1", "data": "who am I?"}
bob < json {"type": "answer", "id": "1", "data": {"name": "bob"}}

# Bob's connection breaks.
bob > close 1001
ann < json {"type": "presence", "channel": "room:1", "event": "leave", "member": {"id": "$bob", "info": {"name": "bob"}, "key": "bob"}, "sockets": 0}
ann > json {"type": "publish", "channel": "room:1", "key": "a1", "data": "Hello, Bob"}
ann < json {"type": "published", "channel": "room:1", "key": "a1", "id": "$answer"}
ann < json {"type": "event", "channel": "room:1", "id": "$answer", "key": "a1", "data": {"from": "ann", "text": "Hello, Bob"}}

# He comes back, and continues after the last event that he has seen.
bob > connect /
bob > subprotocol lilya.channels.v1
bob > subprotocol bearer
bob > subprotocol token-of-bob
bob < accept lilya.channels.v1
bob > json {"type": "join", "channel": "room:1", "since": "$hello"}
bob < json {"type": "joined", "channel": "room:1", "position": "$hello", "member": "$again"}
bob < json {"type": "event", "channel": "room:1", "id": "$answer", "key": "a1", "data": {"from": "ann", "text": "Hello, Bob"}}
ann < json {"type": "presence", "channel": "room:1", "event": "join", "member": {"id": "$again", "info": {"name": "bob"}, "key": "bob"}, "sockets": 1}

# Nothing is published twice with the same key.
bob > json {"type": "publish", "channel": "room:1", "key": "b1", "data": "Hello, Ann"}
bob < json {"type": "published", "channel": "room:1", "key": "b1", "id": "$hello"}
bob > json {"type": "leave", "channel": "room:1"}
bob < json {"type": "left", "channel": "room:1"}
ann < json {"type": "presence", "channel": "room:1", "event": "leave", "member": {"id": "$again", "info": {"name": "bob"}, "key": "bob"}, "sockets": 0}
bob > json {"type": "ping"}
bob < json {"type": "pong"}
bob > close
ann > close
