"""A chat room: a page over HTTP, a WebSocket, and one environment variable for more than one process."""

import json
import os
from pathlib import Path

from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels, Dropped, Event, Gap, Presence
from lilya.websockets.types import Receive, Scope, Send

ROOM = "room:lobby"
PAGE = Path(__file__).with_suffix(".html")

channels = Channels(os.environ.get("CHANNELS_URL", "memory://"))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "http":
        await page(send)
    else:
        await chat(WebSocket(scope, receive, send))


async def lifespan(receive: Receive, send: Send) -> None:
    await receive()
    async with channels:
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def page(send: Send) -> None:
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        # The page loads nothing, and talks to this server alone.
        (
            b"content-security-policy",
            b"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
            b"connect-src 'self'",
        ),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": PAGE.read_bytes()})


async def chat(websocket: WebSocket) -> None:
    name = websocket.query_params.get("name", "").strip()
    since = websocket.query_params.get("since")
    async with websocket.open(max_message_size=10_000, max_messages_per_second=20):
        if not 0 < len(name) <= 30:
            await websocket.close(1008, "a name has 1 to 30 characters")
            return
        try:
            joining = channels.join(
                ROOM, websocket, member=name, history=50, since=since, presence=True, encode=encode
            )
            async with joining:
                async for message in websocket.iter_json():
                    match message:
                        case {"key": str(key), "text": str(text)} if len(key) <= 40 and text.strip():
                            await channels.publish_json(ROOM, {"from": name, "key": key, "text": text})
                        case {"ask": "members"}:
                            members = {member.id: member.json() for member in await channels.members(ROOM)}
                            await websocket.send_json({"type": "here", "members": members})
                        case _:
                            raise ValueError("neither something to say nor a question")
        except ValueError:  # a broken message, or a `since` that is none: both are the client's
            await websocket.close(1008, "this page and its server do not understand each other")


def encode(item: Event | Gap | Dropped | Presence) -> str | None:
    """What clients get; it is done once for all of them."""
    if isinstance(item, Event):
        return json.dumps({"type": "message", "id": item.id, **item.json()})
    if isinstance(item, Gap):
        return json.dumps({"type": "gap", "id": item.id})
    if isinstance(item, Presence):
        return json.dumps({"type": item.type, "member": item.member.id, "name": item.member.json()})
    return None
