"""A block whose server's `receive` is lent to the app: who receives when, and that nothing is lost.

What it has in common with other blocks is tested beside them. The servers in memory count as known here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from websockets.asyncio.client import connect as client

from lilya.websockets import WebSocket, WebSocketDisconnect
from lilya.websockets._reader import Reader, _Turn
from lilya.websockets._servers import ready_of, waker_of

from .conftest import lend
from .examples import examples
from .server import ClientDisconnected, Server, data, disconnect, text
from .test_conversation import closes, until
from .test_conversation_properties import ACTIONS, ENDS, play
from .test_conversation_uvicorn import serving

pytestmark = [pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def lends(monkeypatch: pytest.MonkeyPatch) -> None:
    lend(monkeypatch)


class Noting(Server):
    """A server that notes which task receives."""

    repeats = True

    def __init__(self, *events: Any) -> None:
        super().__init__(*events)
        self.receivers: list[Any] = []

    async def receive(self) -> Any:
        self.receivers.append(asyncio.current_task())
        return await super().receive()


def reader_of(websocket: WebSocket) -> Reader:
    assert websocket._conversation is not None
    assert isinstance(websocket._conversation.source, Reader)
    return websocket._conversation.source


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# Which servers


class OfAnApp(WebSocketsSansIOProtocol):
    """A class that somebody derived from a known one."""


def made(cls: type[Any]) -> Any:
    """A connection of uvicorn of which only what matters here was made."""
    protocol: Any = object.__new__(cls)
    protocol.queue = asyncio.Queue()
    protocol.writable = asyncio.Event()
    protocol.writable.set()
    protocol.transport = Transport()
    return protocol


class Transport:
    closing = False

    def is_closing(self) -> bool:
        return self.closing


@pytest.mark.contract("block-lent")
@pytest.mark.parametrize(
    ("of", "known"),
    [
        (lambda: made(WebSocketsSansIOProtocol), True),
        (lambda: made(WSProtocol), True),
        (lambda: made(OfAnApp), False),
        (lambda: WSProtocol.__new__(WSProtocol), False),  # as if a version had other names
        (lambda: WSProtocol, False),
        (Server, False),
    ],
)
async def test_what_is_lent(of: Callable[[], Any], known: bool) -> None:
    connection = of()
    assert (waker_of(connection.receive) is not None) is known
    assert (ready_of(connection.send) is not None) is known
    for receive in (connection.send, lambda: connection.receive()):
        assert waker_of(receive) is None
    for send in (connection.receive, lambda message: connection.send(message)):
        assert ready_of(send) is None


@pytest.mark.contract("block-lent")
@pytest.mark.parametrize("cls", [WebSocketsSansIOProtocol, WSProtocol])
async def test_what_makes_a_receive_return(cls: type[Any]) -> None:
    """Not if a message has come in the same turn: nothing is left behind it."""
    protocol = made(cls)
    protocol.read_paused = False
    wake = waker_of(protocol.receive)
    assert wake is not None
    for came in (text("a"), None):
        waiting = asyncio.ensure_future(protocol.receive())
        await turns(1)
        if came is not None:
            protocol.queue.put_nowait(came)
        wake()
        message = await waiting
        assert message == came or (came is None and message["type"] == "websocket.disconnect")
        assert protocol.queue.empty()


@pytest.mark.contract("block-lent")
@pytest.mark.parametrize("cls", [WebSocketsSansIOProtocol, WSProtocol])
async def test_when_a_send_neither_waits_nor_fails(cls: type[Any]) -> None:
    protocol = made(cls)
    is_ready = ready_of(protocol.send)
    assert is_ready is not None
    assert is_ready()
    protocol.writable.clear()
    assert not is_ready()
    protocol.writable.set()
    protocol.transport.closing = True
    assert not is_ready()


@pytest.mark.contract("block-lent")
@pytest.mark.usefixtures("lends")
@pytest.mark.parametrize("options", [{"buffer_messages": 1}, {"max_message_size": 10}, {"heartbeat": 5}])
async def test_nothing_is_lent_if_an_option_is_about_what_was_not_received(options: dict[str, Any]) -> None:
    server = Noting(text("1"))
    async with server.websocket().open(**options) as websocket:
        assert await websocket.receive_text() == "1"
    assert asyncio.current_task() not in server.receivers[1:]


# Who receives


@pytest.mark.contract("block-lent")
@pytest.mark.usefixtures("lends")
async def test_an_app_that_comes_back_receives_by_itself() -> None:
    server = Noting()
    async with server.websocket() as websocket:
        server.receivers.clear()
        for number in range(50):
            asyncio.get_running_loop().call_soon(server.push, text(str(number)))
            assert await websocket.receive_text() == str(number)
            await websocket.send_text("echo")
        assert set(server.receivers) == {asyncio.current_task()}
        assert (websocket.messages_received, websocket.bytes_received) == (50, 90)


@pytest.mark.contract("block-lent", "block-send-learns", "block-wait-disconnected")
@pytest.mark.usefixtures("lends")
async def test_an_app_that_stops_receiving_learns_of_the_end() -> None:
    server = Noting()
    async with server.websocket() as websocket:
        asyncio.get_running_loop().call_soon(server.push, text("1"))
        await websocket.receive_text()
        assert server.receivers[-1] is asyncio.current_task()
        await turns(3)
        assert server.receivers[-1] is not asyncio.current_task()  # the reader watches
        server.push(disconnect(4001, "bye"))
        await websocket.wait_disconnected()
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
    assert (caught.value.code, caught.value.reason) == (4001, "bye")


@pytest.mark.contract("block-lent")
@pytest.mark.usefixtures("lends")
async def test_an_app_that_never_comes_back_in_time_is_waited_for_less_and_less() -> None:
    server = Noting()
    async with server.websocket() as websocket:
        for number in range(500):
            asyncio.get_running_loop().call_soon(server.push, text(str(number)))
            assert await websocket.receive_text() == str(number)
            await turns(4)
        by_itself = server.receivers.count(asyncio.current_task())
        assert by_itself <= 2
        assert reader_of(websocket).shyness == 63


@pytest.mark.contract("block-lent")
@pytest.mark.usefixtures("lends")
async def test_an_app_that_waits_at_the_inbox_is_lent_the_receive_after_that() -> None:
    """The receive of the reader that is under way is not cancelled for it."""
    server = Noting()
    async with server.websocket() as websocket:
        await turns(3)
        assert server.receiving
        reader = server.receivers[-1]
        asyncio.get_running_loop().call_soon(server.push, text("1"))
        assert await websocket.receive_text() == "1"
        assert server.receivers[-1] is reader
        asyncio.get_running_loop().call_soon(server.push, text("2"))
        assert await websocket.receive_text() == "2"
        assert server.receivers[-1] is asyncio.current_task()


@pytest.mark.contract("block-lent")
@pytest.mark.usefixtures("lends")
async def test_one_callback_a_turn_looks_at_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[int] = []
    look = _Turn._pass

    def noting(self: _Turn) -> None:
        passed.append(len(self.away))
        look(self)

    monkeypatch.setattr(_Turn, "_pass", noting)
    servers = [Noting() for _ in range(20)]

    async def echo(server: Server) -> None:
        async with server.websocket() as websocket:
            async for message in websocket.iter_text():
                await websocket.send_text(message)

    async with anyio.create_task_group() as tasks:
        for server in servers:
            tasks.start_soon(echo, server)
        await turns(5)
        passed.clear()
        for _ in range(3):
            for server in servers:
                server.push(text("1"))
            await turns(3)
        assert passed == [20] * 3
        tasks.cancel_scope.cancel()


@pytest.mark.contract("block-lent")
@pytest.mark.usefixtures("lends")
async def test_an_app_that_comes_back_again_is_trusted_again() -> None:
    server = Noting()
    async with server.websocket() as websocket:
        for number in range(30):
            asyncio.get_running_loop().call_soon(server.push, text(str(number)))
            await websocket.receive_text()
            await turns(4)
        assert reader_of(websocket).shyness > 0
        for number in range(100):
            asyncio.get_running_loop().call_soon(server.push, text(str(number)))
            assert await websocket.receive_text() == str(number)
        assert reader_of(websocket).shyness == 0
        assert server.receivers[-1] is asyncio.current_task()


@pytest.mark.contract("block-lent")
@pytest.mark.usefixtures("lends")
async def test_an_app_that_receives_many_in_a_turn_is_away_once() -> None:
    server = Noting(*(text(str(number)) for number in range(5)))
    async with server.websocket() as websocket:
        for _ in range(5):
            await websocket.receive_text()
        assert reader_of(websocket).shyness == 0
        await turns(3)
        assert reader_of(websocket).shyness == 1


@pytest.mark.contract("block-lent", "block-nothing-lost")
@pytest.mark.usefixtures("lends")
async def test_messages_that_are_there_at_once() -> None:
    server = Noting(*(text(str(number)) for number in range(5)))
    async with server.websocket() as websocket:
        assert [await websocket.receive_text() for _ in range(5)] == [str(number) for number in range(5)]
        assert set(server.receivers[1:]) == {asyncio.current_task()}


# Getting out of it


@pytest.mark.contract("block-lent", "block-ends-quietly")
@pytest.mark.usefixtures("lends")
@pytest.mark.quiet
@pytest.mark.parametrize("how", ["close", "shut down", "leave"])
async def test_an_end_made_elsewhere_gets_the_app_out(how: str) -> None:
    server = Noting()
    websocket = server.websocket()
    waiting = asyncio.Event()

    async def body() -> None:
        async with websocket:
            waiting.set()
            await websocket.receive_text()
            raise AssertionError("not reached")

    task = asyncio.ensure_future(body())
    await waiting.wait()
    assert server.receivers[-1] is task
    if how == "close":
        await websocket.close(4000)
    elif how == "shut down":
        assert websocket._conversation is not None
        assert await websocket._conversation.shut_down(1012, "", 1)
    else:
        server.push(disconnect(4000))
    await task
    assert not server.receiving
    assert closes(server) == {"close": [(4000, "")], "shut down": [(1012, "")], "leave": []}[how]
    assert websocket.close_code == (1012 if how == "shut down" else 4000)


@pytest.mark.contract("block-lent", "block-reraises")
@pytest.mark.usefixtures("lends")
@pytest.mark.parametrize("first", ["close", "cancel"])
async def test_a_cancellation_with_the_end_is_not_swallowed(first: str) -> None:
    """Both in one turn of the loop."""
    server = Noting()
    websocket = server.websocket()

    async def body() -> None:
        async with websocket:
            await websocket.receive_text()

    task = asyncio.ensure_future(body())
    await until(lambda: server.receivers[-1:] == [task] and server.receiving)
    await turns(2)
    closing = websocket.close(4000).__await__()
    for act in ("close", "cancel") if first == "close" else ("cancel", "close"):
        if act == "cancel":
            task.cancel()
        else:
            with pytest.raises(StopIteration):
                next(closing)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert closes(server) == [(4000, "")]


@pytest.mark.contract("block-lent", "block-nothing-lost")
@pytest.mark.usefixtures("lends")
async def test_an_end_with_a_message_in_one_turn() -> None:
    """The app closes while a message is on its way into the app's receive: it is told of its own end."""
    server = Noting()
    websocket = server.websocket()
    told: list[Any] = []

    async def receive() -> None:
        try:
            told.append(await websocket.receive_text())
        except WebSocketDisconnect as error:
            told.append(type(error))

    async with websocket:
        server.push(text("first"))
        assert await websocket.receive_text() == "first"
        task = asyncio.ensure_future(receive())
        await turns(1)
        assert server.receivers[-1] is task
        server.push(text("late"))
        await websocket.close(4000)
        await task
    assert told == [WebSocketDisconnect]
    assert websocket.messages_received == 1


