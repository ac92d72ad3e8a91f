"""Limits: rates on a clock of the test's own, the guard in memory and over real servers, and its memory."""

from __future__ import annotations

import asyncio
import gc
import math
import tracemalloc
from fractions import Fraction
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as client
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lilya.websockets import WebSocket, WebSocketDisconnect
from lilya.websockets.limits import LimitGuard, LimitStore, RateLimit, StoreUnavailable, client_key
from lilya.websockets.testing import WebSocketDenialResponse, connect

from .server import Server, disconnect, text
from .test_uvicorn import serving, until

pytestmark = pytest.mark.anyio

OURS = "lilya.websockets.uvicorn:WebSocketProtocol"


class Clock:
    """Seconds that pass when a test says so."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


# Keys


@pytest.mark.parametrize(
    ("client", "key"),
    [
        (("192.0.2.1", 1), "192.0.2.1"),
        (["192.0.2.1", 1], "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::", 1), "2001:db8:1:2::/64"),
        (("2001:db8:1:3::", 1, 0, 0), "2001:db8:1:3::/64"),
        (("::1", 1), "::/64"),
        (("fe80::1%eth0", 1), "fe80::/64"),
        (("::ffff:192.0.2.1", 1), "192.0.2.1"),
        (("a:b", 1), "a:b"),
        (("testclient", 1), "testclient"),
        (("", 0), None),
        (("/run/app.sock", None), "/run/app.sock"),
        (None, None),
        ((), None),
    ],
)
def test_the_key_of_a_client(client: Any, key: str | None) -> None:
    assert client_key({"type": "websocket", "client": client}) == key
    assert client_key({"type": "websocket"}) is None


# Rates


def test_a_rate() -> None:
    clock = Clock()
    limit = RateLimit(2, clock=clock)
    assert [limit.take("a") for _ in range(3)] == pytest.approx([0, 0, 0.5])
    assert limit.take("b") == 0
    clock.now += 0.25
    assert limit.take("a") == pytest.approx(0.25)
    clock.now += 0.25
    assert limit.take("a") == 0
    assert limit.take("a") > 0
    clock.now += 3600
    assert [limit.take("a") == 0 for _ in range(3)] == [True, True, False]
    assert limit.refused == 4


def test_what_is_refused_uses_nothing() -> None:
    clock = Clock()
    limit = RateLimit(1, burst=10, clock=clock)
    assert limit.take("a", 8) == 0
    assert [limit.take("a", 5) for _ in range(100)] == pytest.approx([3.0] * 100)
    assert limit.take("a", 2) == 0
    assert limit.take("a", 0) == 0
    assert limit.take("a", 10.1) == math.inf
    assert limit.take("new", 11) == math.inf


@pytest.mark.parametrize("rate", [0.1, 1, 3, 7, 1000])
def test_the_whole_burst_can_be_used_one_by_one(rate: float) -> None:
    limit = RateLimit(rate, burst=1000, clock=Clock())
    assert [limit.take("a") == 0 for _ in range(1001)] == [True] * 1000 + [False]


@given(
    st.integers(1, 50),
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 60), st.sampled_from("ab")), max_size=60),
)
def test_a_rate_is_a_token_bucket(rate: int, burst: int, events: list[tuple[int, int, str]]) -> None:
    """The oracle fills a bucket, in exact numbers; times are of milliseconds."""
    clock = Clock()
    limit = RateLimit(rate, burst=burst, clock=clock)
    tokens: dict[str, Fraction] = {}
    for milliseconds, amount, key in events:
        clock.now += milliseconds / 1000
        for each in tokens:
            tokens[each] = min(Fraction(burst), tokens[each] + Fraction(milliseconds * rate, 1000))
        left = tokens.setdefault(key, Fraction(burst)) - amount
        wait = limit.take(key, amount)
        if abs(left) < Fraction(1, 100) and left != 0:
            return  # too near for numbers of the clock
        assert (wait == 0) == (left >= 0)
        if left >= 0:
            tokens[key] = left
        elif amount <= burst:
            assert wait == pytest.approx(float(-left / rate), abs=1e-3)
        else:
            assert wait == math.inf


def test_keys_that_have_their_burst_again_are_forgotten() -> None:
    clock = Clock()
    limit = RateLimit(1, clock=clock)
    for number in range(100):
        limit.take(number)
    assert len(limit) == 100
    clock.now += 2
    for _ in range(60):
        limit.take("a")
    assert len(limit) == 1


def test_of_too_many_keys_the_one_used_least_recently_is_forgotten() -> None:
    limit = RateLimit(1, burst=2, max_keys=3, clock=Clock())
    for key in ("a", "b", "c", "a", "d"):
        assert limit.take(key) == 0
    assert len(limit) == 3
    assert limit.take("a") > 0  # forgotten was b
    assert [limit.take("b") == 0 for _ in range(2)] == [True, True]
    for key in ("e", "f"):  # what a was refused is no use of it
        assert limit.take(key) == 0
    assert [limit.take("a") == 0 for _ in range(3)] == [True, True, False]


def test_a_long_key_is_kept_as_a_digest() -> None:
    limit = RateLimit(1, clock=Clock())
    for key in ("x" * 65, "x" * 66, b"x" * 65, "\udc80" * 65):
        assert (limit.take(key) == 0, limit.take(key) == 0) in ((True, False), (False, False))
    assert all(len(key) == 16 for key in limit._full_at)  # type: ignore[arg-type]
    limit.take("x" * 64)
    assert "x" * 64 in limit._full_at


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"per_second": 0}, ValueError, "per_second must be above 0"),
        ({"per_second": "1"}, TypeError, "per_second must be a number"),
        ({"per_second": 1, "burst": 0}, ValueError, "burst must be above 0"),
        ({"per_second": 1, "max_keys": 0}, ValueError, "max_keys must be at least 1"),
        ({"per_second": float("nan")}, ValueError, "per_second must be above 0"),
    ],
)
def test_rates_that_cannot_be(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        RateLimit(**arguments)
    with pytest.raises(ValueError, match="amount must be at least 0, got -1"):
        RateLimit(1).take("a", -1)


def test_any_number_of_keys_takes_as_much_memory_as_those_that_are_kept() -> None:
    clock = Clock()
    limit = RateLimit(1, max_keys=1000, clock=clock)

    def use(first: int, last: int) -> int:
        for number in range(first, last):
            limit.take(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::/64")
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        few = use(0, 2_000)
        many = use(2_000, 60_000)
    finally:
        tracemalloc.stop()
    assert len(limit) == 1000
    assert many < 1.5 * few


# The guard


async def echo(scope: Any, receive: Any, send: Any) -> None:
    async with WebSocket(scope, receive, send) as websocket:
        async for message in websocket.iter_text():
            await websocket.send_text(message)


async def refused(app: Any, **options: Any) -> tuple[int, str, str]:
    with pytest.raises(WebSocketDenialResponse) as caught:
        async with connect(app, "/", **options):
            raise AssertionError("accepted")
    response = caught.value
    return response.status_code, response.headers["retry-after"], response.content.decode()


def of_query(scope: Any) -> Any:
    return scope["query_string"].decode() or None


async def test_connections_in_all() -> None:
    guard = LimitGuard(echo, connections=2, retry_after=7)
    async with connect(guard, "/"), connect(guard, "/"):
        assert guard.open == 2
        assert await refused(guard) == (503, "7", "There are too many connections.")
    assert guard.open == 0
    async with connect(guard, "/") as session:
        await session.send_text("hi")
        assert await session.receive_text() == "hi"
    assert guard.refused["connections"] == 1
    assert sum(guard.refused.values()) == 1


async def test_connections_per_key() -> None:
    guard = LimitGuard(echo, connections_per_key=2, key=of_query)
    async with connect(guard, "/?a"), connect(guard, "/?a"), connect(guard, "/?b"), connect(guard, "/"):
        assert (guard.open, guard.open_of("a"), guard.open_of("b"), guard.open_of("c")) == (4, 2, 1, 0)
        with pytest.raises(WebSocketDenialResponse) as caught:
            async with connect(guard, "/?a"):
                raise AssertionError("accepted")
        assert caught.value.status_code == 429
        async with connect(guard, "/"), connect(guard, "/"):
            assert guard.open == 6  # without a key there is no limit for each
    assert (guard.open, guard._open_of) == (0, {})
    assert guard.refused["connections_per_key"] == 1


async def test_a_connection_counts_from_its_handshake_until_the_app_has_left_it() -> None:
    leave = anyio.Event()
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        seen.append(guard.open_of("a"))
        await websocket.accept()
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()
        await leave.wait()
        raise LookupError

    guard = LimitGuard(app, connections_per_key=1, key=lambda scope: "a")
    server = Server()

    async def run() -> None:
        with pytest.raises(LookupError):
            await guard(server.scope, server.receive, server.send)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await anyio.wait_all_tasks_blocked()
            server.push(disconnect())
            await anyio.wait_all_tasks_blocked()
            assert (seen, guard.open_of("a")) == ([1], 1)
            leave.set()
    assert (guard.open, guard.open_of("a")) == (0, 0)


async def test_handshakes() -> None:
    clock = Clock()
    guard = LimitGuard(echo, handshakes_per_second=RateLimit(0.1, burst=2, clock=clock), key=of_query)
    for _ in range(2):
        async with connect(guard, "/?a"):
            pass
    with pytest.raises(WebSocketDenialResponse) as caught:
        async with connect(guard, "/?a"):
            raise AssertionError("accepted")
    assert caught.value.status_code == 429
    assert caught.value.headers["retry-after"] == "10"
    async with connect(guard, "/?b"), connect(guard, "/"):
        pass
    clock.now += 10
    async with connect(guard, "/?a"):
        pass
    assert guard.refused["handshakes_per_second"] == 1


@pytest.mark.parametrize("wait", [0.5, 1e9])
async def test_retry_after_is_a_whole_number_in_reason(wait: float) -> None:
    guard = LimitGuard(echo, connections=0, retry_after=wait)
    assert (await refused(guard))[1] == str(math.ceil(min(max(wait, 1), 86_400)))
    never = LimitGuard(echo, handshakes_per_second=RateLimit(1, burst=0.5), key=lambda scope: "a")
    assert (await refused(never))[:2] == (429, "86400")


async def test_messages_over_all_connections_of_a_key() -> None:
    clock = Clock()
    guard = LimitGuard(echo, messages_per_second=RateLimit(3, clock=clock), key=of_query)
    async with connect(guard, "/?a") as one, connect(guard, "/?a") as two, connect(guard, "/?b") as other:
        for session in (one, two, one):
            await session.send_text("hi")
            assert await session.receive_text() == "hi"
        await two.send_text("hi")
        with pytest.raises(WebSocketDisconnect) as caught:
            await two.receive_text()
        assert (caught.value.code, caught.value.reason) == (1008, "too many messages")
        await other.send_text("hi")
        assert await other.receive_text() == "hi"
        clock.now += 1
        await one.send_text("hi")
        assert await one.receive_text() == "hi"
    assert guard.refused["messages_per_second"] == 1
    assert guard.open == 0


@pytest.mark.parametrize("message", ["x" * 11, "ä" * 6, b"x" * 11])
async def test_bytes(message: str | bytes) -> None:
    guard = LimitGuard(echo, bytes_per_second=RateLimit(10, clock=Clock()), key=lambda scope: "a", code=1013)
    async with connect(guard, "/") as session:
        await (session.send_text(message) if isinstance(message, str) else session.send_bytes(message))
        with pytest.raises(WebSocketDisconnect) as caught:
            await session.receive_text()
    assert (caught.value.code, caught.value.reason) == (1013, "too many bytes")
    fits = LimitGuard(echo, bytes_per_second=10, messages_per_second=1, key=lambda scope: "a")
    async with connect(fits, "/") as session:
        await session.send_text("ä" * 5)
        assert await session.receive_text() == "ä" * 5


async def test_without_a_key_no_message_is_counted() -> None:
    guard = LimitGuard(echo, messages_per_second=1, key=lambda scope: None)
    async with connect(guard, "/") as session:
        for _ in range(5):
            await session.send_text("hi")
            assert await session.receive_text() == "hi"


async def metered(app: Any, *messages: Any) -> Server:
    """A connection that may send one message."""
    server = Server(*messages)
    await LimitGuard(app, messages_per_second=RateLimit(1, clock=Clock()), key=lambda scope: "a")(
        server.scope, server.receive, server.send
    )
    return server


def closes(server: Server) -> list[Any]:
    return [message for message in server.sent if message["type"] == "websocket.close"]


CLOSE = {"type": "websocket.close", "code": 1008, "reason": "too many messages"}


async def test_what_the_app_sees() -> None:
    """It receives a disconnect each time, what it sends fails, and its own close becomes the guard's."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        seen.extend([await receive(), await receive(), await receive()])
        with pytest.raises(ConnectionError, match="the client is being disconnected: too many messages"):
            await send({"type": "websocket.send", "text": "late"})
        for _ in range(2):
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
            assert closes(server_of(send)) == [CLOSE]

    def server_of(send: Any) -> Server:
        server: Server = send.__self__._send.__self__
        return server

    server = await metered(app, text("a"), text("b"), text("c"))
    end = {"type": "websocket.disconnect", "code": 1008, "reason": "too many messages"}
    assert seen == [text("a"), end, end]
    assert closes(server) == [CLOSE]


