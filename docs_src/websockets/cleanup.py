from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send

online: set[WebSocket] = set()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    online.add(websocket)
    websocket.add_cleanup(lambda: online.discard(websocket))
    await websocket.send_json({"online": len(online)})
    async for _ in websocket.iter_text():
        await websocket.send_json({"online": len(online)})
