ann > connect /chat?name=ann
ann < accept
bob > connect /chat?name=bob
bob < accept
ann > text Hello, Bob
ann < text ann: Hello, Bob
bob < text ann: Hello, Bob
bob > close 1000

# Somebody who comes later gets the last messages.
eve > connect /chat
eve < accept
eve < text ann: Hello, Bob
eve > text Am I late?
eve < text somebody: Am I late?
ann < text somebody: Am I late?
eve > close 1000
ann > close 1000
