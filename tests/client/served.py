"""A server for the client, with a page that has it: `python -m uvicorn tests.client.served:app`.

The page and the module are where the variable `CLIENT_MODULE` says, so that a changed one can be tried.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio

from lilya.websockets import WebSocket
from lilya.websockets.channels import SUBPROTOCOL, Channels, Grant, Refused, serve
from lilya.websockets.tokens import bearer_token
from lilya.websockets.types import Receive, Scope, Send

MODULE = Path(__file__).parents[2] / "packages" / "lilya-websockets-js" / "lilya-websockets.js"
PAGE = b"""<!doctype html><meta charset="utf-8"><title>The client</title><link rel="icon" href="data:,">
<script type="module">
import { connect, ChannelsError } from "./lilya-websockets.js";
Object.assign(window, { connect, ChannelsError });
</script>"""

channels = Channels()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        async with channels:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        await page(scope["path"], send)
    else:
        await talk(WebSocket(scope, receive, send))


async def page(path: str, send: Send) -> None:
    module = await anyio.Path(os.environ.get("CLIENT_MODULE", MODULE)).read_bytes()
    kind, body = (b"text/javascript", module) if path.endswith(".js") else (b"text/html", PAGE)
    headers = [(b"content-type", kind), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def talk(websocket: WebSocket) -> None:
    if websocket.url.path == "/refused":
        await websocket.deny(403, "not you")
        return
    name = bearer_token(websocket, subprotocol="bearer") or websocket.query_params.get("name", "nobody")

    def authorize(channel: str) -> Grant | None:
        if channel == "secret":
            return None
        return Grant(publish=True, presence=True, member={"name": name})

    async def on_request(data: Any) -> Any:
        match data:
            case {"close": int(code)}:
                await websocket.close(code, "asked for")
            case {"remove": str(channel)}:
                await channels.close(channel, code=4001, reason="removed")
            case {"wait": True}:
                await anyio.sleep_forever()
            case {"refuse": str(reason)}:
                raise Refused(reason, "no")
        return data

    async with websocket.open(SUBPROTOCOL):
        await serve(websocket, channels, authorize, key=name, on_request=on_request)
