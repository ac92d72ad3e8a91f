from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send

SPOKEN = ("chat.v2", "chat.v1")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    offered = scope.get("subprotocols") or []
    subprotocol = next((name for name in SPOKEN if name in offered), None)
    await websocket.accept(subprotocol, headers={"X-Chat-Server": "blue", "X-Chat-Version": "3"})
    await websocket.send_text(f"We speak {subprotocol or 'plain text'}")
    await websocket.close()
