"""`HTTPProtocol` and the requests of one connection: a body is a body, and limits hold for each request."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lilya.websockets.uvicorn import HTTPProtocol
from lilya.websockets.uvicorn import _http as subject
from lilya.websockets.uvicorn._guarded import H11

from .test_uvicorn import LIMIT, LOOPS, asyncio_timeout, serving, until

pytestmark = pytest.mark.anyio

SMUGGLED = b"POST /forbidden HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\nContent-Length: 0\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n%b" % (len(SMUGGLED), SMUGGLED)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nX-Trailer: y\r\n\r\n" % (
    len(SMUGGLED),
    SMUGGLED,
)
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Doorman(HTTPProtocol):
    """As the class itself, with less patience."""

    head_timeout = 0.3


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["httptools", "h11"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of uvicorn's HTTP protocols is behind it."""
    if request.param == "h11":
        monkeypatch.setattr(subject, "behind", H11)
    elif subject.behind is H11:
        pytest.skip("httptools is not installed")
    return str(request.param)


class Requests:
    """An app that writes down each request, and answers with its body."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        self.headers: list[dict[bytes, bytes]] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            self.seen.append(("websocket", scope["path"], b""))
            await receive()
            await send({"type": "websocket.close"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.seen.append((scope["method"], scope["path"], b"cut off"))
                return
            body += message["body"]
            more = message["more_body"]
        self.seen.append((scope["method"], scope["path"], body))
        self.headers.append(dict(scope["headers"]))
        await self.hold.wait()
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield reader, writer
    finally:
        writer.close()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes."""
    data = b""
    try:
        async with asyncio_timeout(LIMIT):
            while piece := await reader.read(65536):
                data += piece
    except ConnectionResetError:
        pass  # it closed with something unread
    return data


def cut(data: bytes, how: str) -> list[bytes]:
    """One segment; two, behind each head; or every byte by itself."""
    if how == "one":
        return [data]
    if how == "bytes":
        return [data[at : at + 1] for at in range(len(data))]
    pieces = data.split(b"\r\n\r\n")
    return [piece + b"\r\n\r\n" for piece in pieces[:-1]] + [pieces[-1]]


async def sent(server: Any, data: bytes, how: str) -> bytes:
    """The answers to what is sent in such pieces."""
    async with connection(server.port) as (reader, writer):
        answers = asyncio.create_task(rest(reader))
        for piece in cut(data, how):
            if answers.done():
                break  # the server has closed
            writer.write(piece)
            # In a segment of its own: the server's loop is this one, and takes it before the next.
            for _ in range(2 if how == "bytes" else 5):
                await asyncio.sleep(0)
        return await answers


