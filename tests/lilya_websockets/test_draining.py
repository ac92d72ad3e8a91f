"""Shutting down: in memory on a virtual clock, and real uvicorn that is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import anyio
import pytest
from trio.testing import MockClock
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as client
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from lilya.websockets import WebSocket, WebSocketClosed, WebSocketDisconnect
from lilya.websockets.draining import close_all, drain
from lilya.websockets.types import ASGIApp

from .draining_app import BATCH, INTERVAL, WITHIN
from .server import DENIAL, ClientDisconnected, Server, disconnect, text
from .test_conversation import closes, until
from .test_conversation_time import Clock, VirtualLoop

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.param == "trio":
        return "trio", {"clock": MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": VirtualLoop}


class HandedOn(list[int]):
    """The signals that a server got."""

    arrival: anyio.Event | None = None

    async def wait(self) -> None:
        """Wait for the first."""
        if not self:
            self.arrival = anyio.Event()
            await self.arrival.wait()


@pytest.fixture
def handed_on() -> Iterator[HandedOn]:
    """A server's handlers of signals; they must be there again when the app has been stopped."""
    got = HandedOn()

    def handler(number: int, frame: Any) -> None:
        got.append(number)
        if got.arrival is not None:
            got.arrival.set()

    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    yield got
    left = {number: signal.getsignal(number) for number in before}
    for number, its in before.items():
        signal.signal(number, its)
    assert set(left.values()) == {handler}, "the handlers of the server were not put back"


class Client(Server):
    """A server that reports a disconnect after a close of the app's, as uvicorn does, and notes when it was.

    Args:
        reports: The code that it reports; `...` is the one that was sent, and `True` none at all.
    """

    def __init__(self, *events: Any, reports: Any = ..., **scope: Any) -> None:
        super().__init__(*events, **scope)
        self.reports = reports
        self.closed_at = 0.0

    async def send(self, message: Any) -> None:
        if message["type"] in ("websocket.close", f"{DENIAL}.start"):
            self.closed_at = anyio.current_time()
        await super().send(message)
        if message["type"] == "websocket.close":
            self.push(disconnect(message["code"] if self.reports is ... else self.reports))


class Transport:
    """What a server's protocol has, as far as it is used."""

    def __init__(self, unsent: int) -> None:
        self.unsent = unsent
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = True
        self.unsent = 0


class Life:
    """A server's side of a lifespan.

    Args:
        app: The app to serve.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.sent: list[str] = []
        self._stopped = False
        self._asked, self._events = anyio.create_memory_object_stream[Any](4)

    async def send(self, message: Any) -> None:
        self.sent.append(message["type"])

    async def run(self) -> None:
        with self._asked, self._events:
            await self.app({"type": "lifespan", "state": {}}, self._events.receive, self.send)

    async def start(self) -> None:
        await self._asked.send({"type": "lifespan.startup"})
        await until(lambda: self.sent)

    async def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            await self._asked.send({"type": "lifespan.shutdown"})


class Serving:
    """An app that is served in memory: its life, and its connections."""

    def __init__(self, app: ASGIApp, tasks: anyio.abc.TaskGroup) -> None:
        self.app = app
        self.tasks = tasks
        self.life = Life(app)
        self.ended: list[Server] = []
        """The servers of connections whose app has returned, in that order."""

    async def connect(self, *servers: Server) -> None:
        """Open connections one after the other, each when the app of the one before waits."""
        for server in servers:
            self.tasks.start_soon(self._run, server)
            await until(lambda: server.waiting.is_set() or server.holding.is_set())  # noqa: B023

    async def _run(self, server: Server) -> None:
        await self.app(server.scope, server.receive, server.send)
        self.ended.append(server)


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[Serving]:
    """Start an app, and stop it in the end."""
    async with anyio.create_task_group() as tasks:
        serving = Serving(app, tasks)
        tasks.start_soon(serving.life.run)
        await serving.life.start()
        yield serving
        await serving.life.stop()
    assert serving.life.sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def by_hand(scope: Any, receive: Any, send: Any) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    async for message in websocket.iter_text():
        await websocket.send_text(message)


async def in_block(scope: Any, receive: Any, send: Any) -> None:
    async with WebSocket(scope, receive, send) as websocket:
        async for message in websocket.iter_text():
            await websocket.send_text(message)


class Kept:
    """An app that keeps its WebSockets, and notes how each ended."""

    def __init__(self, *, block: bool, body: Callable[[WebSocket], Any]) -> None:
        self.block = block
        self.body = body
        self.websockets: list[WebSocket] = []
        self.outcomes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        self.websockets.append(websocket)
        outcome: Any = "quiet"
        try:
            if self.block:
                async with websocket:
                    await self.body(websocket)
            else:
                await websocket.accept()
                await self.body(websocket)
        except BaseException as error:
            outcome = error
            raise
        finally:
            self.outcomes.append(outcome)


async def receives(websocket: WebSocket) -> None:
    await websocket.receive_text()


async def iterates(websocket: WebSocket) -> None:
    async for message in websocket.iter_text():
        await websocket.send_text(message)


async def sends(websocket: WebSocket) -> None:
    while True:
        await websocket.send_text("news")
        await anyio.sleep(1)


async def sleeps(websocket: WebSocket) -> None:
    await anyio.sleep_forever()


def told() -> Clock:
    """Tell the server to stop; the time since then."""
    signal.raise_signal(signal.SIGTERM)
    return Clock()


def times(servers: list[Client], since: Clock) -> list[float]:
    """When their connections were closed."""
    return [round(server.closed_at - since.start, 6) for server in servers]


class Telling(Server):
    """A server with the extension `lilya.websocket.end`, over which a block has no reader."""

    announces = True


@pytest.mark.contract("drain-handlers", "block-direct")
@pytest.mark.parametrize("left", [False, True])
async def test_who_is_told_the_end_is_told_that_of_a_stop(left: bool, handed_on: HandedOn) -> None:
    """Whatever code the client is sent, but the client's own if that was faster."""
    app = Kept(block=True, body=WebSocket.wait_disconnected)
    server = Telling()
    async with served(drain(app, within=10, jitter=0, code=4000)) as serving:
        serving.tasks.start_soon(serving._run, server)
        await until(lambda: server.sent)
        await anyio.wait_all_tasks_blocked()
        assert server.receives == 1  # of `websocket.connect`
        if left:
            server.push(disconnect(4001))
        told()
        await handed_on.wait()
    assert closes(server) == ([] if left else [(4000, "")])
    assert [websocket.close_code for websocket in app.websockets] == [4001 if left else 1012]
    assert app.outcomes == ["quiet"]


