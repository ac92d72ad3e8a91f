import os

from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels
from lilya.websockets.types import Receive, Scope, Send

channels = Channels(os.environ.get("CHANNELS_URL", "memory://"))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        async with channels:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    async with WebSocket(scope, receive, send) as websocket:
        name = websocket.query_params.get("name", "somebody")
        async with channels.join("lobby", websocket, history=10):
            async for text in websocket.iter_text():
                await channels.publish("lobby", f"{name}: {text}")
