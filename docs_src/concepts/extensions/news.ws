> connect /
< accept
> text It is done
< text News: It is done
> close 1000