@pytest.mark.contract("block-lent", "block-server-errors")
@pytest.mark.usefixtures("lends")
async def test_an_error_of_the_server_while_the_app_receives() -> None:
    server = Noting()
    async with server.websocket() as websocket:
        asyncio.get_running_loop().call_soon(server.push, KeyError("of the server"))
        with pytest.raises(KeyError, match="of the server"):
            await websocket.receive_text()
        server.push(text("1"))
        assert await websocket.receive_text() == "1"


@pytest.mark.contract("block-lent", "block-server-errors", "block-ends-quietly")
@pytest.mark.usefixtures("lends")
@pytest.mark.quiet
async def test_a_loss_while_the_app_receives() -> None:
    server = Noting()
    async with server.websocket() as websocket, anyio.create_task_group() as tasks:
        tasks.start_soon(websocket.wait_disconnected)
        asyncio.get_running_loop().call_soon(server.push, ClientDisconnected())
        await websocket.receive_text()
    assert (websocket.close_code, websocket.closed_by) == (1006, "network")


@pytest.mark.contract("block-lent", "block-send-learns")
@pytest.mark.usefixtures("lends")
async def test_a_failed_send_has_the_reader_look_for_the_end() -> None:
    """In the turn in which it has stood aside."""
    server = Noting()
    async with server.websocket() as websocket:
        asyncio.get_running_loop().call_soon(server.push, text("1"))
        await websocket.receive_text()
        server.push(disconnect(4001))
        server.fail(ClientDisconnected())  # which repeats the end
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
    assert caught.value.code == 4001


