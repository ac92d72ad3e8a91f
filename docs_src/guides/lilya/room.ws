> connect /rooms/blue
< accept
> text hello
< text blue: hello
> bytes 00
< close 1003 text only, please
