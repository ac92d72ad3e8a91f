"""Lilya: on its own `WebSocket`, or on ours where our package is installed over it."""

from __future__ import annotations

from lilya.apps import Lilya
from lilya.routing import WebSocketPath

from lilya.websockets import WebSocket


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


app = Lilya(routes=[WebSocketPath("/echo", echo)])
