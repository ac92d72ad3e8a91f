"""Quart, with this package's class."""

from __future__ import annotations

from quart import Quart

from lilya.websockets.quart import init_app, websocket

app = Quart(__name__)
init_app(app)


@app.websocket("/echo")
async def echo() -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)
