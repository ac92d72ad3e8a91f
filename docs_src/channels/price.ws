ann > connect /
ann < accept
ann > text 41
ann < text 41
ann > text 42
ann < text 42
ann > text 42
bob > connect /
bob < accept
bob < text 42
bob > text 43
ann < text 43
bob < text 43
ann > close
bob > close
