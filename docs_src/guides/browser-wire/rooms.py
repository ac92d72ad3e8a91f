from typing import Any

from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels, Grant, Refused, serve
from lilya.websockets.tokens import bearer_token
from lilya.websockets.types import Receive, Scope, Send

channels = Channels()
TOKENS = {"token-of-ann": "ann", "token-of-bob": "bob", "token-of-a-guest": "guest"}


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
    user = TOKENS.get(bearer_token(websocket, subprotocol="bearer") or "")
    if user is None:
        await websocket.deny(401)
        return

    async def authorize(channel: str) -> Grant | None:
        if channel == "news":
            return Grant()
        if channel.startswith("room:"):
            return Grant(publish=user != "guest", presence=True, member={"name": user})
        return None

    async def on_publish(channel: str, data: Any) -> Any:
        if not isinstance(data, str) or not 1 <= len(data) <= 1000:
            raise Refused("A message has 1 to 1,000 characters.", "invalid")
        return {"from": user, "text": data}

    async def on_request(data: Any) -> Any:
        if data == "who am I?":
            return {"name": user}
        raise Refused("There is one request: who am I?", "invalid")

    await serve(websocket, channels, authorize, key=user, on_publish=on_publish, on_request=on_request)
