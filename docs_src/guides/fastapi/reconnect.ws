ann > connect /rooms/1?name=ann
ann < accept
ann < json {"join": "ann"}
bob > connect /rooms/1?name=bob
bob < accept
ann < json {"join": "bob"}
bob < json {"join": "bob"}
ann > text Hello
ann < json {"id": "$first", "name": "ann", "text": "Hello"}
bob < json {"id": "$first", "name": "ann", "text": "Hello"}
bob > close
ann < json {"leave": "bob"}
ann > text Still here?
ann < json {"id": "$second", "name": "ann", "text": "Still here?"}

# Bob comes back with the last id that he has received.
bob > connect /rooms/1?name=bob&since=$first
bob < accept
bob < json {"id": "$second", "name": "ann", "text": "Still here?"}
bob < json {"join": "bob"}
ann < json {"join": "bob"}
bob > close
ann < json {"leave": "bob"}
ann > close
