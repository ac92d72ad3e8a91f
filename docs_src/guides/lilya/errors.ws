> connect /
< accept
> text 21
< text 42
> close 1000
