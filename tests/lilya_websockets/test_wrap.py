"""`WebSocket.wrap`: ours over the object of Starlette. Other frameworks are in `tests/frameworks`."""

from __future__ import annotations

import gc
import weakref
from types import MethodType, SimpleNamespace
from typing import Any, cast

import anyio.lowlevel
import pytest
from starlette.websockets import WebSocket as StarlettesWebSocket
from starlette.websockets import WebSocketDisconnect as StarlettesDisconnect
from starlette.websockets import WebSocketState as StarlettesState

from lilya.websockets import (
    WebSocket,
    WebSocketClosed,
    WebSocketDisconnect,
    WebSocketRuntimeError,
    WebSocketState,
    _shared,
)
from lilya.websockets.channels import Channels
from lilya.websockets.draining import close_all
from lilya.websockets.starlette import WebSocket as StarlettesOurs
from lilya.websockets.types import Message

from .server import ClientDisconnected, Server, disconnect, text
from .test_conversation import until

pytestmark = pytest.mark.anyio


def starlettes(server: Server) -> StarlettesWebSocket:
    return StarlettesWebSocket(server.scope, server.receive, server.send)


@pytest.fixture(params=[WebSocket, StarlettesOurs], ids=["core", "starlette"])
def cls(request: pytest.FixtureRequest) -> type[WebSocket]:
    """The class that wraps, and that of the framework's own module, which is quicker over its object."""
    return cast("type[WebSocket]", request.param)


def states(websocket: Any) -> tuple[str, str]:
    return websocket.client_state.name, websocket.application_state.name


async def test_once_is_enough(cls: type[WebSocket]) -> None:
    theirs = starlettes(Server())
    ours = cls.wrap(theirs)
    assert cls.wrap(theirs) is ours
    assert cls.wrap(ours) is ours


@pytest.mark.parametrize("accepts", ["theirs", "ours", "theirs before"])
async def test_each_follows_the_other(cls: type[WebSocket], accepts: str) -> None:
    server = Server(text("a"), text("b"), disconnect(4001, "off"))
    theirs = starlettes(server)
    if accepts == "theirs before":
        await theirs.accept()
    ours = cls.wrap(theirs)
    if accepts == "ours":
        await ours.accept()
    elif accepts == "theirs":
        await theirs.accept(headers=[(b"x-a", b"b")])
    assert states(theirs) == states(ours) == ("CONNECTED", "CONNECTED")
    assert [await theirs.receive_text(), await ours.receive_text()] == ["a", "b"]
    await theirs.send_text("c")
    await ours.send_bytes(b"d")
    with pytest.raises(StarlettesDisconnect):
        await theirs.receive_text()
    assert states(ours)[0] == states(theirs)[0] == "DISCONNECTED"
    assert (ours.close_code, ours.close_reason, ours.closed_by) == (4001, "off", "client")
    with pytest.raises(WebSocketClosed):
        await ours.receive_text()
    await theirs.close()  # the goal is reached
    assert server.types == ["websocket.accept", "websocket.send", "websocket.send"]


async def test_one_end_whoever_makes_it(cls: type[WebSocket]) -> None:
    for first in ("theirs", "ours"):
        server = Server()
        theirs = starlettes(server)
        ours = cls.wrap(theirs)
        ran: list[int | None] = []
        ours.add_cleanup(lambda ours=ours, ran=ran: ran.append(ours.close_code))  # type: ignore[misc]
        await ours.accept()
        await (theirs if first == "theirs" else ours).close(4002, "bye")
        await theirs.close(4003)
        assert server.sent[-1] == {"type": "websocket.close", "code": 4002, "reason": "bye"}
        assert (ours.close_code, ours.close_reason, ran) == (4002, "bye", [4002])
        assert server.types == ["websocket.accept", "websocket.close"]


async def test_a_denial_by_theirs(cls: type[WebSocket]) -> None:
    server = Server()
    theirs = starlettes(server)
    ours = cls.wrap(theirs)
    await theirs.send({"type": "websocket.http.response.start", "status": 401, "headers": []})
    assert states(ours)[1] == "RESPONSE"
    await theirs.send({"type": "websocket.http.response.body", "body": b"no", "more_body": False})
    with pytest.raises(WebSocketClosed, match="HTTP response"):
        await ours.accept()


