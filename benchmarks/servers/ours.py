"""`lilya.websockets`, by hand."""

from __future__ import annotations

from typing import Any

from lilya.websockets import WebSocket


async def app(scope: Any, receive: Any, send: Any) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)
