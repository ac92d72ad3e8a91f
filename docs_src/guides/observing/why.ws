one > connect /
one < accept
two > connect /
two < deny 503
one > close 1000
