"""Typed messages of `lilya.websockets` in plain ASGI, with msgspec."""

from __future__ import annotations

from typing import Any

from benchmarks.typed import LeaveStruct, SayStruct
from lilya.websockets import WebSocket

Messages = WebSocket[SayStruct | LeaveStruct]


async def app(scope: Any, receive: Any, send: Any) -> None:
    websocket = Messages(scope, receive, send)
    await websocket.accept()
    async for message in websocket.iter_messages():
        await websocket.send_message(message)
