from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar
from litestar.params import FromPath

from lilya.websockets.channels import Channels
from lilya.websockets.draining import drain
from lilya.websockets.litestar import WebSocket, websocket

channels = Channels("memory://")


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    async with channels:
        yield


@websocket("/rooms/{room:str}")
async def join(socket: WebSocket, room: FromPath[str]) -> None:
    async with socket, channels.join(room, socket):
        async for text in socket.iter_text():
            await channels.publish(room, text)


litestar = Litestar([join], lifespan=[lifespan])
app = drain(litestar, within=10)
