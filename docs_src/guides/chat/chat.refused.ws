# The page itself.
ann > GET /
ann < 200
ann < header content-type: text/html; charset=utf-8

# Another page.
eve > POST /ticket
eve > header origin: https://evil.example
eve > body eve
eve < 403
ann > POST /ticket
ann > body A name that is much longer than thirty characters
ann < 400
ann > connect /room?ticket=made-up
ann < deny 401
ann < body The ticket is invalid or has expired.
bob > POST /ticket
bob > body bob
bob < 200
bob < body $ticket
bob > connect /room?ticket=$ticket
bob < accept
bob < json {"type": "join", "member": "$bob", "name": "bob"}
bob > json {"say": "Hello"}
bob < close 1008 this page and its server do not understand each other
