from typing import Literal

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from lilya.websockets import WebSocket
from lilya.websockets.asyncapi import AsyncAPI, describe


class Word(BaseModel):
    type: Literal["word"]
    text: str


@describe(WebSocket[Word], title="Echo", tags=["words"])
async def echo(other: StarletteWebSocket) -> None:
    """Send a word, and it comes back."""
    websocket = WebSocket[Word].wrap(other)
    async with websocket:
        async for word in websocket.iter_messages(on_error="close"):
            await websocket.send_message(word)


app = Starlette(routes=[WebSocketRoute("/echo", echo)])
app.routes.append(Mount("/asyncapi", AsyncAPI(app, title="Words", version="1.0.0")))
