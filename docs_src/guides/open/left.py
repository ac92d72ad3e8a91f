from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send

saved: list[str] = []


async def save(text: str) -> None:
    saved.append(text)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    async with websocket:
        await websocket.send_text("Write, and leave when you like")
        await websocket.wait_disconnected()
        # What came before the end is still there.
        async for text in websocket.iter_text():
            await save(text)
