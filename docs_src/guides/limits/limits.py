from lilya.websockets import WebSocket
from lilya.websockets.limits import LimitGuard, RateLimit
from lilya.websockets.types import Receive, Scope, Send


async def chat(scope: Scope, receive: Receive, send: Send) -> None:
    async with WebSocket(scope, receive, send) as websocket:
        async for text in websocket.iter_text():
            await websocket.send_text(f"You said: {text}")


app = LimitGuard(
    chat,
    connections=10_000,
    connections_per_key=2,
    handshakes_per_second=5,
    messages_per_second=RateLimit(0.1, burst=3),  # 3 at once, then one every 10 seconds
    bytes_per_second=64_000,
)
