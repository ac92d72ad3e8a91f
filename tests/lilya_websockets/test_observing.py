"""Hooks: what observers see of every end and refusal, in memory, behind guards and over real servers."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import sys
import traceback
import weakref
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as client
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lilya.websockets import WebSocket, WebSocketDisconnect
from lilya.websockets._extensions import END
from lilya.websockets.channels import Channels, Membership
from lilya.websockets.draining import drain
from lilya.websockets.limits import LimitGuard, RateLimit
from lilya.websockets.observing import (
    End,
    LogObserver,
    ObservedConnection,
    Observer,
    Refusal,
    connection_id,
    explain,
    observe,
    report_dropped,
    report_slow,
)
from lilya.websockets.origins import OriginGuard
from lilya.websockets.testing import connect
from lilya.websockets.tokens import bearer_token, first_message_token

from .server import ClientDisconnected, Server, data, disconnect, text
from .test_uvicorn import serving, until

pytestmark = pytest.mark.anyio

OURS = "lilya.websockets.uvicorn:WebSocketProtocol"


class Log(Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.connections: list[str] = []

    def _note(self, connection: ObservedConnection, *event: Any) -> None:
        self.connections.append(connection.id)
        self.events.append(event)

    def began(self, connection: ObservedConnection) -> None:
        self._note(connection, "began")

    def opened(self, connection: ObservedConnection) -> None:
        self._note(connection, "opened")

    def refused(self, connection: ObservedConnection, refusal: Refusal) -> None:
        self._note(connection, "refused", *refusal[:3], type(refusal.error).__name__)

    def received(self, connection: ObservedConnection, kind: Any, size: int) -> None:
        self._note(connection, "received", kind, size)

    def sent(self, connection: ObservedConnection, kind: Any, size: int) -> None:
        self._note(connection, "sent", kind, size)

    def dropped(self, connection: ObservedConnection, count: int) -> None:
        self._note(connection, "dropped", count)

    def slow(self, connection: ObservedConnection) -> None:
        self._note(connection, "slow")

    def ended(self, connection: ObservedConnection, end: End) -> None:
        assert end.duration >= 0
        self._note(connection, "ended", end.by, end.code, end.why, type(end.error).__name__)

    @property
    def last(self) -> tuple[Any, ...]:
        return self.events[-1]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    async with WebSocket(scope, receive, send) as websocket:
        async for message in websocket.iter_text():
            await websocket.send_text(message)


async def seen_of(app: Any, *events: Any, **scope: Any) -> Log:
    """What is seen of a connection on which this comes."""
    log, server = Log(), Server(*events, **scope)
    await observe(app, log)(server.scope, server.receive, server.send)
    return log


# A connection


async def test_a_connection() -> None:
    log = Log()
    async with connect(observe(echo, log), "/") as session:
        await session.send_text("hä")
        assert await session.receive_text() == "hä"
        await session.close(1001)
    assert log.events == [
        ("began",),
        ("opened",),
        ("received", "text", 3),
        ("sent", "text", 3),
        ("ended", "client", 1001, "", "NoneType"),
    ]
    assert len(set(log.connections)) == 1
    assert len(log.connections[0]) == 16


async def test_kinds_and_sizes() -> None:
    counts: list[Any] = []

    class Counts(Observer):
        def ended(self, connection: ObservedConnection, end: End) -> None:
            counts.append((connection.messages_received, connection.bytes_received))
            counts.append((connection.messages_sent, connection.bytes_sent))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        for _ in range(5):
            await websocket.receive()
        await websocket.send_bytes(b"123")
        await websocket.send_text("")
        await websocket.close(4001)

    log = Log()
    both = {"type": "websocket.receive", "text": None, "bytes": b"ab"}
    empty = {"type": "websocket.receive", "text": "", "bytes": None}
    server = Server(data(b"a"), both, empty, text("\udc80"), {"type": "websocket.receive"})
    await observe(app, log, Counts())(server.scope, server.receive, server.send)
    assert log.events[2:] == [
        ("received", "bytes", 1),
        ("received", "bytes", 2),
        ("received", "text", 0),
        ("received", "text", 3),
        ("received", "bytes", 0),
        ("sent", "bytes", 3),
        ("sent", "text", 0),
        ("ended", "app", 4001, "", "NoneType"),
    ]
    assert counts == [(5, 6), (2, 3)]


async def test_without_hooks_for_messages_they_are_counted_all_the_same() -> None:
    seen: list[tuple[int, int]] = []

    class Ends(Observer):
        def ended(self, connection: ObservedConnection, end: End) -> None:
            seen.append((connection.messages_received, connection.messages_sent))

    async with connect(observe(echo, Ends()), "/") as session:
        await session.send_text("a")
        await session.receive_text()
    assert seen == [(1, 1)]


# Ends


async def opened(scope: Any, receive: Any, send: Any) -> WebSocket:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    return websocket


async def receiving(scope: Any, receive: Any, send: Any) -> None:
    await (await opened(scope, receive, send)).receive_text()


@pytest.mark.parametrize(
    ("event", "scope", "end"),
    [
        (disconnect(4000), {}, ("client", 4000)),
        (disconnect(None, None), {}, ("client", 1005)),
        (disconnect(1006), {}, ("network", 1006)),
        (disconnect(1012), {}, ("server", 1012)),
        (
            {"type": "websocket.disconnect", "code": 1005},
            {"asgi": {"spec_version": "2.4"}},
            ("network", 1006),
        ),
        ({"type": "websocket.disconnect", "code": 1005}, {}, ("network", 1006)),
        ({"type": "websocket.disconnect", "code": 1005}, {"asgi": {}}, ("client", 1005)),
        (ClientDisconnected(), {}, ("network", 1006)),
    ],
)
async def test_the_ends_that_are_received(event: Any, scope: Any, end: tuple[str, int]) -> None:
    log, server = Log(), Server(event, **scope)
    with pytest.raises(WebSocketDisconnect):
        await observe(receiving, log)(server.scope, server.receive, server.send)
    assert log.last == ("ended", *end, "", "WebSocketDisconnect")


async def test_the_first_end_counts() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = await opened(scope, receive, send)
        await websocket.close(4002)
        assert (await receive())["type"] == "websocket.disconnect"

    assert (await seen_of(app, disconnect(4000))).last == ("ended", "app", 4002, "", "NoneType")

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await (await opened(scope, receive, send)).receive()
        with pytest.raises(AssertionError):
            await send({"type": "websocket.close", "code": 1000, "reason": ""})

    log, server = Log(), Server(disconnect(4000))
    await observe(late, log)(server.scope, server.receive, server.send)
    server.violations.clear()
    assert log.last == ("ended", "client", 4000, "", "NoneType")


@pytest.mark.parametrize("leaves_by", ["return", "the app receives it", "the exception"])
@pytest.mark.parametrize(
    ("events", "end"),
    [
        ([disconnect(4000)], ("client", 4000)),
        ([text("not taken"), disconnect(4000)], ("client", 4000)),
        ([RuntimeError("the server has nothing to say")], ("network", 1006)),
        ([], ("network", 1006)),  # it says nothing in time
    ],
)
async def test_the_true_end_behind_a_send_that_fails(
    events: list[Any], end: tuple[str, int], leaves_by: str
) -> None:
    """An app that only sends does not ask for it. Then the observer does."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = await opened(scope, receive, send)
        try:
            await websocket.send_text("a")
        except WebSocketDisconnect:
            if leaves_by == "the exception":
                raise
        if leaves_by == "the app receives it":
            try:
                with anyio.move_on_after(0.1):
                    while (await receive())["type"] != "websocket.disconnect":
                        pass
            except RuntimeError:
                pass

    log, server = Log(), Server(*events)

    async def fails(message: Any) -> None:
        if message["type"] == "websocket.send":
            raise ClientDisconnected
        await server.send(message)

    with contextlib.suppress(WebSocketDisconnect):
        await observe(app, log)(server.scope, server.receive, fails)
    error = "WebSocketDisconnect" if leaves_by == "the exception" else "NoneType"
    assert log.last == ("ended", *end, "", error)


