"""FastAPI, with this package's class."""

from __future__ import annotations

from fastapi import FastAPI

from lilya.websockets.fastapi import WebSocket

app = FastAPI()


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)
