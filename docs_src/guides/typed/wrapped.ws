> connect /
< accept
> json {"text": "hello"}
< json {"text": "hello"}
> json {"text": null}
< close 1007
