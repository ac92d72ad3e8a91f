ann > connect /
ann < accept
ann > json 1
ann < json {"id": "$first", "price": 1}
ann > json 2
ann < json {"id": "$second", "price": 2}
ann > json 3
ann < json {"id": "$third", "price": 3}

# Somebody new gets the last two, and somebody who comes back whatever was missed.
bob > connect /
bob < accept
bob < json {"id": "$second", "price": 2}
bob < json {"id": "$third", "price": 3}
bob > close
bob > connect /?since=$first
bob < accept
bob < json {"id": "$second", "price": 2}
bob < json {"id": "$third", "price": 3}
bob > close
bob > connect /?since=yesterday
bob < accept
bob < close 1008
ann > close
