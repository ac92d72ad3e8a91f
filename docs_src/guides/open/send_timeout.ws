> connect /
< accept
< text News 1
< text News 2
< text News 3
< close 1000