async def test_without_anyio_it_stays_a_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.send", "text": "a"})

    log, server = Log(), Server(disconnect(4000))

    async def fails(message: Any) -> None:
        if message["type"] == "websocket.send":
            raise ClientDisconnected
        await server.send(message)

    assert (await server.receive())["type"] == "websocket.connect"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "anyio", None)
        await observe(app, log)(server.scope, server.receive, fails)
    assert log.last == ("ended", "network", 1006, "", "NoneType")


@pytest.mark.parametrize("stops", [False, True])
async def test_who_asks_for_the_true_end_can_be_cancelled(stops: bool) -> None:
    """The end is told all the same."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = await opened(scope, receive, send)
        with pytest.raises(WebSocketDisconnect):
            await websocket.send_text("a")
        if stops:
            raise ValueError

    log, server = Log(), Server()

    async def fails(message: Any) -> None:
        if message["type"] == "websocket.send":
            raise ClientDisconnected
        await server.send(message)

    with anyio.CancelScope() as scope, contextlib.suppress(ValueError):
        scope.cancel()
        with anyio.CancelScope(shield=True) as inner:

            async def cancelled() -> Any:
                message = await server.receive() if server.events else None
                if message is None:
                    inner.cancel()
                    await anyio.sleep_forever()
                return message

            await observe(app, log)(server.scope, cancelled, fails)
    assert log.last[:3] == ("ended", "network", 1006)


async def test_a_close_that_the_server_refuses_is_no_end() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = await opened(scope, receive, send)
        with pytest.raises(RuntimeError):
            await websocket.close(4001)
        await websocket.close(1000)

    log, server = Log(), Server()
    server.fail(RuntimeError("the server refuses"), after=1)
    await observe(app, log)(server.scope, server.receive, server.send)
    assert log.last == ("ended", "app", 1000, "", "NoneType")


async def test_an_app_that_fails_or_leaves_it_open() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await opened(scope, receive, send)
        raise LookupError

    with pytest.raises(LookupError):
        await seen_of_failing(fails)
    assert LAST == [("ended", "server", None, "", "LookupError")]

    async def blocks(scope: Any, receive: Any, send: Any) -> None:
        async with WebSocket(scope, receive, send):
            raise LookupError

    with pytest.raises(LookupError):
        await seen_of_failing(blocks)
    assert LAST == [("ended", "app", 1011, "", "LookupError")]

    async def leaves(scope: Any, receive: Any, send: Any) -> None:
        await opened(scope, receive, send)

    assert (await seen_of(leaves)).last == ("ended", "server", None, "", "NoneType")


LAST: list[Any] = []


async def seen_of_failing(app: Any, *events: Any) -> None:
    log, server = Log(), Server(*events)
    LAST.clear()
    try:
        await observe(app, log)(server.scope, server.receive, server.send)
    finally:
        LAST.append(log.last)


async def test_a_cancelled_app() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["query_string"]:
            await opened(scope, receive, send)
        await anyio.sleep_forever()

    async def observed(server: Server) -> None:
        await observe(app, log)(server.scope, server.receive, server.send)

    for query, event in ((b"a", ("ended", "server", None, "")), (b"", ("refused", "server", None, ""))):
        log, server = Log(), Server(query_string=query)
        async with anyio.create_task_group() as group:
            group.start_soon(observed, server)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        assert log.last[:4] == event
        assert log.last[4] in ("CancelledError", "Cancelled")


def test_an_app_that_is_thrown_away() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await Forever()

    class Forever:
        def __await__(self) -> Any:
            yield

    async def send(message: Any) -> None:
        pass

    log = Log()
    coroutine: Any = observe(app, log)({"type": "websocket"}, send, send)  # type: ignore[arg-type]
    coroutine.send(None)
    coroutine.close()
    assert log.last == ("ended", "server", None, "", "GeneratorExit")


async def test_the_end_is_known_when_the_server_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also to a block, which then needs no reader; and middleware that wraps a callable is looked through."""
    monkeypatch.setattr(Server, "announces", True)
    now = [0.0]
    monkeypatch.setattr("lilya.websockets.observing.time.monotonic", lambda: now[0])
    sources: list[str] = []
    durations: list[float] = []

    class Durations(Observer):
        def ended(self, connection: ObservedConnection, end: End) -> None:
            durations.append(end.duration)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with WebSocket(scope, receive, send) as websocket:
            assert websocket._conversation is not None
            sources.append(type(websocket._conversation.source).__name__)
            now[0] = 5.0
            server.push(disconnect(4000))
            await websocket.wait_disconnected()
            now[0] = 60.0

    server = Server()
    log = Log()
    await observe(app, log, Durations())(server.scope, server.receive, server.send)
    assert (sources, durations) == (["Direct"], [5.0])
    assert log.last == ("ended", "client", 4000, "", "NoneType")

    server = Server()

    async def wrapped(message: Any) -> None:
        await server.send(message)

    await observe(app, log)(server.scope, server.receive, wrapped)
    assert sources == ["Direct", "Reader"]
    assert log.last == ("ended", "client", 4000, "", "NoneType")


