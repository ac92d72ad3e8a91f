> connect /
< accept
> json {"item": "lamp", "amount": 5}
< json {"item": "lamp", "amount": 5}
> json {"amount": 0}
< text ('item',) missing: Field required
< text ('amount',) greater_than: Input should be greater than 0
> bytes 00
< text () wrong_kind: expected text, got binary data (b'\x00')
> close
