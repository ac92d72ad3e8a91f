"""Several WebSocket objects over one connection, as frameworks make them."""

from __future__ import annotations

import ast
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from lilya.websockets import (
    WebSocket,
    WebSocketClosed,
    WebSocketDisconnect,
    WebSocketRuntimeError,
    WebSocketState,
    _shared,
    _websocket,
)

from .server import ClientDisconnected, Message, Server, disconnect, text

pytestmark = pytest.mark.anyio

CORE = Path(_websocket.__file__).parent


class Routed:
    """A connection behind a router, with as many objects over it as a test makes."""

    def __init__(self, *events: Message | BaseException, routed: bool = True) -> None:
        self.server = Server(*events)
        if routed:
            self.server.scope["path_params"] = {"room": "blue"}
        self.receive = self.server.receive  # read once: a bound method is another object each time
        self.marked: list[str] = []

    def websocket(self, of: type[WebSocket] = WebSocket) -> WebSocket:
        return of(self.server.scope, self.receive, self.server.send)

    def marking(self, mark: str) -> WebSocket:
        """One over a `send` of its own, as it is under a middleware."""

        async def send(message: Any) -> None:
            self.marked.append(f"{mark} {message['type'].removeprefix('websocket.')}")
            await self.server.send(message)

        return WebSocket(self.server.scope, self.receive, send)


async def test_they_are_one_in_state() -> None:
    routed = Routed(text("a"), text("b"), disconnect(1001, "off"))
    first, second = routed.websocket(), routed.websocket()
    await first.accept()
    assert second.client_state == second.application_state == WebSocketState.CONNECTED
    await second.send_text("hello")
    assert (await second.receive_text(), await first.receive_text()) == ("a", "b")
    with pytest.raises(WebSocketRuntimeError):
        await second.accept()
    with pytest.raises(WebSocketDisconnect):
        await first.receive_text()
    assert second.client_state.name == "DISCONNECTED"
    assert (second.close_code, second.close_reason) == (1001, "off")
    with pytest.raises(WebSocketClosed, match="the client closed it"):
        await second.send_text("anybody?")
    await second.close()
    assert routed.server.types == ["websocket.accept", "websocket.send"]


async def test_whichever_accepts() -> None:
    routed = Routed(text("a"))
    first, second = routed.websocket(), routed.websocket()
    await second.accept()
    assert await first.receive_text() == "a"
    with pytest.raises(WebSocketRuntimeError, match="accept"):
        await first.accept()
    await first.close(4000, "so long")
    assert (second.close_code, second.close_reason) == (4000, "so long")
    with pytest.raises(WebSocketClosed):
        await second.close()


@pytest.mark.parametrize("accepts", ["first", "second"])
async def test_each_keeps_its_own_send(accepts: str) -> None:
    routed = Routed()
    first, second = routed.marking("first"), routed.marking("second")
    await (first if accepts == "first" else second).accept()
    await second.send_text("a")
    await first.send_bytes(b"b")
    await second.close()
    assert routed.marked == [f"{accepts} accept", "second send", "first send", "second close"]


@pytest.mark.parametrize("adds", [0, 1])
@pytest.mark.parametrize("ends", [0, 1])
@pytest.mark.parametrize("end", ["close", "disconnect", "lost"])
async def test_cleanups_run_whichever_sees_the_end(adds: int, ends: int, end: str) -> None:
    routed = Routed()
    websockets = [routed.websocket(), routed.websocket()]
    ran: list[str] = []

    async def later() -> None:
        await anyio.lowlevel.checkpoint()
        ran.append("later")

    websockets[adds].add_cleanup(later)
    websockets[1 - adds].add_cleanup(lambda: ran.append("other"))
    await websockets[0].accept()
    assert ran == []
    if end == "close":
        await websockets[ends].close()
    elif end == "disconnect":
        routed.server.push(disconnect())
        assert [text async for text in websockets[ends].iter_text()] == []
    else:
        routed.server.fail(ClientDisconnected())
        with pytest.raises(WebSocketDisconnect):
            await websockets[ends].send_text("a")
    assert ran == ["later", "other"]
    with pytest.raises(WebSocketClosed):
        websockets[1 - ends].add_cleanup(later)


async def test_a_block_of_the_second_sends_its_own_way() -> None:
    routed = Routed(text("a"))
    first, second = routed.marking("first"), routed.marking("second")
    async with second:
        await second.send_text("counted")
        assert second.messages_sent == 1
        assert await first.receive_text() == "a"
    assert routed.marked == ["second accept", "second send", "second close"]
    assert first.close_code == 1000


async def test_two_receives_at_once() -> None:
    routed = Routed()
    first, second = routed.websocket(), routed.websocket()
    await first.accept()
    async with anyio.create_task_group() as group:
        group.start_soon(second.receive_text)
        await routed.server.waiting.wait()
        with pytest.raises(WebSocketRuntimeError, match="another task"):
            await first.receive_text()
        routed.server.push(text("for the second"))


