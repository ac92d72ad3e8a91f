> connect /
< accept
> bytes 8a 40 ab 6b 7b 22 78 22 3a 20 31 2c 20 22 79 22 3a 20 32 7d
< bytes 4a 5a 43 ab 7b 22 78 22 3a 20 32 2c 20 22 79 22 3a 20 31 7d
> bytes 00
< close 1007
