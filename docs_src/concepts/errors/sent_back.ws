> connect /
< accept
> text {"name": "Ada", "age": 36}
< json {"name": "Ada", "age": 36}
< text Hello, Ada!
> text {"name": "Ada", "age": 1e999}
< text the data holds NaN or an infinity, which JSON does not have
> text {"name": "Ada\ud800", "age": 36}
< json {"name": "Ada\ud800", "age": 36}
< text text must encode to UTF-8, but character 10 is the lone surrogate '\ud800'
> close 1000
