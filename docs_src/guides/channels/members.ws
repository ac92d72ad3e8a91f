ann > connect /?name=ann
ann < accept
ann < text ann is here
bob > connect /?name=bob
bob < accept
ann < text bob is here
bob < text bob is here
bob > text who?
bob < text Here: ann, bob
bob > close
ann < text bob has left
ann > close
