> connect /
< accept
> text e4
< text Your move: e4
> close 4000 time for tea
