from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    async for message in websocket.iter_json():
        await websocket.send_text(f"Message text was: {message}")
    await websocket.close()
