import os

from lilya.websockets import WebSocket
from lilya.websockets.limits import LimitGuard
from lilya.websockets.redis import RedisStore
from lilya.websockets.types import Receive, Scope, Send

REDIS = os.environ.get("REDIS_URL")  # such as redis://localhost; none while you develop


async def chat(scope: Scope, receive: Receive, send: Send) -> None:
    async with WebSocket(scope, receive, send) as websocket:
        async for text in websocket.iter_text():
            await websocket.send_text(f"You said: {text}")


app = LimitGuard(
    chat,
    connections_per_key=20,
    messages_per_second=10,
    store=RedisStore(REDIS) if REDIS else None,
)
