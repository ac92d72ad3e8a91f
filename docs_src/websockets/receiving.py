from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    name = await websocket.receive_text()
    order = await websocket.receive_json()
    paid = await websocket.receive_json(mode="binary")
    signature = await websocket.receive_bytes()
    await websocket.send_text(f"{name} ordered {order['item']} for {paid['amount']}")
    await websocket.send_text(f"signed with {len(signature)} bytes")
    await websocket.close()