async def test_what_theirs_accepts_with_is_known(cls: type[WebSocket]) -> None:
    server = Server(subprotocols=["chat"])
    theirs = starlettes(server)
    ours = cls.wrap(theirs)
    await theirs.accept(subprotocol="chat")
    assert ours.accepted_subprotocol == "chat"


async def test_a_lost_client_is_ours_and_theirs(cls: type[WebSocket]) -> None:
    server = Server()
    theirs = starlettes(server)
    ours = cls.wrap(theirs)
    await ours.accept()
    server.fail(ClientDisconnected())
    with pytest.raises(WebSocketDisconnect) as left:
        await ours.send_text("anybody?")
    assert left.value.code == 1006
    assert states(ours) == ("DISCONNECTED", "DISCONNECTED")


@pytest.mark.parametrize("left", ["client", "app"])
async def test_over_one_that_has_ended(cls: type[WebSocket], left: str) -> None:
    server = Server(disconnect(4001))
    theirs = starlettes(server)
    await theirs.accept()
    if left == "client":
        with pytest.raises(StarlettesDisconnect):
            await theirs.receive_text()
    else:
        await theirs.close()
    ours = cls.wrap(theirs)
    assert ours.closed_by == ("client" if left == "client" else "server")
    with pytest.raises(WebSocketClosed):
        await ours.send_text("anybody?")


@pytest.mark.quiet
@pytest.mark.usefixtures("server_announces")
async def test_a_block_over_it(cls: type[WebSocket]) -> None:
    server = Server(text("a"), text("b"), disconnect())
    theirs = starlettes(server)
    async with cls.wrap(theirs) as ours:
        assert [await theirs.receive_text(), await ours.receive_text()] == ["a", "b"]
        await theirs.receive_text()  # the client leaves: quietly, also by their exception
        raise AssertionError("not reached")
    assert server.types == ["websocket.accept"]


class Overriding(StarlettesWebSocket):
    async def receive(self) -> Message:
        message = await super().receive()
        await anyio.lowlevel.checkpoint()  # cancelled here, it has lost the message
        return message


@pytest.mark.usefixtures("server_announces")
async def test_theirs_follows_a_client_that_leaves_while_the_app_does_not_receive(
    cls: type[WebSocket],
) -> None:
    """Their state is moved by what is received through it: there is a reader on every server."""
    theirs = starlettes(Server(disconnect(4001)))
    async with cls.wrap(theirs) as ours:
        await ours.wait_disconnected()
        await until(lambda: theirs.client_state.name == "DISCONNECTED")


async def in_its_place(self: StarlettesWebSocket) -> Message:
    message = await RECEIVE(self)
    await anyio.lowlevel.checkpoint()
    return message


RECEIVE = StarlettesWebSocket.receive
in_its_place.__name__, in_its_place.__qualname__ = RECEIVE.__name__, RECEIVE.__qualname__
in_its_place.__module__ = RECEIVE.__module__


