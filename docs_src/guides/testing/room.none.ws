> connect /
< deny 403
