> connect /?token=abc
< accept
< text Welcome
< close 1000
