> connect /edit?token=guest
< deny 403
< body {"detail":"Guests may only read."}
