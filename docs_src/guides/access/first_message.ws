> connect /
< accept
> text only-for-trying-this-page
< text Welcome!
> text hi
< text You said: hi
> close 1000