def head(first: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join((first + b" HTTP/1.1", b"Host: a", *lines, b""))


UPGRADES = [
    pytest.param(head(b"POST /a", b"Connection: upgrade", b"Upgrade: foo"), id="another"),
    pytest.param(head(b"GET /a", b"Connection: keep-alive, Upgrade", b"Upgrade: h2c"), id="get"),
    pytest.param(head(b"POST /a", b"Connection: upgrade", b"Upgrade: websocket, foo"), id="list"),
    pytest.param(
        head(b"POST /a", b"Connection: upgrade", b"Upgrade: foo", b"Upgrade: websocket"), id="another-first"
    ),
    pytest.param(
        head(b"POST /a", b"Connection: upgrade", b"Upgrade: websocket", b"Upgrade: websocket"), id="twice"
    ),
    pytest.param(head(b"POST /a", b"Connection: upgrade", b"Upgrade:"), id="empty"),
    pytest.param(head(b"POST /a", b"Upgrade: websocket"), id="no-connection"),
    pytest.param(head(b"POST /a"), id="none"),
]


@pytest.mark.parametrize("how", ["one", "two", "bytes"])
@pytest.mark.parametrize("body", [LENGTH, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("request_head", UPGRADES)
async def test_a_body_is_a_body(implementation: str, request_head: bytes, body: bytes, how: str) -> None:
    app = Requests()
    method = request_head.split()[0].decode()
    async with serving(app, http=HTTPProtocol) as server:
        answers = await sent(server, request_head + body + LAST, how)
    assert app.seen == [(method, "/a", SMUGGLED), ("GET", "/last", b"")]
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert (b"upgrade" in app.headers[0]) == (b"Upgrade:" in request_head)


@pytest.mark.parametrize("how", ["one", "two", "bytes"])
async def test_requests_in_a_row(implementation: str, how: str) -> None:
    app = Requests()
    upgrade = head(b"POST /b", b"Connection: upgrade", b"Upgrade: foo")
    empty = head(b"GET /c", b"Connection: upgrade", b"Upgrade: foo") + b"\r\n"
    data = head(b"GET /a") + b"\r\n" + upgrade + LENGTH + empty * 3 + upgrade + CHUNKED + LAST
    async with serving(app, http=HTTPProtocol) as server:
        answers = await sent(server, data, how)
    posted = ("POST", "/b", SMUGGLED)
    assert app.seen == [("GET", "/a", b""), posted, *[("GET", "/c", b"")] * 3, posted, ("GET", "/last", b"")]
    assert answers.count(b"HTTP/1.1 200 ") == 7


@pytest.mark.parametrize("how", ["one", "two", "bytes"])
@pytest.mark.parametrize("body", [LENGTH, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_nothing_follows_a_handshake_with_a_body(
    implementation: str, method: bytes, body: bytes, how: str
) -> None:
    app = Requests()
    request = head(
        method + b" /a",
        b"Connection: upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
    )
    async with serving(app, http=HTTPProtocol) as server:
        answers = await sent(server, request + body + LAST, how)
    assert app.seen == []
    assert answers.count(b"HTTP/1.1 ") == answers.count(b"HTTP/1.1 4") <= 1  # a reset may overtake it
    assert answers or how != "one"


@pytest.mark.parametrize("how", ["one", "two"])
@pytest.mark.parametrize(
    ("first", "seen"),
    [
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", [("CONNECT", b"")]),
        (head(b"GET /a", b"Connection: close") + b"\r\n", [("GET", b"")]),
        (head(b"POST /a", b"Connection: close, upgrade", b"Upgrade: foo") + LENGTH, [("POST", SMUGGLED)]),
    ],
    ids=["connect", "close", "close-and-upgrade"],
)
async def test_what_comes_before_a_connection_closes_is_not_read(
    implementation: str, first: bytes, seen: list[tuple[str, bytes]], how: str
) -> None:
    app = Requests()
    async with serving(app, http=HTTPProtocol) as server:
        await sent(server, first + SMUGGLED, how)
    assert [(method, body) for method, _, body in app.seen] in ([], seen)
    assert all(path != "/forbidden" for _, path, _ in app.seen)


@pytest.mark.parametrize("how", ["one", "two", "bytes"])
async def test_a_bad_request_is_one_line(
    implementation: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Requests()
    async with serving(app, http=HTTPProtocol) as server:
        answers = await sent(server, head(b"GET /a") + b"\r\nGET b\r\n\r\n" + SMUGGLED, how)
    assert app.seen == [("GET", "/a", b"")]
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert not [record for record in caplog.records if record.exc_info]
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


async def test_a_chunk_that_is_wrong_ends_its_request(implementation: str) -> None:
    app = Requests()
    data = head(b"POST /a") + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n" + SMUGGLED
    async with serving(app, http=HTTPProtocol) as server:
        answers = await sent(server, data, "two")
        await until(lambda: app.seen)
    assert app.seen == [("POST", "/a", b"cut off")]
    assert answers.startswith(b"HTTP/1.1 400 ")
    assert answers.count(b"HTTP/1.1 ") == 1


# Limits


@pytest.mark.parametrize("begun", [b"G", b"GET /b HTTP/1.1\r\nX-Half: "])
async def test_every_head_has_its_time(implementation: str, begun: bytes) -> None:
    app = Requests()
    async with serving(app, http=Doorman) as server, connection(server.port) as (reader, writer):
        for _ in range(2):
            writer.write(head(b"GET /a") + b"\r\n")
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(begun)
        assert (await rest(reader)).startswith(b"HTTP/1.1 408 ")
        await until(lambda: not server.server_state.connections)


async def test_a_head_in_time_is_no_matter(implementation: str) -> None:
    app = Requests()
    async with serving(app, http=Doorman) as server, connection(server.port) as (reader, writer):
        for _ in range(2):
            writer.write(head(b"GET /a"))
            await until(lambda: _timers(server))
            writer.write(b"\r\n")
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            await until(lambda: not _timers(server))


def _timers(server: Any) -> list[Any]:
    return [timer for each in server.server_state.connections if (timer := each._timer)]


@pytest.mark.parametrize(
    "flood",
    [b"GET /b HTTP/1.1\r\nX-Long: " + b"a" * 4_000_000, b"GET /" + b"a" * 4_000_000, b"x" * 4_000_000],
    ids=["header", "target", "method"],
)
async def test_every_head_has_its_size(implementation: str, flood: bytes) -> None:
    app = Requests()
    async with serving(app, http=HTTPProtocol) as server, connection(server.port) as (reader, writer):
        writer.write(head(b"GET /a") + b"\r\n")
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(flood)
        answer = await rest(reader)
        assert answer == b"" or answer.split()[1] in (b"400", b"431")  # a reset may overtake the answer
        await until(lambda: not server.server_state.connections)
    assert app.seen == [("GET", "/a", b"")]


@pytest.mark.parametrize("pieces", [b"X-%d: y\r\n", b"\r\n"], ids=["headers", "lines"])
async def test_many_short_lines_are_a_large_head(implementation: str, pieces: bytes) -> None:
    app = Requests()
    lines = b"".join(pieces % n if b"%" in pieces else pieces for n in range(40_000))
    begun = b"GET /b HTTP/1.1\r\n" if b"%" in pieces else b""
    async with serving(app, http=HTTPProtocol) as server, connection(server.port) as (reader, writer):
        writer.write(head(b"GET /a") + b"\r\n")
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(begun + lines)
        answer = await rest(reader)
        assert answer == b"" or answer.split()[1] in (b"400", b"431")
        await until(lambda: not server.server_state.connections)
    assert app.seen == [("GET", "/a", b"")]


async def test_a_large_body_is_no_head(implementation: str) -> None:
    app = Requests()
    body = b"a" * 1_000_000
    data = head(b"POST /a") + b"Content-Length: %d\r\n\r\n" % len(body) + body
    async with serving(app, http=HTTPProtocol) as server:
        answers = await sent(server, data + LAST, "one")
    assert [len(body) for _, _, body in app.seen] == [1_000_000, 0]
    assert answers.count(b"HTTP/1.1 200 ") == 2


async def test_trailers_without_end(implementation: str) -> None:
    app = Requests()
    async with serving(app, http=HTTPProtocol) as server, connection(server.port) as (reader, writer):
        writer.write(
            head(b"POST /a") + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: " + b"y" * 400_000
        )
        answer = await rest(reader)
        assert answer == b"" or answer.split()[1] in (b"400", b"431")
        await until(lambda: app.seen and not server.server_state.connections)
    assert app.seen == [("POST", "/a", b"cut off")]


async def test_a_head_that_is_too_late_waits_for_the_answer_before_it(implementation: str) -> None:
    app = Requests()
    app.hold.clear()
    async with (
        serving(app, http=Doorman, timeout_keep_alive=1) as server,
        connection(server.port) as (reader, writer),
    ):
        writer.write(head(b"GET /a") + b"\r\n")
        await until(lambda: app.seen)
        writer.write(b"GET /b HT")
        (protocol,) = server.server_state.connections
        if implementation == "httptools":  # h11 does not look at it before the first has its answer
            await until(lambda: protocol._deaf)
        app.hold.set()
        answers = await rest(reader)
        assert answers.startswith(b"HTTP/1.1 200 ")
        assert answers.count(b"HTTP/1.1 ") == 1
        await until(lambda: not server.server_state.connections)
    assert app.seen == [("GET", "/a", b"")]
