> connect /
< accept
> json {"hello": "world"}
< text Message text was: {'hello': 'world'}
> json ["first", "second"]
< text Message text was: ['first', 'second']
> close 1000
