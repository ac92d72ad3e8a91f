from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from lilya.websockets.channels import Channels
from lilya.websockets.fastapi import WebSocket

channels = Channels()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with channels:
        yield


app = FastAPI(lifespan=lifespan)


@app.websocket("/chat")
async def chat(websocket: WebSocket, name: str = "somebody") -> None:
    async with websocket, channels.join("lobby", websocket, history=10):
        async for text in websocket.iter_text():
            await channels.publish("lobby", f"{name}: {text}")
