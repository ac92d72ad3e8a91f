# The page itself.
ann > GET /
ann < 200
ann < header content-type: text/html; charset=utf-8

# Another page.
eve > POST /ticket
eve > header origin: https://evil.example
eve > body eve
eve < 403
ann > POST /ticket
ann > body A name that is much longer than thirty characters
ann < 400
ann > connect /room?ticket=made-up
ann < deny 401
ann < body The ticket is invalid or has expired.
bob > POST /ticket
bob > body bob
bob < 200
bob < body $ticket
bob > connect /room?ticket=$ticket
bob < deny 400
bob < body Offer the WebSocket subprotocol lilya.channels.v1.
bob > connect /room?ticket=$ticket
bob > subprotocol lilya.channels.v1
bob < accept lilya.channels.v1
bob > json {"type": "join", "channel": "room:cellar"}
bob < json {"type": "error", "code": "forbidden", "message": "you may not join this channel", "action": "join", "channel": "room:cellar"}
bob > json {"type": "join", "channel": "room:lobby", "since": "none"}
bob < json {"type": "error", "code": "invalid", "message": "an event's id looks like '1764106141000-42-9f3c01d2', got 'none': take the id of an event or of a gap, or a subscription's position", "action": "join", "channel": "room:lobby"}
bob > json {"type": "join", "channel": "room:lobby"}
bob < json {"type": "joined", "channel": "room:lobby", "position": "$start", "member": "$bob"}
bob > json {"type": "publish", "channel": "room:lobby", "key": "b1", "data": " "}
bob < json {"type": "error", "code": "invalid", "message": "a message has 1 to 2,000 characters", "action": "publish", "channel": "room:lobby", "key": "b1"}
bob > close