# Refusals


async def denies(scope: Any, receive: Any, send: Any) -> None:
    await WebSocket(scope, receive, send).deny(401, "no")


async def closes(scope: Any, receive: Any, send: Any) -> None:
    explain(scope, "the room is full")
    await WebSocket(scope, receive, send).close()


async def returns(scope: Any, receive: Any, send: Any) -> None:
    explain(scope, "nothing comes of it")


async def needs_a_token(scope: Any, receive: Any, send: Any) -> None:
    websocket = WebSocket(scope, receive, send)
    if bearer_token(websocket) is None:
        await websocket.deny(401)


async def denies_raw(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"", "more_body": False})


ORIGIN = [(b"host", b"example.org"), (b"origin", b"https://evil.example")]


@pytest.mark.parametrize(
    ("app", "scope", "refusal"),
    [
        (denies, {}, ("app", 401, "")),
        (denies, {"extensions": {}}, ("app", 403, "")),
        (denies_raw, {}, ("app", 404, "")),
        (closes, {}, ("app", 403, "the room is full")),
        (needs_a_token, {}, ("app", 401, "no token was found")),
        (OriginGuard(echo), {"headers": ORIGIN}, ("OriginGuard", 403, "the page's scheme is not http")),
        (LimitGuard(echo, connections=0), {}, ("LimitGuard", 503, "connections")),
        (LimitGuard(echo, connections=0), {"extensions": {}}, ("LimitGuard", 403, "connections")),
        (LimitGuard(echo, connections_per_key=0), {}, ("LimitGuard", 429, "connections_per_key")),
        (returns, {}, ("error", None, "")),
    ],
)
async def test_refusals(app: Any, scope: Any, refusal: tuple[str, int | None, str]) -> None:
    if scope.get("headers") == ORIGIN:
        refusal = ("OriginGuard", 403, "Origin is neither the request's own nor one of `origins`")
    log = await seen_of(app, **scope)
    assert log.events == [("began",), ("refused", *refusal, "NoneType")]


