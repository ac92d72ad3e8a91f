import anyio

from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    async with websocket.open(cancel_on_disconnect=True):
        await websocket.send_text("Working for an hour")
        await anyio.sleep(3600)
        await websocket.send_text("Done")
