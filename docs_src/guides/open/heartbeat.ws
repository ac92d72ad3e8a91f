> connect /
< accept
> text Hello
< text You said: Hello
> wait 20s
< text ping
> text pong
> wait 20s
< text ping
# The client does not answer this one.
> wait 20s
< close 1011 no answer
