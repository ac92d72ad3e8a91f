# a page of another site
> connect /chat
> header origin: https://evil.example
< deny 403
< body This origin is not allowed here.
