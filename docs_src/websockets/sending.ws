> connect /
< accept
< text Rendering
< json {"done": 50}
< json-binary {"done": 100}
< bytes ff 00 00
< close 1000
