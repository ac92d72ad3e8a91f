> connect /
< accept
< text Working for an hour
> wait 1h
< text Done
< close 1000
