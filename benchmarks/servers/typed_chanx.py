"""Chanx in FastAPI: a consumer with a method for each message, validated by pydantic.

Its messages have an envelope of `action` and `payload`, so they are some bytes longer.
"""

from __future__ import annotations

from typing import Any, Literal

from chanx.core.decorators import ws_handler
from chanx.fast_channels.websocket import AsyncJsonWebsocketConsumer
from chanx.messages.base import BaseMessage
from fast_channels.layers import InMemoryChannelLayer, register_channel_layer
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.routing import WebSocketRoute

from benchmarks.typed import Author


class Payload(BaseModel):
    id: str
    room: str
    author: Author
    text: str
    at: float
    tags: list[str]


class Say(BaseMessage):
    action: Literal["say"] = "say"
    payload: Payload


class Leave(BaseMessage):
    action: Literal["leave"] = "leave"
    payload: None = None


class Consumer(AsyncJsonWebsocketConsumer):
    channel_layer_alias = "default"
    send_completion = False
    log_websocket_message = False

    @ws_handler(output_type=Say)
    async def say(self, message: Say) -> Say:
        return message

    @ws_handler
    async def leave(self, message: Leave) -> None:
        await self.close()


register_channel_layer("default", InMemoryChannelLayer())

consumer: Any = Consumer
app = FastAPI(routes=[WebSocketRoute("/echo", consumer.as_asgi())])