async def test_a_denial_by_the_second() -> None:
    routed = Routed()
    first, second = routed.websocket(), routed.websocket()

    async def teapot(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 418})
        await send({"type": "http.response.body"})

    await second.send_denial_response(teapot)
    with pytest.raises(WebSocketClosed, match="HTTP response"):
        await first.accept()


async def test_assigned_states_are_obeyed_by_both() -> None:
    routed = Routed()
    first, second = routed.websocket(), routed.websocket()
    second.client_state = WebSocketState.CONNECTED
    assert first.client_state is WebSocketState.CONNECTED
    await first.accept()
    assert routed.server.receives == 0


async def test_otherwise_they_are_two() -> None:
    routed = Routed()
    first, second = routed.websocket(), routed.websocket()
    before = dict(routed.server.scope)
    assert first != second
    assert len({first, second}) == 2
    assert isinstance(second, WebSocket)
    assert dict(second) == dict(first) == routed.server.scope == before
    assert second.path_params is routed.server.scope["path_params"]
    assert second.url == first.url
    second.state.color = "blue"
    assert first.state.color == "blue"


async def test_a_third_follows_the_first_though_only_the_second_is_left() -> None:
    routed = Routed()
    first, second = routed.websocket(), routed.websocket()
    await first.accept()
    del first
    gc.collect()
    third = routed.websocket()
    await third.close()
    assert second.application_state is WebSocketState.DISCONNECTED


async def test_nothing_is_kept() -> None:
    before = len(_websocket._FIRST_OVER)
    routed = Routed()
    first, second = routed.websocket(), routed.websocket()
    assert len(_websocket._FIRST_OVER) == before + 1
    gone = weakref.ref(first), weakref.ref(second)
    del first, second
    gc.collect()
    assert (gone[0](), gone[1](), len(_websocket._FIRST_OVER)) == (None, None, before)
    assert routed.websocket().client_state is WebSocketState.CONNECTING


# What is not the same connection, or may not be


async def test_no_router_has_been_there() -> None:
    routed = Routed(routed=False)
    first, second = routed.websocket(), routed.websocket()
    await first.accept()
    assert second.client_state is WebSocketState.CONNECTING


@pytest.mark.parametrize("other", ["scope", "receive"])
async def test_another_scope_or_receive(other: str) -> None:
    routed = Routed()
    first = routed.websocket()

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    if other == "scope":
        second = WebSocket(dict(routed.server.scope), routed.receive, routed.server.send)
    else:
        second = WebSocket(routed.server.scope, receive, routed.server.send)
    await first.accept()
    assert second.client_state is WebSocketState.CONNECTING


async def test_a_subclass_keeps_what_it_is_and_shares_the_state() -> None:
    class Numbered(WebSocket):
        def __init__(self, *asgi: Any) -> None:
            super().__init__(*asgi)
            self.number = 2

    for classes in ((WebSocket, Numbered), (Numbered, WebSocket)):
        routed = Routed()
        first, second = (routed.websocket(of) for of in classes)
        await first.accept()
        assert isinstance(second, classes[1])
        assert type(second).__name__ == classes[1].__name__
        assert second.client_state is WebSocketState.CONNECTED
        assert hasattr(second, "number") is (classes[1] is Numbered)
        assert routed.websocket(classes[1]).__class__ is second.__class__  # made once


# Nothing of the state is forgotten

OWN = {"__class__", "_first", "_own_send", "scope"}


def stored(source: str) -> Iterator[str]:
    """The attributes that a module stores on a WebSocket."""
    for node in ast.parse(source).body:
        for child in ast.walk(node):
            if isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store):
                owner = ast.unparse(child.value)
                if owner.endswith("websocket") or (
                    owner == "self" and isinstance(node, ast.ClassDef) and node.name == "WebSocket"
                ):
                    yield child.attr


def unshared(source: str) -> set[str]:
    """What is stored on a WebSocket and neither shared by a second one nor its own."""
    properties = {name for name, value in vars(WebSocket).items() if isinstance(value, property)}
    return set(stored(source)) - set(_shared.SHARED) - properties - OWN


@pytest.mark.parametrize("module", sorted(CORE.glob("*.py")), ids=lambda path: path.stem)
def test_what_is_stored_is_shared(module: Path) -> None:
    assert unshared(module.read_text(encoding="utf-8")) == set()


def test_what_is_set_up_is_shared() -> None:
    made = vars(Server().websocket())
    assert set(stored((CORE / "_websocket.py").read_text(encoding="utf-8"))) >= set(made)


def test_planted_state_that_is_not_shared() -> None:
    source = (CORE / "_websocket.py").read_text(encoding="utf-8")
    planted = source.replace("        self._ended = ended\n", "        self._finished = ended\n")
    assert unshared(planted) == {"_finished"}
    assert unshared("class Reader:\n    def stop(self):\n        self._websocket._stopped = True") == {
        "_stopped"
    }
