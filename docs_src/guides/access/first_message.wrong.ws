> connect /
< accept
> text hi
< close 1008 The first message must be your key.
