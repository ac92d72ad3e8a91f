> connect /
< accept
< text working with a session, 0 left
> text select
< text a session: select
> close 1000
