> connect /rooms/lobby
< accept
> json {"type": "say", "text": "Hello"}
< json {"type": "said", "text": "lobby: Hello"}
> json {"type": "count", "id": "1"}
< json {"type": "counted", "reply_to": "1", "messages": 1}
> json {"type": "say", "text": ""}
< json {"type": "error", "errors": [{"loc": ["text"], "type": "string_too_short", "msg": "String should have at least 1 character"}]}
> close
