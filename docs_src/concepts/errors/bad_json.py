from lilya.websockets import WebSocket, WebSocketDataError
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    try:
        async for order in websocket.iter_json():
            await websocket.send_json({"ordered": order})
    except WebSocketDataError:
        await websocket.close(1007, "send JSON")
