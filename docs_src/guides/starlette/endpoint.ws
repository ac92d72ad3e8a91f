> connect /rooms/7
< accept
< json {"room": 7}
> json ["a", 1]
< json {"you said": ["a", 1]}
> close
