"""What `test_draining.py` serves with uvicorn in a process of its own."""

from __future__ import annotations

from typing import Any

import anyio

from lilya.websockets import WebSocket
from lilya.websockets.draining import drain
from lilya.websockets.uvicorn import WebSocketProtocol

WITHIN, BATCH, INTERVAL = 4.0, 20, 0.15

sent = 0  # messages that went out to clients who do not read


async def floods(websocket: WebSocket, seconds: float | None = None) -> None:
    global sent
    while True:
        await websocket.send_bytes(b"x" * 65536, timeout=seconds)
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
    elif path == "/block/gives-up":  # and its connection stays until the client has taken what there is
        async with websocket:
            try:
                await floods(websocket, 0.2)
            except TimeoutError:
                pass
    elif path == "/returns":
        async with websocket:
            pass
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


class Patient(WebSocketProtocol):
    """Ours, which here waits ten minutes for a client to answer a close."""

    close_timeout = 600.0
