"""Litestar's listener with a data transfer object of msgspec. It has no union of messages, and drops tags."""

from __future__ import annotations

from typing import Literal

import msgspec
from litestar import Litestar, websocket_listener
from litestar.dto import MsgspecDTO

from benchmarks.typed import AuthorStruct


class Say(msgspec.Struct, kw_only=True):
    type: Literal["say"] = "say"
    id: str
    room: str
    author: AuthorStruct
    text: str
    at: float
    tags: list[str]


@websocket_listener("/echo", dto=MsgspecDTO[Say])
async def echo(data: Say) -> Say:
    return data


app = Litestar([echo])
