> connect /
< accept
> text This has more than 16 bytes.
< close 1009 message too big
