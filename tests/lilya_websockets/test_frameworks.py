"""What frameworks raise: how a block closes for it, and what is the client's leaving. With Starlette itself.

The other frameworks have an environment of their own (`tests/frameworks`). Here their classes are made up.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import urllib.error
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.message import Message as Headers
from types import ModuleType
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.exceptions import HTTPException, WebSocketException
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocket as StarlettesWebSocket
from starlette.websockets import WebSocketDisconnect as StarlettesDisconnect
from websockets.asyncio.client import connect as client

from lilya.websockets import WebSocket, WebSocketClosed, WebSocketDisconnect, WebSocketState
from lilya.websockets._frameworks import close_of, denial_of, end_of, is_handled, losses

from .conftest import lend
from .server import ClientDisconnected, Server, disconnect, text
from .test_conversation import Boom, closes, until
from .test_conversation_uvicorn import OLDEST, OURS, seen, serving

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

pytestmark = pytest.mark.anyio


class LilyasWebSocketException(Exception):
    def __init__(self, code: Any, reason: str | None = None) -> None:
        self.code = code
        if reason:  # Lilya's has no reason else
            self.reason = reason


class LitestarException(Exception):
    detail = ""


class LitestarsWebSocketException(LitestarException):
    def __init__(self, detail: str, code: int = 4500) -> None:
        self.detail = detail
        self.code = code


class LitestarsWebSocketDisconnect(LitestarsWebSocketException):
    pass


class LitestarsHTTPException(LitestarException):
    headers = None

    def __init__(self, status_code: int, detail: str) -> None:
        self.status_code = status_code
        self.detail = detail


def loaded(monkeypatch: pytest.MonkeyPatch, name: str, **classes: type[Exception]) -> None:
    module = ModuleType(name)
    for attribute, value in classes.items():
        setattr(module, attribute, value)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def litestar(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(
        monkeypatch,
        "litestar.exceptions",
        LitestarException=LitestarException,
        WebSocketException=LitestarsWebSocketException,
        WebSocketDisconnect=LitestarsWebSocketDisconnect,
        HTTPException=LitestarsHTTPException,
    )


@pytest.fixture
def lilya(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(monkeypatch, "lilya.exceptions", WebSocketException=LilyasWebSocketException)


# What an exception carries


@pytest.mark.contract("block-exceptions")
@pytest.mark.usefixtures("lilya", "litestar")
@pytest.mark.parametrize(
    ("error", "close"),
    [
        (WebSocketException(4007, "why"), (4007, "why")),
        (WebSocketException(1008), (1008, "")),
        (type("OfAnApp", (WebSocketException,), {})(4000), (4000, "")),
        (LilyasWebSocketException(4007, "why"), (4007, "why")),
        (LilyasWebSocketException(4007), (4007, "")),
        (LitestarsWebSocketException("why", 4007), (4007, "why")),
        (ExceptionGroup("", [WebSocketException(4001, "first"), WebSocketException(4002)]), (4001, "first")),
        (ExceptionGroup("", [ExceptionGroup("", [WebSocketException(4001)])]), (4001, "")),
        (ExceptionGroup("", [WebSocketException(4001), ValueError("a bug")]), None),
        # What must not be sent
        (WebSocketException(1005), None),
        (WebSocketException(500, "Lilya's own choice"), None),
        (WebSocketException(4000, "x" * 124), None),
        (WebSocketException("4000"), None),  # type: ignore[arg-type]
        (WebSocketException(4000, b"why"), None),  # type: ignore[arg-type]
        # What has a code, or is called so, and means something else
        (None, None),
        (SystemExit(4000), None),
        (urllib.error.HTTPError("", 4000, "", Headers(), None), None),
        (HTTPException(401), None),
        (WebSocketDisconnect(4000), None),
        (StarlettesDisconnect(4000), None),
        (LitestarsWebSocketDisconnect("left", 4000), None),
        (type("WebSocketException", (Exception,), {"code": 4000, "reason": ""})(), None),
    ],
    ids=repr,
)
def test_what_an_exception_closes_with(error: BaseException | None, close: Any) -> None:
    assert close_of(error) == close


@pytest.mark.contract("block-exceptions")
@pytest.mark.parametrize("module", [None, ModuleType("lilya.exceptions"), "half loaded"])
def test_a_framework_that_is_not_there(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if module == "half loaded":
        module = ModuleType("lilya.exceptions")
        module.WebSocketException = "no class"
    monkeypatch.setitem(sys.modules, "lilya.exceptions", module)
    assert close_of(LilyasWebSocketException(4007)) is None


@pytest.mark.contract("block-exceptions")
@pytest.mark.usefixtures("litestar")
@pytest.mark.parametrize(
    ("error", "denial"),
    [
        (HTTPException(401, "Sign in", {"X-A": "b"}), (401, "Sign in", [(b"x-a", b"b")])),
        (HTTPException(404), (404, "Not Found", [])),
        (LitestarsHTTPException(403, "no"), (403, "no", [])),
        (HTTPException(99), None),
        (HTTPException(403, headers={"X": "\n"}), None),
        (ValueError("no"), None),
        (urllib.error.HTTPError("", 401, "", Headers(), None), None),
    ],
    ids=repr,
)
def test_what_an_exception_denies_with(error: Exception, denial: Any) -> None:
    assert denial_of(error) == denial


@pytest.mark.contract("block-exceptions")
@pytest.mark.usefixtures("litestar")
def test_who_handles_an_exception() -> None:
    ours, theirs, other = WebSocketException(4000), LitestarsWebSocketException("why"), ValueError()
    handlers = ({WebSocketException: print}, {401: print})
    assert is_handled({"starlette.exception_handlers": handlers}, ours)
    assert is_handled(
        {"starlette.exception_handlers": handlers}, type("Sub", (WebSocketException,), {})(1000)
    )
    assert is_handled({"lilya.exception_handlers": handlers}, ours)
    assert is_handled({"starlette.exception_handlers": ({Exception: print}, {})}, other)
    assert not is_handled({"starlette.exception_handlers": handlers}, other)
    assert not is_handled({"starlette.exception_handlers": None}, ours)
    assert not is_handled({}, ours)
    assert is_handled({"litestar_app": None}, theirs)
    assert not is_handled({"litestar_app": None}, ours)
    assert not is_handled({}, theirs)


# The client's leaving


@pytest.mark.contract("foreign-disconnects")
@pytest.mark.usefixtures("litestar")
def test_what_is_the_clients_leaving() -> None:
    for error, end in (
        (ClientDisconnected(), {"code": 1006}),
        (StarlettesDisconnect(4001, "bye"), {"code": 4001, "reason": "bye"}),
        (LitestarsWebSocketDisconnect("connection is disconnected", 1000), {"code": 1000, "reason": None}),
        (WebSocketDisconnect(4001, "bye"), {"code": 4001, "reason": "bye"}),
    ):
        assert isinstance(error, losses())
        assert end_of(error) == end
    for other in (RuntimeError(), WebSocketException(4000), LitestarsWebSocketException("why")):
        assert not isinstance(other, losses())


USES: dict[str, Callable[[WebSocket], Any]] = {
    "receive": lambda it: it.receive(),
    "receive_text": lambda it: it.receive_text(),
    "receive_bytes": lambda it: it.receive_bytes(),
    "iter_text": lambda it: anext(it.iter_text()),
    "send_text": lambda it: it.send_text("a"),
    "send_bytes": lambda it: it.send_bytes(b"a"),
    "send": lambda it: it.send({"type": "websocket.send", "text": "a"}),
}
FOREIGN = [StarlettesDisconnect(4001, "bye"), WebSocketDisconnect(4001, "bye")]


@pytest.mark.contract("foreign-disconnects")
@pytest.mark.parametrize("error", FOREIGN, ids=["starlette", "ours"])
@pytest.mark.parametrize("use", USES)
async def test_a_foreign_disconnect_by_hand(use: str, error: Exception) -> None:
    server = Server(*([] if "send" in use else [error]))
    websocket = await server.accepted()
    ran: list[int] = []
    websocket.add_cleanup(lambda: ran.append(1))
    if "send" in use:
        server.fail(error)
    with pytest.raises((WebSocketDisconnect, StopAsyncIteration)) as caught:
        await USES[use](websocket)
    if isinstance(caught.value, WebSocketDisconnect):
        assert caught.value is not error
        assert caught.value.__cause__ is error
        assert (caught.value.code, caught.value.reason) == (4001, "bye")
    assert (websocket.close_code, websocket.close_reason, websocket.closed_by) == (4001, "bye", "client")
    assert websocket.client_state is websocket.application_state is WebSocketState.DISCONNECTED
    assert ran == [1]
    with pytest.raises(WebSocketClosed):
        await websocket.send_text("a")


@pytest.mark.contract("foreign-disconnects")
@pytest.mark.parametrize("where", ["accept", "connect", "close"])
async def test_a_foreign_disconnect_at_the_ends(where: str) -> None:
    error = StarlettesDisconnect(4001)
    server = Server(*([error] if where == "connect" else []), connecting=where != "connect")
    websocket = server.websocket()
    if where == "close":
        await websocket.accept()
        server.fail(error)
        await websocket.close()  # the goal is reached
    else:
        if where == "accept":
            server.fail(error)
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.accept()
        assert caught.value.code == 4001
    assert websocket.client_state is websocket.application_state is WebSocketState.DISCONNECTED


@pytest.mark.usefixtures("server_announces")
@pytest.mark.contract("foreign-disconnects", "block-ends-quietly")
@pytest.mark.parametrize("error", FOREIGN, ids=["starlette", "ours"])
@pytest.mark.parametrize(
    "use", [pytest.param(use, marks=pytest.mark.quiet) for use in ("receive_text", "send_text")]
)
async def test_a_foreign_disconnect_in_a_block(use: str, error: Exception) -> None:
    server = Server(*([text("1")] if use == "send_text" else [text("1"), error]))
    websocket = server.websocket()
    async with websocket:
        assert await websocket.receive_text() == "1"
        if use == "send_text":
            server.fail(error)
        await USES[use](websocket)
        raise AssertionError("not reached")
    assert (websocket.close_code, websocket.close_reason, websocket.closed_by) == (4001, "bye", "client")
    assert closes(server) == []


@pytest.mark.usefixtures("server_announces")
@pytest.mark.contract("foreign-disconnects", "block-leaving-bounded")
async def test_a_foreign_disconnect_when_the_block_closes(caplog: pytest.LogCaptureFixture) -> None:
    """The body has ended before the reader had its turn."""
    caplog.set_level(logging.DEBUG, "lilya.websockets")
    server = Server()
    async with server.websocket():
        server.fail(StarlettesDisconnect(1006))
    assert closes(server) == []
    assert caplog.records == []


# How a block closes for it, with nobody around who handles it


def handlers_of(*classes: type[Exception]) -> dict[str, Any]:
    """What Starlette's middleware for exceptions puts into the scope."""
    return {"starlette.exception_handlers": (dict.fromkeys(classes, print), {})}


