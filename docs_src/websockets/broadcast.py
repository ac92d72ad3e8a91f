from lilya.websockets import PreparedMessage, WebSocket
from lilya.websockets.types import Receive, Scope, Send

members: set[WebSocket] = set()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    members.add(websocket)
    try:
        async for text in websocket.iter_text():
            message = PreparedMessage(f"To all: {text}")
            for member in list(members):
                await member.send_prepared(message)
    finally:
        members.discard(websocket)
