> connect /
< accept
> json-binary {"item": "tea"}
< close 1007 send JSON
