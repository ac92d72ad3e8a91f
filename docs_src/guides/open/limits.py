from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    async with websocket.open(max_message_size=16, max_messages_per_second=0.1):
        async for text in websocket.iter_text():
            await websocket.send_text(f"You said: {text}")
