"""The server of the `websockets` library."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

PIECE = 65536  # bytes; each is an object of its own: of one that is sent again, a server may keep no copy
group: set[ServerConnection] = set()


async def handle(websocket: ServerConnection) -> None:
    path = websocket.request.path if websocket.request else ""
    if path == "/echo":
        async for message in websocket:
            await websocket.send(message)
    elif path == "/join":
        group.add(websocket)
        await websocket.wait_closed()
        group.discard(websocket)
    elif path == "/publish":
        async for message in websocket:
            broadcast(group, message)  # its own way: it never waits
    elif path == "/flood":
        for _ in range(512):
            await websocket.send(b"x" * PIECE)
        await websocket.wait_closed()


async def main() -> None:
    async with serve(handle, "127.0.0.1", int(sys.argv[1]), ping_interval=None) as server:
        await server.serve_forever()


uvloop.install()
asyncio.run(main())
