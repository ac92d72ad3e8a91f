import os
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels, Dropped, Event, Gap, Presence
from lilya.websockets.types import Receive, Scope, Send

ROOM = "room:lobby"

channels = Channels(os.environ.get("CHANNELS_URL", "memory://"))


class Say(BaseModel):
    type: Literal["say"] = "say"
    text: Annotated[str, Field(min_length=1, max_length=500)]


class Who(BaseModel):
    type: Literal["who"] = "who"


class Said(BaseModel):
    type: Literal["said"] = "said"
    name: str
    text: str


class Came(BaseModel):
    type: Literal["came"] = "came"
    name: str


class Left(BaseModel):
    type: Literal["left"] = "left"
    name: str


class Here(BaseModel):
    type: Literal["here"] = "here"
    names: list[str]


ToServer = Say | Who
ToClient = Said | Came | Left | Here


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:
        await chat(WebSocket[ToServer, ToClient](scope, receive, send))


async def lifespan(receive: Receive, send: Send) -> None:
    await receive()
    async with channels:
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def chat(websocket: WebSocket[ToServer, ToClient]) -> None:
    name = websocket.query_params.get("name", "guest")
    async with (
        websocket,
        channels.join(ROOM, websocket, member=name, presence=True, encode=encode),
    ):
        async for message in websocket.iter_messages(on_error="answer"):
            match message:
                case Say(text=text):
                    await channels.publish_message(ROOM, Said(name=name, text=text))
                case Who():
                    names = [member.json() for member in await channels.members(ROOM)]
                    await websocket.send_message(Here(names=names))


def encode(item: Event | Gap | Dropped | Presence) -> str | bytes | None:
    """What clients get; called once for all of them."""
    match item:
        case Event(data=data):
            return data
        case Presence(type="join", member=member):
            return Came(name=member.json()).model_dump_json()
        case Presence(type="leave", member=member):
            return Left(name=member.json()).model_dump_json()
    return None
