from typing import Literal

from pydantic import BaseModel

from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


class Say(BaseModel):
    type: Literal["say"] = "say"
    text: str


class Leave(BaseModel):
    type: Literal["leave"] = "leave"


class Said(BaseModel):
    type: Literal["said"] = "said"
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