@pytest.mark.usefixtures("server_announces")
@pytest.mark.contract("block-exceptions", "block-reraises")
@pytest.mark.parametrize(
    ("error", "end"),
    [
        (WebSocketException(4007, "why"), (4007, "why")),
        (WebSocketException(1005, "why"), (1011, "")),
        (HTTPException(401), (1011, "")),
        (ExceptionGroup("", [WebSocketException(4007, "why")]), (4007, "why")),
    ],
    ids=repr,
)
@pytest.mark.parametrize("around", [{}, handlers_of(Boom)], ids=["nobody", "for others"])
async def test_a_block_closes_for_an_exception(error: Exception, end: Any, around: Any) -> None:
    server = Server(**around)
    websocket = server.websocket()
    with pytest.raises(type(error)) as caught:
        async with websocket:
            raise error
    assert caught.value is error
    assert closes(server) == [end]
    assert (websocket.close_code, websocket.close_reason, websocket.closed_by) == (*end, "server")


@pytest.mark.usefixtures("server_announces")
@pytest.mark.contract("block-exceptions")
@pytest.mark.parametrize("how", ["left", "closed"])
async def test_an_exception_after_the_end_closes_nothing(how: str) -> None:
    server = Server(*([disconnect(4001)] if how == "left" else []))
    websocket = server.websocket()

    async def body() -> None:
        async with websocket:
            await (websocket.wait_disconnected() if how == "left" else websocket.close(4000))
            raise WebSocketException(4007)

    with pytest.raises(WebSocketException):
        await body()
    assert closes(server) == ([] if how == "left" else [(4000, "")])
    assert websocket.client_state is websocket.application_state is WebSocketState.DISCONNECTED