@pytest.mark.contract("drain-handlers", "block-direct")
async def test_a_receive_of_other_middleware_is_not_taken_for_the_servers(handed_on: HandedOn) -> None:
    server = Telling(text("1"))

    async def receive() -> Any:
        return await server.receive()

    app = Kept(block=True, body=WebSocket.wait_disconnected)
    async with served(drain(app, within=10, jitter=0)) as serving:
        serving.tasks.start_soon(cast(Any, serving.app), server.scope, receive, server.send)
        await until(lambda: server.receives == 3)  # by a reader
        told()
        await handed_on.wait()
    assert [websocket.close_code for websocket in app.websockets] == [1012]


# In batches


@pytest.mark.contract("drain-batches")
@pytest.mark.parametrize("app", [by_hand, in_block])
async def test_batches_in_the_order_of_opening(app: ASGIApp, handed_on: HandedOn) -> None:
    async with served(drain(app, within=10, batch=2, interval=0.5, jitter=0)) as serving:
        servers = [Client() for _ in range(5)]
        await serving.connect(*servers)
        stopped = told()
        await handed_on.wait()
        assert times(servers, stopped) == [0, 0, 0.5, 0.5, 1]
        assert all(closes(server) == [(1012, "")] for server in servers)
        assert len(serving.ended) == 5
        assert handed_on == [signal.SIGTERM]


