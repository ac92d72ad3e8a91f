ann > POST /ticket
ann > body ann
ann < 200
ann < body $ann_ticket
ann > connect /room?ticket=$ann_ticket
ann < accept
ann < json {"type": "join", "member": "$ann", "name": "ann"}
bob > POST /ticket
bob > body bob
bob < 200
bob < body $bob_ticket
bob > connect /room?ticket=$bob_ticket
bob < accept
bob < json {"type": "join", "member": "$bob", "name": "bob"}
ann < json {"type": "join", "member": "$bob", "name": "bob"}
ann > json {"ask": "members"}
ann < json {"type": "here", "members": {"$ann": "ann", "$bob": "bob"}}
bob > json {"key": "b1", "text": "Hello, Ann"}
bob < json {"type": "message", "id": "$hello", "from": "bob", "key": "b1", "text": "Hello, Ann"}
ann < json {"type": "message", "id": "$hello", "from": "bob", "key": "b1", "text": "Hello, Ann"}

# Bob's connection breaks, and he misses something.
bob > close 1001
ann < json {"type": "leave", "member": "$bob", "name": "bob"}
ann > json {"key": "a1", "text": "Hello, Bob"}
ann < json {"type": "message", "id": "$answer", "from": "ann", "key": "a1", "text": "Hello, Bob"}

# He goes on after the last message that he has seen.
bob > connect /room?ticket=$bob_ticket&since=$hello
bob < accept
bob < json {"type": "message", "id": "$answer", "from": "ann", "key": "a1", "text": "Hello, Bob"}
bob < json {"type": "join", "member": "$again", "name": "bob"}
ann < json {"type": "join", "member": "$again", "name": "bob"}
bob > close
ann < json {"type": "leave", "member": "$again", "name": "bob"}
ann > close
