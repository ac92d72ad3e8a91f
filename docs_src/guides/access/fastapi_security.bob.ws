# Bob's program, which may read something else
> connect /orders/live
> header authorization: Bearer bobs-key-for-trying-this-page
< deny 403
< body {"detail":"Forbidden"}
