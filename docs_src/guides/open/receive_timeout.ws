> connect /
< accept
< text What is your name?
> wait 30s
< text Are you there?
> text Ada
< text Hello, Ada
< close 1000
