"""`lilya.websockets.uvicorn` in real servers on loopback, on asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast
from unittest.mock import ANY

import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as client
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from lilya.websockets import PreparedMessage, WebSocket
from lilya.websockets.uvicorn import HTTPProtocol, WebSocketProtocol

pytestmark = pytest.mark.anyio

Body = Callable[[Any, Any, Any], Awaitable[Any]]
PEM = Path(__file__).with_name("localhost.pem")
LIMIT = 8.0  # seconds for whatever a test waits for
PATIENCE = 30.0  # seconds for anything that a process takes
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A


def eager_loop() -> asyncio.AbstractEventLoop:
    """A loop whose tasks begin where they are made."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]  # Python 3.12
    return loop


LOOPS = [pytest.param(("asyncio", {}), id="asyncio")]
if sys.version_info >= (3, 12):
    LOOPS.append(pytest.param(("asyncio", {"loop_factory": eager_loop}), id="eager"))
if sys.platform != "win32" and sys.implementation.name == "cpython":
    LOOPS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


class Protocol(WebSocketProtocol):
    """As the class itself, with less patience."""

    close_timeout = 0.3


class Doorman(HTTPProtocol):
    """As the class itself, with less patience."""

    head_timeout = 0.3


class Handler:
    """An app that accepts, does something, and notes how that ended."""

    def __init__(self, body: Body | None = None, accept: dict[str, Any] | None = None) -> None:
        self.body = body or echoes
        self.accept = {"type": "websocket.accept", **(accept or {})}
        self.scope: Any = None
        self.ended = asyncio.Event()
        self.outcome: Any = None
        self.events: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        self.scope = scope
        try:
            assert await receive() == {"type": "websocket.connect"}
            if self.accept["type"] is not None:
                await send(self.accept)
            self.outcome = await self.body(self.events, receive, send)
            return self.outcome
        except BaseException as error:
            self.outcome = error
            raise
        finally:
            self.ended.set()

    async def wait(self) -> None:
        await asyncio.wait_for(self.ended.wait(), LIMIT)


async def echoes(events: Any, receive: Any, send: Any) -> None:
    while True:
        events.append(await receive())
        if events[-1]["type"] == "websocket.disconnect":
            return
        await send({**events[-1], "type": "websocket.send"})


async def listens(events: Any, receive: Any, send: Any) -> None:
    while not events or events[-1]["type"] != "websocket.disconnect":
        events.append(await receive())