class Guarded(WebSocket):
    """Accepts nobody."""

    error: Exception

    async def accept(self, *args: Any, **kwargs: Any) -> None:
        raise self.error


@pytest.mark.usefixtures("server_announces")
@pytest.mark.contract("block-exceptions", "deny")
@pytest.mark.parametrize("extension", [True, False])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (HTTPException(401, "Sign in", {"X-A": "b"}), 401),
        (WebSocketException(4007, "why"), 403),
        (HTTPException(99), None),
        (ValueError("a bug"), None),
    ],
    ids=repr,
)
async def test_an_exception_before_accept(error: Exception, status: int | None, extension: bool) -> None:
    scope: dict[str, Any] = {} if extension else {"extensions": None}
    server = Server(**scope)
    websocket = server.websocket(Guarded)
    assert isinstance(websocket, Guarded)
    websocket.error = error
    with pytest.raises(type(error)) as caught:
        async with websocket:
            raise AssertionError("entered")
    assert caught.value is error
    if status is None:
        assert server.sent == []  # the server's to answer, with 500
    elif status == 401 and extension:
        start, body = server.sent
        assert (start["status"], body["body"]) == (401, b"Sign in")
        assert (b"x-a", b"b") in start["headers"]
    else:
        assert server.types == ["websocket.close"]


