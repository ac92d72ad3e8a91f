"""`async with websocket` over real uvicorn, with each of its WebSocket classes and with ours, on loopback."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as client
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lilya.websockets import WebSocket

pytestmark = pytest.mark.anyio

Body = Callable[[WebSocket], Awaitable[None]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # as uvicorn


# The oldest one warns of its end, and so does what it stands on.
OLDEST = pytest.param("websockets", marks=pytest.mark.filterwarnings("ignore"))


OURS = "lilya.websockets.uvicorn:WebSocketProtocol"


@pytest.fixture(params=["websockets-sansio", "wsproto", OLDEST, pytest.param(OURS, id="ours")])
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Handler:
    """An app that notes how its block ended."""

    def __init__(self, body: Body, **options: Any) -> None:
        self.body = body
        self.options = options
        self.ended = asyncio.Event()
        self.outcome: Any = None
        self.websocket: WebSocket

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.websocket = WebSocket(scope, receive, send)
        try:
            async with self.websocket.open(**self.options):
                await self.body(self.websocket)
            self.outcome = "quiet"
        except BaseException as error:
            self.outcome = type(error)
            raise
        finally:
            self.ended.set()


@asynccontextmanager
async def serving(app: Any, implementation: str, log_level: str = "critical") -> AsyncIterator[int]:
    """uvicorn on a free port; it has ended when the block is left."""
    ws: Any = implementation
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            ws=ws,
            lifespan="off",
            log_config=None,
            log_level=log_level,
            timeout_graceful_shutdown=1,
        )
    )
    task = asyncio.create_task(server._serve([listener]))
    try:
        while not (server.started or task.done()):  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.005)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


@asynccontextmanager
async def connected(handler: Any, implementation: str) -> AsyncIterator[ClientConnection]:
    async with (
        serving(handler, implementation) as port,
        client(f"ws://127.0.0.1:{port}/", compression=None, proxy=None, close_timeout=2) as connection,
    ):
        yield connection


async def seen(connection: ClientConnection) -> tuple[int, str]:
    """How the connection ended."""
    try:
        while True:
            await connection.recv()
    except ConnectionClosed as error:
        return (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")


async def returns(websocket: WebSocket) -> None:
    assert await websocket.receive_text() == "hello"


async def fails(websocket: WebSocket) -> None:
    await websocket.receive_text()
    raise ValueError("a secret")


async def feeds(websocket: WebSocket) -> None:
    while True:
        await websocket.send_text("news")
        await anyio.sleep(0.005)


async def waits(websocket: WebSocket) -> None:
    await websocket.wait_disconnected()


async def sleeps(websocket: WebSocket) -> None:
    await anyio.sleep_forever()


BODIES = [
    pytest.param(feeds, {}, marks=pytest.mark.quiet),
    (waits, {}),
    pytest.param(sleeps, {"cancel_on_disconnect": True}, marks=pytest.mark.quiet),
]


@pytest.mark.contract("block-closes")
@pytest.mark.parametrize(("body", "end", "outcome"), [(returns, 1000, "quiet"), (fails, 1011, ValueError)])
async def test_how_the_block_ends(body: Body, end: int, outcome: Any, implementation: str) -> None:
    handler = Handler(body)
    async with connected(handler, implementation) as connection:
        await connection.send("hello")
        assert await seen(connection) == (end, "")
        await handler.ended.wait()
    assert handler.outcome == outcome


@pytest.mark.contract("block-send-learns", "block-wait-disconnected", "block-cancel-on-disconnect")
@pytest.mark.parametrize(("body", "options"), BODIES)
@pytest.mark.parametrize("code", [4001, 1000])
async def test_a_client_that_leaves(body: Body, options: Any, code: int, implementation: str) -> None:
    handler = Handler(body, **options)
    async with connected(handler, implementation) as connection:
        await connection.send("never received")
        await connection.close(code, "bye")
        await handler.ended.wait()
    assert handler.outcome == "quiet"
    assert (handler.websocket.close_code, handler.websocket.close_reason) == (code, "bye")
    assert handler.websocket.closed_by == "client"


@pytest.mark.contract("block-send-learns", "block-wait-disconnected", "block-cancel-on-disconnect")
@pytest.mark.parametrize(("body", "options"), BODIES)
async def test_a_client_that_resets(body: Body, options: Any, implementation: str) -> None:
    handler = Handler(body, **options)
    async with connected(handler, implementation) as connection:
        line = connection.transport.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.transport.abort()
        await handler.ended.wait()
    assert handler.outcome == "quiet"
    assert handler.websocket.close_code in (1005, 1006)


@pytest.mark.contract("block-closes", "block-idle", "block-message-size", "block-message-rate")
@pytest.mark.parametrize(
    ("options", "end"),
    [
        ({"idle_timeout": 0.05}, (1001, "idle")),
        ({"heartbeat": 0.05}, (1011, "no answer")),
        ({"max_message_size": 4}, (1009, "message too big")),
        ({"max_messages_per_second": 2}, (1008, "too many messages")),
    ],
)
async def test_the_limits(options: Any, end: tuple[int, str], implementation: str) -> None:
    handler = Handler(waits, **options)
    async with connected(handler, implementation) as connection:
        if "idle_timeout" not in options and "heartbeat" not in options:
            for _ in range(3):
                await connection.send("hello")
        assert await seen(connection) == end
        await handler.ended.wait()
    assert handler.outcome == "quiet"
    assert handler.websocket.closed_by == "server"


@pytest.mark.contract("block-closes")
async def test_a_server_that_shuts_down(implementation: str) -> None:
    handler = Handler(waits)
    async with serving(handler, implementation) as port:
        connection = await client(f"ws://127.0.0.1:{port}/", compression=None, proxy=None)
    assert await seen(connection) == (1012, "")
    await handler.ended.wait()
    await connection.close()
    assert handler.outcome == "quiet"
    assert (handler.websocket.close_code, handler.websocket.closed_by) == (1012, "server")


@pytest.mark.contract("deny")
async def test_denying(implementation: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await WebSocket(scope, receive, send).deny(401, "Sign in first.", {"X-A": "b"})

    with pytest.raises(InvalidStatus) as caught:
        async with connected(app, implementation):
            pass
    assert caught.value.response.status_code == 401
    assert caught.value.response.headers["x-a"] == "b"
    if implementation != "websockets":  # the oldest one loses the body (measured with uvicorn 0.54)
        assert caught.value.response.body == b"Sign in first."
