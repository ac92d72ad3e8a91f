import os

from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels
from lilya.websockets.draining import drain
from lilya.websockets.types import Receive, Scope, Send

channels = Channels(os.environ.get("CHANNELS_URL", "memory://"))


async def room(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        async with channels:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    async with WebSocket(scope, receive, send) as websocket, channels.join("room", websocket):
        await websocket.send_json({"worker": os.getpid()})
        async for text in websocket.iter_text():
            await channels.publish("room", text)


app = drain(room, within=5)
