# A page of another site, in the browser of one of your users.
> connect /chat?name=ann
> header origin: https://evil.example
< deny 403
< body This origin is not allowed here.
