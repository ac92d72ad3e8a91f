one > connect /
one < accept
one > text ?
one < text 1 here. Nobody has left yet.
two > connect /
two < accept
one > text ?
one < text 2 here. Nobody has left yet.
two > close 4000
one > text ?
one < text 1 here. The last one left with 4000 after 0 messages.
one > close 1000
