from typing import Literal

from pydantic import BaseModel

from lilya.websockets import WebSocket
from lilya.websockets.typed import CallId, ReplyTo
from lilya.websockets.types import Receive, Scope, Send


class Ask(BaseModel):
    type: Literal["ask"] = "ask"
    id: CallId = None
    question: str


class Answer(BaseModel):
    type: Literal["answer"] = "answer"
    reply_to: ReplyTo = None
    text: str


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket[Ask | Answer](scope, receive, send)
    async with websocket:
        match await websocket.call(Ask(question="Your name?"), timeout=60):
            case Answer(text=name):
                async for message in websocket.iter_messages():
                    if isinstance(message, Ask):
                        answer = Answer(reply_to=message.id, text=f"I do not know, {name}.")
                        await websocket.send_message(answer)
