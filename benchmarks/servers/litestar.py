"""Litestar."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, WebSocket, websocket


@websocket("/echo")
async def echo(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    async for text in socket.iter_data("text"):
        await socket.send_text(text)


app = Litestar(route_handlers=[echo])
