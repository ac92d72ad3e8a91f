# new WebSocket(url, ["bearer", "only-for-trying-this-page"])
> connect /
> subprotocol bearer
> subprotocol only-for-trying-this-page
< accept bearer
< text Welcome!
< close 1000
