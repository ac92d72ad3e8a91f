> connect /edit
< deny 401
< body {"detail":"Sign in first."}
