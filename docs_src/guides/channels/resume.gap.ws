# An id from before the history was lost.
> connect /?since=1764106141000-42-9f3c01d2
< accept
< json {"id": "$before", "missing": true}
> close
