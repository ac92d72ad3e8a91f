> connect /chat
< accept
> text Hello!
< text You said: Hello!
> close 1000