async def test_a_client_that_leaves_before_the_answer() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(WebSocketDisconnect):
            await opened(scope, receive, send)

    server = Server(disconnect(), connecting=False)
    log = Log()
    await observe(app, log)(server.scope, server.receive, server.send)
    assert log.last == ("refused", "client", None, "", "NoneType")
    server = Server()
    server.fail(ClientDisconnected())
    await observe(app, log)(server.scope, server.receive, server.send)
    assert log.last == ("refused", "client", None, "", "NoneType")
    server = Server(disconnect(1012), connecting=False)
    await observe(app, log)(server.scope, server.receive, server.send)
    assert log.last == ("refused", "server", None, "", "NoneType")


async def test_an_app_that_fails_before_the_answer() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError

    async def fails_after(scope: Any, receive: Any, send: Any) -> None:
        await WebSocket(scope, receive, send).close()
        raise LookupError

    with pytest.raises(LookupError):
        await seen_of_failing(fails)
    assert LAST == [("refused", "error", None, "", "LookupError")]
    with pytest.raises(LookupError):
        await seen_of_failing(fails_after)
    assert LAST == [("refused", "app", 403, "", "LookupError")]


async def test_what_is_explained_belongs_to_what_comes_next() -> None:
    """Accepting forgets why it might have been refused, and an end that is not the app's has no reason."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert bearer_token(scope) is None
        websocket = await opened(scope, receive, send)
        if await websocket.receive_text() == "close":
            explain(websocket, "x" * 500, by="Turnstile")
            await websocket.close(4003)
        else:
            explain(websocket, "never mind")
            with pytest.raises(WebSocketDisconnect):
                await websocket.receive_text()

    assert (await seen_of(app, text("close"))).last == ("ended", "Turnstile", 4003, "x" * 200, "NoneType")
    assert (await seen_of(app, text("a"), disconnect())).last == ("ended", "client", 1001, "", "NoneType")

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        bearer_token(scope)
        await (await opened(scope, receive, send)).close()

    assert (await seen_of(plain)).last == ("ended", "app", 1000, "", "NoneType")


async def test_a_first_message_that_is_no_token() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = await opened(scope, receive, send)
        if await first_message_token(websocket) is None:
            await websocket.close(1008)

    log = await seen_of(app, data(b"1"))
    assert log.last == ("ended", "app", 1008, "no token came as the first message", "NoneType")


async def test_limits_that_close() -> None:
    guard = LimitGuard(echo, messages_per_second=RateLimit(0.001), key=lambda scope: "a")
    log = Log()
    async with connect(observe(guard, log), "/") as session:
        await session.send_text("a")
        assert await session.receive_text() == "a"
        await session.send_text("b")
        with pytest.raises(WebSocketDisconnect):
            await session.receive_text()
    assert log.last == ("ended", "LimitGuard", 1008, "messages_per_second", "NoneType")


async def test_drain_goes_around_it() -> None:
    async with connect(drain(observe(echo, Log())), "/") as session:
        await session.send_text("a")
        assert await session.receive_text() == "a"


# Hooks that fail, and observers that cannot be


class Failing(Log):
    def _note(self, connection: ObservedConnection, *event: Any) -> None:
        super()._note(connection, *event)
        raise (ValueError if event[0] == "sent" else LookupError)(event[0])


async def test_hooks_that_fail_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    first, second, server = Failing(), Log(), Server()
    app = observe(echo, first, second)
    for _ in range(2):
        async with connect(app, "/") as session:
            for _ in range(3):
                await session.send_text("a")
                assert await session.receive_text() == "a"
    assert first.events == second.events
    assert len(first.events) == 2 * 9
    said = [record.getMessage() for record in caplog.records]
    assert sorted(said) == sorted(
        f"the hook Log.{name} failed; the same is not logged again"
        for name in ("began", "opened", "received", "sent", "ended")
    )
    await observe(closes, first)(server.scope, server.receive, server.send)
    assert first.last == ("refused", "app", 403, "the room is full", "NoneType")


async def test_a_hook_that_fails_while_an_exception_is_under_way() -> None:
    class Fails(Observer):
        def ended(self, connection: ObservedConnection, end: End) -> None:
            raise KeyError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await opened(scope, receive, send)
        raise LookupError("the app's")

    server = Server()
    with pytest.raises(LookupError, match="the app's"):
        await observe(app, Fails())(server.scope, server.receive, server.send)


def test_observers_that_cannot_be() -> None:
    class Waits(Observer):
        async def ended(self, connection: ObservedConnection, end: End) -> None:  # type: ignore[override]
            pass

    with pytest.raises(TypeError, match=r"the hook .*Waits\.ended must be a plain function"):
        observe(echo, Waits())
    with pytest.raises(TypeError, match="an observer must be an Observer, got object"):
        observe(echo, object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="app must be an ASGI app, got str"):
        observe("app")  # type: ignore[arg-type]


async def test_an_observer_need_not_be_hashable_and_counts_once() -> None:
    @dataclass
    class Counter(Observer):
        count: int = 0

        def opened(self, connection: ObservedConnection) -> None:
            self.count += 1

    counter = Counter()
    async with connect(observe(echo, counter, counter), "/"):
        pass
    assert counter.count == 1


async def test_a_hook_may_be_any_callable(caplog: pytest.LogCaptureFixture) -> None:
    class Hook:
        def __call__(self, connection: ObservedConnection) -> None:
            raise LookupError

    log = Log()
    log.opened = Hook()  # type: ignore[method-assign]
    async with connect(observe(echo, log), "/"):
        pass
    assert [record.getMessage() for record in caplog.records] == [
        "the hook Hook failed; the same is not logged again"
    ]


# One in another


async def test_one_inside_of_another_counts_once() -> None:
    outer, both, inner = Log(), Log(), Log()
    app = observe(observe(echo, both, inner), outer, both)
    for _ in range(2):
        async with connect(app, "/") as session:
            await session.send_text("a")
            assert await session.receive_text() == "a"
    assert outer.events == both.events == inner.events
    assert len(outer.events) == 10
    assert outer.connections == both.connections == inner.connections


async def test_other_scopes_pass() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    for scope in ({"type": "lifespan"}, {"type": "http"}):
        await observe(app, Log())(scope, None, None)  # type: ignore[arg-type]
        assert seen.pop() is scope


# What servers and apps do wrong


@pytest.mark.violations
async def test_what_is_no_message_passes() -> None:
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        got.extend([await receive(), await receive(), await receive(), await receive()])
        for message in ({}, {"type": ["websocket.send"]}, {"type": "websocket.send", "text": 1}):
            with pytest.raises(Exception):  # noqa: B017, PT011 - the server's
                await send(message)

    odd: list[Any] = [None, {}, {"type": []}, 5]
    server = Server(*odd, connecting=False)
    log = Log()
    await observe(app, log)(server.scope, server.receive, server.send)
    assert got == odd
    assert log.events == [("began",), ("refused", "error", None, "", "NoneType")]


async def test_a_server_that_takes_anything() -> None:
    async def receive() -> Any:
        return {"type": "websocket.receive", "text": 5}

    async def send(message: Any) -> None:
        pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.odd"})
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": 5})
        await receive()
        await send({"type": "websocket.close"})
        await send({"type": "websocket.close", "code": 4000})

    log = Log()
    await observe(app, log)({"type": "websocket"}, receive, send)
    assert log.events == [
        ("began",),
        ("opened",),
        ("sent", "text", 0),
        ("received", "text", 0),
        ("ended", "app", 1000, "", "NoneType"),
    ]


# The id


async def test_the_id_is_in_the_scope_and_in_exceptions() -> None:
    ids: list[str | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = await opened(scope, receive, send)
        ids.extend([connection_id(scope), connection_id(websocket)])
        raise error

    log = Log()
    error = LookupError("a")
    for _ in range(2):  # an exception may be one object that is raised each time
        server = Server()
        with pytest.raises(LookupError) as caught:
            await observe(app, log)(server.scope, server.receive, server.send)
        assert connection_id(server.scope) is None  # the server's own is left alone
    assert ids[0] == ids[1] == log.connections[0]
    assert caught.value.__notes__ == [f"in the WebSocket connection {log.connections[-1]}"]  # type: ignore[attr-defined]
    if sys.version_info >= (3, 11):
        assert log.connections[-1] in "".join(traceback.format_exception(caught.value))


async def test_an_exception_that_takes_no_note() -> None:
    @dataclass(frozen=True)
    class Frozen(Exception):
        code: int = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise failure

    failure = Frozen()
    server = Server()
    with pytest.raises(Frozen):
        await observe(app)(server.scope, server.receive, server.send)


async def test_without_observe_there_is_nothing_to_tell() -> None:
    websocket = Server().websocket()
    assert connection_id(websocket) is None
    explain(websocket, "why")
    report_dropped(websocket, 1)
    report_slow(websocket)
    assert connection_id({"type": "websocket", "lilya.websocket.observed": "a stranger"}) is None


async def test_what_is_dropped_and_who_is_slow() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = await opened(scope, receive, send)
        report_dropped(websocket, 3)
        report_slow(scope)
        explain(websocket, "slow")
        await websocket.close(1013)

    log = await seen_of(app)
    assert log.events[2:] == [("dropped", 3), ("slow",), ("ended", "app", 1013, "slow", "NoneType")]


async def test_an_end_is_asked_for_where_it_is_the_servers_own() -> None:
    """Functions have no owner, which makes them nobody's, rather than all of one server."""
    asked: list[Any] = []

    async def receive() -> Any:
        return disconnect()

    async def send(message: Any) -> None:
        pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    def watch(callback: Any) -> None:
        asked.append(callback)

    scope = {**Server().scope, "extensions": {END: {"watch": watch}}}
    await observe(app, Log())(scope, receive, send)
    assert asked == []


