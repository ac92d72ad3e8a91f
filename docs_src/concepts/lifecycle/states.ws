> connect /
< accept
< text client CONNECTING, app CONNECTING
< text client CONNECTED, app CONNECTING
< text client CONNECTED, app CONNECTED
< close 1000
