> connect /nobody/here
< deny 403
