> connect /
> subprotocol chat.v1
> subprotocol chat.v3
< accept chat.v1
< header x-chat-server: blue
< header x-chat-version: 3
< text We speak chat.v1
< close 1000