async def test_nothing_of_a_connection_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cycle keeps the server's side until the garbage collector comes."""
    kept: list[Any] = []

    class Keeps(Observer):
        def ended(self, connection: ObservedConnection, end: End) -> None:
            kept.append(weakref.ref(connection))

    async def run() -> None:
        server = Server(disconnect(), extensions={})
        await observe(echo, Keeps())(server.scope, server.receive, server.send)

    gc.collect()
    gc.disable()
    try:
        await run()
        Server.made.clear()
        assert [each() for each in kept] == [None]
    finally:
        gc.enable()


async def joining(policy: Any, body: Any) -> Log:
    """A client that reads nothing, in a channel in which eleven events are published."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = await opened(scope, receive, send)
        server.held.add("websocket.send")
        async with channels.join("a", websocket, policy=policy, max_messages=3) as member:
            for number in range(11):
                await channels.publish("a", str(number))
            await body(member, server)

    log, server = Log(), Server()
    async with Channels("memory://") as channels:
        await observe(app, log)(server.scope, server.receive, server.send)
    log.events = [event for event in log.events if event[0] not in ("began", "opened", "sent")]
    return log


async def test_what_channels_drop() -> None:
    async def body(member: Membership, server: Server) -> None:
        while member.dropped < 7:  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(0.005)
        server.release()
        await member.websocket.close()

    *dropped, end = (await joining("drop_oldest", body)).events
    assert {event[0] for event in dropped} == {"dropped"}
    assert sum(event[1] for event in dropped) == 7
    assert end == ("ended", "app", 1000, "", "NoneType")


@pytest.mark.quiet
async def test_whom_channels_close() -> None:
    async def body(member: Membership, server: Server) -> None:
        await anyio.sleep_forever()

    log = await joining("close", body)
    assert log.events == [("slow",), ("ended", "channels", 1013, "too slow", "NoneType")]


# Log lines


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def logged() -> tuple[LogObserver, Records]:
    logger, records = logging.Logger("connections"), Records()
    logger.addHandler(records)
    return LogObserver(logger), records


async def test_log_lines() -> None:
    observer, records = logged()
    async with connect(observe(echo, observer), "/rooms?token=secret") as session:
        await session.send_text("hä")
        await session.receive_text()
        await session.close(4000, "secret")
    lines = [record.getMessage() for record in records.records]
    first, last = (json.loads(json.dumps(record.websocket)) for record in records.records)  # type: ignore[attr-defined]
    id = first["connection"]
    assert lines[0] == f"opened connection={id} path=/rooms"
    assert first == {"event": "opened", "connection": id, "path": "/rooms"}
    assert lines[1] == (
        f"ended connection={id} path=/rooms by=client code=4000 seconds={last['seconds']} "
        "received=1 bytes_received=3 sent=1 bytes_sent=3"
    )
    assert {record.levelname for record in records.records} == {"INFO"}


async def test_log_lines_of_refusals() -> None:
    observer, records = logged()
    server = Server(path="/a b\n\udc80" + "x" * 500, query_string=b"token=secret", headers=ORIGIN)
    await observe(OriginGuard(echo), observer)(server.scope, server.receive, server.send)
    (record,) = records.records
    said = record.websocket  # type: ignore[attr-defined]
    assert said["path"] == ("/a%20b%0A%3F" + "x" * 500)[:200]
    assert record.getMessage() == (
        f"refused connection={said['connection']} path={said['path']} by=OriginGuard status=403 "
        """why="Origin is neither the request's own nor one of `origins`\""""
    )
    assert "secret" not in record.getMessage()
    assert "evil" not in record.getMessage()


