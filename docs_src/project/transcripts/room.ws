# A session, as its client sees it.
> connect /?room=blue
> subprotocol chat
< accept chat
> json {"text": "Hello, room"}
< json {"room": "blue", "text": "Hello, room"}
> close 1000 bye
