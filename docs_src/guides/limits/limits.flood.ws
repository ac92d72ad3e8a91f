# the messages of both tabs count
one > connect /
one < accept
two > connect /
two < accept
one > text a
one < text You said: a
two > text b
two < text You said: b
one > text c
one < text You said: c
two > text d
two < close 1008 too many messages
one > close 1000