@pytest.mark.usefixtures("server_announces")
@pytest.mark.contract("block-exceptions")
async def test_an_exception_before_accept_is_left_to_who_handles_it() -> None:
    server = Server(**handlers_of(HTTPException))
    websocket = server.websocket(Guarded)
    assert isinstance(websocket, Guarded)
    websocket.error = HTTPException(401)
    with pytest.raises(HTTPException):
        async with websocket:
            raise AssertionError("entered")
    assert server.sent == []


@pytest.mark.usefixtures("server_announces")
@pytest.mark.contract("block-exceptions", "block-cleanups", "block-wait-disconnected")
async def test_an_exception_that_is_handled_around_the_block_is_left_to_who_does() -> None:
    """Then the connection is as by hand: it is open, and what was buffered is dropped."""
    server = Server(text("1"), **handlers_of(WebSocketException))
    websocket = server.websocket()
    ran: list[str] = []
    ended: list[bool] = []
    websocket.add_cleanup(lambda: ran.append("cleanup"))
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            await websocket.wait_disconnected()
            ended.append(True)

        async def body() -> None:
            async with websocket:
                tasks.start_soon(wait)
                raise WebSocketException(4007, "why")

        with pytest.raises(WebSocketException):
            await body()
    assert ended == [True]
    assert ran == ["cleanup"]
    assert closes(server) == []
    assert (websocket.close_code, websocket.closed_by) == (None, None)
    assert websocket.client_state is websocket.application_state is WebSocketState.CONNECTED
    await websocket.close(4008, "later")
    assert closes(server) == [(4008, "later")]


