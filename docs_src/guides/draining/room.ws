> connect /
< accept
> text How many are we?
< text 1 in the room.
> text /close
> wait
< close 4000 The room is closed.
