from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    await websocket.send_json(
        {
            "room": websocket.query_params.get("room"),
            "tags": websocket.query_params.getall("tag", []),
            "language": websocket.headers.get("Accept-Language"),
            "theme": websocket.cookies.get("theme"),
        }
    )
    await websocket.close()