@pytest.mark.contract("drain-batches")
async def test_jitter_comes_on_top_of_the_interval(
    handed_on: HandedOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = iter([0.5, 0.0, 1.0])
    monkeypatch.setattr(random, "random", lambda: next(shares))
    async with served(drain(by_hand, batch=1, interval=2, jitter=0.4)) as serving:
        servers = [Client() for _ in range(3)]
        await serving.connect(*servers)
        stopped = told()
        await handed_on.wait()
        assert times(servers, stopped) == [0.4, 2, 4.8]


@pytest.mark.contract("drain-batches", "drain-within")
async def test_too_many_for_the_interval_make_it_shorter(handed_on: HandedOn) -> None:
    async with served(drain(by_hand, within=10, batch=1, interval=5, jitter=0)) as serving:
        servers = [Client() for _ in range(4)]
        await serving.connect(*servers)
        stopped = told()
        await handed_on.wait()
        assert times(servers, stopped) == [0, 2, 4, 6]


@pytest.mark.contract("drain-batches")
async def test_a_code_and_a_reason_of_choice(handed_on: HandedOn) -> None:
    app = Kept(block=False, body=iterates)
    async with served(drain(app, code=4000, reason="Back soon.")) as serving:
        server = Client()
        await serving.connect(server)
        told()
        await handed_on.wait()
    assert closes(server) == [(4000, "Back soon.")]
    assert (app.websockets[0].close_code, app.websockets[0].closed_by) == (1012, "server")


# What a handler sees


@pytest.mark.contract("drain-handlers", "closed-by")
@pytest.mark.parametrize("reports", [..., None, 1005, 1006])
@pytest.mark.parametrize("body", [receives, iterates, sends])
@pytest.mark.parametrize("block", [False, True])
async def test_the_end_is_that_of_a_server_that_shuts_down(
    block: bool, body: Any, reports: Any, handed_on: HandedOn, request: pytest.FixtureRequest
) -> None:
    if block and body is not iterates:
        request.applymarker(pytest.mark.quiet)
    app = Kept(block=block, body=body)
    async with served(drain(app)) as serving:
        server = Client(reports=reports)
        server.waiting.set()
        await serving.connect(server)
        await until(lambda: server.types)
        stopped = told()
        await handed_on.wait()
        assert stopped.seconds < 3
    assert closes(server) == [(1012, "")]
    (outcome,), (websocket,) = app.outcomes, app.websockets
    if block or body is iterates:
        assert outcome == "quiet"
        assert (websocket.close_code, websocket.closed_by) == (1012, "server")
    else:  # and the wrapper takes it: it is no fault
        assert type(outcome) is WebSocketDisconnect
        assert outcome.code == (1012 if body is receives else 1006)
    assert serving.ended == [server]


@pytest.mark.contract("drain-handlers")
async def test_a_client_that_was_faster_is_told_of_as_it_was(handed_on: HandedOn) -> None:
    app = Kept(block=False, body=iterates)
    async with served(drain(app)) as serving:
        server = Client(reports=4001)
        await serving.connect(server)
        told()
        await handed_on.wait()
    assert (app.websockets[0].close_code, app.websockets[0].closed_by) == (4001, "client")


@pytest.mark.contract("drain-handlers")
async def test_what_came_before_is_received(handed_on: HandedOn) -> None:
    got = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        await anyio.sleep(2)
        async for message in websocket.iter_text():
            got.append(message)  # noqa: PERF401

    async with served(drain(slow)) as serving:
        server = Client(
            {"type": "websocket.receive", "text": "a"}, {"type": "websocket.receive", "text": "b"}
        )
        server.waiting.set()
        await serving.connect(server)
        await until(lambda: server.types)
        told()
        await handed_on.wait()
    assert got == ["a", "b"]


@pytest.mark.contract("drain-handlers")
@pytest.mark.parametrize("raw", [True, False])
async def test_a_close_of_the_app_after_it_goes_nowhere(raw: bool, handed_on: HandedOn) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        while (message := await receive())["type"] != "websocket.disconnect":
            pass
        assert message == {"type": "websocket.disconnect", "code": 1012, "reason": ""}
        if raw:
            await send({"type": "websocket.close", "code": 1000})
            with pytest.raises(ConnectionError, match="shutting down"):
                await send({"type": "websocket.send", "text": "too late"})
        else:
            await websocket.close()

    async with served(drain(app)) as serving:
        server = Client()
        await serving.connect(server)
        told()
        await handed_on.wait()
    assert closes(server) == [(1012, "")]


@pytest.mark.contract("drain-handlers")
async def test_a_send_that_fails_because_of_it(handed_on: HandedOn) -> None:
    outcome: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await WebSocket(scope, receive, send).accept()
        try:
            await send({"type": "websocket.send", "text": "news"})
        except BaseException as error:
            outcome.append(error)
            raise

    class Refusing(Server):
        async def send(self, message: Any) -> None:
            if message["type"] == "websocket.send":
                self.holding.set()
                await until(lambda: self.state == "closed")
                raise RuntimeError("Unexpected ASGI message, after sending 'websocket.close'")
            await super().send(message)

    async with served(drain(app)) as serving:
        server = Refusing()
        await serving.connect(server)
        told()
        await handed_on.wait()
        assert serving.ended == [server]
    assert isinstance(outcome[0], ConnectionError)
    assert isinstance(outcome[0].__cause__, RuntimeError)


@pytest.mark.contract("drain-handlers")
async def test_other_exceptions_go_on(handed_on: HandedOn) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await by_hand(scope, receive, send)
        raise ValueError("a bug")

    async def passes_on(error: Exception) -> None:
        server = Server()
        server.fail(error, after=1)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept", "headers": [], "subprotocol": None})
            await send({"type": "websocket.send", "text": "a"})

        with pytest.raises(type(error)) as caught:
            await drain(app)(server.scope, server.receive, server.send)
        assert caught.value is error

    await passes_on(ClientDisconnected())
    await passes_on(RuntimeError("out of turn"))
    server = Server(disconnect(4001))
    with pytest.raises(WebSocketDisconnect):
        await drain(Kept(block=False, body=receives))(server.scope, server.receive, server.send)

    server, app = Client(), drain(fails)
    async with anyio.create_task_group() as tasks:
        life = Life(app)
        tasks.start_soon(life.run)
        await life.start()

        async def stop() -> None:
            await server.waiting.wait()
            told()

        tasks.start_soon(stop)
        with pytest.raises(ValueError, match="a bug"):
            await app(server.scope, server.receive, server.send)
        assert closes(server) == [(1012, "")]
        await life.stop()


@pytest.mark.contract("drain-handlers")
async def test_http_and_what_else_there_is_pass_unchanged() -> None:
    seen = []

    async def app(*arguments: Any) -> None:
        seen.append(arguments)

    arguments = ({"type": "http"}, object(), object())
    await drain(app)(*arguments)  # type: ignore[arg-type]
    assert seen == [arguments]


# Within the time


@pytest.mark.contract("drain-within")
@pytest.mark.parametrize("block", [False, True])
async def test_a_handler_that_does_not_end_is_cancelled(block: bool, handed_on: HandedOn) -> None:
    app = Kept(block=block, body=sleeps)
    async with served(drain(app, within=8)) as serving:
        server = Client()
        server.waiting.set()
        await serving.connect(server)
        await until(lambda: server.types)
        stopped = told()
        await handed_on.wait()
        assert stopped == 7
        assert times([server], stopped)[0] < 0.1
    assert closes(server) == [(1012, "")]
    assert not isinstance(app.outcomes[0], Exception)  # a cancellation
    assert serving.ended == [server]


@pytest.mark.contract("drain-within")
@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize("transport", [None, Transport(70_000)])
async def test_a_client_that_does_not_read(
    transport: Transport | None, block: bool, handed_on: HandedOn
) -> None:
    app = Kept(block=block, body=sends)
    async with served(drain(app, within=8, jitter=0)) as serving:
        server = Client()
        server.held = {"websocket.send", "websocket.close"}
        if transport is not None:
            transport.__init__(70_000)  # type: ignore[misc]
            server.transport = transport  # type: ignore[attr-defined]
        await serving.connect(server)
        await server.holding.wait()
        stopped = told()
        await handed_on.wait()
        assert stopped == 1
    assert serving.ended == [server]
    assert transport is None or transport.aborted
    assert not isinstance(app.outcomes[0], Exception)


@pytest.mark.contract("drain-within")
@pytest.mark.parametrize("seconds", [0.3, None])
async def test_what_the_client_has_not_taken_yet(seconds: float | None, handed_on: HandedOn) -> None:
    """The close went to the server, and lies behind other data there."""
    async with served(drain(Kept(block=True, body=sleeps), within=8, jitter=0)) as serving:
        server = Client()
        server.transport = transport = Transport(10)  # type: ignore[attr-defined]
        await serving.connect(server)
        stopped = told()
        if seconds is not None:
            await anyio.sleep(seconds)
            transport.unsent = 0
        await handed_on.wait()
        assert stopped == (1 if seconds is None else 7)
    assert transport.aborted is (seconds is None)
    assert closes(server) == [(1012, "")]


@pytest.mark.contract("drain-within")
@pytest.mark.parametrize("seconds", [0.3, None])
@pytest.mark.quiet
async def test_a_client_who_has_not_taken_all_when_its_app_ended(
    seconds: float | None, handed_on: HandedOn
) -> None:
    async with served(drain(Kept(block=True, body=receives), within=8, jitter=0)) as serving:
        server = Client(text("a"))
        server.transport = transport = Transport(10)  # type: ignore[attr-defined]
        await serving.app(server.scope, server.receive, server.send)
        other = Client()
        await serving.connect(other)
        stopped = told()
        if seconds is not None:
            await anyio.sleep(seconds)
            transport.unsent = 0
        await handed_on.wait()
        assert (stopped == 1) is (seconds is None)
    assert transport.aborted is (seconds is None)
    assert closes(server) == [(1000, "")]
    assert closes(other) == [(1012, "")]


@pytest.mark.contract("drain-within")
async def test_what_was_taken_is_forgotten(handed_on: HandedOn) -> None:
    """Without another connection: after the peak of a day, nothing stays in memory until the next one."""

    async def once(scope: Any, receive: Any, send: Any) -> None:
        async with WebSocket(scope, receive, send) as websocket:
            await websocket.receive_text()

    async with served(drain(once)) as serving:
        server = Client(text("a"))
        server.transport = transport = Transport(10)  # type: ignore[attr-defined]
        await serving.app(server.scope, server.receive, server.send)
        forgotten = weakref.ref(transport)
        await anyio.sleep(1.1)
        assert not transport.aborted
        transport.unsent = 0
        del server, transport
        Server.made.clear()
        gc.collect()
        assert forgotten() is not None  # the drain may have to drop it
        await anyio.sleep(1.1)
        gc.collect()
        assert forgotten() is None


class Open(Server):
    """A server that waits for the client to answer a close, and gives access to its connection.

    Args:
        answers: Seconds after which the client answers; `None` if it never does.
    """

    announces = True

    def __init__(self, *events: Any, answers: float | None = None, **scope: Any) -> None:
        super().__init__(*events, **scope)
        self.answers = answers
        self.closed_at: float | None = None
        self.aborted_at: float | None = None

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] in ("websocket.close", f"{DENIAL}.body"):
            self.closed_at = anyio.current_time()
            self.push(disconnect(message.get("code", 1006)))

    def is_open(self) -> bool:
        if self.aborted_at is not None:
            return False
        if self.closed_at is None or self.answers is None:
            return True
        return anyio.current_time() < self.closed_at + self.answers

    def abort(self) -> None:
        assert self.is_open()
        self.aborted_at = anyio.current_time()


