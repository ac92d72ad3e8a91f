from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    received = 0
    async for chunk in websocket.iter_bytes():
        received += len(chunk)
        await websocket.send_json({"received": received})
