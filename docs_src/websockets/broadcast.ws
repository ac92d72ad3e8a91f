> connect /
< accept
> text Lunch?
< text To all: Lunch?
> close 1000
