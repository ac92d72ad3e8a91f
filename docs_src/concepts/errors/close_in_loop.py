from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    async for text in websocket.iter_text():
        if text == "bye":
            await websocket.close(1000, "bye")
        else:
            await websocket.send_text(text)
