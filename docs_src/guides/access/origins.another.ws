# a page that somebody else has written
> connect /
> header origin: https://shop.example.com.evil.example
< deny 403
< body This origin is not allowed here.
