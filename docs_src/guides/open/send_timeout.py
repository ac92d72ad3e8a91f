from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    async with websocket:
        for number in range(1, 4):
            try:
                await websocket.send_text(f"News {number}", timeout=5)
            except TimeoutError:
                break  # this client does not read: leave
