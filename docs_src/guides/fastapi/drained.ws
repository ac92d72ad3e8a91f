> connect /echo
< accept
> text Hello!
< text Hello!
> close
