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
    websocket = WebSocket(scope, receive, send)
    async with websocket, channels.join("price", websocket, latest=True):
        async for quote in websocket.iter_text():
            number, _, price = quote.partition(" ")
            await channels.publish("price", price, idempotency_key=number, history=1, max_age=86_400)
