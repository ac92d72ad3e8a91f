> connect /nowhere
< deny 404
