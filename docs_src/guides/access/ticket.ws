# somebody without a ticket
> connect /orders
< deny 401
< body This ticket is invalid or has expired.
