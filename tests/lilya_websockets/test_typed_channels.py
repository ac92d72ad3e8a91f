"""Models in channels: `publish_message`, and what sockets with types are sent."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import msgspec
import pydantic
import pytest

from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels, Event, Membership
from lilya.websockets.typed import JSON, Codec, MessagePack

from .server import Server, text

pytestmark = pytest.mark.anyio

Make = Callable[..., Channels]


@pytest.fixture
def make(make_channels: Make) -> Make:
    return make_channels


class Said(pydantic.BaseModel):
    text: str
    payload: bytes = b""


class SaidStruct(msgspec.Struct):
    text: str


@dataclasses.dataclass
class SaidData:
    text: str


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await anyio.sleep(0.001)


@pytest.mark.parametrize(
    ("message", "data"),
    [
        (Said(text="é"), '{"text":"é","payload":""}'),
        (SaidStruct("é"), '{"text":"é"}'),
        (SaidData("é"), '{"text":"é"}'),
        ({"text": ["é", None, 1]}, '{"text":["é",null,1]}'),
        (None, "null"),
        ("é", '"é"'),
    ],
)
async def test_a_model_is_published_as_json(make: Make, message: Any, data: str) -> None:
    async with make() as channels, channels.subscribe("a") as subscription:
        id = await channels.publish_message("a", message)
        assert await anext(subscription) == Event("a", id, data)


@pytest.mark.parametrize("message", [object(), {"a": object()}, Said, [object()]])
async def test_what_has_no_json_form_is_not_published(make: Make, message: Any) -> None:
    async with make() as channels, channels.subscribe("a") as subscription:
        with pytest.raises((TypeError, ValueError)):
            await channels.publish_message("a", message)
        assert subscription.pending == 0


class Own(Codec):
    """Counts what is encoded, in a format of its own."""

    count = 0

    def decode(self, data: str) -> Any:
        return json.loads(data[1:])

    def encode(self, value: Any) -> str:
        self.count += 1
        return "!" + json.dumps(value)


class InText(WebSocket[Any, Said]):
    pass


class InBytes(WebSocket[Any, Said], codec=JSON(binary=True)):
    pass


class Packed(WebSocket[Any, Said], codec=MessagePack()):
    pass


class PackedStruct(WebSocket[Any, SaidStruct], codec=MessagePack()):
    pass


OWN = Own()


class InOwn(WebSocket[Any, Said], codec=OWN):
    pass


async def test_each_socket_is_sent_it_in_its_codec_encoded_once(make: Make) -> None:
    classes: list[Any] = [WebSocket, InText, InBytes, Packed, PackedStruct, InOwn]
    OWN.count = 0
    async with make() as channels, AsyncExitStack() as stack:
        servers = []
        members: list[Membership] = []
        for cls in classes * 3:
            server = Server()
            websocket = await server.accepted(cls)
            members.append(await stack.enter_async_context(channels.join("a", websocket)))
            servers.append(server)
        await channels.publish_message("a", Said(text="é", payload=b"p"))
        await until(lambda: all(server.sent for server in servers))
        payloads: list[Any] = [server.sent[0].get("text", server.sent[0].get("bytes")) for server in servers]
        as_text = '{"text":"é","payload":"p"}'
        packed = msgspec.msgpack.encode({"text": "é", "payload": b"p"})
        assert payloads[:4] == [as_text, as_text, as_text.encode(), packed]
        assert msgspec.msgpack.decode(payloads[4]) == {"text": "é"}
        assert json.loads(payloads[5][1:]) == {"text": "é", "payload": "p"}
        for number in range(6):
            assert payloads[number] is payloads[number + 6] is payloads[number + 12] or number in (0, 1)
        assert OWN.count == 1


async def test_bytes_are_forwarded_as_they_are(make: Make) -> None:
    async with make() as channels:
        server = Server()
        websocket: Any = await server.accepted(Packed)
        async with channels.join("a", websocket):
            await channels.publish("a", b"\xff")
            await until(lambda: server.sent)
        assert server.sent[0]["bytes"] == b"\xff"


async def test_an_encode_of_ones_own_comes_first(make: Make) -> None:
    async with make() as channels:
        server = Server()
        websocket: Any = await server.accepted(Packed)
        async with channels.join("a", websocket, encode=lambda item: "mine"):
            await channels.publish_message("a", Said(text="a"))
            await until(lambda: server.sent)
        assert server.sent[0]["text"] == "mine"


async def test_a_chat(make: Make) -> None:
    async with make() as channels:

        async def app(websocket: WebSocket[Said, Said]) -> None:
            async with websocket, channels.join("a", websocket):
                async for message in websocket.iter_messages():
                    await channels.publish_message("a", message)

        servers = [Server() for _ in range(2)]
        cls: Any = WebSocket[Said]
        async with anyio.create_task_group() as group:
            for server in servers:
                group.start_soon(app, server.websocket(cls))
            await until(lambda: all(server.sent for server in servers))
            servers[0].push(text('{"text":"hello"}'))
            await until(lambda: all(len(server.sent) == 2 for server in servers))
            group.cancel_scope.cancel()
        assert [server.sent[1]["text"] for server in servers] == ['{"text":"hello","payload":""}'] * 2