async def floods(events: Any, receive: Any, send: Any) -> None:
    while True:
        await send({"type": "websocket.send", "bytes": bytes(65536)})


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition."""
    async with asyncio_timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


@asynccontextmanager
async def asyncio_timeout(seconds: float) -> AsyncIterator[None]:
    """`asyncio.timeout`, which Python 3.10 does not have."""
    import anyio

    with anyio.fail_after(seconds):
        yield


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[Any]:
    """uvicorn on a free port; it has ended when the block is left."""
    listener = socket.create_server(("127.0.0.1", 0))
    defaults: dict[str, Any] = {"ws": Protocol, "lifespan": "off", "log_config": None}
    server: Any = uvicorn.Server(uvicorn.Config(app, **(defaults | options)))
    server.port = listener.getsockname()[1]
    task = asyncio.create_task(server._serve([listener]))
    try:
        await until(lambda: server.started or task.done())
        assert server.started
        yield server
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, LIMIT)
        listener.close()
    assert not server.server_state.connections
    assert not server.server_state.tasks


@asynccontextmanager
async def connected(app: Any, path: str = "/", **options: Any) -> AsyncIterator[ClientConnection]:
    """A client of the `websockets` library."""
    names = ("compression", "subprotocols", "max_size", "additional_headers")
    arguments = {name: options.pop(name) for name in names if name in options}
    async with (
        serving(app, **options) as server,
        client(
            f"ws://127.0.0.1:{server.port}{path}",
            proxy=None,
            close_timeout=LIMIT,
            **({"compression": None} | arguments),
        ) as connection,
    ):
        yield connection


async def seen(connection: ClientConnection, limit: float = LIMIT) -> tuple[int, str]:
    """How the connection ended, for the client."""
    try:
        while True:
            await asyncio.wait_for(connection.recv(), limit)
    except ConnectionClosed as error:
        return (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")


class Raw:
    """A client that does as it is told, right or wrong."""

    REQUEST = (
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int, *, size: int | None = None, **options: Any) -> AsyncIterator[Raw]:
        line = socket.socket()
        if size is not None:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        line.setblocking(False)
        await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=line, limit=4096, **options)
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def frame(self, first: int, payload: bytes = b"", *, masked: bool = True) -> None:
        length = len(payload)
        mask = 0x80 if masked else 0
        if length < 126:
            head = bytes((first, mask | length))
        else:
            head = bytes((first, mask | 127)) + length.to_bytes(8, "big")
        self.writer.write(head + bytes(4 if masked else 0) + payload)  # a mask of zeros changes nothing

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), LIMIT)

    async def shake(self, path: str = "/", more: str = "") -> bytes:
        self.writer.write(self.REQUEST.format(path=path, more=more).encode("latin-1"))
        return await self.head()

    async def rest(self) -> bytes:
        """Everything until the end."""
        return await asyncio.wait_for(self.reader.read(-1), LIMIT)

    def reset(self) -> None:
        line = self.writer.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def raw(app: Any, more: str = "", **options: Any) -> AsyncIterator[Raw]:
    """A raw client that has been accepted."""
    async with serving(app, **options) as server, Raw.to(server.port) as connection:
        assert (await connection.shake(more=more)).startswith(b"HTTP/1.1 101 ")
        yield connection


def a_close(code: int, reason: str = "") -> bytes:
    """What the server sends."""
    payload = code.to_bytes(2, "big") + reason.encode()
    return bytes((CLOSE, len(payload))) + payload


# Messages


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_messages_of_all_sizes(compression: str | None, http: str) -> None:
    sizes = (0, 1, 125, 126, 127, 4095, 4096, 65535, 65536, 300_000)
    async with connected(Handler(), compression=compression, http=http) as connection:
        payloads: list[str | bytes] = [
            "",
            "été",
            b"",
            *("x" * size for size in sizes),
            *(b"y" * size for size in sizes),
        ]
        for payload in payloads:
            await connection.send(payload)
            assert await connection.recv() == payload
        await connection.send(["frag", "men", "ted"])
        await connection.send(["é" * 100_000, ""])
        await (await connection.ping(b"are you there"))
        assert await connection.recv() == "fragmented"
        assert await connection.recv() == "é" * 100_000
        for number in range(200):
            await connection.send(f"{number}")
        assert [await connection.recv() for _ in range(200)] == [str(number) for number in range(200)]


async def test_a_small_frame_waits_for_nothing() -> None:
    async with serving(Handler()) as server, Raw.to(server.port) as connection:
        await connection.shake()
        (protocol,) = server.server_state.connections
        sock = protocol._transport.get_extra_info("socket")
        # As with `--workers`: the listening socket does not name its protocol, and asyncio looks at that.
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_bytes_like_payloads() -> None:
    async def body(events: Any, receive: Any, send: Any) -> None:
        for data in (bytearray(b"ab"), memoryview(b"cd")):
            await send({"type": "websocket.send", "bytes": data, "text": None})
        await send({"type": "websocket.send", "bytes": None, "text": "ef"})

    async with connected(Handler(body)) as connection:
        assert [await connection.recv() for _ in range(3)] == [b"ab", b"cd", "ef"]


async def test_what_is_sent_before_the_answer_is_kept() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await go.wait()
        await send({"type": "websocket.accept"})
        await echoes([], receive, send)

    async with serving(app) as server, Raw.to(server.port) as connection:
        connection.writer.write(connection.REQUEST.format(path="/", more="").encode())
        await until(lambda: server.server_state.tasks)
        for _ in range(3):
            connection.frame(BINARY, bytes(90_000))
            await asyncio.sleep(0)
        connection.frame(TEXT, b"last")
        (protocol,) = server.server_state.connections
        await until(lambda: protocol._paused)
        go.set()
        assert (await connection.head()).startswith(b"HTTP/1.1 101 ")
        expected = 3 * (10 + 90_000)
        assert len(await asyncio.wait_for(connection.reader.readexactly(expected), LIMIT)) == expected
        assert await asyncio.wait_for(connection.reader.readexactly(6), LIMIT) == b"\x81\x04last"


async def test_a_cancelled_receive_loses_nothing() -> None:
    async def body(events: Any, receive: Any, send: Any) -> None:
        for _ in range(3):
            waiting = asyncio.create_task(receive())
            await asyncio.sleep(0)
            waiting.cancel()
        await send({"type": "websocket.send", "text": "now"})
        events += await asyncio.gather(receive(), receive(), receive())

    handler = Handler(body)
    async with connected(handler) as connection:
        await connection.recv()
        for text in ("one", "two", "three"):
            await connection.send(text)
        await handler.wait()
    assert sorted(event["text"] for event in handler.events) == ["one", "three", "two"]


@pytest.mark.parametrize("cancelled", range(3))
async def test_of_several_calls_of_receive_any_may_be_cancelled(cancelled: int) -> None:
    async def body(events: Any, receive: Any, send: Any) -> None:
        waiting = [asyncio.create_task(receive()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting.pop(cancelled).cancel()
        await send({"type": "websocket.send", "text": "now"})
        events += await asyncio.gather(*waiting)

    handler = Handler(body)
    async with connected(handler) as connection:
        await connection.recv()
        for text in ("one", "two"):
            await connection.send(text)
        await handler.wait()
    assert sorted(event["text"] for event in handler.events) == ["one", "two"]


# The handshake


async def test_accepting() -> None:
    accept = {
        "subprotocol": "b",
        "headers": [(b"X-One", b"1"), (b"set-cookie", b"a=b"), (b"set-cookie", b"c=d")],
    }
    handler = Handler(accept=accept)
    async with connected(
        handler, subprotocols=["a", "b"], headers=[("X-Default", "yes")], server_header=True
    ) as connection:
        response = connection.response
        assert response is not None
        headers = response.headers
        assert connection.subprotocol == "b"
        assert headers["X-One"] == "1"
        assert headers["x-default"] == "yes"
        assert headers["server"] == "uvicorn"
        assert len(headers.get_all("date")) == 1
        assert headers.get_all("set-cookie") == ["a=b", "c=d"]
    assert handler.scope["subprotocols"] == ["a", "b"]


@pytest.mark.parametrize(
    "accept",
    [
        {"headers": [(b"x: y\r\ninjected", b"1")]},
        {"headers": [(b"", b"1")]},
        {"headers": [(b"x y", b"1")]},
        {"headers": [(b"x:y", b"1")]},
        {"headers": [(b"x", b"1\x00")]},
        {"headers": [(b"x", b"1\r\ninjected: 2")]},
        {"headers": [(b"x", b"1"), (b"Sec-WebSocket-Protocol", b"a")]},
        {"headers": [(b"Sec-WebSocket-Accept", b"a")]},
        {"subprotocol": "a\r\ninjected: 2"},
    ],
)
async def test_an_answer_that_cannot_be_sent(accept: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(ValueError, match=r"header|subprotocol|sec-websocket"):
            await send({"type": "websocket.accept", **accept})
        await send({"type": "websocket.close"})  # nothing was lost

    with pytest.raises(InvalidStatus) as caught:
        async with connected(app):
            pass
    assert caught.value.response.status_code == 403
    assert "injected" not in caught.value.response.headers


async def test_the_scope() -> None:
    handler = Handler()
    options = {"root_path": "/mount", "proxy_headers": True, "forwarded_allow_ips": "*"}
    async with serving(handler, **options) as server, Raw.to(server.port) as connection:
        more = "X-Odd: \xe9\xff\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nx-odd: 2\r\n"
        await connection.shake("/caf%C3%A9/%2F?a=b%20c", more)
    await handler.wait()
    scope = handler.scope
    assert scope["type"] == "websocket"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert (scope["path"], scope["raw_path"]) == ("/mount/café//", b"/mount/caf%C3%A9/%2F")
    assert (scope["root_path"], scope["query_string"]) == ("/mount", b"a=b%20c")
    assert (scope["scheme"], scope["client"][0]) == ("wss", "192.0.2.1")
    assert scope["server"] == ("127.0.0.1", server.port)
    assert [pair for pair in scope["headers"] if pair[0] == b"x-odd"] == [
        (b"x-odd", b"\xe9\xff"),
        (b"x-odd", b"2"),
    ]
    assert scope["extensions"] == {
        "websocket.http.response": {},
        "lilya.websocket.prepared": {},
        "lilya.websocket.end": {"watch": ANY, "connection": ANY},
    }
    assert scope["subprotocols"] == []
    assert scope["http_version"] == "1.1"


async def test_the_state_of_the_lifespan_is_copied() -> None:
    states = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["pool"] = "a pool"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            states.append(scope["state"])
            scope["state"]["mine"] = len(states)
            await Handler()(scope, receive, send)

    async with serving(app, lifespan="on") as server:
        for _ in range(2):
            async with Raw.to(server.port) as connection:
                await connection.shake()
    assert states == [{"pool": "a pool", "mine": 1}, {"pool": "a pool", "mine": 2}]


async def test_over_tls() -> None:
    handler = Handler()
    context = ssl.create_default_context(cafile=str(PEM))
    async with (
        serving(handler, ssl_certfile=str(PEM), ws_max_size=1000) as server,
        client(f"wss://localhost:{server.port}/", ssl=context, proxy=None) as connection,
    ):
        assert handler.scope["scheme"] == "wss"
        await connection.send("é" * 400)
        assert await connection.recv() == "é" * 400
        await connection.send(bytes(1_000_000))  # what is left of it must not keep the close from the client
        assert (await seen(connection))[0] == 1009
    assert handler.events[-1]["code"] == 1009


VAR: ContextVar[str] = ContextVar("VAR", default="empty")


@pytest.mark.parametrize(("reset", "seen"), [(False, "inherited"), (True, "empty")])
async def test_contexts_can_be_reset(reset: bool, seen: str) -> None:
    values = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        values.append(VAR.get())
        await Handler()(scope, receive, send)

    VAR.set("inherited")
    async with connected(app, reset_contextvars=reset):
        pass
    assert values == [seen]


# Denials


async def denied(*messages: dict[str, Any], more: str = "") -> bytes:
    """What a client gets whose app sends these."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in messages:
            await send(message)
        events.append(await receive())
        with pytest.raises(RuntimeError, match="after the app"):
            await send({"type": "websocket.send", "text": "late"})
        await asyncio.sleep(0)

    events: list[Any] = []
    async with (
        serving(app, date_header=False, server_header=False) as server,
        Raw.to(server.port) as connection,
    ):
        connection.writer.write(connection.REQUEST.format(path="/", more=more).encode())
        answer = await connection.rest()
    assert events == [{"type": "websocket.disconnect", "code": 1006}]
    return answer


