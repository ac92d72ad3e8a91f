> connect /
< accept
> text Hello
< text You said: Hello
> text bye
< close 1000