@pytest.mark.parametrize(
    ("cls", "patched", "lent"),
    [(StarlettesWebSocket, False, True), (StarlettesWebSocket, True, False), (Overriding, False, False)],
)
async def test_the_receive_below_it_is_lent(
    cls: type[StarlettesWebSocket],
    patched: bool,
    lent: bool,
    anyio_backend: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not if something is in its place that may lose a message when it is cancelled, as a tracer does."""
    if patched:
        monkeypatch.setattr(StarlettesWebSocket, "receive", in_its_place)
    server = Server(text("a"), text("b"))
    monkeypatch.setattr(
        "lilya.websockets._reader.waker_of",
        lambda receive: server.let_go if receive == server.receive else None,
    )
    async with WebSocket.wrap(cls(server.scope, server.receive, server.send)) as ours:
        assert ours._conversation is not None
        lends = cast(Any, ours._conversation.source)._wake is not None
        assert lends is (lent and anyio_backend == "asyncio")
        assert [await ours.receive_text(), await ours.receive_text()] == ["a", "b"]
    assert server.types == ["websocket.accept", "websocket.close"]


async def test_their_exception_of_another_connection_goes_on() -> None:
    with pytest.raises(StarlettesDisconnect):
        async with WebSocket.wrap(starlettes(Server())):
            raise StarlettesDisconnect(1001)
    with pytest.raises(StarlettesDisconnect):
        async with WebSocket.wrap(starlettes(Server(disconnect(4001)))) as ours:
            await ours.wait_disconnected()
            raise StarlettesDisconnect(4002)


# Further objects


class Mine(WebSocket):
    pass


async def test_a_subclass_over_ours_shares_its_state_and_its_block() -> None:
    server = Server(text("a"), disconnect(4001))
    ours = server.websocket()
    mine = Mine.wrap(ours)
    assert isinstance(mine, Mine)
    assert Mine.wrap(mine) is mine
    assert WebSocket.wrap(mine) is mine
    async with mine:
        await ours.send_text("counted")
        assert mine.messages_sent == ours.messages_sent == 1
        assert await ours.receive_text() == "a"
        await mine.wait_disconnected()
    assert ours.close_code == mine.close_code == 4001


@pytest.mark.parametrize("routed", [False, True])
async def test_one_of_another_class_over_the_same_object(cls: type[WebSocket], routed: bool) -> None:
    server = Server(text("a"))
    if routed:
        server.scope["path_params"] = {}
    theirs = starlettes(server)
    ours, mine = cls.wrap(theirs), Mine.wrap(theirs)
    assert isinstance(mine, Mine)
    await mine.accept()
    assert await ours.receive_text() == "a"
    await ours.close()
    assert states(mine)[1] == states(theirs)[1] == "DISCONNECTED"


async def test_by_the_callables_of_their_object_behind_a_router(cls: type[WebSocket]) -> None:
    """`WebSocket(theirs.scope, theirs.receive, theirs.send)` is the same as wrapping it."""
    server = Server(text("a"))
    server.scope["path_params"] = {}
    theirs = starlettes(server)
    ours = cls(theirs.scope, theirs.receive, theirs.send)
    again = cls(theirs.scope, theirs.receive, theirs.send)
    await again.accept()
    await again.send_text("b")
    assert states(ours) == states(theirs) == ("CONNECTED", "CONNECTED")
    assert await ours.receive_text() == "a"
    await again.close(4002)
    await theirs.close(4003)
    assert ours.close_code == 4002
    assert server.types == ["websocket.accept", "websocket.send", "websocket.close"]


async def test_by_the_methods_of_their_class_where_ours_stands_before_them(cls: type[WebSocket]) -> None:
    server = Server(path_params={})
    theirs = starlettes(server)
    ours = cls.wrap(theirs)
    methods = (
        MethodType(method, theirs) for method in (StarlettesWebSocket.receive, StarlettesWebSocket.send)
    )
    second = cls(theirs.scope, *methods)
    await second.accept()
    assert states(ours) == states(second) == states(theirs) == ("CONNECTED", "CONNECTED")


async def test_their_state_can_be_set(cls: type[WebSocket]) -> None:
    theirs = starlettes(Server(text("a")))
    ours = cls.wrap(theirs)
    theirs.client_state = theirs.application_state = StarlettesState.CONNECTED
    assert states(theirs) == ("CONNECTED", "CONNECTED")
    if cls is StarlettesOurs:
        assert states(ours) == states(theirs)


def watching(call: Any, seen: list[str]) -> Any:
    """A callable to put in the place of `receive` or `send`, as a tracer does."""

    async def watch(*arguments: Any) -> Any:
        seen.append(call.__name__)
        return await call(*arguments)

    return watch


@pytest.mark.parametrize("place", ["object", "below"])
async def test_what_is_put_in_their_place_before_wrapping_is_used(cls: type[WebSocket], place: str) -> None:
    theirs: Any = starlettes(Server(text("a")))
    seen: list[str] = []
    for name in ("receive", "send") if place == "object" else ("_receive", "_send"):
        setattr(theirs, name, watching(getattr(theirs, name), seen))
    ours = cls.wrap(theirs)
    await ours.accept()
    assert await ours.receive_text() == "a"
    assert seen == ["receive", "send", "receive"]


async def test_what_is_put_in_the_place_of_their_methods_is_used(
    cls: type[WebSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    for name in ("receive", "send"):
        method = getattr(StarlettesWebSocket, name)
        monkeypatch.setattr(StarlettesWebSocket, name, watching(method, seen))
    ours = cls.wrap(starlettes(Server(text("a"))))
    await ours.accept()
    assert await ours.receive_text() == "a"
    assert seen == ["receive", "send", "receive"]


async def test_what_is_put_in_their_place_after_wrapping_is_used_by_theirs_alone(
    cls: type[WebSocket],
) -> None:
    theirs: Any = starlettes(Server(text("a"), text("b")))
    ours = cls.wrap(theirs)
    await ours.accept()
    seen: list[str] = []
    for name in ("receive", "send"):
        setattr(theirs, name, watching(getattr(theirs, name), seen))
    assert [await ours.receive_text(), await theirs.receive_text()] == ["a", "b"]
    await ours.send_text("c")
    await theirs.send_text("d")
    assert seen == ["receive", "send"]
    assert states(ours) == states(theirs) == ("CONNECTED", "CONNECTED")


async def test_ours_is_gone_and_another_is_made() -> None:
    server = Server(text("a"), text("b"))
    server.scope["path_params"] = {}
    theirs = starlettes(server)
    gone = weakref.ref(WebSocket.wrap(theirs))
    assert gone() is None
    await theirs.accept()
    assert await theirs.receive_text() == "a"
    await theirs.send_text("c")
    plain = WebSocket(theirs.scope, theirs.receive, theirs.send)
    assert plain.application_state is WebSocketState.CONNECTING  # nothing tells it: wrap does
    del plain
    ours = WebSocket.wrap(theirs)
    assert states(ours) == ("CONNECTED", "CONNECTED")
    assert await ours.receive_text() == "b"
    await theirs.close(4002)
    assert ours.close_code == 4002


async def test_nothing_waits_for_the_garbage_collector(cls: type[WebSocket]) -> None:
    gc.disable()
    try:
        server = Server()
        theirs = starlettes(server)
        ours = cls.wrap(theirs)
        await theirs.accept()
        await ours.close()
        gone = [weakref.ref(each) for each in (theirs, ours)]
        del theirs, ours
        assert [each() for each in gone] == [None, None]
    finally:
        gc.enable()


# What there is besides


class Slotted:
    """An object whose methods cannot be replaced, as those of compiled classes."""

    __slots__ = ("_server", "scope")

    def __init__(self, server: Server) -> None:
        self._server, self.scope = server, server.scope

    async def receive(self) -> Any:
        return await self._server.receive()

    async def send(self, message: Any) -> None:
        await self._server.send(message)


async def test_an_object_that_cannot_be_changed() -> None:
    server = Server(text("a"))
    ours = WebSocket.wrap(Slotted(server))
    await ours.accept()
    assert await ours.receive_text() == "a"


async def test_callables_that_are_no_methods() -> None:
    server = Server(text("a"))
    theirs = SimpleNamespace(scope=server.scope, receive=lambda: server.receive(), send=server.send)
    ours = WebSocket.wrap(theirs)
    await ours.accept()
    assert (await theirs.receive())["text"] == "a"
    assert WebSocket.wrap(theirs) is ours


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("init", ("CONNECTING", "CONNECTING")),
        ("connect", ("CONNECTED", "CONNECTED")),
        ("receive", ("CONNECTED", "CONNECTED")),
        ("disconnect", ("DISCONNECTED", "CONNECTED")),
        ("elsewhere", ("CONNECTING", "CONNECTING")),
    ],
)
async def test_where_an_object_of_litestar_stands(stage: str, expected: tuple[str, str]) -> None:
    server = Server()
    theirs = SimpleNamespace(
        scope=server.scope, receive=server.receive, send=server.send, connection_state=stage
    )
    assert states(WebSocket.wrap(theirs)) == expected


async def test_a_proxy_gives_its_object() -> None:
    theirs = starlettes(Server())
    ours = WebSocket.wrap(theirs)
    for current in (theirs, ours):
        assert WebSocket.wrap(SimpleNamespace(_get_current_object=lambda current=current: current)) is ours


@pytest.fixture
def quarts() -> Any:
    class Websocket:
        __module__ = "quart.wrappers.websocket"
        receive = send = print

    class Subclass(Websocket):
        __module__ = "somewhere"

    return Subclass()


async def test_quarts_object_is_refused_by_name(quarts: Any) -> None:
    with pytest.raises(
        TypeError, match=r"those of somewhere\..*Subclass take and return payloads: use `websocket`"
    ):
        WebSocket.wrap(quarts)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (None, "got NoneType"),
        (object(), "got object"),
        (SimpleNamespace(scope={}), "got types.SimpleNamespace"),
        (SimpleNamespace(scope={}, receive=print), "got types.SimpleNamespace"),
        (SimpleNamespace(scope=None, receive=print, send=print), "got types.SimpleNamespace"),
    ],
)
async def test_what_carries_none_of_it(other: Any, named: str) -> None:
    with pytest.raises(TypeError, match=f"{named}. Where you have the three, use WebSocket"):
        WebSocket.wrap(other)


async def test_a_request_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'http'"):
        WebSocket.wrap(SimpleNamespace(scope={"type": "http"}, receive=print, send=print))


def test_names_of_classes() -> None:
    assert _shared.name_of(1) == "int"
    assert _shared.name_of(StarlettesDisconnect()) == "starlette.websockets.WebSocketDisconnect"


# Where wrapping is done for you


@pytest.mark.quiet
async def test_channels_take_their_object() -> None:
    server = Server(text("a"), disconnect(4001))
    theirs = starlettes(server)
    async with Channels() as channels:
        with pytest.raises(WebSocketRuntimeError, match="not accepted"):
            await channels.join("room", theirs).__aenter__()
        await theirs.accept()
        async with channels.join("room", theirs) as member:
            await channels.publish("room", await theirs.receive_text())
            await theirs.receive_text()  # the client leaves: quietly
            raise AssertionError("not reached")
        assert member.ended in ("client", "left")
    with pytest.raises(TypeError, match="got object"):
        Channels().join("room", object())


async def test_close_all_takes_their_objects() -> None:
    servers = [Server() for _ in range(3)]
    theirs = [starlettes(server) for server in servers]
    for each in theirs:
        await each.accept()
    with pytest.raises(TypeError, match="got object"):
        await close_all([*theirs, object()])
    assert all(server.types == ["websocket.accept"] for server in servers)
    servers[0].held.add("websocket.close")  # its client does not read
    assert await close_all(theirs, 4000, "closed", within=0.2) == [theirs[0]]
    for server, each in zip(servers[1:], theirs[1:], strict=True):
        assert server.sent[-1] == {"type": "websocket.close", "code": 4000, "reason": "closed"}
        assert states(each)[1] == "DISCONNECTED"


class Carrier:
    """Carries callables that are not its own methods, as an object made by hand does."""

    def __init__(self, server: Server) -> None:
        self.scope, self.receive, self.send = server.scope, server.receive, server.send


async def test_an_object_whose_callables_are_anothers_methods() -> None:
    server = Server(text("a"))
    carrier = Carrier(server)
    ours = WebSocket.wrap(carrier)
    assert WebSocket.wrap(carrier) is ours
    await ours.accept()
    assert await ours.receive_text() == "a"
    await carrier.send({"type": "websocket.close", "code": 4000, "reason": ""})
    assert states(ours)[1] == "DISCONNECTED"


async def test_what_stands_before_another_object_keeps_what_that_carried() -> None:
    server = Server()
    before = _shared.Foreign(Carrier(server))
    assert before.websocket is None
    assert before.callables == (server.receive, server.send)
