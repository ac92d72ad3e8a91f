> connect /
< accept
> text tea
< text tea
> bytes 74 65 61
< bytes 74 65 61
> close 1000