async def test_log_lines_of_apps_that_fail() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        if scope["query_string"]:
            await opened(scope, receive, send)
        report_slow(scope)
        raise LookupError("secret")

    observer, records = logged()
    for query in (b"", b"a"):
        server = Server(query_string=query)
        with pytest.raises(LookupError):
            await observe(fails, observer)(server.scope, server.receive, server.send)
    said = [(record.levelname, record.websocket["event"]) for record in records.records]  # type: ignore[attr-defined]
    assert said == [
        ("INFO", "slow"),
        ("ERROR", "refused"),
        ("INFO", "opened"),
        ("INFO", "slow"),
        ("ERROR", "ended"),
    ]
    assert "error=LookupError" in records.records[-1].getMessage()
    assert "secret" not in "".join(record.getMessage() for record in records.records)


async def test_that_the_client_has_left_is_no_failure() -> None:
    observer, records = logged()
    server = Server(disconnect())
    with pytest.raises(WebSocketDisconnect):
        await observe(receiving, observer)(server.scope, server.receive, server.send)
    assert [record.levelname for record in records.records] == ["INFO", "INFO"]
    assert "error" not in records.records[-1].getMessage()


async def test_a_level_that_is_off_costs_no_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lilya.websockets.connections"):
        async with connect(observe(echo, LogObserver(level=logging.DEBUG)), "/"):
            pass
        assert caplog.records == []
        async with connect(observe(echo, LogObserver()), "/"):
            pass
    assert [record.name for record in caplog.records] == ["lilya.websockets.connections"] * 2


