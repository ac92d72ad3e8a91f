> connect /chat
< accept
> json {"type": "say", "text": "hello"}
< json {"type": "said", "text": "hello"}
> json {"type": "leave"}
< close 1000
