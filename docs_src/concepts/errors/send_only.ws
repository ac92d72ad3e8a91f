> connect /
< accept
< text Working for an hour
> close 1000
