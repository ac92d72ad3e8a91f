from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI
from pydantic import BaseModel, Field

from lilya.websockets.asyncapi import AsyncAPI
from lilya.websockets.fastapi import WebSocket
from lilya.websockets.typed import CallId, ReplyTo


class Say(BaseModel):
    """Say something in the room."""

    type: Literal["say"] = "say"
    text: Annotated[str, Field(min_length=1, max_length=500)]


class Count(BaseModel):
    """Ask how much you have said."""

    type: Literal["count"] = "count"
    id: CallId = None


class Said(BaseModel):
    """Somebody said something."""

    type: Literal["said"] = "said"
    text: str


class Counted(BaseModel):
    """The answer to `Count`."""

    type: Literal["counted"] = "counted"
    reply_to: ReplyTo = None
    messages: int


app = FastAPI(title="Chat", version="1.0.0")


@app.websocket("/rooms/{room}")
async def chat(websocket: WebSocket[Say | Count, Said | Counted], room: Literal["lobby", "kitchen"]) -> None:
    """Talk in a room."""
    said = 0
    async with websocket:
        async for message in websocket.iter_messages(on_error="answer"):
            match message:
                case Say(text=text):
                    said += 1
                    await websocket.send_message(Said(text=f"{room}: {text}"))
                case Count(id=id):
                    await websocket.send_message(Counted(reply_to=id, messages=said))


asyncapi = AsyncAPI(
    app,
    servers={"production": "wss://chat.example.com"},
    transcripts=[Path(__file__).with_suffix(".ws")],
)
app.mount("/asyncapi", asyncapi)
