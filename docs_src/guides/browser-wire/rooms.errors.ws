eve > connect /
eve > subprotocol lilya.channels.v1
eve < deny 401
guest > connect /
guest > subprotocol bearer
guest > subprotocol token-of-a-guest
guest < deny 400
guest < body Offer the WebSocket subprotocol lilya.channels.v1.
guest > connect /
guest > subprotocol lilya.channels.v1
guest > subprotocol bearer
guest > subprotocol token-of-a-guest
guest < accept lilya.channels.v1

# No error ends the connection.
guest > text Hello!
guest < json {"type": "error", "code": "invalid", "message": "a message must be JSON: Expecting value: line 1 column 1 (char 0)"}
guest > json {"type": "shout"}
guest < json {"type": "error", "code": "invalid", "message": "\"type\" must be one of join, leave, publish, request and ping, got \"shout\""}
guest > json {"type": "join", "channel": "secrets"}
guest < json {"type": "error", "code": "forbidden", "message": "you may not join this channel", "action": "join", "channel": "secrets"}
guest > json {"type": "join", "channel": "news", "presence": true}
guest < json {"type": "error", "code": "forbidden", "message": "you may not see who is in this channel", "action": "join", "channel": "news"}
guest > json {"type": "join", "channel": "news", "history": 5000}
guest < json {"type": "error", "code": "invalid", "message": "\"history\" must be an integer from 0 to 100, got 5000", "action": "join", "channel": "news"}
guest > json {"type": "join", "channel": "news"}
guest < json {"type": "joined", "channel": "news", "position": "$start"}
guest > json {"type": "publish", "channel": "news", "key": "g1", "data": "Buy this!"}
guest < json {"type": "error", "code": "forbidden", "message": "you may not publish to this channel", "action": "publish", "channel": "news", "key": "g1"}
guest > json {"type": "request", "id": "1", "data": "who is she?"}
guest < json {"type": "error", "code": "invalid", "message": "There is one request: who am I?", "action": "request", "id": "1"}
guest > close
bob > connect /
bob > subprotocol lilya.channels.v1
bob > subprotocol bearer
bob > subprotocol token-of-bob
bob < accept lilya.channels.v1

# A `publish` may come right behind its `join`.
bob > json {"type": "join", "channel": "room:1"}
bob > json {"type": "publish", "channel": "room:1", "key": "b1", "data": ""}
bob < json {"type": "joined", "channel": "room:1", "position": "$room", "member": "$bob"}
bob < json {"type": "error", "code": "invalid", "message": "A message has 1 to 1,000 characters.", "action": "publish", "channel": "room:1", "key": "b1"}
bob > close