@pytest.mark.parametrize("value", ["", "a b", "a=b", 'a"b', "a'b", "a\nb", "ä", "\x7f", "\x1b[31m"])
async def test_what_is_no_word_stands_in_quotes(value: str) -> None:
    """So a line can be taken apart, and no value makes a line or a pair of its own."""
    observer, records = logged()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        explain(scope, value)
        await WebSocket(scope, receive, send).close()

    server = Server()
    await observe(app, observer)(server.scope, server.receive, server.send)
    line = records.records[0].getMessage()
    assert line.partition(" why=")[2] == (repr(value) if value else "")


# Routes


def mounted(root: str, params: dict[str, Any]) -> dict[str, Any]:
    route = type("Route", (), {"path": "/rooms/{name}"})
    return {"route": route, "root_path": root, "path_params": params}


@pytest.mark.parametrize(
    ("scope", "route"),
    [
        ({}, None),
        ({"route": None}, None),
        ({"route": type("Route", (), {"path": "/rooms/{name}"})}, "/rooms/{name}"),  # FastAPI
        ({"route": type("Route", (), {"path": 5})}, None),
        ({"path_template": "/rooms/{name}"}, "/rooms/{name}"),  # Litestar
        # Mounted, by Starlette and FastAPI
        (mounted("/api/sub", {"name": "ann"}), "/sub/rooms/{name}"),
        (mounted("/api/of/bob%20b", {"who": "bob b", "name": "ann"}), "/of/{who}/rooms/{name}"),
        (mounted("/api/of/007", {"who": 7, "name": "ann"}), "/rooms/{name}"),  # it cannot be found again
        (mounted("/else", {"name": "ann"}), "/rooms/{name}"),
    ],
)
async def test_the_route(scope: dict[str, Any], route: str | None) -> None:
    """The frameworks themselves are tested in `tests/frameworks/test_observing.py`."""
    routes: list[str | None] = []

    class Routes(Observer):
        def ended(self, connection: ObservedConnection, end: End) -> None:
            routes.append(connection.route)

    observer, records = logged()

    async def app(given: Any, receive: Any, send: Any) -> None:
        given.update(scope)  # as a router does
        await (await opened(given, receive, send)).close()

    server = Server(path="/rooms/ann", root_path="/api")
    await observe(app, Routes(), observer)(server.scope, server.receive, server.send)
    assert routes == [route]
    assert records.records[-1].websocket["path"] == (route or "/rooms/ann")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("by", "code", "label"),
    [
        ("client", 1000, "1000"),
        ("client", 1015, "1015"),
        ("client", 3999, "3xxx"),
        ("client", 4000, "4xxx"),
        ("client", 77, "other"),
        ("client", 10**9, "other"),
        ("app", 4003, "4003"),
        ("server", None, "none"),
    ],
)
def test_the_labels_of_codes(by: str, code: int | None, label: str) -> None:
    assert End(by, code, "", 0.0, None).code_label == label


