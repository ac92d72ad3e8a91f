"""`async with websocket`: entering, leaving, and what the body sees."""

from __future__ import annotations

import sys

import anyio
import pytest

from lilya.websockets import (
    WebSocketClosed,
    WebSocketDisconnect,
    WebSocketState,
)

from .server import Server, data, disconnect, text

if sys.version_info < (3, 11):
    pass

pytestmark = pytest.mark.anyio

CONNECTING, CONNECTED, DISCONNECTED, RESPONSE = WebSocketState


class Boom(Exception):
    """What a broken body raises."""


def closes(server: Server) -> list[tuple[int, str]]:
    return [
        (message["code"], message["reason"])
        for message in server.sent
        if message["type"] == "websocket.close"
    ]


# Entering and leaving


async def test_entering_accepts_and_leaving_closes() -> None:
    server = Server(text("1"), subprotocols=["chat"])
    websocket = server.websocket()
    async with websocket.open("chat", {"X-A": "b"}) as inside:
        assert inside is websocket
        assert server.sent == [
            {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-a", b"b")]}
        ]
        assert await websocket.receive_text() == "1"
        assert (websocket.close_code, websocket.closed_by) == (None, None)
    assert closes(server) == [(1000, "")]
    assert websocket.accepted_subprotocol == "chat"
    assert (websocket.close_code, websocket.close_reason, websocket.closed_by) == (1000, "", "server")


async def test_the_short_form() -> None:
    server = Server()
    websocket = server.websocket()
    async with websocket as inside:
        assert inside is websocket
    assert server.types == ["websocket.accept", "websocket.close"]


async def test_entering_what_is_accepted() -> None:
    server = Server(text("1"))
    websocket = await server.accepted()
    async with websocket:
        assert await websocket.receive_text() == "1"
    assert server.types == ["websocket.close"]


async def test_an_exception_closes_with_1011_and_comes_out_as_it_is() -> None:
    server = Server()
    websocket = server.websocket()
    error = Boom("a secret")
    with pytest.raises(Boom) as caught:
        async with websocket:
            raise error
    assert caught.value is error
    assert error.__context__ is None
    assert closes(server) == [(1011, "")]
    assert websocket.close_code == 1011


async def test_cancellation_from_outside_closes_with_1012() -> None:
    server = Server()
    websocket = server.websocket()
    with anyio.CancelScope() as scope:
        async with websocket:
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert closes(server) == [(1012, "")]


async def test_nothing_more_is_sent_after_the_apps_own_close() -> None:
    server = Server()
    websocket = server.websocket()
    async with websocket:
        await websocket.close(4000, "bye")
    assert closes(server) == [(4000, "bye")]
    assert (websocket.close_code, websocket.closed_by) == (4000, "server")


# The client leaves


@pytest.mark.parametrize("use", ["receive_text", "iter_text", "send_text", "receive_json"])
async def test_the_clients_leaving_ends_the_block_quietly(use: str) -> None:
    server = Server(disconnect(4001, "bye"))
    websocket = server.websocket()
    async with websocket:
        if use == "send_text":
            await websocket.wait_disconnected()
            await websocket.send_text("a")
        elif use == "iter_text":
            async for _ in websocket.iter_text():
                raise AssertionError("nothing came")
        else:
            await getattr(websocket, use)()
    assert server.types == ["websocket.accept"]
    assert (websocket.close_code, websocket.close_reason, websocket.closed_by) == (4001, "bye", "client")


async def test_a_send_learns_of_the_end_and_no_message_is_lost() -> None:
    server = Server(text("1"), data(b"2"), disconnect(4001, "bye"))
    websocket = server.websocket()
    async with websocket:
        await websocket.wait_disconnected()
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
        assert type(caught.value) is WebSocketDisconnect
        assert (caught.value.code, caught.value.reason) == (4001, "bye")
        with pytest.raises(WebSocketClosed):
            await websocket.send_text("a")
        assert await websocket.receive_text() == "1"
        assert await websocket.receive_bytes() == b"2"
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.receive_text()
        assert type(caught.value) is WebSocketDisconnect
        assert (caught.value.code, caught.value.reason) == (4001, "bye")
        with pytest.raises(WebSocketClosed):
            await websocket.receive_text()
    assert server.types == ["websocket.accept"]
