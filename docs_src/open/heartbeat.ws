> connect /
< accept
> wait
< text ping
> text pong
> wait
< text ping
# The client does not answer this one.
> wait
< close 1011 no answer
