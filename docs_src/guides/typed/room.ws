ann > connect /room?name=ann
ann < accept
ann < json {"type": "came", "name": "ann"}
bob > connect /room?name=bob
bob < accept
bob < json {"type": "came", "name": "bob"}
ann < json {"type": "came", "name": "bob"}
bob > json {"type": "say", "text": "Hello, Ann"}
bob < json {"type": "said", "name": "bob", "text": "Hello, Ann"}
ann < json {"type": "said", "name": "bob", "text": "Hello, Ann"}
ann > json {"type": "who"}
ann < json {"type": "here", "names": ["ann", "bob"]}
bob > json {"type": "say", "text": ""}
bob < json {"type": "error", "errors": [{"loc": ["text"], "type": "string_too_short", "msg": "String should have at least 1 character"}]}
bob > close
ann < json {"type": "left", "name": "bob"}
ann > close
