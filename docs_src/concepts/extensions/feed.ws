> connect /
< accept
< text News 1
< text News 2
> close 1000
