# your own page; its user has not signed in
> connect /orders
> header origin: https://shop.example.com
< deny 401
< body Sign in first.
