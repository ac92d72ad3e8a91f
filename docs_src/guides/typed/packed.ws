> connect /
< accept
> bytes 82 a6 73 65 6e 73 6f 72 a1 74 a5 76 61 6c 75 65 cb 40 35 80 00 00 00 00 00
< bytes 82 a6 73 65 6e 73 6f 72 a1 74 a5 76 61 6c 75 65 cb 40 35 80 00 00 00 00 00
> close