@pytest.mark.contract("drain-within")
@pytest.mark.parametrize("answers", [0.3, None])
@pytest.mark.parametrize("saves", [0, 3])
async def test_a_client_that_does_not_answer_the_close(
    saves: float, answers: float | None, handed_on: HandedOn
) -> None:
    """It is dropped after a second. Its handler was told the end, and has its time."""
    saved = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await by_hand(scope, receive, send)
        await anyio.sleep(saves)
        saved.append(scope)

    async with served(drain(app, within=8, jitter=0)) as serving:
        server = Open(answers=answers)
        await serving.connect(server)
        stopped = told()
        await handed_on.wait()
        if saves or answers is None:
            assert stopped == max(saves, 1)
        else:
            assert answers <= stopped.seconds < 1
    assert len(saved) == 1
    if answers is None:
        assert server.aborted_at == pytest.approx(stopped.start + 1)
    else:
        assert server.aborted_at is None
    assert closes(server) == [(1012, "")]


@pytest.mark.contract("drain-within")
async def test_a_client_that_does_not_answer_the_close_of_its_app(handed_on: HandedOn) -> None:
    """The app has ended before the stop; the server waits still."""
    async with served(drain(Kept(block=True, body=receives), within=8, jitter=0)) as serving:
        server = Open(text("a"))
        await serving.app(server.scope, server.receive, server.send)
        stopped = told()
        await handed_on.wait()
        assert stopped == 1
    assert closes(server) == [(1000, "")]
    assert server.aborted_at is not None


