from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    subprotocol = websocket.select_subprotocol(["chat.v2", "chat.v1"])
    async with websocket.open(subprotocol, {"x-room": "blue"}):
        await websocket.send_text(f"We speak {websocket.accepted_subprotocol}")
