> connect /
> subprotocol chat.v1
> subprotocol chat.v3
< accept chat.v1
< header x-chat-server: blue
< text We speak chat.v1
< close 1000
