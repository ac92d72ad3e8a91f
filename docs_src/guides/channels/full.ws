> connect /
< accept
< text 5 are missing here
< text news 6
< text news 7
< text 5 of 7 dropped
< close 1000
