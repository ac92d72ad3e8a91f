"""Typed messages of `lilya.websockets` in FastAPI, with pydantic."""

from __future__ import annotations

from fastapi import FastAPI

from benchmarks.typed import Leave, Say
from lilya.websockets.fastapi import WebSocket

app = FastAPI()


@app.websocket("/echo")
async def echo(websocket: WebSocket[Say | Leave]) -> None:
    await websocket.accept()
    async for message in websocket.iter_messages():
        await websocket.send_message(message)
