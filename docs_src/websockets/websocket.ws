> connect /
< accept
< json-binary {"message": "Hello, world!"}
< close 1000