@pytest.mark.contract("block-lent", "block-after")
@pytest.mark.usefixtures("lends")
async def test_a_task_that_outlives_the_block_is_told() -> None:
    server = Noting()
    websocket = server.websocket()
    async with anyio.create_task_group() as tasks:
        async with websocket:

            async def receive() -> None:
                with pytest.raises(WebSocketDisconnect):
                    await websocket.receive_text()

            tasks.start_soon(receive)
            await turns(1)
            assert server.receiving
        assert not server.receiving or server.receivers[-1] is not asyncio.current_task()
    assert closes(server) == [(1000, "")]


@pytest.mark.contract("block-lent", "block-counts")
@pytest.mark.usefixtures("lends")
async def test_what_is_counted() -> None:
    server = Noting()
    async with server.websocket() as websocket:
        for message in (text("é"), data(b"123"), text("")):
            asyncio.get_running_loop().call_soon(server.push, message)
            assert await websocket.receive() == message
        assert (websocket.messages_received, websocket.bytes_received) == (3, 5)


# Random sessions


class Lending(Server):
    """A server that counts as known: it has what is used of one, under the same names."""

    repeats = True

    def __init__(self, *events: Any, **scope: Any) -> None:
        super().__init__(*events, **scope)
        self.queue = self.writable = self.transport = self

    def empty(self) -> bool:
        return not self.events

    def put_nowait(self, message: Any) -> None:
        self.let_go()

    def is_set(self) -> bool:
        return self.is_ready

    def is_closing(self) -> bool:
        return not self.is_ready


