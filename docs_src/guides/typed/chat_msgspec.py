from msgspec import Struct

from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


class Say(Struct, tag="say"):
    text: str


class Leave(Struct, tag="leave"):
    pass


class Said(Struct, tag="said"):
    text: str


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket[Say | Leave, Said](scope, receive, send)
    async with websocket:
        async for message in websocket.iter_messages(on_error="answer"):
            match message:
                case Say(text=text):
                    await websocket.send_message(Said(text=text))
                case Leave():
                    return
