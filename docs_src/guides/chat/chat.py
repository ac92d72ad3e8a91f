"""A chat room: a page and tickets over HTTP, and a WebSocket. `CHANNELS_URL` and `SECRET_KEY` are for more
than one process.
"""

import os
from importlib.resources import files
from pathlib import Path
from secrets import token_hex
from typing import Any

from itsdangerous import BadData, URLSafeTimedSerializer

from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels, Grant, Refused, serve
from lilya.websockets.origins import OriginGuard
from lilya.websockets.tokens import bearer_token
from lilya.websockets.types import Receive, Scope, Send

ROOM = "room:lobby"
PAGE = Path(__file__).with_suffix(".html")
CLIENT = files("lilya.websockets.channels") / "client.js"
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
    elif scope["path"].endswith("/client.js"):
        await answer(send, CLIENT.read_bytes(), b"text/javascript")
    else:
        await answer(send, PAGE.read_bytes(), b"text/html; charset=utf-8")


app = OriginGuard(room)  # no page but this one gets a ticket, or connects


async def lifespan(receive: Receive, send: Send) -> None:
    await receive()
    async with channels:
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def answer(send: Send, body: bytes, kind: bytes) -> None:
    # The page loads nothing but the client, and talks to this server alone.
    policy = (
        b"default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
        b"connect-src 'self'"
    )
    headers = [(b"content-type", kind), (b"content-security-policy", policy)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


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
        ticket = bearer_token(websocket, subprotocol="bearer", query="ticket")
        name = tickets.loads(ticket or "", max_age=LIFETIME)
    except BadData:
        await websocket.deny(401, "The ticket is invalid or has expired.")
        return

    def authorize(channel: str) -> Grant | None:
        return Grant(publish=True, presence=True, member=name) if channel == ROOM else None

    def sign(channel: str, data: Any) -> Any:
        """What is published: the name comes from the ticket, and nobody can write another one."""
        if not isinstance(data, str) or not data.strip() or len(data) > 2000:
            raise Refused("a message has 1 to 2,000 characters", "invalid")
        return {"from": name, "text": data}

    await serve(websocket, channels, authorize, on_publish=sign, max_messages_per_second=50)
