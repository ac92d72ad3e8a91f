ann > connect /chat?name=ann
ann < accept
bob > connect /chat
bob < accept
ann > text Hello, Bob
ann < text ann: Hello, Bob
bob < text ann: Hello, Bob
bob > close 1000
ann > close 1000
