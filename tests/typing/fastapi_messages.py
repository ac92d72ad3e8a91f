"""What type checkers make of FastAPI's annotation; see `messages.py`."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

from lilya.websockets.fastapi import WebSocket, WebSocketClass


class Say: ...


class Said: ...


async def bare(websocket: WebSocket) -> None:
    assert_type(websocket, WebSocketClass[Any, Any])
    await websocket.send_message(object())


async def chat(websocket: WebSocket[Say, Said]) -> None:
    assert_type(websocket, WebSocketClass[Say, Said])
    assert_type(await websocket.receive_message(), Say)
    await websocket.send_message(Said())
    await websocket.send_message(Say())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def both(websocket: WebSocket[Say]) -> None:
    assert_type(websocket, WebSocketClass[Say, Say])
