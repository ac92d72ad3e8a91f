from lilya.websockets import WebSocket
from lilya.websockets.observing import LogObserver, observe
from lilya.websockets.origins import OriginGuard
from lilya.websockets.types import Receive, Scope, Send


async def chat(scope: Scope, receive: Receive, send: Send) -> None:
    async with WebSocket(scope, receive, send) as websocket:
        async for text in websocket.iter_text():
            await websocket.send_text(f"You said: {text}")


guarded = OriginGuard(chat, origins=["https://shop.example.com"])
app = observe(guarded, LogObserver())
