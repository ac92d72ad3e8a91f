import anyio

from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    async with websocket.open(buffer_messages=0, cancel_on_disconnect=True):
        for number in range(1, 1000):
            await websocket.send_json({"news": number})
            await anyio.sleep(60)
