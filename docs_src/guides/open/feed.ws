> connect /
< accept
< json {"news": 1}
> text Nobody reads this
> close 1000
