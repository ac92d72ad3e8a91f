"""What the tests of the command name: apps, and what is no app."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute

from lilya.websockets import WebSocket
from lilya.websockets.asyncapi import AsyncAPI, describe


class Say(BaseModel):
    """Says <b>something</b>: ünusual & "quoted"."""

    type: Literal["say"]
    text: str


class Said(BaseModel):
    type: Literal["said"]
    text: str


@describe(WebSocket[Say, Said])
async def chat(websocket: Any) -> None:
    websocket = WebSocket[Say, Said].wrap(websocket)
    async with websocket:
        async for message in websocket.iter_messages(on_error="answer"):
            await websocket.send_message(Said(type="said", text=message.text))


app = Starlette(routes=[WebSocketRoute("/chat", chat)])
documents = AsyncAPI(app, title="Chat", servers={"main": "wss://example.com"})
app.routes.append(Mount("/asyncapi", documents))
handlers = {"/chat": chat}


class holder:
    app = app


async def plain(scope: Any, receive: Any, send: Any) -> None: ...
