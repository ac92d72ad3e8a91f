ann > connect /ws/1
ann < accept
bob > connect /ws/2
bob < accept
bob > text Hello!
ann < text Client #2 says: Hello!
bob < text Client #2 says: Hello!
bob > close
ann < text Client #2 left the chat
ann > close
