> connect /
< accept
> json [1]
< json {"ordered": [1]}
> text [NaN]
< close 1007 send JSON
