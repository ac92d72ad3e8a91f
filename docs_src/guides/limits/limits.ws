# two tabs of one client, and a third
one > connect /
one < accept
two > connect /
two < accept
three > connect /
three < deny 429
three < header retry-after: 10
three < body You have too many connections.
one > close 1000
two > close 1000
