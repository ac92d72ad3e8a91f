> connect /chat?room=blue&tag=new&tag=hot&tag=
> header accept-language: pt
> header cookie: theme=dark
< accept
< json {"room": "blue", "tags": ["new", "hot", ""], "language": "pt", "theme": "dark"}
< close 1000
