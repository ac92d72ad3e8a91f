> connect /
< deny 401
< header www-authenticate: Bearer
< header content-type: text/plain; charset=utf-8
< body Sign in first.
