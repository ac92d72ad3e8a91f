"""`lilya.websockets` with a block that owns the connection: a reader in the background, and a queue."""

from __future__ import annotations

from typing import Any

from lilya.websockets import WebSocket


async def app(scope: Any, receive: Any, send: Any) -> None:
    async with WebSocket(scope, receive, send) as websocket:
        async for text in websocket.iter_text():
            await websocket.send_text(text)
