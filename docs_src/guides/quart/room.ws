ann > connect /rooms/blue
ann < accept
bob > connect /rooms/blue
bob < accept
ann > text Hello, Bob
ann < text Hello, Bob
bob < text Hello, Bob
bob > close
ann > text Still here?
ann < text Still here?
ann > close