@pytest.mark.usefixtures("server_announces")
@pytest.mark.contract("block-exceptions", "block-after")
async def test_a_task_that_outlives_the_block_does_not_end_what_is_left_to_others() -> None:
    """A handler that waits before it closes finds the connection open."""
    server = Server(text("1"), **handlers_of(WebSocketException))
    websocket = server.websocket()
    told: list[int] = []
    async with anyio.create_task_group() as tasks:

        async def receive() -> None:
            with pytest.raises(WebSocketDisconnect) as caught:
                await websocket.receive_text()
            told.append(caught.value.code)

        async def body() -> None:
            async with websocket:
                await websocket.receive_text()
                tasks.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                raise WebSocketException(4007, "why")

        with pytest.raises(WebSocketException):
            await body()
        await anyio.wait_all_tasks_blocked()
        assert websocket.client_state is websocket.application_state is WebSocketState.CONNECTED
        assert websocket.close_code is None
        await websocket.close(4007, "why")
        server.push(disconnect(4007, "why"))
    assert len(told) == 1
    assert closes(server) == [(4007, "why")]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.usefixtures("server_announces")
@pytest.mark.contract("block-exceptions", "block-after")
async def test_a_task_that_outlives_the_block_and_is_cancelled_leaves_nothing_behind() -> None:
    """By a cleanup, as the last thing of the block: what gets a receive to return is for nobody else."""
    server = Server(text("1"), **handlers_of(WebSocketException))
    websocket = server.websocket()
    receiving: list[asyncio.Future[str]] = []

    async def body() -> None:
        async with websocket:
            await websocket.receive_text()
            receiving.append(asyncio.ensure_future(websocket.receive_text()))
            await anyio.wait_all_tasks_blocked()
            websocket.add_cleanup(receiving[0].cancel)
            raise WebSocketException(4007, "why")

    with pytest.raises(WebSocketException):
        await body()
    await asyncio.wait(receiving)
    server.push(text("2"))
    assert await websocket.receive_text() == "2"
    await websocket.close()


# Over uvicorn, in Starlette


@pytest.fixture(params=["websockets-sansio", "wsproto", OLDEST, pytest.param(OURS, id="ours")])
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def starlette_over(implementation: str, *, of: Any, **options: Any) -> AsyncIterator[str]:
    """The address of an app of Starlette with one route; everything that uvicorn logs is noted."""
    app = Starlette(routes=[of] if isinstance(of, Mount) else [WebSocketRoute("/", of)], **options)
    async with serving(app, implementation, log_level="info") as port:
        yield f"ws://127.0.0.1:{port}/"


def ours(websocket: StarlettesWebSocket) -> WebSocket:
    return WebSocket(websocket.scope, websocket.receive, websocket.send)


