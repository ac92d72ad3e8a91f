"""A chat room: a page and tickets over HTTP, and a WebSocket. `CHANNELS_URL` and `SECRET_KEY` are for more
than one process.
"""

import json
import os
from pathlib import Path
from secrets import token_hex

from itsdangerous import BadData, URLSafeTimedSerializer

from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels, Dropped, Event, Gap, Presence
from lilya.websockets.origins import OriginGuard
from lilya.websockets.tokens import bearer_token
from lilya.websockets.types import Receive, Scope, Send

ROOM = "room:lobby"
PAGE = Path(__file__).with_suffix(".html")
LIFETIME = 30  # seconds from a ticket to its use

channels = Channels(os.environ.get("CHANNELS_URL", "memory://"))
tickets = URLSafeTimedSerializer(os.environ.get("SECRET_KEY") or token_hex(), salt="ticket for the room")


async def room(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await chat(WebSocket(scope, receive, send))
    elif scope["method"] == "POST":
        await ticket(receive, send)
    else:
        await page(send)


app = OriginGuard(room)  # no page but this one gets a ticket, or connects


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


async def ticket(receive: Receive, send: Send) -> None:
    """Say who somebody is, signed. Here a name is enough; yours would look at a session or a password."""
    message = await receive()
    name = message.get("body", b"").decode("utf-8", "replace").strip()
    accepted = 0 < len(name) <= 30 and not message.get("more_body")
    body = tickets.dumps(name) if accepted else "a name has 1 to 30 characters"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200 if accepted else 400, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})


async def chat(websocket: WebSocket) -> None:
    try:
        name = tickets.loads(bearer_token(websocket, query="ticket") or "", max_age=LIFETIME)
    except BadData:
        await websocket.deny(401, "The ticket is invalid or has expired.")
        return
    since = websocket.query_params.get("since")
    async with websocket.open(max_message_size=10_000, max_messages_per_second=20):
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
