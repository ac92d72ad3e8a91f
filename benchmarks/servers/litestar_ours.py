"""Litestar, with this package's class."""

from __future__ import annotations

from litestar import Litestar

from lilya.websockets.litestar import WebSocket, websocket


@websocket("/echo")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


app = Litestar(route_handlers=[echo])