# Over real servers


async def flood(websocket: ClientConnection) -> None:
    for _ in range(100):
        await websocket.send("a")
        await websocket.recv()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # uvicorn's
@pytest.mark.parametrize("protocol", [OURS, "websockets-sansio", "wsproto"])
async def test_over_a_server(protocol: str) -> None:
    log = Log()
    guarded = OriginGuard(LimitGuard(echo, messages_per_second=2), origins=["https://example.com"])
    async with serving(observe(guarded, log), ws=protocol) as server:
        url = f"ws://127.0.0.1:{server.port}/?token=secret"
        with pytest.raises(InvalidStatus):
            async with client(url, origin="https://evil.example"):  # type: ignore[arg-type]
                raise AssertionError("accepted")
        await until(lambda: log.last[0] == "refused")
        assert log.last[:3] == ("refused", "OriginGuard", 403)
        async with client(url) as websocket:
            await websocket.send("hä")
            assert await websocket.recv() == "hä"
            await websocket.close(4000, "secret")
        await until(lambda: log.last[0] == "ended")
        assert log.last[:3] == ("ended", "client", 4000)
        websocket = await client(url)
        websocket.transport.abort()
        await until(lambda: log.last[0] == "ended" and len(log.events) > 9)
        assert log.last[:3] == ("ended", "network", 1006)
        async with client(url) as websocket:
            with pytest.raises(ConnectionClosed):
                await flood(websocket)
        await until(lambda: log.last[0] == "ended" and log.last[1] != "network")
        assert log.last[:4] == ("ended", "LimitGuard", 1008, "messages_per_second")