async def test_refusing() -> None:
    answer = await denied({"type": "websocket.close"})
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert answer.endswith(b"\r\ncontent-length: 0\r\n\r\n")


START, PART = "websocket.http.response.start", "websocket.http.response.body"


async def test_a_denial_in_parts() -> None:
    headers = [
        (b"Content-Type", b"text/html"),
        (b"X-A", b"b"),
        (b"content-length", b"99"),
        (b"Connection", b"x"),
    ]
    answer = await denied(
        {"type": START, "status": 401, "headers": headers},
        {"type": PART, "body": b"one ", "more_body": True},
        {"type": PART, "more_body": True},
        {"type": PART, "body": b"two"},
    )
    assert answer == (
        b"HTTP/1.1 401 Unauthorized\r\ncontent-type: text/html\r\nx-a: b\r\nconnection: close\r\n"
        b"content-length: 7\r\n\r\none two"
    )


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (204, b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"),
        (
            599,
            b"HTTP/1.1 599 \r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n"
            b"content-length: 1\r\n\r\nx",
        ),
    ],
)
async def test_odd_denials(status: int, expected: bytes) -> None:
    assert await denied({"type": START, "status": status}, {"type": PART, "body": b"x"}) == expected


@pytest.mark.parametrize("header", [(b"x: y\r\ninjected", b"1"), (b"x", b"1\r\ninjected: 2")])
async def test_a_denial_that_cannot_be_sent(header: tuple[bytes, bytes]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(ValueError, match=r"cannot be the name of a header|the value of the header"):
            await send({"type": START, "status": 401, "headers": [header]})
        await send({"type": "websocket.accept"})  # nothing was lost

    async with connected(app) as connection:
        assert await seen(connection) == (1000, "")


@pytest.mark.parametrize("status", [99, 101, 600])
async def test_a_status_that_is_none(status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(RuntimeError, match=f"Invalid HTTP status code '{status}'"):
            await send({"type": START, "status": status})
        await send({"type": "websocket.accept"})

    async with connected(app) as connection:
        assert await seen(connection) == (1000, "")


async def nothing(*_: Any) -> None:
    pass


async def fails(*_: Any) -> None:
    raise ValueError("a secret")


async def half_denies(events: Any, receive: Any, send: Any) -> None:
    await send({"type": START, "status": 401})
    await send({"type": PART, "body": b"never seen", "more_body": True})


@pytest.mark.parametrize("body", [nothing, fails, half_denies])
async def test_an_app_that_does_not_answer(body: Body, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with connected(Handler(body, accept={"type": None})):
            pass
    assert caught.value.response.status_code == 500
    assert caught.value.response.headers["server"] == "uvicorn"
    assert caught.value.response.body == b"Internal Server Error"
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors == [
        "Exception in ASGI application\n"
        if body is fails
        else "ASGI callable returned without completing handshake."
    ]


# Messages out of turn


async def test_messages_out_of_turn() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(RuntimeError, match=r"Expected ASGI message 'websocket\.accept'"):
            await send({"type": "websocket.send", "text": "early"})
        with pytest.raises(RuntimeError, match=r"but got 'websocket\.nonsense'"):
            await send({"type": "websocket.nonsense"})
        if scope["path"] == "/deny":
            await send({"type": START, "status": 400})
            with pytest.raises(RuntimeError, match=rf"Expected ASGI message '{PART}'"):
                await send({"type": "websocket.accept"})
            await send({"type": PART})
            return
        await send({"type": "websocket.accept"})
        with pytest.raises(RuntimeError, match=r"but got 'websocket\.accept'"):
            await send({"type": "websocket.accept"})
        with pytest.raises(RuntimeError, match="Expected 'text' or 'bytes'"):
            await send({"type": "websocket.send"})
        unsendable: list[tuple[Any, Any]] = [(1005, ""), (999, ""), (5000, ""), (1000, "x" * 124)]
        for code, reason in (*unsendable, ("1000", ""), (1000.0, ""), ([], ""), (1000, b"x")):
            with pytest.raises(ValueError, match=r"cannot close with code .*: a code must be 1000-1003, "):
                await send({"type": "websocket.close", "code": code, "reason": reason})
        await send({"type": "websocket.send", "text": "still open"})
        await send({"type": "websocket.close", "code": 4000, "reason": "é"})
        assert await receive() == {"type": "websocket.disconnect", "code": 4000, "reason": "é"}
        for _ in range(2):
            for message in ({"type": "websocket.send", "text": "late"}, {"type": "websocket.close"}):
                with pytest.raises(RuntimeError, match="after the app"):
                    await send(message)
            await until(lambda: not server.server_state.connections)
        done.append(True)

    done: list[bool] = []
    async with serving(app) as server:
        with pytest.raises(InvalidStatus):
            await client(f"ws://127.0.0.1:{server.port}/deny", proxy=None)
        async with client(f"ws://127.0.0.1:{server.port}/", proxy=None) as connection:
            assert await connection.recv() == "still open"
            assert await seen(connection) == (4000, "é")
    assert done


# Every ending


async def leaves(connection: Raw) -> None:
    connection.frame(CLOSE, b"\x0f\xa0bye")


async def leaves_without_a_code(connection: Raw) -> None:
    connection.frame(CLOSE)


async def resets(connection: Raw) -> None:
    connection.reset()


async def hangs_up(connection: Raw) -> None:
    connection.writer.write_eof()


async def sends_no_text(connection: Raw) -> None:
    connection.frame(TEXT, b"\xff")


async def sends_no_text_in_pieces(connection: Raw) -> None:
    connection.frame(0x01, "été".encode()[:1])
    connection.frame(0x00, b"a")  # not the last one: what is wrong is found at once


async def sends_too_much(connection: Raw) -> None:
    connection.frame(BINARY, bytes(1001))


async def sends_too_much_in_pieces(connection: Raw) -> None:
    connection.frame(0x02, bytes(600))
    connection.frame(0x00, bytes(600))


async def sends_a_bomb(connection: Raw) -> None:
    compressor = zlib.compressobj(wbits=-12)
    connection.frame(0xC2, compressor.compress(bytes(50_000)) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4])


async def sends_no_frame(connection: Raw) -> None:
    connection.frame(0x83)


async def sends_no_mask(connection: Raw) -> None:
    connection.frame(TEXT, b"a", masked=False)


async def sends_no_deflate(connection: Raw) -> None:
    connection.frame(0xC2, b"\xff\xff")


async def does_nothing(connection: Raw) -> None:
    pass


ENDINGS = [
    (leaves, 4000, "bye"),
    (leaves_without_a_code, 1005, ""),
    (resets, 1006, None),
    (hangs_up, 1006, None),
    (sends_no_text, 1007, None),
    (sends_no_text_in_pieces, 1007, None),
    (sends_too_much, 1009, None),
    (sends_too_much_in_pieces, 1009, None),
    (sends_a_bomb, 1009, None),
    (sends_no_frame, 1002, None),
    (sends_no_mask, 1002, None),
    (sends_no_deflate, 1002, None),
    (does_nothing, 1006, None),
]


@pytest.mark.parametrize(("act", "code", "reason"), ENDINGS)
async def test_every_ending(act: Any, code: int, reason: str | None) -> None:
    async def body(events: Any, receive: Any, send: Any) -> None:
        events += await asyncio.gather(receive(), receive())  # whoever waits, is told
        events.append(await receive())
        with pytest.raises(OSError):  # noqa: PT011  # it says nothing
            await send({"type": "websocket.send", "text": "late"})
        with pytest.raises(OSError):  # noqa: PT011
            await send({"type": "websocket.close"})

    handler = Handler(body)
    interval = 0.05 if act is does_nothing else 20
    async with raw(
        handler,
        "Sec-WebSocket-Extensions: permessage-deflate\r\n",
        ws_max_size=1000,
        ws_ping_interval=interval,
        ws_ping_timeout=interval,
    ) as connection:
        await act(connection)
        await handler.wait()
        answer = b"" if act is resets else await connection.rest()
    assert handler.outcome is None
    (event, *others) = handler.events
    assert others == [event, event]
    assert event["code"] == code
    if code == 1006:
        assert "reason" not in event
        told = a_close(1011, "keepalive ping timeout") if act is does_nothing else b""
        assert answer.endswith(told)
        assert bool(answer) == bool(told)
    elif code == 1005:
        assert answer == bytes((CLOSE, 0))
    else:
        assert reason is None or event["reason"] == reason
        assert answer.endswith(a_close(code, event["reason"]))


async def test_an_app_that_goes_on_to_receive_lets_others_run() -> None:
    async def body(events: Any, receive: Any, send: Any) -> None:
        await receive()
        asyncio.get_running_loop().call_soon(events.append, "another")
        for _ in range(10):
            events.append((await receive())["type"])

    handler = Handler(body)
    async with raw(handler) as connection:
        connection.frame(CLOSE)
        await handler.wait()
    assert handler.events.count("websocket.disconnect") == 10
    assert handler.events.index("another") < 2


async def test_the_end_of_the_server() -> None:
    handler, refused = Handler(listens), Handler(listens, accept={"type": None})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (refused if scope["path"] == "/no" else handler)(scope, receive, send)

    async with serving(app) as server:
        connection = await client(f"ws://127.0.0.1:{server.port}/", proxy=None)

        async def asks() -> None:
            await client(f"ws://127.0.0.1:{server.port}/no", proxy=None)

        waiting = asyncio.create_task(asks())
        await until(lambda: refused.scope)
    assert await seen(connection) == (1012, "")
    assert handler.events == [{"type": "websocket.disconnect", "code": 1012}]
    assert refused.events == [{"type": "websocket.disconnect", "code": 1012}]
    with pytest.raises(InvalidStatus) as caught:
        await waiting
    assert caught.value.response.status_code == 503


async def test_a_handler_that_returns() -> None:
    async with connected(Handler(nothing)) as connection:
        assert await seen(connection) == (1000, "")


async def returns_something(*_: Any) -> int:
    return 123


async def test_a_handler_that_returns_something(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(Handler(returns_something)) as connection:
        assert await seen(connection) == (1000, "")
    assert "ASGI callable should return None, but returned '123'." in caplog.messages


async def test_a_handler_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(Handler(fails)) as connection:
        assert await seen(connection) == (1011, "")
    (error,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert error.getMessage() == "Exception in ASGI application\n"
    assert error.exc_info
    assert isinstance(error.exc_info[1], ValueError)


async def test_a_handler_that_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Handler(listens)) as server:
        connection = await client(f"ws://127.0.0.1:{server.port}/", proxy=None)
        (task,) = server.server_state.tasks
        task.cancel()
        assert await seen(connection) == (1011, "")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_sender_learns_that_the_client_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    async def body(events: Any, receive: Any, send: Any) -> None:
        while True:  # it never waits for anything
            await send({"type": "websocket.send", "text": "x" * 1000})

    handler = Handler(body)
    async with raw(handler) as connection:
        await connection.reader.read(100)
        connection.reset()
        await handler.wait()
    assert isinstance(handler.outcome, OSError)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# Keep-alive


@pytest.mark.parametrize("timeout", [0.5, None])
async def test_a_client_that_answers_stays(timeout: float | None) -> None:
    async with raw(Handler(), ws_ping_interval=0.02, ws_ping_timeout=timeout) as connection:
        payloads = set()
        for _ in range(4):
            assert await asyncio.wait_for(connection.reader.readexactly(2), LIMIT) == bytes((PING, 4))
            payloads.add(payload := await connection.reader.readexactly(4))
            connection.frame(PONG, b"another")
            connection.frame(PONG, payload)
        assert len(payloads) == 4


async def test_only_the_pong_that_was_asked_for_is_an_answer() -> None:
    handler = Handler()
    async with raw(handler, ws_ping_interval=0.02, ws_ping_timeout=0.3) as connection:
        assert await asyncio.wait_for(connection.reader.readexactly(2), LIMIT) == bytes((PING, 4))
        payload = await connection.reader.readexactly(4)
        for other in (b"", payload[:3], payload[::-1] + b"x"):
            connection.frame(PONG, other)
        # With another answer there would be another ping.
        assert await connection.rest() == a_close(1011, "keepalive ping timeout")
    assert handler.events == [{"type": "websocket.disconnect", "code": 1006}]


async def test_an_app_that_does_not_read_costs_the_client_nothing() -> None:
    go = asyncio.Event()

    async def body(events: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await listens(events, receive, send)

    handler = Handler(body)
    async with connected(handler, ws_ping_interval=0.05, ws_ping_timeout=0.05, ws_max_queue=2) as connection:
        for number in range(5):
            await connection.send(f"{number}")
        await asyncio.sleep(0.4)  # several time-outs
        go.set()
        await connection.close(4000)
        await handler.wait()
    assert [event.get("text", event.get("code")) for event in handler.events] == [
        "0",
        "1",
        "2",
        "3",
        "4",
        4000,
    ]


@pytest.mark.parametrize("interval", [0, None])
async def test_without_pings(interval: float | None) -> None:
    async with serving(Handler(), ws_ping_interval=interval) as server, Raw.to(server.port) as connection:
        await connection.shake()
        connection.frame(TEXT, b"x")
        assert await asyncio.wait_for(connection.reader.readexactly(3), LIMIT) == b"\x81\x01x"
        (protocol,) = server.server_state.connections
        assert protocol._timer is None


# Back-pressure


async def test_a_client_that_floods_is_held_back() -> None:
    go = asyncio.Event()

    async def body(events: Any, receive: Any, send: Any) -> None:
        await go.wait()
        for _ in range(200):
            events.append(len((await receive())["bytes"]))

    handler = Handler(body)
    async with serving(handler) as server, Raw.to(server.port) as connection:
        await connection.shake()
        for _ in range(200):
            connection.frame(BINARY, bytes(65536))
        (protocol,) = server.server_state.connections
        await until(lambda: protocol._paused)
        held = protocol._size + len(protocol._pending or b"")
        assert held < 2**20
        assert not handler.events
        go.set()
        await handler.wait()
    assert handler.events == [65536] * 200


async def test_small_messages_are_bounded_in_number() -> None:
    go = asyncio.Event()

    async def body(events: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await listens(events, receive, send)

    handler = Handler(body)
    async with serving(handler, ws_max_queue=10) as server, Raw.to(server.port) as connection:
        await connection.shake()
        for number in range(1000):
            connection.frame(TEXT, b"%d" % number)
        connection.frame(CLOSE, b"\x0f\xa0")
        (protocol,) = server.server_state.connections
        await until(lambda: protocol._paused)
        assert len([protocol._next, *protocol._later]) == 10
        go.set()
        await handler.wait()
    *messages, end = handler.events
    assert [message["text"] for message in messages] == [f"{number}" for number in range(1000)]
    assert end["code"] == 4000


async def test_one_message_at_a_time_never_pauses() -> None:
    async with serving(Handler()) as server, Raw.to(server.port) as connection:
        await connection.shake()
        (protocol,) = server.server_state.connections
        paused: list[bool] = []
        protocol._transport = Spy(protocol._transport, paused)
        for _ in range(20):
            connection.frame(TEXT, b"x")
            await asyncio.wait_for(connection.reader.readexactly(3), LIMIT)
        assert paused == []


class Spy:
    """A transport that notes when reading is paused."""

    def __init__(self, transport: Any, paused: list[bool]) -> None:
        self.transport, self.paused = transport, paused

    def __getattr__(self, name: str) -> Any:
        if name == "pause_reading":
            self.paused.append(True)
        return getattr(self.transport, name)


async def test_a_cancelled_sender_harms_no_other() -> None:
    async def body(events: Any, receive: Any, send: Any) -> None:
        def sending(first: bytes) -> asyncio.Task[None]:
            return asyncio.create_task(send({"type": "websocket.send", "bytes": first + bytes(199_999)}))

        filling = 0
        while (task := sending(b"f")) and (await asyncio.wait([task], timeout=0.2))[0]:
            filling += 1
        tasks = [task, *(sending(first) for first in (b"1", b"2", b"3"))]
        await asyncio.sleep(0)
        tasks[1].cancel()
        events.append(filling)
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [False, True, False, False]

    handler = Handler(body)
    async with serving(handler) as server, Raw.to(server.port, size=65536) as connection:
        await connection.shake()
        await until(lambda: handler.events)
        got = await connection.rest()
        await handler.wait()
    assert handler.outcome is None
    size = 10 + 200_000
    firsts = [got[at + 10 : at + 11] for at in range(0, len(got) - 4, size)]
    assert firsts == [b"f"] * (handler.events[0] + 1) + [b"2", b"3"]
    assert got.endswith(a_close(1000))


@asynccontextmanager
async def stalled(
    handler: Handler, messages: int = 0, *, tls: bool = False, **options: Any
) -> AsyncIterator[Any]:
    """A server whose client reads nothing, while the app sends as much as it can."""
    line: dict[str, Any] = {"size": 4096}
    if tls:
        options["ssl_certfile"] = str(PEM)
        line |= {"ssl": ssl.create_default_context(cafile=str(PEM)), "server_hostname": "localhost"}
    async with serving(handler, **options) as server, Raw.to(server.port, **line) as connection:
        await connection.shake()
        cast("Any", connection.writer.transport).pause_reading()
        (protocol,) = server.server_state.connections
        await until(lambda: protocol._drained is not None)
        for _ in range(messages):
            connection.frame(TEXT, b"x")
        await until(lambda: protocol._stopped or not messages or handler.ended.is_set())
        yield server


@pytest.mark.parametrize("http", ["auto", HTTPProtocol], ids=["uvicorn", "ours"])
async def test_a_client_that_reads_nothing_holds_back_an_app_that_never_waits(http: Any) -> None:
    """Also where the app runs before uvicorn has given the transport its new protocol: with eager tasks."""
    sent = 0

    async def body(events: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        for _ in range(100):
            await send({"type": "websocket.send", "bytes": bytes(65536)})
            sent += 1

    async with serving(Handler(body), http=http) as server, Raw.to(server.port, size=4096) as connection:
        cast("Any", connection.writer.transport).pause_reading()
        connection.writer.write(connection.REQUEST.format(path="/", more="").encode())
        await until(lambda: any(each._drained for each in server.server_state.connections if sent))
        assert 0 < sent < 100
        cast("Any", connection.writer.transport).resume_reading()
        assert (await connection.head()).startswith(b"HTTP/1.1 101 ")
        size = 100 * (10 + 65536)
        assert len(await asyncio.wait_for(connection.reader.readexactly(size), LIMIT)) == size
    assert sent == 100


@pytest.mark.parametrize("tls", [False, True])
async def test_a_client_that_does_not_read_does_not_pin_the_shutdown(tls: bool) -> None:
    handler = Handler(floods)
    async with stalled(handler, tls=tls) as server:
        server.should_exit = True
        await handler.wait()
        await until(lambda: not server.server_state.connections)
    assert isinstance(handler.outcome, OSError)


@pytest.mark.parametrize("messages", [0, 10])
@pytest.mark.parametrize("tls", [False, True])
async def test_a_client_that_does_not_read_does_not_pin_the_handler(messages: int, tls: bool) -> None:
    handler = Handler(floods)  # it does not read either
    options = {"ws_ping_interval": 0.1, "ws_ping_timeout": 0.5, "ws_max_queue": 5}
    async with stalled(handler, messages, tls=tls, **options) as server:
        await handler.wait()
        await until(lambda: not server.server_state.connections)
    assert isinstance(handler.outcome, OSError)


@pytest.mark.parametrize("act", [hangs_up, leaves, sends_no_frame])
async def test_a_client_that_ends_it_and_does_not_read_does_not_pin_the_handler(act: Any) -> None:
    handler = Handler(floods)
    async with (
        serving(handler, ws_ping_interval=None) as server,
        Raw.to(server.port, size=4096) as connection,
    ):
        await connection.shake()
        (protocol,) = server.server_state.connections
        await until(lambda: protocol._drained is not None)
        await act(connection)
        await handler.wait()
        await until(lambda: not server.server_state.connections)
    assert isinstance(handler.outcome, OSError)


async def test_a_close_does_not_wait_for_a_client_that_does_not_read() -> None:
    async def body(events: Any, receive: Any, send: Any) -> None:
        flood = asyncio.create_task(floods(events, receive, send))
        await asyncio.wait([flood], timeout=0.3)
        await send({"type": "websocket.close", "code": 4000})
        with pytest.raises(RuntimeError, match="after the app"):
            await flood
        events.append(await receive())

    handler = Handler(body)
    async with stalled(handler) as server:
        await handler.wait()
        await until(lambda: not server.server_state.connections)
    assert handler.outcome is None
    assert handler.events == [{"type": "websocket.disconnect", "code": 4000, "reason": ""}]


async def test_a_close_that_nobody_answers() -> None:
    async with raw(Handler(nothing)) as connection:
        connection.frame(TEXT, b"not an answer")
        connection.frame(0x01, b"nor is this")
        connection.frame(PING, b"?")
        assert await connection.rest() == a_close(1000)


async def test_a_connection_can_be_dropped_at_once() -> None:
    """By the extension `lilya.websocket.end`; a second time is one too many, and does nothing."""
    handler = Handler(listens)
    async with raw(handler) as client:
        connection = handler.scope["extensions"]["lilya.websocket.end"]["connection"]
        assert connection.is_open()
        connection.abort()
        with contextlib.suppress(ConnectionResetError):
            assert await client.rest() == b""
        await handler.wait()
        await until(lambda: not connection.is_open())
        connection.abort()
    assert handler.events == [{"type": "websocket.disconnect", "code": 1006}]


# Prepared messages


async def test_a_prepared_message_is_framed_once() -> None:
    message = PreparedMessage("été" * 100)
    frames = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        await websocket.send_prepared(message)
        frames.append(message.message_for(scope["extensions"])["prepared"]["lilya.websockets.uvicorn"])
        await websocket.send_text("another")

    async with serving(app) as server:
        for compression in (None, "deflate", None):
            async with client(
                f"ws://127.0.0.1:{server.port}/", proxy=None, compression=compression
            ) as connection:
                assert [await connection.recv(), await connection.recv()] == [message.data, "another"]
    assert len(frames) == 3
    assert all(frame is frames[0] for frame in frames)


# Sizes and memory


@pytest.mark.parametrize("first", [0xC2, 0x42])
async def test_a_frame_that_would_become_large_costs_little(first: int) -> None:
    compressor = zlib.compressobj(9, wbits=-12)
    bomb = compressor.compress(bytes(64 * 2**20)) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]
    assert len(bomb) < 70_000
    handler = Handler(listens)
    async with raw(handler, "Sec-WebSocket-Extensions: permessage-deflate\r\n") as connection:
        tracemalloc.start()
        try:
            connection.frame(first, bomb)
            await handler.wait()
            assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
        finally:
            tracemalloc.stop()
    assert handler.events[-1]["code"] == 1009


async def test_inflated_sizes_at_the_boundary() -> None:
    async with connected(
        Handler(), compression="deflate", ws_max_size=2 * 2**20, max_size=None
    ) as connection:
        for size in (2**20 - 1, 2**20, 2**20 + 1, 2 * 2**20):
            await connection.send(bytes(size))
            assert len(await connection.recv()) == size
        await connection.send([bytes(2**20), bytes(2**20 - 1)])
        assert len(await connection.recv()) == 2 * 2**20 - 1
        await connection.send(bytes(2 * 2**20 + 1))
        assert (await seen(connection))[0] == 1009


async def test_compression_can_be_turned_off() -> None:
    handler = Handler()
    options = {"ws_per_message_deflate": False}
    async with serving(handler, **options) as server, Raw.to(server.port) as connection:
        head = await connection.shake(more="Sec-WebSocket-Extensions: permessage-deflate\r\n")
        assert b"sec-websocket-extensions" not in head.lower()
        connection.frame(TEXT, b"plain")
        assert await asyncio.wait_for(connection.reader.readexactly(7), LIMIT) == b"\x81\x05plain"
        connection.frame(TEXT | 0x40, b"x")
        await handler.wait()
    assert handler.events[-1]["code"] == 1002


async def test_contexts_that_are_not_kept() -> None:
    parameters = "client_no_context_takeover; server_no_context_takeover"
    offer = f"Sec-WebSocket-Extensions: permessage-deflate; {parameters}\r\n"
    async with raw(Handler(), offer) as connection:
        answers = []
        for _ in range(3):
            compressor = zlib.compressobj(wbits=-12)
            connection.frame(
                0xC1, compressor.compress(b"hello " * 5) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]
            )
            head = await asyncio.wait_for(connection.reader.readexactly(2), LIMIT)
            answers.append(head + await connection.reader.readexactly(head[1]))
        assert answers[0] == answers[1] == answers[2]
        assert zlib.decompressobj(wbits=-12).decompress(answers[0][2:] + b"\0\0\xff\xff") == b"hello " * 5
        # A message may end its stream (RFC 7692 section 7.2.3.4).
        compressor = zlib.compressobj(wbits=-12)
        connection.frame(0xC1, compressor.compress(b"the end") + compressor.flush() + b"\0")
        await asyncio.wait_for(connection.reader.readexactly(2), LIMIT)


# uvicorn's logs


class Talkative(Protocol):
    log_query = True


@pytest.mark.parametrize(
    ("options", "access"),
    [
        ({}, ["/a%20b"]),
        ({"ws": Talkative}, ["/a%20b?token=SECRET"]),
        ({"access_log": False}, []),
        ({"access_log": False, "ws": Talkative}, []),
    ],
    ids=["default", "query", "none", "query-none"],
)
async def test_the_log(options: Any, access: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "uvicorn.error")
    async with connected(Handler(), "/a%20b?token=SECRET", **options) as connection:
        port = connection.local_address[1]
    lines = [message for message in caplog.messages if "WebSocket" in message or "connection " in message]
    assert lines == [
        *(f'127.0.0.1:{port} - "WebSocket {each}" [accepted]' for each in access),
        "connection open",
        "connection closed",
    ]
    assert ("SECRET" in caplog.text) == ("?" in "".join(access))


@pytest.mark.parametrize("status", ["401", "403"])
async def test_the_log_of_a_refusal(status: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "uvicorn.error")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if status == "403":
            await send({"type": "websocket.close"})
        else:
            await send({"type": START, "status": int(status)})
            await send({"type": PART, "body": b""})

    options = {"proxy_headers": True, "forwarded_allow_ips": "*"}
    async with serving(app, **options) as server, Raw.to(server.port) as connection:
        await connection.shake("/a?b", "X-Forwarded-For: 192.0.2.1:5\r\n")
    lines = [message for message in caplog.messages if "WebSocket" in message or "connection " in message]
    assert lines == [f'192.0.2.1:5 - "WebSocket /a" {status}']


async def test_every_frame_is_logged_at_level_trace(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("uvicorn.error")
    level = logger.level
    try:
        async with serving(Handler(), log_level="trace", ws_ping_interval=0.05) as server:
            async with client(f"ws://127.0.0.1:{server.port}/", proxy=None) as connection:
                await connection.send("hello")
                assert await connection.recv() == "hello"
                await until(lambda: any("< PONG" in record.getMessage() for record in caplog.records))
            await until(lambda: not server.server_state.connections)
    finally:
        logger.setLevel(level)
    messages = [record.getMessage() for record in caplog.records if record.name == "uvicorn.error"]
    for expected in (
        "WebSocket connection made",
        "< TEXT 'hello' [5 bytes]",
        "> TEXT 'hello' [5 bytes]",
        "WebSocket connection lost",
    ):
        assert any(message.endswith(expected) for message in messages), expected
    assert any("> PING" in message for message in messages)


# The door

HELLO = b"\x81\x82\0\0\0\0hi"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"a" * 70_000, b"414"),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000, b"431"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"408"),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n", b"408"),
        (b"\r\n" * 40_000, b""),
        (b"", b""),
    ],
)
async def test_a_head_that_never_ends(sent: bytes, status: bytes) -> None:
    async with serving(Handler(), http=Doorman) as server, Raw.to(server.port) as connection:
        connection.writer.write(sent)
        answer = await connection.rest()
        assert answer.startswith(b"HTTP/1.1 " + status + b" ") if status else answer == b""
        await until(lambda: not server.server_state.connections)


@pytest.mark.parametrize("http", ["auto", "lilya.websockets.uvicorn:HTTPProtocol"])
def test_the_class_for_http_is_refused_with_ws_at_the_start(http: str) -> None:
    config = uvicorn.Config(Handler(), http=http, ws="lilya.websockets.uvicorn:HTTPProtocol")
    with pytest.raises(TypeError, match="HTTPProtocol was given with --ws"):
        config.load()


@pytest.mark.parametrize("http", ["auto", "lilya.websockets.uvicorn:HTTPProtocol", HTTPProtocol])
def test_the_class_for_http_is_given_with_http(http: Any) -> None:
    config = uvicorn.Config(Handler(), http=http, ws="lilya.websockets.uvicorn:WebSocketProtocol")
    config.load()
    assert config.ws_protocol_class is WebSocketProtocol
    assert (config.http_protocol_class is HTTPProtocol) == (http != "auto")


def test_there_is_nothing_else_in_the_package() -> None:
    import lilya.websockets.uvicorn as package

    with pytest.raises(AttributeError, match="has no attribute 'HTTPProtocols'"):
        package.HTTPProtocols  # noqa: B018


@pytest.mark.parametrize(
    ("option", "given", "said"),
    [("ws", HTTPProtocol, "HTTPProtocol was given with --ws"), ("http", WebSocketProtocol, "with --http")],
)
async def test_a_class_that_is_given_with_the_other_option(option: str, given: Any, said: str) -> None:
    config = uvicorn.Config(Handler(), **{option: given})
    config.load()
    with pytest.raises(TypeError, match=said):
        given(config, ServerState(), {})


@pytest.mark.parametrize(
    ("sent", "stops"),
    [
        (b"GET /" + b"a" * 70_000, False),
        (b"GET / HT", False),
        (b"", False),
        (b"GET / HT", True),
        (None, True),
    ],
)
async def test_a_head_that_never_ends_over_tls(sent: bytes | None, stops: bool) -> None:
    context = ssl.create_default_context(cafile=str(PEM))
    async with (
        serving(Handler(), http=Doorman, ssl_certfile=str(PEM)) as server,
        Raw.to(server.port, ssl=context, server_hostname="localhost") as connection,
    ):
        await until(lambda: server.server_state.connections)
        cast("Any", connection.writer.transport).pause_reading()  # it does not see that the server closes
        (protocol,) = server.server_state.connections
        if sent is None:
            protocol._timer.cancel()  # the server stops before that
        else:
            connection.writer.write(sent)
            await until(lambda: protocol._transport.is_closing())
        server.should_exit = stops
        await until(lambda: not server.server_state.connections)


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        ("/" + "a" * 9000, "", b"414"),
        ("/", "X-Long: " + "a" * 9000 + "\r\n", b"431"),
        ("/", "X: y\r\n" * 150, b"431"),
        ("/", "Content-Length: 5\r\n", b"400"),
        ("/", "Sec-WebSocket-Key: x\r\n", b"400"),
    ],
)
async def test_a_handshake_that_is_refused(path: str, more: str, status: bytes) -> None:
    handler = Handler()
    async with serving(handler) as server, Raw.to(server.port) as connection:
        assert (await connection.shake(path, more)).startswith(b"HTTP/1.1 " + status + b" ")
        await connection.rest()
        await until(lambda: not server.server_state.connections)
    assert handler.scope is None


