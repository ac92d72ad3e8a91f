from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels, Dropped, Event, Gap, Presence
from lilya.websockets.types import Receive, Scope, Send

channels = Channels("memory://")


def encode(item: Event | Gap | Dropped | Presence) -> str | bytes | None:
    match item:
        case Event():
            return item.data
        case Presence(type="join"):
            return f"{item.member.json()} is here"
        case Presence(type="leave"):
            return f"{item.member.json()} has left"
    return None


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
        async with channels.join("room:1", websocket, member=name, presence=True, encode=encode):
            async for _ in websocket.iter_text():
                names = [member.json() for member in await channels.members("room:1")]
                await websocket.send_text(f"Here: {', '.join(names)}")
