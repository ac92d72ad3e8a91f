ann > connect /
ann < accept
ann < json {"worker": "$one"}
bob > connect /
bob < accept
bob < json {"worker": "$other"}
ann > text Is anybody there?
ann < text Is anybody there?
bob < text Is anybody there?
ann > close
bob > close
