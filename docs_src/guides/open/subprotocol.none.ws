> connect /
> subprotocol mqtt
< accept
< header x-room: blue
< text We speak None
< close 1000
