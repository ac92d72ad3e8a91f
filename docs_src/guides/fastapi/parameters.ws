> connect /rooms/7?name=ann
< accept
< json {"room": 7, "name": "Ann", "as given": "ann"}
< close 1000
