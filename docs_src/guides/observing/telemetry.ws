> connect /rooms/blue
< accept
> text Hello
< text blue: Hello
> close 1000
