user > connect /
user < accept
user > text Hello
user < text You said: Hello
user > text Hello again
user < text You said: Hello again
monitor > GET /metrics?name[]=websocket_messages_total
monitor < 200
monitor < body # HELP websocket_messages_total Messages
monitor < body # TYPE websocket_messages_total counter
monitor < body websocket_messages_total{direction="in",kind="text"} 2.0
monitor < body websocket_messages_total{direction="in",kind="bytes"} 0.0
monitor < body websocket_messages_total{direction="out",kind="text"} 2.0
monitor < body websocket_messages_total{direction="out",kind="bytes"} 0.0
monitor < body ""
user > close 1000
