"""What `test_draining.py` serves with uvicorn in a process of its own."""

from __future__ import annotations

from typing import Any

import anyio

from lilya.websockets import WebSocket
from lilya.websockets.draining import drain

WITHIN, BATCH, INTERVAL = 4.0, 20, 0.15

sent = 0  # messages that went out to clients who do not read


async def floods(websocket: WebSocket) -> None:
    global sent
    while True:
        await websocket.send_bytes(b"x" * 65536)
        sent += 1


async def plain(scope: Any, receive: Any, send: Any) -> None:
    websocket = WebSocket(scope, receive, send)
    path = scope["path"]
    if path == "/block":
        async with websocket:
            async for text in websocket.iter_text():
                await websocket.send_text(text)
    elif path == "/block/floods":
        async with websocket:
            await floods(websocket)
    else:
        await websocket.accept()
        if path == "/hand/floods":
            await floods(websocket)
        elif path == "/hand/sleeps":
            await anyio.sleep_forever()
        else:
            async for _ in websocket.iter_text():
                await websocket.send_text(str(sent))


app = drain(plain, within=WITHIN, batch=BATCH, interval=INTERVAL)
