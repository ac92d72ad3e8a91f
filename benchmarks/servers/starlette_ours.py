"""Starlette, with this package's class."""

from __future__ import annotations

from starlette.applications import Starlette

from lilya.websockets.starlette import WebSocket, WebSocketRoute


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


app = Starlette(routes=[WebSocketRoute("/echo", echo)])
