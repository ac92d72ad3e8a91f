> connect /rooms/blue
< deny 403
