from msgspec import Struct

from lilya.websockets import WebSocket
from lilya.websockets.typed import MessagePack
from lilya.websockets.types import Receive, Scope, Send


class Reading(Struct):
    sensor: str
    value: float


class ReadingSocket(WebSocket[Reading], codec=MessagePack()):
    pass


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    async with ReadingSocket(scope, receive, send) as websocket:
        async for reading in websocket.iter_messages():
            await websocket.send_message(reading)
