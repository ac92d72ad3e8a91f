from collections.abc import AsyncGenerator

from quart import Quart

from lilya.websockets.channels import Channels
from lilya.websockets.draining import drain
from lilya.websockets.quart import init_app, websocket

channels = Channels("memory://")
quart = Quart(__name__)
init_app(quart)
app = drain(quart, within=10)


@quart.while_serving
async def lifespan() -> AsyncGenerator[None, None]:
    async with channels:
        yield


@quart.websocket("/rooms/<room>")
async def join(room: str) -> None:
    async with websocket, channels.join(room, websocket):
        async for text in websocket.iter_text():
            await channels.publish(room, text)