async def test_an_app_that_closes_first() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        await receive()
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
        assert (await receive())["type"] == "websocket.disconnect"

    server = await metered(app, text("a"), text("b"))
    assert closes(server) == [{"type": "websocket.close", "code": 1000, "reason": ""}]


async def test_an_app_that_fails_or_does_not_close() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        async for _ in websocket.iter_text():
            pass

    assert closes(await metered(app, text("a"), text("b"))) == [CLOSE]


class Stuck(Server):
    """Its client reads nothing: a close waits for ever, or fails."""

    fails = False

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close":
            if self.fails:
                raise RuntimeError("the server refuses")
            await anyio.sleep_forever()
        await super().send(message)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_close_that_the_client_does_not_take(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        async for _ in websocket.iter_text():
            pass

    monkeypatch.setattr("lilya.websockets.limits._CLOSING", 0.01)
    server = Stuck(text("a"), text("b"))
    server.fails = fails
    guard = LimitGuard(app, messages_per_second=1, key=lambda scope: "a")
    with anyio.fail_after(5):
        await guard(server.scope, server.receive, server.send)
    assert guard.open == 0


async def test_a_cancelled_app_is_closed_all_the_same() -> None:
    class Slow(Server):
        async def send(self, message: Any) -> None:
            await anyio.lowlevel.checkpoint()  # where a cancellation arrives
            await super().send(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        async for _ in websocket.iter_text():
            pass
        await anyio.sleep_forever()

    server = Slow(text("a"), text("b"))
    guard = LimitGuard(app, messages_per_second=RateLimit(1, clock=Clock()), key=lambda scope: "a")
    async with anyio.create_task_group() as group:
        group.start_soon(guard, server.scope, server.receive, server.send)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert closes(server) == [CLOSE]


async def test_other_scopes_pass() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    guard = LimitGuard(app, connections=0)
    await guard({"type": "lifespan"}, None, None)
    await guard({"type": "http"}, None, None)
    assert seen == ["lifespan", "http"]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"connections": -1}, ValueError, "connections must be at least 0"),
        ({"connections_per_key": 1.5}, TypeError, "connections_per_key must be int"),
        ({"handshakes_per_second": 0}, ValueError, "handshakes_per_second must be above 0"),
        ({"messages_per_second": "1"}, TypeError, "messages_per_second must be a number"),
        ({"bytes_per_second": -1}, ValueError, "bytes_per_second must be above 0"),
        ({"retry_after": -1}, ValueError, "retry_after must be at least 0"),
        ({"code": 1005}, ValueError, "1005"),
        ({"store": "redis://"}, TypeError, "store must be a LimitStore, got str"),
        ({"outage": "maybe"}, ValueError, "outage must be 'open' or 'closed', got 'maybe'"),
    ],
)
def test_limits_that_cannot_be(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        LimitGuard(echo, **options)


# With a store. The one on Redis is tested in `test_limits_redis.py`


class Store(LimitStore):
    """Answers what a test says, and writes down what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.left: list[str] = []
        self.closed = 0
        self.exceeded: tuple[str, float] = ("", 0.0)
        self.full = ""
        self.away = False
        self.held: anyio.Event | None = None

    async def take(self, uses: Any) -> tuple[str, float]:
        self.asked.append([tuple(use) for use in uses])
        if self.held is not None:
            await self.held.wait()
        if self.away:
            raise StoreUnavailable
        return self.exceeded

    async def enter(self, connection: str, places: Any) -> str:
        self.asked.append([tuple(place) for place in places])
        if self.away:
            raise StoreUnavailable
        return self.full

    def leave(self, connection: str) -> None:
        self.left.append(connection)

    async def close(self) -> None:
        self.closed += 1


async def test_what_a_store_is_asked() -> None:
    store = Store()
    guard = LimitGuard(
        echo,
        connections=5,
        connections_per_key=4,
        handshakes_per_second=3,
        messages_per_second=2,
        bytes_per_second=RateLimit(100, burst=500),
        key=of_query,
        store=store,
    )
    async with connect(guard, "/?a") as session:
        await session.send_text("hä")
        assert await session.receive_text() == "hä"
        assert store.left == []
    key = store.asked[0][0][1]
    assert len(key) == 32
    assert store.asked == [
        [("handshakes_per_second", key, 3, 3, 1)],
        [("connections_per_key", key, 4), ("connections", "", 5)],
        [("messages_per_second", key, 2, 2, 1), ("bytes_per_second", key, 100, 500, 3)],
    ]
    assert len(store.left) == 1
    store.asked.clear()
    async with connect(guard, "/") as session:  # without a key
        await session.send_text("a")
        assert await session.receive_text() == "a"
    assert store.asked == [[("connections", "", 5)]]
    bytes_only = LimitGuard(echo, bytes_per_second=10, key=of_query, store=store)
    store.asked.clear()
    async with connect(bytes_only, "/?a") as session:
        await session.send_text("a")
        assert await session.receive_text() == "a"
    assert store.asked == [[("bytes_per_second", key, 10, 10, 1)]]


async def test_what_a_store_refuses() -> None:
    store = Store()
    guard = LimitGuard(
        echo, connections=5, handshakes_per_second=9, messages_per_second=9, key=of_query, store=store
    )
    store.exceeded = ("handshakes_per_second", 4.2)
    with pytest.raises(WebSocketDenialResponse) as caught:
        async with connect(guard, "/?a"):
            raise AssertionError("accepted")
    assert (caught.value.status_code, caught.value.headers["retry-after"]) == (429, "5")
    store.exceeded, store.full = ("", 0.0), "connections"
    with pytest.raises(WebSocketDenialResponse) as caught:
        async with connect(guard, "/?a"):
            raise AssertionError("accepted")
    assert (caught.value.status_code, caught.value.headers["retry-after"]) == (503, "10")
    store.full = ""
    async with connect(guard, "/?a") as session:
        store.exceeded = ("messages_per_second", 1.0)
        await session.send_text("a")
        with pytest.raises(WebSocketDisconnect) as end:
            await session.receive_text()
    assert (end.value.code, end.value.reason) == (1008, "too many messages")
    assert (guard.open, len(store.left)) == (0, 3)
    assert [name for name, count in guard.refused.items() if count] == [
        "connections",
        "handshakes_per_second",
        "messages_per_second",
    ]


@pytest.mark.parametrize("outage", ["open", "closed"])
async def test_a_store_that_is_away(outage: Any) -> None:
    store = Store()
    guard = LimitGuard(
        echo, connections=5, messages_per_second=9, key=of_query, store=store, outage=outage, code=4000
    )
    async with connect(guard, "/?a") as session:
        store.away = True
        await session.send_text("a")
        if outage == "open":
            assert await session.receive_text() == "a"
            async with connect(guard, "/?a"):
                assert guard.open == 2
        else:
            with pytest.raises(WebSocketDisconnect) as end:
                await session.receive_text()
            assert (end.value.code, end.value.reason) == (1013, "try again later")
            assert await refused(guard) == (503, "10", "Try again later.")
    assert len(store.left) == 2


async def test_cancelling_a_receive_loses_no_message_while_the_store_is_asked() -> None:
    store = Store()
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        store.held = anyio.Event()
        for _ in range(2):
            with anyio.move_on_after(0) as scope:
                await websocket.receive_text()
            assert scope.cancelled_caught
        store.held.set()
        seen.extend([await websocket.receive_text(), await websocket.receive_text()])
        await websocket.close()

    server = Server(text("a"), text("b"))
    guard = LimitGuard(
        app, messages_per_second=RateLimit(2, clock=Clock()), key=lambda scope: "a", store=store
    )
    await guard(server.scope, server.receive, server.send)
    assert seen == ["a", "b"]
    assert sum(guard.refused.values()) == 0  # it counts once in this process


@pytest.mark.parametrize("where", ["handshake", "app"])
async def test_a_connection_leaves_the_store_however_it_ends(where: str) -> None:
    store = Store()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep_forever()

    if where == "handshake":
        store.held = anyio.Event()
    guard = LimitGuard(app, connections=1, handshakes_per_second=1, key=lambda scope: "a", store=store)
    server = Server()
    async with anyio.create_task_group() as group:
        group.start_soon(guard, server.scope, server.receive, server.send)
        await anyio.wait_all_tasks_blocked()
        assert (guard.open, store.left) == (1, [])
        group.cancel_scope.cancel()
    assert (guard.open, len(store.left)) == (0, 1)


async def test_keys_in_a_store() -> None:
    store = Store()
    keys: list[Any] = ["a", b"a", 1, "1", True, "\udc80", "x" * 100_000]
    guard = LimitGuard(
        echo, connections_per_key=9, key=lambda scope: keys[int(scope["query_string"])], store=store
    )
    for number in range(len(keys)):
        async with connect(guard, f"/?{number}"):
            pass
    asked = [place[0][1] for place in store.asked]
    assert {len(key) for key in asked} == {32}
    assert len(set(asked)) == len(keys)
    guard = LimitGuard(echo, connections_per_key=9, key=lambda scope: ("a", 1), store=store)
    server = Server()
    with pytest.raises(TypeError, match="with a store, a key must be str, bytes or int, got tuple"):
        await guard(server.scope, server.receive, server.send)
    assert guard.open == 0


async def test_the_store_is_closed_after_the_lifespan() -> None:
    store = Store()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert store.closed == 0

    guard = LimitGuard(app, store=store)
    await guard({"type": "http"}, None, None)
    assert store.closed == 0
    await guard({"type": "lifespan"}, None, None)
    assert store.closed == 1


# Over real servers


async def flood(websocket: ClientConnection) -> None:
    for _ in range(100):
        await websocket.send("hi")
        await asyncio.wait_for(websocket.recv(), 10)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # uvicorn's
@pytest.mark.parametrize("protocol", [OURS, "websockets-sansio", "wsproto"])
async def test_over_a_server(protocol: str) -> None:
    guard = LimitGuard(echo, connections_per_key=2, messages_per_second=2)
    async with serving(guard, ws=protocol) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        async with client(url) as one, client(url) as two:
            with pytest.raises(InvalidStatus) as refusal:
                async with client(url):
                    raise AssertionError("accepted")
            assert refusal.value.response.status_code == 429
            assert refusal.value.response.headers["retry-after"] == "10"
            two.transport.abort()
            await until(lambda: guard.open == 1)
            with pytest.raises(ConnectionClosed) as end:
                await flood(one)
            assert end.value.rcvd is not None
            assert (end.value.rcvd.code, end.value.rcvd.reason) == (1008, "too many messages")
        await until(lambda: guard.open == 0)
    assert guard.refused["connections_per_key"] == 1
    assert guard.refused["messages_per_second"] == 1
