> connect /
< accept
> json {"type": "say", "text": "hello"}
< json {"type": "said", "text": "hello"}
> json {"type": "say", "text": 5}
< json {"type": "error", "errors": [{"loc": ["text"], "type": "string_type", "msg": "Input should be a valid string"}]}
> json {"type": "shout", "text": "hello"}
< json {"type": "error", "errors": [{"loc": [], "type": "union_tag_invalid", "msg": "Input tag 'shout' found using 'type' does not match any of the expected tags: 'say', 'leave'"}]}
> text {
< json {"type": "error", "errors": [{"loc": [], "type": "json_invalid", "msg": "Invalid JSON: EOF while parsing an object at line 1 column 1"}]}
> json {"type": "leave"}
< close 1000
