> connect /
< accept
> text Hello
< text You said: Hello
> wait 1min
< close 1001 idle
