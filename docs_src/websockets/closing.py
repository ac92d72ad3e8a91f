from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    if await websocket.receive_text() == "open sesame":
        await websocket.send_text("Welcome.")
        await websocket.close()
    else:
        await websocket.close(4001, "wrong password")
