> connect /
< accept
< json {"online": 1}
> text Who is here?
< json {"online": 1}
> close 1000
