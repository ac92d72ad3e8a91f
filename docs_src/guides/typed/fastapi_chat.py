from typing import Literal

from fastapi import FastAPI
from pydantic import BaseModel

from lilya.websockets.fastapi import WebSocket


class Say(BaseModel):
    type: Literal["say"] = "say"
    text: str


class Leave(BaseModel):
    type: Literal["leave"] = "leave"


class Said(BaseModel):
    type: Literal["said"] = "said"
    text: str


app = FastAPI()


@app.websocket("/chat")
async def chat(websocket: WebSocket[Say | Leave, Said]) -> None:
    async with websocket:
        async for message in websocket.iter_messages():
            match message:
                case Say(text=text):
                    await websocket.send_message(Said(text=text))
                case Leave():
                    return
