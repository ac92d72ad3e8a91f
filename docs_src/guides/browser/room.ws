> connect /ws?name=ann
> subprotocol lilya.channels.v1
< accept lilya.channels.v1
> json {"type": "join", "channel": "room:1"}
< json {"type": "joined", "channel": "room:1", "position": "$start", "member": "$ann"}
> json {"type": "publish", "channel": "room:1", "key": "k1", "data": "Hello"}
< json {"type": "published", "channel": "room:1", "key": "k1", "id": "$hello"}
< json {"type": "event", "channel": "room:1", "id": "$hello", "key": "k1", "data": {"from": "ann", "text": "Hello"}}
> json {"type": "publish", "channel": "room:1", "key": "k2", "data": ""}
< json {"type": "error", "code": "invalid", "message": "a message is text of 1 to 1,000 characters", "action": "publish", "channel": "room:1", "key": "k2"}
> json {"type": "request", "id": "1", "data": "how many?"}
< json {"type": "answer", "id": "1", "data": 1}
> json {"type": "join", "channel": "staff"}
< json {"type": "error", "code": "forbidden", "message": "you may not join this channel", "action": "join", "channel": "staff"}
> close 1000
