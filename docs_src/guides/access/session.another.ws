# another page, in the browser of a user who has: the cookie is not even looked at
> connect /orders
> header origin: https://evil.example
> header cookie: session=eyJ1c2VyIjogImFubiJ9
< deny 403
< body This origin is not allowed here.
