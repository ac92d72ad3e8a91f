from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels, Grant, Refused, serve
from lilya.websockets.types import Receive, Scope, Send

channels = Channels()
ROOMS = {"room:1", "room:2"}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await client(WebSocket(scope, receive, send))


async def lifespan(receive: Receive, send: Send) -> None:
    await receive()
    async with channels:
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def client(websocket: WebSocket) -> None:
    user = websocket.query_params.get("user", "guest")

    def authorize(channel: str) -> Grant | None:
        if channel not in ROOMS:
            return None
        return Grant(publish=user != "guest", presence=True, member={"name": user})

    def on_publish(channel: str, data: object) -> object:
        if not isinstance(data, str) or not 1 <= len(data) <= 1000:
            raise Refused("a message is text of 1 to 1,000 characters", "invalid")
        return {"from": user, "text": data}

    async def on_request(data: object) -> object:
        if data == "how many?":
            return {room: await channels.count(room) for room in sorted(ROOMS)}
        raise Refused("ask: how many?", "invalid")

    await serve(websocket, channels, authorize, key=user, on_publish=on_publish, on_request=on_request)