Lending.__module__ = "uvicorn.protocols.websockets.wsproto_impl"


@examples(300)
@given(st.lists(ACTIONS, max_size=25), ENDS, st.booleans())
@pytest.mark.contract("block-lent", "block-nothing-lost", "block-closes", "exceptions-no-bare-error")
@pytest.mark.quiet
def test_a_random_session(actions: list[tuple[str, Any]], end: str, cancels: bool) -> None:
    assert waker_of(Lending().receive) is not None
    assert ready_of(Lending().send) is not None
    play(actions, end, {"cancel_on_disconnect": cancels}, backends=("asyncio",), server=Lending)


# Cancelled receives, over uvicorn


Around = Callable[[Callable[[], Awaitable[Any]]], Callable[[], Awaitable[Any]]]


def awaits_after(receive: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """Middleware that has something to do after it has received: cancelled there, it loses the message."""

    async def received() -> Any:
        message = await receive()
        await asyncio.sleep(0)
        return message

    return received


MESSAGES, CONNECTIONS = 400, 5


@pytest.mark.contract("block-lent", "block-cancelled-receive", "block-nothing-lost")
@pytest.mark.parametrize("around", [None, awaits_after], ids=["server", "middleware"])
@pytest.mark.parametrize(
    "implementation", ["websockets-sansio", "wsproto", "lilya.websockets.uvicorn:WebSocketProtocol"]
)
async def test_cancelled_receives_lose_nothing(around: Around | None, implementation: str) -> None:
    """Thousands of receives are cancelled by a time limit, a scope or the task, at random moments."""
    cancelled = 0
    lent = 0
    chance = random.Random(14)
    seen: list[list[str]] = []

    async def receive(websocket: WebSocket) -> str | None:
        nonlocal cancelled
        how = chance.randrange(4)
        message = None
        if how == 0:
            return await websocket.receive_text()
        if how == 1:
            with anyio.move_on_after(chance.choice((0, 0.0001, 0.0005))):
                message = await websocket.receive_text()
        else:
            got: list[str] = []

            async def into() -> None:
                got.append(await websocket.receive_text())

            task = asyncio.ensure_future(into())
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if how == 3:
                await asyncio.sleep(chance.choice((0, 0.0002)))
            task.cancel()
            await asyncio.wait([task])
            message = got[0] if got else None
        cancelled += message is None
        return message

    async def app(scope: Any, server_receive: Any, send: Any) -> None:
        nonlocal lent
        mine: list[str] = []
        seen.append(mine)
        websocket = WebSocket(scope, around(server_receive) if around else server_receive, send)
        async with websocket:
            source = websocket._conversation and websocket._conversation.source
            lent += isinstance(source, Reader) and source._wake is not None
            while len(mine) < MESSAGES:
                message = await receive(websocket)
                if message is not None:
                    mine.append(message)

    async def speak(port: int) -> None:
        pause = random.Random(port)
        async with client(f"ws://127.0.0.1:{port}/", compression=None, proxy=None) as connection:
            for number in range(MESSAGES):
                await connection.send(str(number))
                if pause.randrange(3) == 0:
                    await asyncio.sleep(pause.choice((0, 0.0003)))
            await connection.wait_closed()

    async with serving(app, implementation) as port, anyio.create_task_group() as tasks:
        for _ in range(CONNECTIONS):
            tasks.start_soon(speak, port)
    assert seen == [[str(number) for number in range(MESSAGES)]] * CONNECTIONS
    assert cancelled > 100
    known = around is None and not implementation.startswith("lilya")
    assert lent == (CONNECTIONS if known else 0)
