> connect /
< accept
> text Ada
> json {"item": "tea"}
> json-binary {"amount": 3}
> bytes 0a 1b 2c
< text Ada ordered tea for 3
< text signed with 3 bytes
< close 1000
