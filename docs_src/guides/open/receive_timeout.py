from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    async with websocket:
        await websocket.send_text("What is your name?")
        while True:
            try:
                name = await websocket.receive_text(timeout=30)
                break
            except TimeoutError:
                await websocket.send_text("Are you there?")
        await websocket.send_text(f"Hello, {name}")
