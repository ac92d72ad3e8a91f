> connect /
< accept
> bytes 01 02 03
< json {"received": 3}
> bytes 04 05
< json {"received": 5}
> close
