> connect /edit?token=guest
< deny 403
< body Guests may only read.
