from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels, Dropped, Event, Gap, Presence
from lilya.websockets.types import Receive, Scope, Send

channels = Channels("memory://")


def encode(item: Event | Gap | Dropped | Presence) -> str | bytes | None:
    match item:
        case Event():
            return item.data
        case Presence(type="join"):
            return f"{item.member.key} is here"
        case Presence(type="leave"):
            return f"{item.member.key} has left"
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
        user = websocket.query_params["user"]
        async with channels.join(
            "room:1", websocket, member={}, key=user, presence="keys", encode=encode
        ) as membership:
            async for text in websocket.iter_text():
                persons = await channels.count("room:1", keys=True)
                await channels.publish("room:1", f"{text} ({persons} persons)", exclude=membership)
