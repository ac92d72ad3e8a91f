from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from lilya.websockets import WebSocket


class Word(BaseModel):
    text: str


async def echo(other: StarletteWebSocket) -> None:
    websocket = WebSocket[Word].wrap(other)
    async with websocket:
        async for word in websocket.iter_messages(on_error="close"):
            await websocket.send_message(word)


app = Starlette(routes=[WebSocketRoute("/", echo)])
