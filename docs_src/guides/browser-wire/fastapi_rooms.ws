ann > connect /live
ann > subprotocol lilya.channels.v1
ann > subprotocol bearer
ann > subprotocol token-of-ann
ann < accept lilya.channels.v1
ann > json {"type": "join", "channel": "user:ann"}
ann < json {"type": "joined", "channel": "user:ann", "position": "$start"}
ann > json {"type": "join", "channel": "user:bob"}
ann < json {"type": "error", "code": "forbidden", "message": "you may not join this channel", "action": "join", "channel": "user:bob"}
ci > POST /build/ann
ci < 200
ann < json {"type": "event", "channel": "user:ann", "id": "$built", "data": {"text": "Your build has finished"}}
ann > close
eve > connect /live
eve > subprotocol lilya.channels.v1
eve < deny 401
eve < body {"detail":"Unauthorized"}
