ann > connect /?user=ann
ann < accept
ann < text ann is here
phone > connect /?user=ann
phone < accept
bob > connect /?user=bob
bob < accept
ann < text bob is here
phone < text bob is here
bob < text bob is here
ann > text hello
phone < text hello (2 persons)
bob < text hello (2 persons)
phone > close
bob > close
ann < text bob has left
ann > close
