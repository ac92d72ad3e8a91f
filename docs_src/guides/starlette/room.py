from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from lilya.websockets.channels import Channels
from lilya.websockets.draining import drain
from lilya.websockets.starlette import WebSocket, WebSocketRoute

channels = Channels("memory://")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with channels:
        yield


async def room(websocket: WebSocket) -> None:
    name = websocket.path_params["room"]
    async with websocket, channels.join(name, websocket):
        async for text in websocket.iter_text():
            await channels.publish(name, text)


starlette = Starlette(routes=[WebSocketRoute("/rooms/{room}", room)], lifespan=lifespan)
app = drain(starlette, within=10)
