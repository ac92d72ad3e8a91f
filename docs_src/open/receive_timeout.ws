> connect /
< accept
< text What is your name?
> wait
< text Are you there?
> text Ada
< text Hello, Ada
< close 1000
