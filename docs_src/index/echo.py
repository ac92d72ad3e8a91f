from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    async with WebSocket(scope, receive, send) as websocket:
        async for text in websocket.iter_text():
            await websocket.send_text(f"You said: {text}")
