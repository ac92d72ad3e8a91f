from lilya.websockets import WebSocket, WebSocketClose
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    room = websocket.query_params.get("room")
    if room is None:
        await WebSocketClose()(scope, receive, send)
        return
    offered = scope.get("subprotocols") or []
    await websocket.accept("chat" if "chat" in offered else None)
    async for message in websocket.iter_json():
        await websocket.send_json({"room": room, **message})
