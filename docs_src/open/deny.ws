> connect /
< deny 401
< header www-authenticate: Bearer
< body Sign in first.
