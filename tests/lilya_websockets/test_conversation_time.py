"""`async with websocket`: what takes time. The clock is virtual: it jumps when everybody waits for it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Iterable
from typing import Any

import anyio
import pytest

from lilya.websockets import PreparedMessage, WebSocketClosed, WebSocketDisconnect

from .server import ClientDisconnected, Server, connect, data, disconnect, opened, text
from .test_conversation import closes

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("server_announces")]


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes when it has nothing to do."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = selectors.DefaultSelector()
        select = selector.select

        def jump(timeout: float | None = None) -> Any:
            self.now += timeout or 0.0
            return select(0 if timeout is not None else None)

        selector.select = jump  # type: ignore[method-assign]
        super().__init__(selector)

    def time(self) -> float:
        return self.now


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.param == "trio":
        from trio.testing import MockClock

        return "trio", {"clock": MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": VirtualLoop}


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.start = anyio.current_time()

    def __eq__(self, seconds: object) -> bool:
        return isinstance(seconds, (int, float)) and abs(self.seconds - seconds) < 1e-6

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{self.seconds:.6f} s"

    @property
    def seconds(self) -> float:
        return anyio.current_time() - self.start


async def feed(server: Server, *events: Any, every: float) -> None:
    for event in events:
        await anyio.sleep(every)
        server.push(event)


# Silence


@pytest.mark.contract("block-idle", "closed-by")
@pytest.mark.parametrize("code", [1001, 4008])
async def test_a_silent_client_is_closed(code: int) -> None:
    server = Server()
    clock = Clock()
    websocket = server.websocket()
    async with websocket.open(idle_timeout=3, idle_code=code):
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.receive_text()
        assert clock == 3
        assert type(caught.value) is WebSocketDisconnect
        assert (caught.value.code, caught.value.reason) == (code, "idle")
        with pytest.raises(WebSocketClosed, match="the client sent nothing for 3 seconds"):
            await websocket.send_text("a")
    assert closes(server) == [(code, "idle")]
    assert (websocket.close_code, websocket.closed_by) == (code, "server")


@pytest.mark.contract("block-idle")
async def test_messages_keep_it_open() -> None:
    server = Server()
    clock = Clock()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: feed(server, text("1"), data(b""), text("2"), every=1.5))
        async with server.websocket().open(idle_timeout=2) as websocket:
            await websocket.send_text("what the app sends does not count")
            await websocket.wait_disconnected()
            assert clock == 3 * 1.5 + 2
            assert await websocket.receive_text() == "1"
            assert await websocket.receive_bytes() == b""
            assert await websocket.receive_text() == "2"
            with pytest.raises(WebSocketDisconnect):
                await websocket.receive_text()
    assert closes(server) == [(1001, "idle")]


@pytest.mark.contract("block-idle", "block-buffer")
@pytest.mark.parametrize("sent", [2, 4], ids=["a full buffer", "more than that"])
async def test_the_silence_of_an_app_that_does_not_receive_is_its_own(sent: int) -> None:
    server = Server(*(text(str(n)) for n in range(sent)))
    clock = Clock()
    websocket = server.websocket()
    async with websocket.open(idle_timeout=2, buffer_messages=2):
        await anyio.sleep(7)
        assert websocket.close_code is None
        assert [await websocket.receive_text() for _ in range(sent)] == ["0", "1", "2", "3"][:sent]
        assert clock == 7
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()
        assert clock == 9


@pytest.mark.contract("block-idle", "block-cancel-on-disconnect")
@pytest.mark.quiet
async def test_silence_and_a_body_elsewhere() -> None:
    server = Server()
    clock = Clock()
    async with server.websocket().open(idle_timeout=2, cancel_on_disconnect=True):
        await anyio.sleep(8)
    assert clock == 2
    assert closes(server) == [(1001, "idle")]
    server = Server()
    async with server.websocket().open(idle_timeout=2):
        await anyio.sleep(5)
    assert clock == 7
    assert closes(server) == [(1001, "idle")]


@pytest.mark.reader
@pytest.mark.contract("block-idle", "block-blocked-send", "block-leaving-bounded")
async def test_silence_releases_a_blocked_send() -> None:
    """And the close, which cannot be delivered either, holds nobody for longer than it may."""
    server = Server()
    clock = Clock()
    server.held.update({"websocket.send", "websocket.close"})
    async with server.websocket().open(idle_timeout=2, close_timeout=0.5) as websocket:
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
        assert clock == 2
    assert caught.value.reason == "idle"
    assert clock == 2.5
    assert closes(server) == [(1001, "idle")]


@pytest.mark.contract("block-idle")
async def test_a_server_that_refuses_to_close_a_silent_client() -> None:
    server = Server()
    async with server.websocket().open(idle_timeout=2) as websocket:
        server.fail(RuntimeError("no"))
        server.fail(RuntimeError("nor 1000"), after=1)
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()
    assert closes(server) == []
    assert websocket.close_code == 1001


@pytest.mark.contract("block-idle", "block-closes")
async def test_the_apps_own_close_comes_before_the_silence() -> None:
    server = Server()
    async with server.websocket().open(idle_timeout=2) as websocket:
        await websocket.close(4000)
        await anyio.sleep(5)
    assert closes(server) == [(4000, "")]


@pytest.mark.contract("block-idle", "block-closes")
async def test_silence_while_the_app_closes() -> None:
    server = Server()
    async with server.websocket().open(idle_timeout=2, close_timeout=3) as websocket:
        server.held.add("websocket.close")
        await anyio.sleep(1)
        await websocket.close(4000)
    assert closes(server) == [(4000, "")]
    assert websocket.close_code == 4000


# Heartbeats


@pytest.mark.contract("block-heartbeat")
@pytest.mark.parametrize(
    ("message", "key"), [("ping", "text"), ("é", "text"), (b"\0", "bytes"), (b"", "bytes")]
)
async def test_a_client_that_does_not_answer(message: str | bytes, key: str) -> None:
    server = Server()
    clock = Clock()
    async with server.websocket().open(
        heartbeat=3, heartbeat_message=message, heartbeat_timeout=1.5
    ) as websocket:
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.receive_text()
        assert clock == 4.5
        assert (caught.value.code, caught.value.reason) == (1011, "no answer")
        with pytest.raises(WebSocketClosed, match=r"did not answer a heartbeat in 1\.5 seconds"):
            await websocket.send_text("a")
    assert server.sent[1:] == [
        {"type": "websocket.send", key: message},
        {"type": "websocket.close", "code": 1011, "reason": "no answer"},
    ]
    assert websocket.messages_sent == 1
    assert websocket.closed_by == "server"


@pytest.mark.contract("block-heartbeat")
async def test_any_message_is_an_answer() -> None:
    server = Server()
    clock = Clock()
    answers = [text("pong"), data(b""), text("something else")]
    async with anyio.create_task_group() as tasks:
        # Heartbeats go out at 2, 4, 6 and 8; answers come at 2.4, 4.8 and 7.2.
        tasks.start_soon(lambda: feed(server, *answers, every=2.4))
        async with server.websocket().open(heartbeat=2, heartbeat_timeout=1.3) as websocket:
            await websocket.wait_disconnected()
            assert clock == 8 + 1.3
            assert [await websocket.receive() for _ in answers] == answers
    assert server.types.count("websocket.send") == 4
    assert websocket.messages_received == 3


@pytest.mark.contract("block-heartbeat")
async def test_the_answer_has_as_long_as_the_period() -> None:
    server = Server()
    clock = Clock()
    async with server.websocket().open(heartbeat=3) as websocket:
        await websocket.wait_disconnected()
    assert clock == 6
    assert closes(server) == [(1011, "no answer")]


@pytest.mark.contract("block-heartbeat", "block-blocked-send")
async def test_a_client_that_reads_nothing() -> None:
    server = Server()
    clock = Clock()
    server.held.add("websocket.send")
    async with server.websocket().open(heartbeat=2, heartbeat_timeout=1) as websocket:
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
        assert caught.value.code == 1011
    assert clock == 3
    assert websocket.messages_sent == 0


@pytest.mark.contract("block-heartbeat", "block-buffer")
async def test_an_answer_that_waits_behind_a_full_buffer() -> None:
    server = Server(text("1"), text("2"), text("3"))
    async with server.websocket().open(heartbeat=1, buffer_messages=2) as websocket:
        await anyio.sleep(5.5)
        assert websocket.close_code is None
        assert [await websocket.receive_text() for _ in range(3)] == ["1", "2", "3"]
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()


@pytest.mark.contract("block-heartbeat", "block-server-errors")
async def test_a_heartbeat_that_the_server_refuses() -> None:
    server = Server()
    clock = Clock()
    async with server.websocket().open(heartbeat=2, heartbeat_timeout=1) as websocket:
        server.fail(RuntimeError("no"))
        await websocket.wait_disconnected()
        assert clock == 3
        assert websocket.close_code == 1011


@pytest.mark.contract("block-heartbeat", "block-send-learns")
async def test_a_heartbeat_that_finds_the_client_gone() -> None:
    server = Server()
    async with server.websocket().open(heartbeat=2, heartbeat_timeout=1) as websocket:
        server.fail(ClientDisconnected())
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()
    assert (websocket.close_code, websocket.closed_by) == (1006, "network")
    assert closes(server) == []


@pytest.mark.contract("block-heartbeat")
async def test_no_heartbeat_after_the_end() -> None:
    server = Server()
    async with server.websocket().open(heartbeat=2) as websocket:
        server.push(disconnect(4001))
        await anyio.sleep(9)
        with pytest.raises(WebSocketDisconnect) as caught:  # and the heartbeat has not taken the news
            await websocket.send_text("a")
        assert type(caught.value) is WebSocketDisconnect
        assert caught.value.code == 4001
    assert server.types == ["websocket.accept"]


# Too much


@pytest.mark.contract("block-message-size", "block-nothing-lost")
@pytest.mark.parametrize(
    ("fits", "too_big"),
    [
        (text("a" * 10), text("a" * 11)),
        (text("é" * 5), text("é" * 5 + "a")),
        (data(b"a" * 10), data(b"a" * 11)),
        (data(b""), text("a" * 1_000_000)),
    ],
)
async def test_a_message_that_is_too_big(fits: Any, too_big: Any) -> None:
    server = Server(fits, too_big, text("never read"))
    async with server.websocket().open(max_message_size=10) as websocket:
        await websocket.wait_disconnected()
        assert await websocket.receive() == fits
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.receive_text()
        assert (caught.value.code, caught.value.reason) == (1009, "message too big")
        with pytest.raises(WebSocketClosed, match="a message had more than 10 bytes"):
            await websocket.receive_text()
    assert closes(server) == [(1009, "message too big")]
    assert server.receives == 3
    assert websocket.closed_by == "server"


@pytest.mark.contract("block-message-size")
async def test_nothing_but_empty_messages() -> None:
    server = Server(text(""), data(b""), text("a"))
    async with server.websocket().open(max_message_size=0) as websocket:
        await websocket.wait_disconnected()
    assert closes(server) == [(1009, "message too big")]
    assert websocket.messages_received == 3


@pytest.mark.contract("block-message-rate", "block-nothing-lost")
async def test_too_many_messages() -> None:
    server = Server(*(text(str(n)) for n in range(9)))
    clock = Clock()
    async with server.websocket().open(max_messages_per_second=5) as websocket:
        await websocket.wait_disconnected()
        assert [text async for text in websocket.iter_text()] == ["0", "1", "2", "3", "4"]
        with pytest.raises(WebSocketClosed, match="the client sent more than 5 messages per second"):
            await websocket.receive_text()
    assert clock == 0
    assert closes(server) == [(1008, "too many messages")]


@pytest.mark.contract("block-message-rate")
@pytest.mark.parametrize(
    ("rate", "every", "passes"), [(5, 0.2, True), (5, 0.15, False), (0.5, 2, True), (0.5, 1.9, False)]
)
async def test_the_rate_is_an_average(rate: float, every: float, passes: bool) -> None:
    server = Server()
    messages = [text(str(n)) for n in range(40 if rate > 1 else 3)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: feed(server, *messages, disconnect(1000), every=every))
        async with server.websocket().open(max_messages_per_second=rate) as websocket:
            seen = [text async for text in websocket.iter_text()]
        tasks.cancel_scope.cancel()
    assert seen == [str(n) for n in range(len(seen))]
    assert (len(seen) == len(messages)) is passes
    assert websocket.close_code == (1000 if passes else 1008)


@pytest.mark.contract("block-message-rate")
async def test_a_silence_saves_nothing_up() -> None:
    server = Server(text("first"))
    async with server.websocket().open(max_messages_per_second=2) as websocket:
        await anyio.sleep(6)
        server.push(*(text(str(n)) for n in range(9)))
        assert [text async for text in websocket.iter_text()] == ["first", "0", "1"]
    assert closes(server) == [(1008, "too many messages")]


@pytest.mark.contract("block-message-rate", "block-buffer")
async def test_what_waited_because_of_the_app_does_not_count() -> None:
    """A client within its rate, an app that stops for a while: then all comes at once."""
    server = Server()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: feed(server, *(text(str(n)) for n in range(20)), every=0.25))
        async with server.websocket().open(max_messages_per_second=4, buffer_messages=2) as websocket:
            await anyio.sleep(6)
            assert [await websocket.receive_text() for _ in range(20)] == [str(n) for n in range(20)]
    assert websocket.close_code == 1000


@pytest.mark.contract("block-message-rate", "block-cancel-on-disconnect")
@pytest.mark.quiet
async def test_too_much_while_the_body_is_elsewhere() -> None:
    server = Server(*(text("a") for _ in range(3)))
    async with server.websocket().open(max_messages_per_second=2, cancel_on_disconnect=True):
        await anyio.sleep_forever()
    assert closes(server) == [(1008, "too many messages")]


@pytest.mark.reader
@pytest.mark.contract("block-message-size", "block-closes")
async def test_a_message_that_is_too_big_while_the_app_closes() -> None:
    server = Server()
    async with server.websocket().open(max_message_size=1, close_timeout=1) as websocket:
        server.held.add("websocket.close")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: websocket.close(4000))
            await server.holding.wait()
            server.push(text("too big"))
    assert closes(server) == [(4000, "")]
    assert websocket.close_code == 4000


# Limits of one call


RECEIVES: Iterable[tuple[str, tuple[Any, ...], Any, Any]] = [
    ("receive", (), text("1"), text("1")),
    ("receive_text", (), text("1"), "1"),
    ("receive_bytes", (), data(b"1"), b"1"),
    ("receive_json", (), text("1"), 1),
    ("receive_json", ("binary",), data(b"1"), 1),
]


@pytest.mark.contract("timeout-receive")
@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize(("method", "arguments", "message", "value"), RECEIVES)
async def test_a_receive_with_a_limit(
    method: str, arguments: tuple[Any, ...], message: Any, value: Any, block: bool
) -> None:
    server = Server()
    websocket = await server.accepted()
    receive = getattr(websocket, method)
    if block:
        await websocket.__aenter__()
    for seconds in (1.5, 0, 2):
        clock = Clock()
        with pytest.raises(TimeoutError, match=f"{method} took longer than {seconds:g} seconds"):
            await receive(*arguments, timeout=seconds)
        assert clock == seconds
    server.push(message, message)
    assert await receive(*arguments, timeout=1) == value
    if block:
        await websocket.__aexit__(None, None, None)
    else:
        assert await receive(*arguments, timeout=0) == value
        await websocket.close()


@pytest.mark.contract("timeout-receive")
async def test_a_limit_of_zero_asks_for_what_is_there() -> None:
    server = Server(text("1"), text("2"))
    async with server.websocket() as websocket:
        await anyio.sleep(1)
        assert await websocket.receive_text(timeout=0) == "1"
        assert await websocket.receive_text(timeout=0) == "2"
        with pytest.raises(TimeoutError):
            await websocket.receive_text(timeout=0)


@pytest.mark.contract("timeout-receive")
async def test_a_limit_on_what_raises() -> None:
    server = Server(disconnect(4001))
    async with server.websocket() as websocket:
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text(timeout=1)
        with pytest.raises(WebSocketClosed):
            await websocket.receive(timeout=1)


SENDS: Iterable[tuple[str, Any]] = [
    ("send", {"type": "websocket.send", "text": "a"}),
    ("send_text", "a"),
    ("send_bytes", b"a"),
    ("send_json", {"a": 1}),
    ("send_prepared", PreparedMessage("a")),
]


@pytest.mark.contract("timeout-send", "block-leaving-bounded")
@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize(("method", "argument"), SENDS)
async def test_a_send_with_a_limit(method: str, argument: Any, block: bool) -> None:
    server = Server()
    websocket = await server.accepted()
    send = getattr(websocket, method)
    if block:
        await websocket.__aenter__()
    await send(argument, timeout=1)
    server.held.add("websocket.send")
    clock = Clock()
    with pytest.raises(TimeoutError, match=f"{method} took longer than 2 seconds"):
        await send(argument, timeout=2)
    assert clock == 2
    assert websocket.close_code is None
    server.release()
    await send(argument, timeout=1)
    if block:
        await websocket.__aexit__(None, None, None)
    else:
        await websocket.close()
    # The strict server has taken the message, and then did not come back.
    assert server.types == ["websocket.send"] * 3 + ["websocket.close"]


@pytest.mark.reader
@pytest.mark.contract("timeout-send", "block-reraises")
async def test_a_send_that_takes_too_long_ends_the_block() -> None:
    server = Server()
    server.held.update({"websocket.send", "websocket.close"})
    clock = Clock()
    with pytest.raises(TimeoutError):
        async with server.websocket().open(close_timeout=0.5) as websocket:
            await websocket.send_text("a", timeout=2)
    assert clock == 2.5
    assert closes(server) == [(1011, "")]


@pytest.mark.contract("timeout-receive", "timeout-send", "exceptions-wrong-arguments")
@pytest.mark.parametrize(
    ("seconds", "error"), [("1", TypeError), (True, TypeError), (-1, ValueError), (float("nan"), ValueError)]
)
async def test_a_limit_that_is_none(seconds: Any, error: type[Exception]) -> None:
    websocket, server = opened()
    for method, _, _, _ in RECEIVES:
        with pytest.raises(error, match="timeout must be"):
            await getattr(websocket, method)(timeout=seconds)
    for method, argument in SENDS:
        with pytest.raises(error, match="timeout must be"):
            await getattr(websocket, method)(argument, timeout=seconds)
    assert server.sent == []
    assert server.receives == 1  # the accept's


@pytest.mark.contract("block-leaving-bounded", "block-cleanups")
async def test_how_long_leaving_may_take() -> None:
    """A close and a cleanup that hang hold whoever cancels for twice the limit, and nobody for ever."""
    server = Server()
    server.held.add("websocket.close")
    websocket = server.websocket()
    websocket.add_cleanup(anyio.sleep_forever)
    clock = Clock()
    with anyio.CancelScope() as scope:
        async with websocket.open(close_timeout=1.5):
            scope.cancel()
            await anyio.sleep_forever()
    assert clock == 3
    assert closes(server) == [(1011, "")]


@pytest.mark.contract("block-server-errors")
async def test_how_long_a_failed_send_waits_for_the_reader() -> None:
    server = Server(connecting=False)
    server.push(connect())
    clock = Clock()
    async with server.websocket() as websocket:
        server.fail(RuntimeError("no"))
        with pytest.raises(RuntimeError, match="no"):
            await websocket.send_text("a")
        assert clock == 0.2
