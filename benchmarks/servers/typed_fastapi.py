"""Typed messages in FastAPI by hand: what comes is validated by pydantic, what goes out is dumped by it."""

from __future__ import annotations

from typing import Any

import pydantic
from fastapi import FastAPI, WebSocket

from benchmarks.typed import Message

app = FastAPI()
adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(Message)


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        message = adapter.validate_json(text)
        await websocket.send_text(message.model_dump_json())
