> connect /
< accept
< text Write, and leave when you like
> text First
> text Second
> close 4000 enough
