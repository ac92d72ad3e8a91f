> connect /
< accept
> text hello
< text hello
> text bye
< close 1000 bye
