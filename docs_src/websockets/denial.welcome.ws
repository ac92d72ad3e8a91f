> connect /
> header authorization: Bearer secret
< accept
< text Welcome.
< close 1000
