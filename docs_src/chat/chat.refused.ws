# The page itself.
ann > GET /
ann < 200
ann < header content-type: text/html; charset=utf-8
ann > connect /room?name=
ann < accept
ann < close 1008 a name has 1 to 30 characters
bob > connect /room?name=bob
bob < accept
bob < json {"type": "join", "member": "$bob", "name": "bob"}
bob > json {"say": "Hello"}
bob < close 1008 this page and its server do not understand each other
