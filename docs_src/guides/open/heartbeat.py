from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    async with websocket.open(heartbeat=20):
        async for text in websocket.iter_text():
            if text != "pong":
                await websocket.send_text(f"You said: {text}")
