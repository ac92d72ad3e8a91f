"""A chat for the servers of `test_channels_workers.py`: what comes goes to everybody in the room."""

from __future__ import annotations

import os
from typing import Any

from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels

channels = Channels(os.environ["CHANNELS"], presence_ttl=float(os.environ["PRESENCE_TTL"]))


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        async with channels:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    async with channels.join("room", websocket, member=scope["path"][1:]):
        async for text in websocket.iter_text():
            if text == "who?":
                members = await channels.members("room")
                await websocket.send_json(sorted(member.json() for member in members))
            else:
                await channels.publish("room", text)
