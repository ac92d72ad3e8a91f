> connect /
< accept
> text open sesame
< text Welcome.
< close 1000
