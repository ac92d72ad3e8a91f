# a program that knows the key
> connect /
> header authorization: Bearer only-for-trying-this-page
< accept
> text 21.5 degrees
< text Stored: 21.5 degrees
> close 1000
