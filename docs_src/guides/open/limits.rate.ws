> connect /
< accept
> text Hello
< text You said: Hello
> text Hello again
< close 1008 too many messages