class Raises:
    """A body that raises, behind each of Starlette's routes."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def body(self, websocket: WebSocket) -> None:
        async with websocket:
            await websocket.send_text("hello")
            raise self.error

    def of(self, route: str) -> Any:
        outer = self

        async def function(websocket: StarlettesWebSocket) -> None:
            await outer.body(ours(websocket))

        class Endpoint(WebSocketEndpoint):
            async def dispatch(self) -> None:
                await outer.body(WebSocket(self.scope, self.receive, self.send))

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await outer.body(WebSocket(scope, receive, send))

        return {"function": function, "endpoint": Endpoint, "app": Mount("/", app)}[route]


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        f"{record.getMessage()}: {record.exc_info and record.exc_info[1]!r}"
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.contract("block-exceptions")
@pytest.mark.parametrize("route", ["function", "endpoint", "app"])
async def test_an_exception_in_starlette(
    route: str, implementation: str, caplog: pytest.LogCaptureFixture
) -> None:
    raises = Raises(WebSocketException(4007, "why"))
    async with (
        starlette_over(implementation, of=raises.of(route)) as address,
        client(address, compression=None, proxy=None) as connection,
    ):
        assert await seen(connection) == (4007, "why")
    assert complaints(caplog) == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.contract("block-exceptions")
@pytest.mark.parametrize("route", ["function", "endpoint", "app"])
async def test_starlettes_handlers_run_as_without_a_block(
    route: str, implementation: str, caplog: pytest.LogCaptureFixture
) -> None:
    handled: list[Exception] = []

    async def handle(websocket: Any, error: Exception) -> None:
        handled.append(error)
        await websocket.close(4008, "as the handler says")

    raises = Raises(WebSocketException(4007, "why"))
    async with (
        starlette_over(
            implementation, of=raises.of(route), exception_handlers={WebSocketException: handle}
        ) as address,
        client(address, compression=None, proxy=None) as connection,
    ):
        assert await seen(connection) == (4008, "as the handler says")
    assert handled == [raises.error]
    assert complaints(caplog) == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.contract("block-exceptions", "block-closes")
async def test_a_bug_in_starlette(implementation: str, caplog: pytest.LogCaptureFixture) -> None:
    raises = Raises(ValueError("a secret"))
    async with (
        starlette_over(implementation, of=raises.of("function")) as address,
        client(address, compression=None, proxy=None) as connection,
    ):
        assert await seen(connection) == (1011, "")
    assert complaints(caplog) == ["Exception in ASGI application\n: ValueError('a secret')"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.contract("foreign-disconnects")
@pytest.mark.parametrize("how", ["closes", "is lost"])
async def test_clients_that_leave_while_starlettes_object_sends(
    how: str, implementation: str, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes: list[Any] = []
    count = 20

    async def feed(websocket: StarlettesWebSocket) -> None:
        by_hand = ours(websocket)
        await by_hand.accept()
        try:
            while True:
                await by_hand.send_text("news")
                await asyncio.sleep(0.001)
        except BaseException as error:
            outcomes.append(type(error))
            if not isinstance(error, WebSocketDisconnect):
                raise

    async with starlette_over(implementation, of=feed) as address:
        for _ in range(count):
            connection = await client(address, compression=None, proxy=None)
            await connection.recv()
            if how == "closes":
                await connection.close()
            else:
                connection.transport.abort()
        await until(lambda: len(outcomes) == count)
    if implementation == "websockets":  # it says so by a `RuntimeError` (page *Servers*)
        assert set(outcomes) <= {WebSocketDisconnect, RuntimeError}
    else:
        assert outcomes == [WebSocketDisconnect] * count
        assert complaints(caplog) == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.contract("foreign-disconnects", "block-ends-quietly")
async def test_clients_that_leave_short_blocks_in_starlette(
    implementation: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The block is left before the end is seen that has come with the client's last message."""
    ended = 0
    count = 20

    async def hello(websocket: StarlettesWebSocket) -> None:
        nonlocal ended
        try:
            async with ours(websocket) as block:
                await block.receive_text()
        finally:
            ended += 1

    async with starlette_over(implementation, of=hello) as address:
        for _ in range(count):
            connection = await client(address, compression=None, proxy=None)
            connection.protocol.send_text(b"hello")
            connection.transport.write(b"".join(connection.protocol.data_to_send()))
            connection.transport.abort()
        await until(lambda: ended == count)
    assert complaints(caplog) == []


@pytest.mark.contract("block-exceptions", "block-after")
@pytest.mark.parametrize("lent", [False, True])
async def test_a_task_that_receives_is_told_when_the_end_is_left_to_others(
    lent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lent:
        lend(monkeypatch)
    server = Server(**handlers_of(WebSocketException))
    websocket = server.websocket()
    told: list[Exception] = []

    async def receive() -> None:
        try:
            await websocket.receive_text()
        except WebSocketDisconnect as error:
            told.append(error)

    async def body(tasks: Any) -> None:
        async with websocket:
            tasks.start_soon(receive)
            await until(lambda: websocket._receiving)
            raise WebSocketException(4007, "why")

    async with anyio.create_task_group() as tasks:
        with pytest.raises(WebSocketException):
            await body(tasks)
    assert [type(error) for error in told] == [WebSocketDisconnect]
    assert closes(server) == []


@pytest.mark.contract("block-exceptions")
async def test_an_exception_that_others_handle_after_the_client_left() -> None:
    server = Server(disconnect(4001), **handlers_of(WebSocketException))
    websocket = server.websocket()

    async def body() -> None:
        async with websocket:
            await websocket.wait_disconnected()
            raise WebSocketException(4007, "why")

    with pytest.raises(WebSocketException):
        await body()
    assert (websocket.close_code, websocket.closed_by) == (4001, "client")
    assert websocket.client_state is websocket.application_state is WebSocketState.DISCONNECTED
    assert closes(server) == []
