from lilya.websockets import WebSocket, WebSocketDataError, WebSocketDisconnect
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    while True:
        try:
            text = await websocket.receive_text()
        except WebSocketDataError as error:
            size = len(error.message["bytes"])
            await websocket.send_text(f"Text, please, not {size} bytes")
        except WebSocketDisconnect:
            break
        else:
            await websocket.send_text(text.upper())
