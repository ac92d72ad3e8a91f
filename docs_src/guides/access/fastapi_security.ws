# Ann's page: new WebSocket(url, ["bearer", key])
> connect /orders/live
> subprotocol bearer
> subprotocol anns-key-for-trying-this-page
< accept bearer
< text tea
> close 1000
