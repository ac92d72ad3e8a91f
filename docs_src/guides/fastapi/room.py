from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from lilya.websockets.channels import Channels
from lilya.websockets.fastapi import WebSocket

channels = Channels("memory://")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with channels:
        yield


app = FastAPI(lifespan=lifespan)


@app.websocket("/rooms/{room}")
async def join(websocket: WebSocket, room: str) -> None:
    async with websocket, channels.join(room, websocket):
        async for text in websocket.iter_text():
            await channels.publish(room, text)
