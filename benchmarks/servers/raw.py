"""Raw ASGI: what no wrapper can be cheaper than."""

from __future__ import annotations

import asyncio
from typing import Any

PIECE = 65536  # bytes; each is an object of its own: of one that is sent again, a server may keep no copy
PREPARED = "lilya.websocket.prepared"  # an extension of `lilya.websockets.uvicorn`
group: dict[Any, None] = {}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        raise ValueError("WebSockets only")
    await receive()
    path = scope["path"]
    if path == "/echo":
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] != "websocket.receive":
                return
            if (text := message.get("text")) is not None:
                await send({"type": "websocket.send", "text": text})
            else:
                await send({"type": "websocket.send", "bytes": message["bytes"]})
    elif path == "/join":
        group[send] = None
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            pass
        del group[send]
    elif path in ("/publish", "/gather", "/framed"):
        if path == "/framed" and PREPARED not in scope["extensions"]:
            raise ValueError(f"the server has no extension {PREPARED}")
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            out = {"type": "websocket.send", "text": message["text"]}
            if path == "/gather":
                await asyncio.gather(*(member(out) for member in group))
                continue
            if path == "/framed":
                out["prepared"] = {}  # where the server keeps the frame that it makes for the first member
            for member in list(group):
                await member(out)
    elif path == "/flood":
        await send({"type": "websocket.accept"})
        for _ in range(512):
            await send({"type": "websocket.send", "bytes": b"x" * PIECE})
        await receive()
