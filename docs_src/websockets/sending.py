from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send

RED_DOT = bytes([255, 0, 0])


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    await websocket.send_text("Rendering")
    await websocket.send_json({"done": 50})
    await websocket.send_json({"done": 100}, mode="binary")
    await websocket.send_bytes(RED_DOT)
    await websocket.close()
