> connect /
< accept
< json {"news": 1}
> text Hello
< text You said: Hello
> close 1000
