> connect /?user=ada
< accept
< text Your plan: premium
< close 1000
