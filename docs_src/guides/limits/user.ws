> connect /
> header authorization: Bearer anns-key-for-trying-this-page
< accept
> text What is six times seven?
< text What is six times seven? 42.
> text And the answer?
< text And the answer? 42.
> text And now?
< text Ask again in 10 s.
> close 1000
