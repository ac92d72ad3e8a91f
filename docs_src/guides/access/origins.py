from lilya.websockets import WebSocket
from lilya.websockets.origins import OriginGuard
from lilya.websockets.types import Receive, Scope, Send


async def orders(scope: Scope, receive: Receive, send: Send) -> None:
    async with WebSocket(scope, receive, send) as websocket:
        async for text in websocket.iter_text():
            await websocket.send_text(f"Ordered: {text}")


app = OriginGuard(orders, origins=["https://shop.example.com"])
