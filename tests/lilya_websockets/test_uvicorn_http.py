"""`HTTPProtocol` and the requests of one connection: a body is a body, and limits hold for each request.

What does not depend on time, on sockets or on the event loop is tested over a transport in memory.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from lilya.websockets.uvicorn import HTTPProtocol, WebSocketProtocol
from lilya.websockets.uvicorn import _http as subject
from lilya.websockets.uvicorn._guarded import H11, Guarded
from tests.docs.nginx import needs_nginx, nginx

from .serving import TIMES
from .test_uvicorn import LIMIT, LOOPS, asyncio_timeout, serving, until

HTTPTOOLS: Any = subject.behind  # or h11's, where httptools is not installed
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


class Line(asyncio.Transport):
    """A connection in memory: what is written is kept, and it closes in the next turn."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = bytearray()
        self.paused = self.closing = False
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol  # type: ignore[no-any-return]

    def write(self, data: Any) -> None:
        if not self.closing:
            self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(lambda: self.protocol.connection_lost(None))

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def can_write_eof(self) -> bool:
        return True


TURNS = 50  # of the loop, in which an app in memory has answered whatever it is asked


async def exchanged(app: Any, pieces: Iterable[bytes], **options: Any) -> bytes:
    """The answers to pieces that come one by one, in memory."""
    settings: dict[str, Any] = {"ws": WebSocketProtocol, "lifespan": "off", "log_config": None}
    config = Config(app, **(settings | options))
    config.load()
    state = ServerState()
    line = Line(HTTPProtocol(config, state, {}))
    for piece in pieces:
        for _ in range(TURNS):
            if line.closing or not line.paused:
                break
            await asyncio.sleep(0)
        if line.closing:
            break
        assert not line.paused, "nobody reads"
        line.protocol.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    line.close()
    for _ in range(TURNS):
        await asyncio.sleep(0)
    assert not state.connections
    assert not state.tasks
    return bytes(line.written)


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(main)


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
def test_a_body_is_a_body(implementation: str, request_head: bytes, body: bytes, how: str) -> None:
    app = Requests()
    method = request_head.split()[0].decode()
    answers = run(exchanged(app, cut(request_head + body + LAST, how)))
    assert app.seen == [(method, "/a", SMUGGLED), ("GET", "/last", b"")]
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert (b"upgrade" in app.headers[0]) == (b"Upgrade:" in request_head)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["one", "two"])
async def test_a_body_is_a_body_over_sockets(implementation: str, how: str) -> None:
    app = Requests()
    upgrade = head(b"POST /a", b"Connection: upgrade", b"Upgrade: foo")
    async with serving(app, http=HTTPProtocol) as server:
        answers = await sent(server, upgrade + LENGTH + upgrade + CHUNKED + LAST, how)
    assert app.seen == [("POST", "/a", SMUGGLED), ("POST", "/a", SMUGGLED), ("GET", "/last", b"")]
    assert answers.count(b"HTTP/1.1 200 ") == 3


@pytest.mark.parametrize("how", ["one", "two", "bytes"])
def test_requests_in_a_row(implementation: str, how: str) -> None:
    app = Requests()
    upgrade = head(b"POST /b", b"Connection: upgrade", b"Upgrade: foo")
    empty = head(b"GET /c", b"Connection: upgrade", b"Upgrade: foo") + b"\r\n"
    data = head(b"GET /a") + b"\r\n" + upgrade + LENGTH + empty * 3 + upgrade + CHUNKED + LAST
    answers = run(exchanged(app, cut(data, how)))
    posted = ("POST", "/b", SMUGGLED)
    assert app.seen == [("GET", "/a", b""), posted, *[("GET", "/c", b"")] * 3, posted, ("GET", "/last", b"")]
    assert answers.count(b"HTTP/1.1 200 ") == 7


