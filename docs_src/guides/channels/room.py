from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels
from lilya.websockets.types import Receive, Scope, Send

channels = Channels("memory://")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        async with channels:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    async with WebSocket(scope, receive, send) as websocket, channels.join("room:1", websocket):
        async for text in websocket.iter_text():
            await channels.publish("room:1", text)
