> connect /
< accept
> json {"type": "say", "text": "hello"}
< json {"type": "said", "text": "hello"}
> json {"type": "say", "text": 5}
< json {"type": "error", "errors": [{"loc": ["text"], "type": "invalid_type", "msg": "Expected `str`, got `int`"}]}
> json {"type": "shout", "text": "hello"}
< json {"type": "error", "errors": [{"loc": ["type"], "type": "invalid_tag", "msg": "Invalid value 'shout'"}]}
> text {
< json {"type": "error", "errors": [{"loc": [], "type": "malformed", "msg": "Input data was truncated"}]}
> json {"type": "leave"}
< close 1000
