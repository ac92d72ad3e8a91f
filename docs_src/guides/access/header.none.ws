# a program that does not
> connect /
< deny 401
< header www-authenticate: Bearer
< body Send your key.