@pytest.mark.contract("drain-within")
@pytest.mark.parametrize("answers", [0.2, None])
async def test_a_denial_under_way_is_not_cut_off(answers: float | None, handed_on: HandedOn) -> None:
    async def denies(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.send({"type": "http.response.start", "status": 401})
        await anyio.sleep(2)
        await websocket.send({"type": "http.response.body", "body": b"no"})

    async with served(drain(denies, within=8)) as serving:
        server = Open(answers=answers)
        server.waiting.set()
        await serving.connect(server)
        await until(lambda: server.types)
        stopped = told()
        await handed_on.wait()
        assert server.types == [f"{DENIAL}.start", f"{DENIAL}.body"]
        if answers is None:
            assert stopped == 7
        else:
            assert 2.2 <= stopped.seconds < 3
    assert (server.aborted_at is None) is (answers is not None)


@pytest.mark.contract("drain-within")
async def test_a_dropped_connection_is_not_waited_for(handed_on: HandedOn) -> None:
    """Whatever its transport says of its buffer then, as asyncio's for TLS does."""

    class Tls(Transport):
        def abort(self) -> None:
            assert not self.aborted
            self.aborted = True

    async with served(drain(Kept(block=True, body=sleeps), within=8, jitter=0)) as serving:
        server = Client()
        server.transport = transport = Tls(10)  # type: ignore[attr-defined]
        await serving.connect(server)
        stopped = told()
        await handed_on.wait()
        assert stopped == 1
    assert transport.aborted


class Looked(Transport):
    """Counts how often it is looked at."""

    looks = 0

    def get_write_buffer_size(self) -> int:
        Looked.looks += 1
        return super().get_write_buffer_size()


async def looks(count: int, handed_on: HandedOn) -> int:
    """How often a drain looks at the clients of so many apps that have ended, and who take nothing."""
    Looked.looks = 0
    transports = []
    handed_on.clear()
    async with served(drain(Kept(block=True, body=receives), within=8)) as serving:
        for _ in range(count):
            server = Client(text("a"))
            server.transport = Looked(10)  # type: ignore[attr-defined]
            transports.append(server.transport)  # type: ignore[attr-defined]
            await serving.app(server.scope, server.receive, server.send)
        told()
        await handed_on.wait()
    assert all(transport.aborted for transport in transports)
    return Looked.looks


@pytest.mark.contract("drain-within")
async def test_clients_that_take_nothing_are_looked_at_in_linear_time(handed_on: HandedOn) -> None:
    assert await looks(200, handed_on) <= 2.2 * await looks(100, handed_on)
    assert await looks(100, handed_on) < 100 * 20


@pytest.mark.contract("drain-signal")
async def test_without_a_lifespan_it_says_once_what_it_cannot_do(caplog: pytest.LogCaptureFixture) -> None:
    app = drain(by_hand)
    for _ in range(2):
        server = Client(disconnect(1000))
        await app(server.scope, server.receive, server.send)
    (record,) = caplog.records
    assert (record.levelname, record.name) == ("WARNING", "lilya.websockets")
    assert "`--lifespan off`" in record.getMessage()


@pytest.mark.contract("drain-signal")
async def test_with_a_lifespan_it_says_nothing(handed_on: HandedOn, caplog: pytest.LogCaptureFixture) -> None:
    async with served(drain(by_hand)) as serving:
        await serving.connect(Client())
        told()
        await handed_on.wait()
    assert caplog.records == []


@pytest.mark.contract("drain-within")
async def test_a_handler_that_cannot_be_cancelled(
    handed_on: HandedOn, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        await WebSocket(scope, receive, send).accept()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(8)

    async with served(drain(stubborn, within=4)) as serving:
        server = Client()
        server.waiting.set()
        await serving.connect(server)
        await until(lambda: server.types)
        stopped = told()
        await handed_on.wait()
        assert stopped == 4
        assert "1 handlers did not end" in caplog.text


@pytest.mark.contract("drain-within")
async def test_a_server_that_refuses_to_close(handed_on: HandedOn, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "lilya.websockets")
    async with served(drain(by_hand, within=8)) as serving:
        server, other = Client(), Client()
        await serving.connect(server, other)
        server.fail(RuntimeError("no"))
        stopped = told()
        await handed_on.wait()
        assert stopped == 7
    assert closes(other) == [(1012, "")]
    assert "the server refused to close" in caplog.text


# Who is not open yet, or no longer


@pytest.mark.contract("drain-denies")
@pytest.mark.parametrize("extensions", [{DENIAL: {}}, {}])
async def test_new_connections_are_denied(extensions: Any, handed_on: HandedOn) -> None:
    async with served(drain(by_hand, within=8, jitter=0)) as serving:
        first = Client()
        first.held = {"websocket.close"}
        await serving.connect(first)
        told()
        await first.holding.wait()
        late = Client(extensions=extensions)
        await serving.app(late.scope, late.receive, late.send)
        await handed_on.wait()
    denied(late, extensions)


@pytest.mark.contract("drain-denies")
@pytest.mark.parametrize("extensions", [{DENIAL: {}}, {}])
@pytest.mark.parametrize("knows", [True, False])
async def test_who_is_not_accepted_yet_is_denied(extensions: Any, knows: bool, handed_on: HandedOn) -> None:
    async def hesitates(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        if knows:
            await websocket.receive()
            await websocket.receive()
        await anyio.sleep(2)
        await websocket.accept()

    async with served(drain(hesitates, within=8, jitter=0)) as serving:
        server = Client(extensions=extensions)
        server.waiting.set()
        await serving.connect(server)
        stopped = told()
        await until(lambda: server.types)
        server.push(disconnect(1006))
        await handed_on.wait()
        assert 2 <= stopped.seconds < 2.1
        assert serving.ended == [server]
    denied(server, extensions)


def denied(server: Server, extensions: Any) -> None:
    if extensions:
        start, body = server.sent
        assert (start["status"], body["body"]) == (503, b"")
        assert dict(start["headers"])[b"retry-after"] == b"9"
    else:
        assert server.types == ["websocket.close"]


@pytest.mark.contract("drain-handlers")
async def test_what_the_app_ends_itself_is_left_alone(handed_on: HandedOn) -> None:
    async def denies(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.send({"type": "http.response.start", "status": 401})
        await anyio.sleep(1)
        await websocket.send({"type": "http.response.body", "body": b"no"})

    async def saves(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        await websocket.close(4000)
        await anyio.sleep(3)

    for app, types in (
        (denies, [f"{DENIAL}.start", f"{DENIAL}.body"]),
        (saves, ["websocket.accept", "websocket.close"]),
    ):
        async with served(drain(app)) as serving:
            server = Client()
            server.waiting.set()
            await serving.connect(server)
            await until(lambda: len(server.types) == len(types) - (app is denies))  # noqa: B023
            told()
            await handed_on.wait()
        assert server.types == types
        assert serving.ended == [server]
        handed_on.clear()


# How the stop is learned


@pytest.mark.contract("drain-signal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_without_connections_the_signal_goes_on_at_once(number: int, handed_on: HandedOn) -> None:
    clock = Clock()
    async with served(drain(by_hand)):
        signal.raise_signal(number)
        await handed_on.wait()
        assert clock.seconds < 0.1
    assert handed_on == [number]


@pytest.mark.contract("drain-signal")
@pytest.mark.parametrize("closes_it", [True, False])
async def test_a_second_signal_goes_on_at_once(closes_it: bool, handed_on: HandedOn) -> None:
    async with served(drain(Kept(block=False, body=iterates), batch=1, interval=4, jitter=0)) as serving:
        servers = [Client() for _ in range(3)]
        await serving.connect(*servers)
        stopped = told()
        await until(lambda: serving.ended)
        assert handed_on == []
        signal.raise_signal(signal.SIGINT)
        assert handed_on == [signal.SIGINT]
        if closes_it:  # as uvicorn does now
            for server in servers[1:]:
                server.push(disconnect(1012))
        await until(lambda: len(serving.ended) == 3)
        assert stopped.seconds < 1.5
        signal.raise_signal(signal.SIGTERM)
    assert handed_on == [signal.SIGINT, signal.SIGTERM]
    assert [closes(server) for server in servers] == [[(1012, "")], [], []]


@pytest.mark.contract("drain-signal", "drain-within")
@pytest.mark.parametrize("takes", [True, False])
async def test_after_a_second_signal_clients_who_do_not_read_are_dropped(
    takes: bool, handed_on: HandedOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has closed them itself, and their apps have ended; but it would wait for the clients."""
    monkeypatch.setattr(random, "random", lambda: 0.5)  # its batch would come after two seconds
    async with served(drain(by_hand, batch=1, interval=4, jitter=1)) as serving:
        server = Client()
        server.transport = transport = Transport(70_000)  # type: ignore[attr-defined]
        await serving.connect(server)
        told()
        await anyio.sleep(1)
        signal.raise_signal(signal.SIGINT)
        server.push(disconnect(1012))
        await until(lambda: serving.ended)
        await anyio.sleep(0.5)
        if takes:
            transport.unsent = 0
        assert not transport.aborted
        await serving.life.stop()
    assert transport.aborted is not takes


@pytest.mark.contract("drain-signal")
async def test_the_apps_own_shutdown_comes_after_the_last_handler(handed_on: HandedOn) -> None:
    events = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            events.append("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await by_hand(scope, receive, send)
            await anyio.sleep(1)
            events.append("handler")

    async with served(drain(app)) as serving:
        server = Client()
        await serving.connect(server)
        told()
        await until(lambda: server.types[-1] == "websocket.close")
        await serving.life.stop()  # a server that does not wait for us
        await handed_on.wait()
    assert events == ["handler", "shutdown"]


@pytest.mark.contract("drain-signal")
async def test_without_a_signal_it_is_learned_from_lifespan_shutdown() -> None:
    assert not callable(signal.getsignal(signal.SIGTERM))
    clock = Clock()
    async with served(drain(by_hand)) as serving:
        assert not callable(signal.getsignal(signal.SIGTERM))
        server = Client()
        await serving.connect(server)
    assert closes(server) == [(1012, "")]
    assert clock.seconds < 0.1


@pytest.mark.contract("drain-signal")
async def test_it_can_be_started_again(handed_on: HandedOn) -> None:
    app = drain(by_hand)
    for _ in range(2):
        async with served(app) as serving:
            server = Client()
            await serving.connect(server)
        assert closes(server) == [(1012, "")]


@pytest.mark.contract("drain-signal")
def test_beside_the_main_thread_signals_are_left_alone(handed_on: HandedOn) -> None:
    before = signal.getsignal(signal.SIGTERM)
    during = []

    async def main() -> None:
        async with served(drain(by_hand)) as serving:
            during.append(signal.getsignal(signal.SIGTERM))
            server = Client()
            await serving.connect(server)
        assert closes(server) == [(1012, "")]

    thread = threading.Thread(target=anyio.run, args=(main,))
    thread.start()
    thread.join(20)
    assert during == [before]


@pytest.mark.contract("drain-signal")
async def test_whoever_has_come_later_keeps_the_place(handed_on: HandedOn) -> None:
    before = signal.getsignal(signal.SIGTERM)
    later: list[int] = []

    def handler(number: int, frame: Any) -> None:
        later.append(number)

    async with served(drain(by_hand)):
        signal.signal(signal.SIGTERM, handler)
    assert signal.getsignal(signal.SIGTERM) is handler
    signal.signal(signal.SIGTERM, before)


@pytest.mark.contract("drain-signal")
async def test_a_platform_without_a_signal(handed_on: HandedOn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "SIGBREAK", 999, raising=False)
    getsignal = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == 999 else getsignal(number))
    async with served(drain(by_hand)):
        told()
        await handed_on.wait()


@pytest.mark.contract("drain-signal")
async def test_a_failing_lifespan_fails_as_it_is(handed_on: HandedOn) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise ValueError("no database")

    life = Life(drain(app))
    await life._asked.send({"type": "lifespan.startup"})
    with pytest.raises(ValueError, match="no database"):
        await life.run()


@pytest.mark.contract("drain-signal")
async def test_a_cancelled_lifespan_leaves_the_signals(handed_on: HandedOn) -> None:
    async with anyio.create_task_group() as tasks:
        life = Life(drain(by_hand))
        tasks.start_soon(life.run)
        await life.start()
        tasks.cancel_scope.cancel()


# Arguments


@pytest.mark.contract("drain-arguments", "exceptions-wrong-arguments")
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"within": "10"}, TypeError, "within must be a number, got str"),
        ({"within": 0}, ValueError, "within must be above 0, got 0"),
        ({"batch": 1.5}, TypeError, "batch must be int, got float"),
        ({"batch": 0}, ValueError, "batch must be at least 1, got 0"),
        ({"interval": None}, TypeError, "interval must be a number, got NoneType"),
        ({"interval": -1}, ValueError, "interval must be at least 0, got -1"),
        ({"jitter": True}, TypeError, "jitter must be a number, got bool"),
        ({"jitter": 1.5}, ValueError, "jitter must be from 0 to 1, got 1.5"),
        ({"jitter": float("nan")}, ValueError, "jitter must be at least 0, got nan"),
        ({"code": 1006}, ValueError, "1006"),
        ({"reason": "x" * 124}, ValueError, "123"),
    ],
)
async def test_wrong_arguments(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        drain(by_hand, **options)
    server = Server()
    websocket = await server.accepted()
    with pytest.raises(error, match=words):
        await close_all([websocket], **options)
    assert server.sent == []


@pytest.mark.contract("drain-arguments")
def test_what_is_no_app() -> None:
    with pytest.raises(TypeError, match="app must be an ASGI app, got str"):
        drain("app")  # type: ignore[arg-type]


# Some WebSockets only


@pytest.mark.contract("close-all")
async def test_close_all_in_batches() -> None:
    servers = [Client() for _ in range(5)]
    websockets = [await server.accepted() for server in servers]
    started = Clock()
    missed = await close_all(iter(websockets), 4000, "bye", within=10, batch=2, interval=0.5, jitter=0)
    assert missed == []
    assert times(servers, started) == [0, 0, 0.5, 0.5, 1]
    assert all(closes(server) == [(4000, "bye")] for server in servers)
    assert all(websocket.closed_by == "server" for websocket in websockets)


@pytest.mark.contract("close-all", "closed-by")
@pytest.mark.parametrize("body", [receives, iterates, sends])
@pytest.mark.parametrize("code", [1012, 4000])
async def test_close_all_ends_a_block_as_a_server_that_shuts_down(
    body: Any, code: int, request: pytest.FixtureRequest
) -> None:
    if body is not iterates:
        request.applymarker(pytest.mark.quiet)
    app = Kept(block=True, body=body)
    server = Client()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(app, server.scope, server.receive, server.send)
        await until(lambda: server.types)
        assert await close_all(app.websockets, code, jitter=0) == []
    assert closes(server) == [(code, "")]
    assert app.outcomes == ["quiet"]
    assert (app.websockets[0].close_code, app.websockets[0].closed_by) == (code, "server")
    with pytest.raises(WebSocketClosed, match="the server shut down"):
        await app.websockets[0].send_text("a")


@pytest.mark.contract("close-all")
async def test_close_all_leaves_alone_what_has_ended() -> None:
    closed, left, denying = Client(), Server(disconnect(4001)), Server()
    websockets = [await closed.accepted(), await left.accepted(), denying.websocket()]
    await websockets[0].close(4000)
    with pytest.raises(WebSocketDisconnect):
        await websockets[1].receive_text()
    await websockets[2].send({"type": "http.response.start", "status": 401})
    async with Server().websocket() as websocket:
        pass
    assert await close_all([*websockets, websocket]) == []
    assert closes(closed) == [(4000, "")]
    assert closes(left) == []
    assert denying.types == [f"{DENIAL}.start"]
    assert await close_all([]) == []


@pytest.mark.contract("close-all")
async def test_close_all_denies_who_is_not_accepted_yet() -> None:
    server = Server()
    assert await close_all([server.websocket()]) == []
    assert server.types == ["websocket.close"]


@pytest.mark.contract("close-all")
@pytest.mark.parametrize("block", [False, True])
async def test_close_all_tells_whom_it_could_not_tell(block: bool, caplog: pytest.LogCaptureFixture) -> None:
    deaf, refusing, other = Server(), Server(), Client()
    app = Kept(block=block, body=sleeps)
    async with anyio.create_task_group() as tasks:
        for server in (deaf, refusing, other):
            tasks.start_soon(app, server.scope, server.receive, server.send)
            await until(lambda: server.types)  # noqa: B023
        deaf.held = {"websocket.close"}
        refusing.fail(RuntimeError("no"))
        refusing.fail(RuntimeError("no"), after=1)  # a block tries 1000 then
        clock = Clock()
        missed = await close_all(app.websockets, within=2, jitter=0)
        assert clock == 0.5
        assert missed in ([app.websockets[1], app.websockets[0]], [app.websockets[0], app.websockets[1]])
        tasks.cancel_scope.cancel()
    assert closes(other) == [(1012, "")]
    assert block or "the server refused to close" in caplog.text


# Real uvicorn

logger = logging.getLogger(__name__)
PATIENCE = 60.0  # seconds for anything on a machine that is slow
# What is sent to those who do not read: by ten handlers that wait for them, and two that have given up.
DEAF = ["/hand/floods", "/block/floods"] * 5 + ["/block/gives-up"] * 2
MARGIN = 6.0  # seconds by which the end may come later than the limit; the page has what was measured


class Stopped(NamedTuple):
    """How a server ended that was told to."""

    codes: list[int]
    """The close codes that the clients saw who read, in the order of opening."""
    seconds: list[float]
    """When they saw it, from the signal on."""
    late: int | None
    """The status for a client who came during the drain; `None` if it was accepted, or nobody answered."""
    took: float
    """When the process had ended, from the signal on; infinite if it had not."""
    printed: str

    def check(self) -> None:
        assert set(self.codes) == {1012}
        # Never sooner than the batch was due: that holds on a slow machine, too.
        for number, seconds in enumerate(self.seconds):
            assert seconds >= (number // BATCH) * INTERVAL, f"number {number} was told after {seconds} s"
        assert self.late == 503
        assert self.took < WITHIN + MARGIN
        assert "Traceback" not in self.printed


class Process(NamedTuple):
    """uvicorn in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    log: IO[bytes]

    def printed(self) -> str:
        return read(self.log)


@contextmanager
def uvicorn(app: str, implementation: str, *options: str) -> Iterator[Process]:
    """A process that answers; it is killed in the end."""
    command = [sys.executable, "-m", "uvicorn", f"tests.lilya_websockets.draining_app:{app}", *options]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--port", "0", "--ws", implementation, "--no-access-log", "--no-use-colors"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )
        try:
            port = None
            deadline = time.monotonic() + PATIENCE
            while port is None:
                assert process.poll() is None, read(log)
                assert time.monotonic() < deadline, "uvicorn did not start"
                time.sleep(0.05)
                port = re.search(r"running on http://127\.0\.0\.1:(\d+)", read(log))
            yield Process(process, int(port[1]), log)
        finally:
            process.kill()
            process.wait()


def read(log: IO[bytes]) -> str:
    # By position: the process writes where its own descriptor stands, which is this one's, too.
    return os.pread(log.fileno(), 1 << 20, 0).decode()


async def stop(server: Process, readers: int, floods: int, patience: float) -> Stopped:
    """Tell a server with so many open connections to stop; the last of them do not read."""
    opened: list[ClientConnection] = []
    deaf: list[socket.socket] = []
    paths = ["/hand", "/block", "/hand/sleeps", "/block"]
    try:
        while len(opened) < readers:
            opened.append(await joined(server.port, paths[len(opened) % 4]))
        while len(deaf) < floods:
            deaf.append(not_reading(server.port, DEAF[len(deaf)]))
        await blocked(opened[0])
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        waiting = [asyncio.create_task(ended(connection, start)) for connection in opened]
        await waiting[0]
        late = await status(server.port)
        seen = await asyncio.gather(*waiting)
        took = await exited(server.process, start, patience)
    finally:
        for line in deaf:
            line.close()
        for connection in opened:
            connection.transport.abort()
    return Stopped([code for code, _ in seen], [when for _, when in seen], late, took, server.printed())


async def joined(port: int, path: str) -> ClientConnection:
    return await client(f"ws://127.0.0.1:{port}{path}", compression=None, proxy=None, ping_interval=None)


def not_reading(port: int, path: str) -> socket.socket:
    """A client that opens a connection, and then takes nothing."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect(("127.0.0.1", port))
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    line.sendall(request.encode())
    return line


async def blocked(asking: ClientConnection) -> None:
    """Wait until nothing more goes out to those who do not read."""
    before, now = "", "0"
    while now == "0" or now != before:
        await asyncio.sleep(0.3)
        await asking.send("?")
        before, now = now, str(await asking.recv())


async def ended(connection: ClientConnection, start: float) -> tuple[int, float]:
    try:
        while True:
            await connection.recv()
    except ConnectionClosed as error:
        return (error.rcvd.code if error.rcvd else 1006, time.monotonic() - start)


async def status(port: int) -> int | None:
    try:
        (await joined(port, "/hand")).transport.abort()
    except InvalidStatus as error:
        return error.response.status_code
    except (InvalidHandshake, EOFError, OSError):
        pass  # nobody is there any more
    return None


async def exited(process: subprocess.Popen[bytes], start: float, patience: float) -> float:
    while time.monotonic() - start < patience:
        if process.poll() is not None:
            return time.monotonic() - start
        await asyncio.sleep(0.05)
    return float("inf")


def stopped(app: str, implementation: str, readers: int, floods: int, patience: float) -> Stopped:
    with uvicorn(app, implementation) as server:
        return asyncio.run(asyncio.wait_for(stop(server, readers, floods, patience), PATIENCE))


@pytest.mark.contract("drain-batches", "drain-within", "drain-denies", "drain-signal")
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM that a process could get")
@pytest.mark.parametrize(
    "implementation",
    ["websockets-sansio", "wsproto", "websockets", "lilya.websockets.uvicorn:WebSocketProtocol"],
)
def test_uvicorn_with_200_connections_of_which_10_do_not_read(implementation: str) -> None:
    outcome = stopped("app", implementation, 190, len(DEAF), PATIENCE)
    told = max(outcome.seconds)
    logger.info("the last was told after %.2f s, the end was after %.2f s", told, outcome.took)
    outcome.check()


@pytest.mark.contract("drain-within")
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM that a process could get")
@pytest.mark.parametrize(
    "implementation", ["websockets-sansio", "tests.lilya_websockets.draining_app:Patient"]
)
def test_uvicorn_with_clients_that_do_not_answer_the_close(implementation: str) -> None:
    """One with a handler that ends, one whose handler has returned before. The fault takes ten minutes."""
    with uvicorn("app", implementation) as server:
        lines = [not_reading(server.port, path) for path in ("/block", "/returns")]
        try:
            for line in lines:
                line.settimeout(PATIENCE)
                assert line.recv(9) == b"HTTP/1.1 "
            start = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            took = asyncio.run(exited(server.process, start, PATIENCE))
            logger.info("the end was after %.2f s", took)
            assert took < PATIENCE
            assert "Traceback" not in server.printed()
        finally:
            for line in lines:
                line.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM that a process could get")
def test_with_lifespan_off_uvicorn_prints_one_warning() -> None:
    with uvicorn("app", "websockets-sansio", "--lifespan", "off") as server:
        for _ in range(2):
            line = not_reading(server.port, "/returns")
            line.settimeout(PATIENCE)
            while line.recv(4096):
                pass  # until the server closes
            line.close()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) in (0, -signal.SIGTERM)
        assert server.printed().count("drain() cannot close") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM that a process could get")
def test_without_it_uvicorn_fails_that_check() -> None:
    outcome = stopped("plain", "websockets-sansio", 2 * BATCH, 2, 1.5)
    with pytest.raises(AssertionError):
        outcome.check()
    assert outcome.late is None
    assert outcome.took > WITHIN + MARGIN  # it waits for clients who do not read, without a limit


def test_all_at_one_instant_fails_that_check() -> None:
    good = Stopped([1012] * 190, [number // BATCH * INTERVAL for number in range(190)], 503, WITHIN, "")
    good.check()
    with pytest.raises(AssertionError, match="number 20 was told after"):
        good._replace(seconds=[0.1] * 190).check()
    for fault in ({"codes": [1006]}, {"late": None}, {"took": float("inf")}, {"printed": "Traceback"}):
        with pytest.raises(AssertionError):
            good._replace(**fault).check()
