> connect /
< accept
> json {"item": "tea"}
< json {"ordered": {"item": "tea"}}
> text {"item": tea}
< close 1007 send JSON
