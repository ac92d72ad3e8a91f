ann > connect /
ann < accept
ann > text 7 41
ann < text 41
ann > text 8 42
ann < text 42
ann > text 8 42
bob > connect /
bob < accept
bob < text 42
bob > text 9 41
ann < text 41
bob < text 41
ann > close
bob > close
