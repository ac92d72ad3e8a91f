"""aiohttp's server."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import WSMsgType, web

PIECE = 65536  # bytes; each is an object of its own: of one that is sent again, a server may keep no copy
group: dict[web.WebSocketResponse, None] = {}


async def handle(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse()
    if request.path == "/join":
        group[websocket] = None
    await websocket.prepare(request)
    if request.path == "/flood":
        for _ in range(512):
            await websocket.send_bytes(b"x" * PIECE)
    async for message in websocket:
        if request.path == "/publish":
            for member in list(group):
                await member.send_str(message.data)
        elif request.path == "/echo":
            if message.type is WSMsgType.TEXT:
                await websocket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await websocket.send_bytes(message.data)
    group.pop(websocket, None)
    return websocket


uvloop.install()
app = web.Application()
app.add_routes([web.get(path, handle) for path in ("/echo", "/join", "/publish", "/flood")])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=lambda *_: None)
