> connect /
< accept
> json {"price": 0.1}
< json {"total": "0.1"}
> json {"price": 0.2}
< json {"total": "0.3"}
> close 1000
