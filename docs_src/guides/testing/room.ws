> connect /?room=blue
< accept
> text hello
< text blue: hello
> close 1000
