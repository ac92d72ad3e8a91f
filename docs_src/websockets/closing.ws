> connect /
< accept
> text let me in
< close 4001 wrong password
