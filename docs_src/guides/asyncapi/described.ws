> connect /echo
< accept
> json {"type": "word", "text": "hello"}
< json {"type": "word", "text": "hello"}
> close