async def test_a_head_in_pieces() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await Handler()(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async with serving(app, http=HTTPProtocol) as server:
        async with Raw.to(server.port) as connection:
            for byte in connection.REQUEST.format(path="/", more="").encode():
                connection.writer.write(bytes((byte,)))
                await asyncio.sleep(0)
            assert (await connection.head()).startswith(b"HTTP/1.1 101 ")
        async with Raw.to(server.port) as connection:
            for _ in range(2):
                connection.writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await connection.head()).startswith(b"HTTP/1.1 200 ")
                assert await connection.reader.readexactly(2) == b"ok"
        async with Raw.to(server.port) as connection:
            connection.writer.write(b"GET / HT")
            await until(lambda: any(isinstance(c, HTTPProtocol) for c in server.server_state.connections))
            server.should_exit = True
            assert await connection.rest() == b""


@pytest.mark.parametrize("upgrades", [True, False])
async def test_what_comes_in_one_piece_with_a_head(upgrades: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await Handler()(scope, receive, send)
            return
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": body})

    async with serving(app, http=HTTPProtocol) as server, Raw.to(server.port) as connection:
        if upgrades:
            connection.writer.write(connection.REQUEST.format(path="/", more="").encode() + HELLO)
            assert (await connection.head()).startswith(b"HTTP/1.1 101 ")
            assert await asyncio.wait_for(connection.reader.readexactly(4), LIMIT) == b"\x81\x02hi"
        else:
            connection.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
            assert (await connection.head()).startswith(b"HTTP/1.1 200 ")
            assert await connection.reader.readexactly(2) == b"hi"


# In processes of their own. pytest does not see these coroutines: a start may take longer than the limit on
# every coroutine test.

APP = """
import os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": f"VERSION {os.getpid()}"})
    await receive()
"""


@asynccontextmanager
async def program(folder: Path, *options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """`uvicorn --ws lilya.websockets.uvicorn:WebSocketProtocol`, on the command line."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder.joinpath("app.py").write_text(APP)
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), *options]
    command += ["--ws", "lilya.websockets.uvicorn:WebSocketProtocol"]
    command += ["--http", "lilya.websockets.uvicorn:HTTPProtocol"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdout is not None
    try:
        yield process, port
        if process.returncode is None:
            process.terminate()
        # The output ends with the last of the group. A helper of the interpreter's ends after all others,
        # and if it is killed while it writes down its coverage, that file cannot be read.
        await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


async def greeting(port: int) -> tuple[ClientConnection, list[str]]:
    """A connection to a server that may still be starting, and what it says first."""
    async with asyncio_timeout(PATIENCE):
        while True:
            try:
                connection = await client(f"ws://127.0.0.1:{port}/", proxy=None)
                return connection, str(await connection.recv()).split()
            except (OSError, InvalidHandshake, ConnectionClosed):
                await asyncio.sleep(0.05)


def test_workers_and_a_signal(tmp_path: Path) -> None:
    asyncio.run(workers_and_a_signal(tmp_path))


async def workers_and_a_signal(tmp_path: Path) -> None:
    async with program(tmp_path, "--workers", "2") as (process, port):
        connection, (_, pid) = await greeting(port)
        assert int(pid) != process.pid
        process.terminate()
        assert await seen(connection, PATIENCE) == (1012, "")
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0


def test_reloading(tmp_path: Path) -> None:
    asyncio.run(reloading(tmp_path))


async def keeps_changing(app: Path) -> None:
    # To another size: Python knows its compiled files by size and time, and a time of whole seconds.
    while True:
        await asyncio.to_thread(app.write_text, APP.replace("VERSION", "REWRITTEN"))
        await asyncio.sleep(1)


async def reloading(tmp_path: Path) -> None:
    async with program(tmp_path, "--reload") as (_, port):
        connection, (version, _) = await greeting(port)
        assert version == "VERSION"
        # More than once: what is changed before the reloader's first look is no change.
        changing = asyncio.create_task(keeps_changing(tmp_path / "app.py"))
        try:
            assert await seen(connection, PATIENCE) == (1012, "")
        finally:
            changing.cancel()
        async with asyncio_timeout(PATIENCE):
            while version == "VERSION":
                connection, (version, _) = await greeting(port)
                await connection.close()
        assert version == "REWRITTEN"


def test_without_the_library_in_c() -> None:
    source = """
import sys
sys.modules["websockets.speedups"] = None
import lilya.websockets.uvicorn._frames as subject
assert subject.apply_mask.__module__ == "websockets.utils", subject.apply_mask
assert subject.apply_mask(b"abcde", bytes(4)) == b"abcde"
"""
    subprocess.run([sys.executable, "-c", source], check=True, timeout=PATIENCE)
