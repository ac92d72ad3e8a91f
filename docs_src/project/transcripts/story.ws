ann > connect /story
ann < accept
bob > connect /story
bob < accept
ann > text Once
ann < text Once
bob > text upon
bob < text Once upon
ann > close
bob > close
