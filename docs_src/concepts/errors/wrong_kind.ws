> connect /
< accept
> bytes 00 ff
< text Text, please, not 2 bytes
> text tea
< text TEA
> close 1000
