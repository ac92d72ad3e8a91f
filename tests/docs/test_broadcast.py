"""The example *Sending to many connections* on a real server: a client that does not read delays no other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from docs_src.websockets import broadcast
from lilya.websockets import PreparedMessage, WebSocket
from tests.docs.browser import LIMIT, wait_for
from tests.lilya_websockets.frames import Client
from tests.lilya_websockets.serving import Serving

pytestmark = pytest.mark.page("docs/websockets.md", "Sending to many connections")

TEXT = "x" * 65536
MESSAGES = 400  # 26 MB: many times what the kernel and a server take of it for a client that does not read

members: set[WebSocket] = set()


async def without_outboxes(scope: Any, receive: Any, send: Any) -> None:
    """The planted fault: what the page tells not to do."""
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    members.add(websocket)
    try:
        async for text in websocket.iter_text():
            message = PreparedMessage(f"To all: {text}")
            for member in list(members):
                await member.send_prepared(message)
    finally:
        members.discard(websocket)


class Serves(Serving):
    """A server for any app."""

    def __init__(self, app: Any, protocol: str) -> None:
        self._app = app
        super().__init__(protocol)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


@contextlib.contextmanager
def a_stalled_reader_and(port: int, joined: Callable[[], int]) -> Iterator[tuple[Client, ClientConnection]]:
    """A client that has joined and reads nothing, and another one."""
    stalled = Client(port)
    with (
        contextlib.closing(stalled.socket),
        connect(f"ws://127.0.0.1:{port}/", proxy=None, ping_interval=None, max_size=None) as other,
    ):
        stalled.open("/")
        wait_for(lambda: joined() == 2)
        yield stalled, other


@pytest.mark.parametrize("protocol", ["websockets-sansio", "lilya.websockets.uvicorn:WebSocketProtocol"])
def test_a_stalled_reader_stops_nobody(protocol: str) -> None:
    with (
        Serves(broadcast.app, protocol) as server,
        a_stalled_reader_and(server.port, lambda: len(broadcast.outboxes)) as (stalled, other),
    ):
        for _ in range(MESSAGES):
            other.send(TEXT)
            assert other.recv(LIMIT) == f"To all: {TEXT}"
        # It is out, and its end does not harm the others either.
        wait_for(lambda: len(broadcast.outboxes) == 1)
        stalled.socket.close()
        other.send("Still there?")
        assert other.recv(LIMIT) == "To all: Still there?"


def test_a_stalled_reader_is_told_why() -> None:
    with (
        Serves(broadcast.app, "lilya.websockets.uvicorn:WebSocketProtocol") as server,
        a_stalled_reader_and(server.port, lambda: len(broadcast.outboxes)) as (stalled, other),
    ):
        for _ in range(MESSAGES):
            other.send(TEXT)
            assert other.recv(LIMIT) == f"To all: {TEXT}"
        stalled.socket.settimeout(LIMIT)
        end = b""
        while piece := stalled.socket.recv(1 << 20):
            end = (end + piece)[-200:]
        assert b"\x03\xf5You read too slowly." in end  # 1013


def test_planted_fault() -> None:
    with (
        Serves(without_outboxes, "lilya.websockets.uvicorn:WebSocketProtocol") as server,
        a_stalled_reader_and(server.port, lambda: len(members)) as (_, other),
    ):

        def got() -> int:
            for number in range(MESSAGES):
                other.send(TEXT)
                try:
                    other.recv(2)
                except TimeoutError:
                    return number
            return MESSAGES

        assert got() < MESSAGES
