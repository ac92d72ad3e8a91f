> connect /
< deny 401
< body Sign in first.
