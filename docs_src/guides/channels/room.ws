ann > connect /
ann < accept
bob > connect /
bob < accept
ann > text Hello, Bob
ann < text Hello, Bob
bob < text Hello, Bob
bob > close
ann > text Still here?
ann < text Still here?
ann > close
