> connect /
> subprotocol chat.v1
> subprotocol chat.v2
< accept chat.v2
< header x-room: blue
< text We speak chat.v2
< close 1000
