> connect /users/ada
< accept
< text Welcome, ada!
< close 1000
