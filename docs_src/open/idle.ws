> connect /
< accept
> text Hello
< text You said: Hello
> wait
< close 1001 idle