@pytest.mark.parametrize("how", ["one", "two", "bytes"])
@pytest.mark.parametrize("body", [LENGTH, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_nothing_follows_a_handshake_with_a_body(
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
    answers = run(exchanged(app, cut(request + body + LAST, how)))
    assert app.seen == []
    assert answers.count(b"HTTP/1.1 ") == answers.count(b"HTTP/1.1 4") == 1


@pytest.mark.parametrize("how", ["one", "two"])
@pytest.mark.parametrize(
    ("first", "seen"),
    [
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", [("CONNECT", b"")]),
        (b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n", [("CONNECT", b"")]),
        (head(b"GET /a", b"Connection: close") + b"\r\n", [("GET", b"")]),
        (head(b"POST /a", b"Connection: close, upgrade", b"Upgrade: foo") + LENGTH, [("POST", SMUGGLED)]),
    ],
    ids=["connect", "connect-path", "close", "close-and-upgrade"],
)
def test_what_comes_before_a_connection_closes_is_not_read(
    implementation: str, first: bytes, seen: list[tuple[str, bytes]], how: str
) -> None:
    app = Requests()
    run(exchanged(app, cut(first + SMUGGLED, how)))
    assert [(method, body) for method, _, body in app.seen] in ([], seen)
    assert all(path != "/forbidden" for _, path, _ in app.seen)


@pytest.mark.parametrize("how", ["one", "two", "bytes"])
def test_a_bad_request_is_one_line(implementation: str, how: str, caplog: pytest.LogCaptureFixture) -> None:
    app = Requests()
    answers = run(exchanged(app, cut(head(b"GET /a") + b"\r\nGET b\r\n\r\n" + SMUGGLED, how)))
    assert app.seen == [("GET", "/a", b"")]
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert not [record for record in caplog.records if record.exc_info]
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_a_chunk_that_is_wrong_ends_its_request(implementation: str) -> None:
    app = Requests()
    data = head(b"POST /a") + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n" + SMUGGLED
    answers = run(exchanged(app, cut(data, "two")))
    assert app.seen == [("POST", "/a", b"cut off")]
    assert answers.startswith(b"HTTP/1.1 400 ")
    assert answers.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("how", ["one", "two"])
def test_a_fault_takes_no_answer_from_requests_before_it(implementation: str, how: str) -> None:
    app = Requests()
    bad = head(b"POST /b") + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n"
    answers = run(exchanged(app, cut((head(b"GET /a") + b"\r\n") * 3 + bad, how)))
    assert [path for _, path, body in app.seen if body != b"cut off"] == ["/a"] * 3
    assert answers.count(b"HTTP/1.1 200 ") == 3


@pytest.mark.parametrize("how", ["one", "two"])
def test_a_handshake_overtakes_no_answer(implementation: str, how: str) -> None:
    app = Requests()
    handshake = head(
        b"GET /b",
        b"Connection: upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
    )
    answers = run(exchanged(app, cut(head(b"GET /a") + b"\r\n" + handshake + b"\r\n", how)))
    assert app.seen[0] == ("GET", "/a", b"")
    assert answers.startswith(b"HTTP/1.1 200 ")
    if implementation == "httptools":  # it is parsed at once, and the connection ends after the answer
        assert answers.count(b"HTTP/1.1 ") == 1 or how == "two"


HANDSHAKE = head(
    b"GET /a",
    b"Connection: upgrade",
    b"Upgrade: WebSocket",  # not as clients write it: it goes through uvicorn's protocol
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
)


class Echo:
    """An app that echoes one message."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept"})
        await send({**await receive(), "type": "websocket.send"})


@pytest.mark.parametrize("how", ["one", "two"])
def test_a_handshake_behind_the_parser_keeps_what_follows(implementation: str, how: str) -> None:
    frame = b"\x81\x82\0\0\0\0hi"
    answers = run(exchanged(Echo(), cut(HANDSHAKE + b"\r\n" + frame, how)))
    assert answers.startswith(b"HTTP/1.1 101 ")
    assert b"\r\n\r\n\x81\x02hi" in answers


@pytest.mark.anyio
@pytest.mark.parametrize("upgrade", [b"websocket", b"WebSocket"])
async def test_in_front_of_another_websocket_protocol(implementation: str, upgrade: bytes) -> None:
    async with (
        serving(Echo(), http=HTTPProtocol, ws="websockets-sansio") as server,
        connection(server.port) as (reader, writer),
    ):
        writer.write(HANDSHAKE.replace(b"WebSocket\r\nSec", upgrade + b"\r\nSec") + b"\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT)).startswith(b"HTTP/1.1 101 ")
        writer.write(b"\x81\x82\0\0\0\0hi")
        assert await asyncio.wait_for(reader.readexactly(4), LIMIT) == b"\x81\x02hi"


def test_without_a_websocket_protocol_a_handshake_is_a_request(implementation: str) -> None:
    app = Requests()
    run(exchanged(app, [HANDSHAKE.replace(b"WebSocket", b"websocket") + b"\r\n"], ws="none"))
    assert app.seen == [("GET", "/a", b"")]


def test_a_fault_after_the_answer_has_begun(implementation: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        while (await receive())["type"] != "http.disconnect":
            pass

    data = head(b"POST /a") + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n"
    pieces = [data[:-4], data[-4:], b"ignored"]
    answers = run(exchanged(app, pieces))
    assert answers.count(b"HTTP/1.1 ") == 1
    assert answers.startswith(b"HTTP/1.1 200 ")


def test_nothing_is_taken_from_a_connection_that_closes(implementation: str) -> None:
    """Over TLS something may come after the close."""
    app = Requests()

    async def main() -> bytes:
        config = Config(app, ws=WebSocketProtocol, lifespan="off", log_config=None)
        config.load()
        line = Line(HTTPProtocol(config, ServerState(), {}))
        line.protocol.data_received(head(b"GET /a", b"Connection: close") + b"\r\n")
        await until(lambda: line.closing)
        protocol = line.protocol
        protocol.data_received(SMUGGLED)
        await asyncio.sleep(0)
        assert not config.ws_protocol_class or line.closing
        return bytes(line.written)

    assert run(main()).count(b"HTTP/1.1 ") == 1
    assert [path for _, path, _ in app.seen] == ["/a"]


def test_the_time_of_a_head_does_not_pass_while_nothing_is_read() -> None:
    """It is the app that takes its time: with httptools its second request is a reason not to read on."""
    if HTTPTOOLS is H11:
        pytest.skip("httptools is not installed")

    async def main() -> bytes:
        hold = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await hold.wait()  # and does not receive, for which uvicorn would read
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})

        config = Config(app, ws=WebSocketProtocol, lifespan="off", log_config=None)
        config.load()
        line = Line(Doorman(config, ServerState(), {}))
        line.protocol.data_received((head(b"GET /a") + b"\r\n") * 2 + b"GET /b HT")
        assert line.paused
        timer = line.protocol._timer
        await until(lambda: line.protocol._timer is not timer)
        assert not line.protocol._deaf
        hold.set()
        await until(lambda: line.closing)
        return bytes(line.written)

    answers = run(main())
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert answers.count(b"HTTP/1.1 ") == 3
    assert b"HTTP/1.1 408 " in answers


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    ("setting", "size", "status"),
    [(None, 60_000, 200), (None, 400_000, 431), (1000, 2000, 431), (200_000, 100_000, 200)],
)
def test_the_size_of_a_head_is_uvicorns_setting(
    implementation: str, setting: int | None, size: int, status: int, later: bool
) -> None:
    app = Requests()
    data = (head(b"GET /a") + b"\r\n") * later + head(b"GET /b", b"X: " + b"y" * size) + b"\r\n"
    pieces = [data[at : at + 500] for at in range(0, len(data), 500)]
    answers = run(exchanged(app, pieces, h11_max_incomplete_event_size=setting))
    statuses = [int(each[:3]) for each in answers.split(b"HTTP/1.1 ")[1:]]
    assert statuses[: later + 1] in ([200] * later + [status], [200] * later + [400] * (status == 431))


@pytest.mark.parametrize("first", [b"\x16\x03\x01", b"\0", b" GET / HTTP/1.1", b"GE\x80T", b"{", b"\r\n\x16"])
def test_first_bytes_that_are_no_method_are_refused_at_once(first: bytes) -> None:
    async def main() -> Line:
        config = Config(Echo(), ws=WebSocketProtocol, lifespan="off", log_config=None)
        config.load()
        line = Line(HTTPProtocol(config, ServerState(), {}))
        for byte in first:
            line.protocol.data_received(bytes((byte,)))
            if line.closing:
                break
        await asyncio.sleep(0)
        return line

    line = run(main())
    assert line.closing
    assert line.written.startswith(b"HTTP/1.1 400 ")


def test_first_bytes_that_may_be_a_method_wait(implementation: str) -> None:
    app = Requests()
    run(exchanged(app, cut(head(b"M-SEARCH /a") + b"\r\n", "bytes")))
    assert app.seen in ([("M-SEARCH", "/a", b"")], [])


def test_a_handshake_overtakes_no_answer_of_uvicorns_own_protocol_either() -> None:
    """uvicorn itself would hand over, and both would write."""
    if HTTPTOOLS is H11:
        pytest.skip("httptools is not installed")
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    app = Requests()
    plain = head(b"GET /a") + b"\r\n"
    handshake = HANDSHAKE.replace(b"WebSocket\r\nSec", b"websocket\r\nSec") + b"\r\n"

    async def main(first: bytes, waits: bool) -> bytes:
        config = Config(app, ws=WebSocketProtocol, lifespan="off", log_config=None)
        config.load()
        line = Line(HttpToolsProtocol(config, ServerState(), {}))
        if waits:
            line.protocol.data_received(first)
            await until(lambda: line.written)
            line.protocol.data_received(handshake)
        else:
            line.protocol.data_received(first + handshake)
        await until(lambda: line.closing)
        return bytes(line.written)

    assert b"HTTP/1.1 101 " not in run(main(plain, False))
    assert ("websocket", "/a", b"") not in app.seen
    assert run(main(plain, True)).count(b"HTTP/1.1 ") == 2  # 200, and the app's own refusal
    assert app.seen[-1] == ("websocket", "/a", b"")


def test_a_unix_socket_has_no_addresses() -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await Echo()(scope, receive, send)

    class UnixLine(Line):
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return ours if name == "socket" else default

    async def main() -> bytes:
        config = Config(app, ws=WebSocketProtocol, lifespan="off", log_config=None, proxy_headers=False)
        config.load()
        line = UnixLine(HTTPProtocol(config, ServerState(), {}))
        line.protocol.data_received(HANDSHAKE.replace(b"WebSocket\r\nSec", b"websocket\r\nSec") + b"\r\n")
        await until(lambda: line.written)
        line.close()
        await until(lambda: line.closing and not line.protocol.scope)
        return bytes(line.written)

    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert run(main()).startswith(b"HTTP/1.1 101 ")
    assert (scopes[0]["client"], scopes[0]["server"]) == (None, ("", None))


def test_without_httptools() -> None:
    source = """
import sys
sys.modules["httptools"] = None
from lilya.websockets.uvicorn import _http, _protocol
assert _http.behind is _http.H11
assert _protocol.HttpToolsProtocol is None
"""
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60)


# Behind a real nginx, with the configuration of the page *Deploying*


# The page's hands on no other `Upgrade` than `websocket`. Many in use hand on whatever comes.
ANY_UPGRADE = {
    "proxy_set_header Upgrade $upgrade;": "proxy_set_header Upgrade $http_upgrade;",
    "proxy_set_header Connection $connection_upgrade;": "proxy_set_header Connection upgrade;",
}


async def through_nginx(
    folder: Path, upgrade: bytes, status: bytes, tries: int, replaced: dict[str, str]
) -> Requests:
    """Send the request that hides another one to an app behind nginx, which forbids that other one."""
    app = Requests()
    forbidden = "    location /forbidden { return 403; }"
    async with serving(app, http=HTTPProtocol) as server:
        with nginx(folder, [server.port], replaced=replaced, locations=forbidden) as port:
            for first, expected in [(b"POST /forbidden", b"403"), *[(b"POST /a", status)] * tries]:
                async with connection(port) as (reader, writer):
                    writer.write(head(first, b"Connection: upgrade", b"Upgrade: " + upgrade) + LENGTH)
                    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT)
                    assert answer.split()[1] == expected
    return app


@needs_nginx
@pytest.mark.anyio
@pytest.mark.parametrize("replaced", [{}, ANY_UPGRADE], ids=["page", "any-upgrade"])
@pytest.mark.parametrize(("upgrade", "status"), [(b"foo", b"200"), (b"websocket", b"405")])
async def test_nothing_is_smuggled_past_nginx(
    implementation: str, upgrade: bytes, status: bytes, replaced: dict[str, str], tmp_path: Path
) -> None:
    app = await through_nginx(tmp_path, upgrade, status, 40, replaced)
    assert app.seen == ([("POST", "/a", SMUGGLED)] * 40 if status == b"200" else [])
    assert all((headers.get(b"upgrade") == upgrade) == bool(replaced) for headers in app.headers)


# Both implementations, under requests with faults


LINES = [
    (b"Connection: upgrade", 0.4),
    (b"Connection: keep-alive, Upgrade", 0.2),
    (b"Connection: close", 0.05),
    (b"Upgrade: foo", 0.3),
    (b"Upgrade: websocket", 0.25),
    (b"Upgrade: h2c, websocket", 0.1),
    (b"Upgrade:", 0.05),
    (b"Upgrade: websocket\t", 0.05),
    (b"Expect: 100-continue", 0.1),
    (b"X: y\r\n folded", 0.03),
    (b"Transfer-Encoding: gzip, chunked", 0.02),
    (b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==", 0.2),
    (b"Sec-WebSocket-Version: 13", 0.2),
    (b"HTTP2-Settings: AAMAAABkAAQAAP__", 0.1),
]
EXTENSIONS = (b"", b"", b";a=b", b'; x="y"')
TRAILERS = (b"", b"", b"X-T: y\r\n", b"Upgrade: websocket\r\n", b"Content-Length: 5\r\n")


def a_request(dice: random.Random, number: int) -> tuple[bytes, tuple[str, str, bytes] | None]:
    """A request whose body reads as another one, and what the app must see, if none may refuse it."""
    method = dice.choice((b"GET", b"POST", b"POST", b"PUT", b"HEAD", b"OPTIONS"))
    version = dice.choice((b"1.1",) * 9 + (b"1.0",))
    lines = [b"Host: a", *(line for line, chance in LINES if dice.random() < chance)]
    body = sent = extension = trailer = b""
    match dice.randrange(4):
        case 0:
            body = sent = SMUGGLED
            lines.append(b"Content-Length: %d" % len(body))
        case 1 | 2 as how:
            body = SMUGGLED
            lines.append(b"Transfer-Encoding: chunked")
            if how == 2 and dice.random() < 0.2:
                lines.append(b"Content-Length: %d" % len(body))  # RFC 9112 section 6.3
            middle = dice.randrange(1, len(body))
            extension = dice.choice(EXTENSIONS)
            chunks = [b"%x%b\r\n%b\r\n" % (len(c), extension, c) for c in (body[:middle], body[middle:])]
            trailer = dice.choice(TRAILERS)
            sent = b"".join((*chunks, b"0\r\n", trailer, b"\r\n"))
    dice.shuffle(lines)
    first = b"%b /%d HTTP/%b" % (method, number, version)
    upgrades = [line.strip() for line in lines if line.startswith(b"Upgrade")]
    framed = [line for line in lines if line.startswith((b"Content-Length", b"Transfer-Encoding"))]
    plain = (
        version == b"1.1"
        and len(framed) < 2
        and upgrades != [b"Upgrade: websocket"]
        and not {b"X: y\r\n folded", b"Transfer-Encoding: gzip, chunked", b"Connection: close"} & set(lines)
        and b" " not in extension
        and b"Length" not in trailer
    )
    seen = (method.decode(), f"/{number}", body) if plain else None
    return b"\r\n".join((first, *lines, b"", b"")) + sent, seen


def some_requests(dice: random.Random) -> tuple[bytes, list[Any] | None]:
    """Requests in a row, half of the time with faults; and what the app must see, if that is known."""
    requests = [a_request(dice, number) for number in range(dice.randrange(1, 5))]
    between = dice.choice((b"", b"", b"\r\n"))  # h11 refuses an empty line before any request but the first
    data = bytearray(between.join(request for request, _ in requests))
    expected = [seen for _, seen in requests if not between]
    if dice.random() < 0.5:
        return bytes(data), None if None in expected else expected or None
    for _ in range(dice.randrange(1, 3)):
        at = dice.randrange(len(data))
        match dice.randrange(4):
            case 0:
                data[at] = dice.choice(b"\r\n\t :,;0a\0\xff")
            case 1:
                del data[at : at + dice.choice((1, 1, 2, 20))]
            case 2:
                data.insert(at, dice.choice(b"\r\n\t :,;0a\0"))
            case _:
                data[at:at] = data[at : at + dice.randrange(40)]
    return bytes(data), None


def pieces_of(dice: random.Random, data: bytes) -> list[list[bytes]]:
    places = sorted(dice.randrange(len(data) + 1) for _ in range(6))
    anywhere = [data[start:stop] for start, stop in pairwise((0, *places, len(data))) if start != stop]
    return [cut(data, "one"), cut(data, "bytes"), anywhere]


async def seen_by(implementation: type[Guarded], pieces: list[bytes], patch: pytest.MonkeyPatch) -> Requests:
    patch.setattr(subject, "behind", implementation)
    app = Requests()
    answers = await exchanged(app, pieces)
    # Whatever comes after it, a request gets its answer.
    assert answers.count(b"HTTP/1.1 200 ") >= len(app.headers)
    app.seen = [each for each in app.seen if each[2] != b"cut off"]
    return app


async def compare(seeds: Iterable[int], patch: pytest.MonkeyPatch) -> Counter[str]:
    """What apps see behind both implementations, however the bytes are cut.

    Where one refuses what the other one reads, it has seen less, and never something else.
    """
    found: Counter[str] = Counter()
    for seed in seeds:
        dice = random.Random(seed)
        data, expected = some_requests(dice)
        apps = [
            await seen_by(implementation, pieces, patch)
            for pieces in pieces_of(dice, data)
            for implementation in (H11, HTTPTOOLS)
        ]
        most = max(apps, key=lambda app: len(app.seen))
        for app in apps:
            assert app.seen == most.seen[: len(app.seen)], f"seed {seed}"
            # httptools keeps blanks at the end of a value.
            headers = [{n: v.strip() for n, v in each.items()} for each in app.headers]
            assert (
                headers == [{n: v.strip() for n, v in each.items()} for each in most.headers][: len(headers)]
            )
            assert expected is None or app.seen == expected, f"seed {seed}"
        kind = (
            "known" if expected else "same" if {len(app.seen) for app in apps} == {len(most.seen)} else "less"
        )
        found[kind] += 1
    return found


@pytest.fixture
def both() -> None:
    if HTTPTOOLS is H11:
        pytest.skip("httptools is not installed")


def test_both_implementations_read_the_same_requests(both: None, monkeypatch: pytest.MonkeyPatch) -> None:
    found = asyncio.run(compare(range(200 * TIMES), monkeypatch))
    assert all(found[kind] > 10 for kind in ("known", "same", "less")), found


def feeds_back(patch: pytest.MonkeyPatch) -> None:
    """What was wrong once: what the parser has left over is given to it as the next request."""
    import httptools
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    def feed(self: Any, data: Any) -> Any:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            return bytes(data)[stop.args[0] :]
        except httptools.HttpParserError:
            self._refuse(400)
        return None

    patch.setattr(HTTPTOOLS, "_feed", feed)
    patch.setattr(HTTPTOOLS, "on_headers_complete", HttpToolsProtocol.on_headers_complete)


@needs_nginx
@pytest.mark.anyio
async def test_what_would_be_smuggled_past_nginx_is_seen(
    both: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeds_back(monkeypatch)
    app = await through_nginx(tmp_path, b"foo", b"200", 5, ANY_UPGRADE)
    assert ("POST", "/forbidden", b"") in app.seen


def takes_the_last_upgrade(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Guarded, "_should_upgrade", H11Protocol._should_upgrade)


def keeps_trailers(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Any, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    patch.setattr(HTTPTOOLS, "on_header", wrong)


def goes_on_after_a_fault(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Any, status: int) -> None:
        self.parser = type(self.parser)(self) if hasattr(self, "parser") else None

    patch.setattr(HTTPTOOLS, "_refuse", wrong)


@pytest.mark.parametrize("plant", [feeds_back, takes_the_last_upgrade, keeps_trailers, goes_on_after_a_fault])
def test_a_fault_is_seen(both: None, plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, AttributeError)):
        asyncio.run(compare(range(200), monkeypatch))


# Limits


@pytest.mark.anyio
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


@pytest.mark.anyio
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


@pytest.mark.anyio
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


@pytest.mark.anyio
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


@pytest.mark.anyio
async def test_a_large_body_is_no_head(implementation: str) -> None:
    app = Requests()
    body = b"a" * 1_000_000
    data = head(b"POST /a") + b"Content-Length: %d\r\n\r\n" % len(body) + body
    async with serving(app, http=HTTPProtocol) as server:
        answers = await sent(server, data + LAST, "one")
    assert [len(body) for _, _, body in app.seen] == [1_000_000, 0]
    assert answers.count(b"HTTP/1.1 200 ") == 2


@pytest.mark.anyio
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


@pytest.mark.anyio
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
        if implementation == "httptools":
            await until(lambda: protocol._deaf)
        else:  # h11 does not look at it before the first has its answer
            await until(lambda: protocol.conn.trailing_data[0])
        app.hold.set()
        answers = await rest(reader)
        assert answers.startswith(b"HTTP/1.1 200 ")
        assert answers.count(b"HTTP/1.1 ") == 1
        await until(lambda: not server.server_state.connections)
    assert app.seen == [("GET", "/a", b"")]
