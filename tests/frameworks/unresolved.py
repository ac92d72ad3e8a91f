"""An app of FastAPI with an annotation that is not there at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI

if TYPE_CHECKING:
    from lilya.websockets.fastapi import WebSocket

app = FastAPI()


@app.websocket("/")
async def handler(websocket: WebSocket) -> None:
    raise AssertionError("not reached")


types = FastAPI()


@types.websocket("/")
async def with_types(websocket: WebSocket[int]) -> None:
    raise AssertionError("not reached")
