import json

from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels, Dropped, Event, Gap, Presence
from lilya.websockets.types import Receive, Scope, Send

channels = Channels("memory://")


def encode(item: Event | Gap | Dropped | Presence) -> str | None:
    """What clients get; called once for each event, however many there are."""
    match item:
        case Event():
            return json.dumps({"id": item.id, "price": item.json()})
        case Gap():
            return json.dumps({"id": item.id, "missing": True})
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
        since = websocket.query_params.get("since")
        try:
            async with channels.join("prices", websocket, history=2, since=since, encode=encode):
                async for price in websocket.iter_json():
                    await channels.publish_json("prices", price)
        except ValueError:  # no id, or no JSON
            await websocket.close(1008)
