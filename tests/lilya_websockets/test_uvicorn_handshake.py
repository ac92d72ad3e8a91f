"""The opening handshake, with no server: each rule, and mutated requests beside the `websockets` library.

The library's verdict is not always ours. Each difference is listed here with its reason, and must occur.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import pytest
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState
from websockets.headers import parse_subprotocol
from websockets.http11 import Request as TheirRequest
from websockets.server import ServerProtocol

from lilya.websockets.uvicorn import WebSocketProtocol
from lilya.websockets.uvicorn import _handshake as subject
from lilya.websockets.uvicorn._deflate import DEFLATE
from lilya.websockets.uvicorn._handshake import Agreement, Refusal, agreed, answer_lines, read

from .serving import TIMES

LINES = [
    b"GET /chat?x=1 HTTP/1.1",
    b"Host: example.org",
    b"Upgrade: websocket",
    b"Connection: keep-alive, Upgrade",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Protocol: chat, superchat",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    b"Origin: https://example.org",
    b"Cookie: a=b",
]
PLAIN = b"\r\n".join(LINES)


def judged(head: bytes, deflate: bool = True) -> Agreement | Refusal:
    """Our verdict."""
    try:
        return agreed(*read(head), deflate)
    except Refusal as refusal:
        return refusal


def refused(head: bytes) -> int:
    verdict = judged(head)
    assert isinstance(verdict, Refusal), verdict
    return verdict.status


def accepted(head: bytes) -> Agreement:
    verdict = judged(head)
    assert isinstance(verdict, Agreement), verdict
    return verdict


def with_line(name: bytes, *lines: bytes) -> bytes:
    """The plain handshake with these lines in the place of those that begin so."""
    kept = [line for line in LINES if not line.startswith(name)]
    place = 0 if name == b"GET" else len(kept)
    return b"\r\n".join((*kept[:place], *lines, *kept[place:]))


def test_a_plain_handshake() -> None:
    verdict = accepted(PLAIN)
    assert verdict.answer == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12; "
        b"client_max_window_bits=12\r\n"
    )
    assert verdict.deflate == subject.Window(False, False, 12, 12)
    assert verdict.subprotocols == ["chat", "superchat"]
    ends = subject.Ends(("192.0.2.1", 80), ("192.0.2.2", 4000), True)
    assert verdict.scope("/mount", "3.0", ends, state={}) == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss",
        "server": ("192.0.2.1", 80),
        "client": ("192.0.2.2", 4000),
        "state": {},
        "root_path": "/mount",
        "path": "/mount/chat",
        "raw_path": b"/mount/chat",
        "query_string": b"x=1",
        "headers": [
            (name.lower(), value) for name, _, value in (line.partition(b": ") for line in LINES[1:])
        ],
        "subprotocols": ["chat", "superchat"],
    }


def test_without_deflate_an_offer_is_not_read() -> None:
    verdict = judged(with_line(b"Sec-WebSocket-Ext", b"Sec-WebSocket-Extensions: @"), deflate=False)
    assert isinstance(verdict, Agreement)
    assert verdict.deflate is None
    assert b"Extensions" not in verdict.answer


@pytest.mark.parametrize(
    ("name", "lines", "status"),
    [
        # RFC 6455 section 4.2.1, 1, and RFC 9110 section 15.5.6
        (b"GET", [b"POST /chat HTTP/1.1"], 405),
        (b"GET", [b"get /chat HTTP/1.1"], 405),
        (b"GET", [b"GET /chat HTTP/1.0"], 505),
        (b"GET", [b"GET /chat HTTP/2.0"], 400),
        (b"GET", [b"GET /chat HTTP/1.10"], 400),
        (b"GET", [b"GET /chat HTTP/1.\xb9"], 400),
        # The request line (RFC 9112 section 3)
        (b"GET", [b"GET /chat"], 400),
        (b"GET", [b"GET  /chat HTTP/1.1"], 400),
        (b"GET", [b"GET /chat XTTP/1.1"], 400),
        (b"GET", [b"GET /chat HTTP/1.1 "], 400),
        # The target (RFC 9112 section 3.2)
        (b"GET", [b"GET chat HTTP/1.1"], 400),
        (b"GET", [b"GET * HTTP/1.1"], 400),
        (b"GET", [b"GET example.org:80 HTTP/1.1"], 400),
        (b"GET", [b"GET /chat#part HTTP/1.1"], 400),
        (b"GET", [b"GET http://example.org/chat#part HTTP/1.1"], 400),
        (b"GET", [b"GET http://user@example.org/chat HTTP/1.1"], 400),
        (b"GET", [b"GET http:///chat HTTP/1.1"], 400),
        (b"GET", [b"GET ftp://example.org/chat HTTP/1.1"], 400),
        (b"GET", [b"GET /caf\xc3\xa9 HTTP/1.1"], 400),
        (b"GET", [b"GET /a\tb HTTP/1.1"], 400),
        (b"GET", [b"GET /" + b"a" * 9000 + b" HTTP/1.1"], 414),
        # `Host` (RFC 9112 section 3.2)
        (b"Host", [], 400),
        (b"Host", [b"Host: a", b"Host: a"], 400),
        (b"Host", [b"Host: a", b"host:"], 400),
        (b"Host", [b"Host: a b"], 400),
        (b"Host", [b"Host: a, b"], 400),
        (b"Host", [b"Host: user@a"], 400),
        (b"Host", [b"Host: a/b"], 400),
        (b"Host", [b"Host: a:b"], 400),
        (b"Host", [b"Host: [::1"], 400),
        # No body
        (b"Cookie", [b"Content-Length: 5"], 400),
        (b"Cookie", [b"Content-Length: 0", b"Content-Length: 5"], 400),
        (b"Cookie", [b"Content-Length: 00"], 400),
        (b"Cookie", [b"Transfer-Encoding: chunked"], 400),
        # RFC 6455 section 4.2.1, 3 to 6
        (b"Upgrade", [], 426),
        (b"Upgrade", [b"Upgrade: websockets"], 426),
        (b"Upgrade", [b"Upgrade: websocket, h2c"], 426),
        (b"Upgrade", [b"Upgrade: websocket", b"Upgrade: websocket"], 426),
        (b"Connection", [b"Connection: close"], 426),
        (b"Connection", [], 400),
        (b"Connection", [b"Connection: Upgrade, @"], 400),
        (b"Sec-WebSocket-Key", [], 400),
        (b"Sec-WebSocket-Key", [b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA"], 400),
        (b"Sec-WebSocket-Key", [b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ== x"], 400),
        (b"Cookie", [b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="], 400),
        (b"Sec-WebSocket-Version", [], 400),
        (b"Sec-WebSocket-Version", [b"Sec-WebSocket-Version: 8"], 426),
        (b"Cookie", [b"Sec-WebSocket-Version: 13"], 400),
        # Lists
        (b"Sec-WebSocket-Protocol", [b"Sec-WebSocket-Protocol:"], 400),
        (b"Sec-WebSocket-Protocol", [b"Sec-WebSocket-Protocol: , ,"], 400),
        (b"Sec-WebSocket-Protocol", [b"Sec-WebSocket-Protocol: a b"], 400),
        (b"Sec-WebSocket-Protocol", [b"Sec-WebSocket-Protocol: caf\xe9"], 400),
        (b"Sec-WebSocket-Extensions", [b"Sec-WebSocket-Extensions:"], 400),
        (b"Sec-WebSocket-Extensions", [b"Sec-WebSocket-Extensions: a; b=\xe9"], 400),
        # One origin (RFC 6454 section 7.3)
        (b"Cookie", [b"Origin: https://example.org"], 400),
        # Lines that two parsers may read differently (RFC 9112 sections 2.2, 5.1 and 5.2)
        (b"Cookie", [b"Cookie : a"], 400),
        (b"Cookie", [b" folded"], 400),
        (b"Cookie", [b"\tfolded: a"], 400),
        (b"Cookie", [b": a"], 400),
        (b"Cookie", [b"Cookie"], 400),
        (b"Cookie", [b"Cookie: a\nX: b"], 400),
        (b"Cookie", [b"Cookie: a\rX: b"], 400),
        (b"Cookie", [b"Cookie: a\0"], 400),
        (b"Cookie", [b"Cookie: a\x7f"], 400),
        # Limits
        (b"Cookie", [b"Cookie: " + b"a" * 9000], 431),
        (b"Cookie", [b"X: y"] * 129, 431),
    ],
)
def test_a_refusal(name: bytes, lines: list[bytes], status: int) -> None:
    assert refused(with_line(name, *lines)) == status


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (405, b"allow: GET\r\n"),
        (426, b"upgrade: websocket\r\n"),
        (426, b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"),
    ],
)
def test_what_a_refusal_says(status: int, lines: bytes) -> None:
    """RFC 9110 sections 15.5.6 and 15.5.22; RFC 6455 section 4.4."""
    head = {
        405: with_line(b"GET", b"PUT / HTTP/1.1"),
        426: with_line(b"Upgrade", b"Upgrade: h2c")
        if b"version" not in lines
        else with_line(b"Sec-WebSocket-Version", b"Sec-WebSocket-Version: 14"),
    }[status]
    verdict = judged(head)
    assert isinstance(verdict, Refusal)
    assert (verdict.status, verdict.lines) == (status, lines)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (b"Upgrade", [b"UPGRADE: WebSocket"]),
        (b"Upgrade", [b"Upgrade: , websocket ,"]),
        (b"Connection", [b"Connection: upgrade"]),
        (b"Connection", [b"Connection: keep-alive", b"Connection: UPGRADE, ,"]),
        (b"Sec-WebSocket-Key", [b"Sec-WebSocket-Key: \t dGhlIHNhbXBsZSBub25jZQ==\t "]),
        (b"Sec-WebSocket-Version", [b"sec-websocket-version:13"]),
        (b"Host", [b"Host:"]),
        (b"Host", [b"Host: [::1]:80"]),
        (b"Host", [b"Host: a_b.example:"]),
        (b"Cookie", [b"Content-Length: 0"]),
        (b"Cookie", [b"Cookie: \xff\t\xe9"]),
        (b"Cookie", [b"X: " + b"y" * 5000, b"Y: " + b"y" * 5000]),
        (b"Cookie", [b"X: y"] * 119),
    ],
)
def test_the_same_in_other_words(name: bytes, lines: list[bytes]) -> None:
    assert accepted(with_line(name, *lines)).answer == accepted(PLAIN).answer


@pytest.mark.parametrize(
    ("target", "path", "query", "authority"),
    [
        (b"http://example.com/chat?x=1", b"/chat", b"x=1", b"example.com"),
        (b"WSS://[::1]:8000/", b"/", b"", b"[::1]:8000"),
        (b"https://example.com", b"/", b"", b"example.com"),
        (b"ws://example.com:1?x=/", b"/", b"x=/", b"example.com:1"),
    ],
)
def test_an_absolute_target(target: bytes, path: bytes, query: bytes, authority: bytes) -> None:
    """RFC 9112 section 3.2.2: its authority counts, and not that in `Host`."""
    verdict = accepted(with_line(b"GET", b"GET %b HTTP/1.1" % target))
    assert (verdict.raw_path, verdict.query_string) == (path, query)
    assert [value for name, value in verdict.headers if name == b"host"] == [authority]


@pytest.mark.parametrize("host", [[], [b"Host: a", b"Host: b"]])
def test_an_absolute_target_needs_a_host_too(host: list[bytes]) -> None:
    head = with_line(b"Host", *host).replace(b"GET /chat", b"GET http://example.com/chat", 1)
    assert refused(head) == 400


@pytest.mark.parametrize(
    ("lines", "subprotocols"),
    [
        ([], []),
        ([b"chat, ,x,"], ["chat", "x"]),
        ([b",chat\t,\tx"], ["chat", "x"]),
        ([b"chat", b"x, y"], ["chat", "x", "y"]),
        ([b"", b"x"], ["x"]),
    ],
)
def test_subprotocols(lines: list[bytes], subprotocols: list[str]) -> None:
    """RFC 9110 sections 5.3 and 5.6.1: lines of one list, and empty elements that do not count."""
    head = with_line(b"Sec-WebSocket-Protocol", *(b"Sec-WebSocket-Protocol: " + line for line in lines))
    assert accepted(head).subprotocols == subprotocols


def test_the_path_is_unquoted_once() -> None:
    verdict = accepted(with_line(b"GET", b"GET /caf%C3%A9/%252F%ff?a=%20 HTTP/1.1"))
    scope = verdict.scope("", "3.0", subject.Ends(None, None, False))
    assert (scope["scheme"], scope["server"], scope["client"]) == ("ws", None, None)
    assert scope["path"] == "/café/%2F\ufffd"
    assert (scope["raw_path"], scope["query_string"]) == (b"/caf%C3%A9/%252F%ff", b"a=%20")


def test_what_is_remembered_of_offers_is_bounded() -> None:
    subject.negotiated.cache_clear()
    for number in range(500):
        offer = b"x%d; a=%b, permessage-deflate" % (number, b"b" * (1 + number % 2 * 300))
        assert accepted(with_line(b"Sec-WebSocket-Ext", b"Sec-WebSocket-Extensions: " + offer)).deflate
    kept = subject.negotiated.cache_info()
    assert kept.maxsize == kept.currsize == 64
    assert kept.misses == 250  # long ones are not kept
    first = accepted(PLAIN).deflate
    assert accepted(PLAIN).deflate is first


# The answer


@pytest.mark.parametrize(
    "name", ["Content-Length", "transfer-encoding", "Connection", "UPGRADE", "Sec-WebSocket-Accept"]
)
def test_headers_of_an_answer_that_are_the_servers(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name.lower()}.*is the server's to send"):
        answer_lines([(b"x", b"y"), (name.encode(), b"SECRET")], None)


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ((b"x" * 1000 + b"\r", b"SECRET"), "cannot be the name of a header"),
        ((b"set-cookie", b"SECRET\r\n" * 1000), "the value of the header 'set-cookie' holds"),
    ],
)
def test_an_error_never_shows_a_value(pair: tuple[bytes, bytes], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        answer_lines([pair], None)
    assert "SECRET" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_the_lines_of_an_answer() -> None:
    assert answer_lines([(b"X-One", b"1")], "chat") == b"x-one: 1\r\nsec-websocket-protocol: chat\r\n"
    assert answer_lines([(b"X-One", b"1")], None) == b"x-one: 1\r\n"
    with pytest.raises(ValueError, match="not a token"):
        answer_lines([], "a\r\nx: y")


# Beside `websockets`


def theirs(head: bytes) -> tuple[int, TheirRequest | None, Any]:
    """The library's verdict: the status, the request as it has read it, and its answer."""
    wire = ServerProtocol(extensions=[DEFLATE])
    wire.receive_data(head + b"\r\n\r\n")
    events = wire.events_received()
    if not events:
        written = b"".join(wire.data_to_send())
        return (int(written.split()[1]) if written else 400), None, None
    assert isinstance(events[0], TheirRequest)
    try:
        answer = wire.accept(events[0])
    except UnicodeEncodeError:
        return 400, None, None  # before its version 17 it cannot write an answer that quotes such a byte
    return answer.status_code, events[0], answer


def octets(value: str) -> bytes:
    """The bytes of a header's value, which the library decodes to surrogates before its version 17."""
    surrogates = any("\udc80" <= character <= "\udcff" for character in value)
    return value.encode("ascii", "surrogateescape") if surrogates else value.encode("latin-1")


def values(head: bytes, name: bytes) -> list[bytes]:
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    return [value.strip(b" \t") for each, _, value in lines if each.lower() == name]


def target(head: bytes) -> bytes:
    return [*head.split(b"\r\n")[0].split(b" "), b"", b""][1]


LISTS = (b"connection", b"sec-websocket-protocol", b"sec-websocket-extensions", b"upgrade")

# Where we refuse what the library accepts
STRICTER: dict[str, Callable[[bytes], Any]] = {
    "no Host, or more than one (RFC 9112 section 3.2)": lambda head: len(values(head, b"host")) != 1,
    "a Host that is no authority (RFC 9112 section 3.2)": lambda head: any(
        re.search(rb"[^-.\w:\[\]]|:\D|[^\x00-\x7f]", value) or value.count(b":") != (b":" in value)
        for value in values(head, b"host")
    ),
    "a target that is neither in origin-form nor in absolute-form (RFC 9112 section 3.2)": lambda head: (
        not re.fullmatch(rb"(?:/|(?:http|ws)s?://[-.:\[\]\w]+(?![^/?]))[!-~]*", target(head), re.IGNORECASE)
    ),
    "a fragment in the target (RFC 9110 section 7.1)": lambda head: b"#" in target(head),
    "more than one Content-Length, though all are 0": lambda head: len(values(head, b"content-length")) > 1,
}
# Where we accept what the library refuses
LOOSER: dict[str, Callable[[bytes], Any]] = {
    "an empty line of a list beside another one (RFC 9110 sections 5.3 and 5.6.1)": lambda head: any(
        len(found := values(head, name)) > 1 and any(not value.strip(b", \t") for value in found)
        for name in LISTS
    ),
}


PIECES = [
    b"Host: a",
    b"Host:",
    b"Upgrade: h2c",
    b"Upgrade:",
    b"Connection: close",
    b"Connection:",
    b"Sec-WebSocket-Protocol:",
    b"Sec-WebSocket-Protocol: x,,",
    b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover",
    b"Sec-WebSocket-Extensions:",
    b"Sec-WebSocket-Version: 8",
    b"Content-Length: 0",
    b"Content-Length: 0\r\nContent-Length: 0",
    b"Content-Length: 2",
    b"Transfer-Encoding: chunked",
    b"Origin: null",
    b"X-Odd: \t\xe9\xff\t",
    b" folded",
    b"X : y",
    b"X",
]
TARGETS = [
    b"/",
    b"/a#b",
    b"*",
    b"http://a/b?c",
    b"ws://a",
    b"http://u@a/",
    b"//a/b",
    b"a:1",
    b"/%00\x7f",
    b"/\xe9",
]


def mutated(dice: random.Random) -> bytes:
    """A handshake with up to three changes: lines that are gone, twice, added or moved, and octets."""
    lines = [line for line in LINES if dice.random() < 0.97]
    for _ in range(dice.randrange(3)):
        at = dice.randrange(1, len(lines) + 1)
        match dice.randrange(6):
            case 0 if len(lines) > 1:
                del lines[at - 1]
            case 1:
                lines.insert(at, lines[dice.randrange(len(lines))])
            case 2:
                lines.insert(at, dice.choice(PIECES))
            case 3:
                lines[0:1] = [b"GET %b HTTP/1.1" % dice.choice(TARGETS)]
            case _ if lines:
                line = bytearray(lines[at - 1])
                for _ in range(dice.randrange(1, 3)):
                    place = dice.randrange(len(line) + 1)
                    line[place : place + dice.randrange(2)] = bytes(
                        (
                            dice.choice(
                                (0, 9, 10, 13, 32, 35, 44, 47, 58, 59, 64, 127, 233, dice.randrange(256))
                            ),
                        )
                    )
                lines[at - 1] = bytes(line)
    dice.random() < 0.1 and dice.shuffle(lines)
    return b"\r\n".join(lines)


def compared(head: bytes) -> str | None:
    """Judge a request twice. Returns the reason of a difference, if there is one.

    Raises:
        AssertionError: There is one without a reason.
    """
    ours = judged(head)
    status, request, answer = theirs(head)
    if isinstance(ours, Refusal):
        assert ours.status in (400, 405, 414, 426, 431, 505)
        if status != 101:
            return None  # of several faults, each may have found another
        reasons = [reason for reason, holds in STRICTER.items() if holds(head)]
    elif status != 101:
        reasons = [reason for reason, holds in LOOSER.items() if holds(head)]
    else:
        assert request is not None
        assert (
            b"Sec-WebSocket-Accept: %b\r\n" % answer.headers["Sec-WebSocket-Accept"].encode() in ours.answer
        )
        extensions = answer.headers.get("Sec-WebSocket-Extensions", "").encode()
        assert ours.answer.partition(b"Sec-WebSocket-Extensions: ")[2] == (
            extensions and extensions + b"\r\n"
        )
        items = [(name.lower().encode(), octets(value)) for name, value in request.headers.raw_items()]
        offered = [
            each
            for value in request.headers.get_all("Sec-WebSocket-Protocol")
            for each in parse_subprotocol(value)
        ]
        assert ours.subprotocols == offered
        if not target(head).startswith(b"/"):
            parts = urlsplit(request.path)
            assert (ours.raw_path, ours.query_string) == ((parts.path or "/").encode(), parts.query.encode())
            assert {value for name, value in ours.headers if name == b"host"} == {parts.netloc.encode()}
            items = [pair for pair in items if pair[0] != b"host"]
            assert [pair for pair in ours.headers if pair[0] != b"host"] == items
            return "an absolute target (RFC 9112 section 3.2.2)"
        assert ours.headers == items
        assert (
            request.path.encode(errors="surrogateescape")
            == ours.raw_path + ("?" in request.path) * b"?" + ours.query_string
        )
        return None
    assert reasons, (head, ours, status)
    return reasons[0]


def test_mutated_handshakes_beside_the_library() -> None:
    found: Counter[str | None] = Counter()
    verdicts: Counter[bool] = Counter()
    for seed in range(6_000 * TIMES):
        head = mutated(random.Random(seed))
        try:
            found[compared(head)] += 1
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        verdicts[isinstance(judged(head), Agreement)] += 1
    kinds = {None, "an absolute target (RFC 9112 section 3.2.2)", *STRICTER, *LOOSER}
    if int(version("websockets").partition(".")[0]) < 17:
        kinds.remove("more than one Content-Length, though all are 0")  # it refuses them, too
    assert set(found) == kinds
    assert min(verdicts.values()) > 600 * TIMES


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KEY", lambda key: True),
        ("ORIGIN", lambda target: True),
        ("tokens", lambda value: [b"upgrade"]),
        ("SINGLE", frozenset()),
        ("VISIBLE", bytes(set(range(256)) - set(b"\r\n"))),
        ("TOKENS", bytes(range(256))),
        ("elements", lambda value: [b"websocket"]),
        ("negotiated", lambda offer: subject.NOTHING),
    ],
)
def test_a_rule_that_is_gone_is_seen(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "negotiated":
        value.__wrapped__ = value
    monkeypatch.setattr(subject, name, value)
    with pytest.raises(AssertionError, match="seed"):
        test_mutated_handshakes_beside_the_library()


# What is used of uvicorn: its parsers' findings, and the bytes that it writes of them


class Pipe(asyncio.Transport):
    """A transport whose protocols are those of one connection, and that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.protocol: Any = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol  # type: ignore[no-any-return]

    def write(self, data: Any) -> None:
        self.written += data

    def pause_reading(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True


class Asked(WebSocketProtocol):
    """Notes with what the app would have been started, and what uvicorn had given."""

    begun: list[Agreement]
    given: list[tuple[bytes, Any]]

    def data_received(self, data: bytes) -> None:
        self.given.append((data, self._transport.get_protocol()))
        super().data_received(data)

    def begin(self, agreement: Agreement, ends: subject.Ends, early: bytes) -> None:
        assert (ends, early) == (subject.Ends(None, None, False), b"")
        self.begun.append(agreement)


def through(door: type[asyncio.Protocol], head: bytes, config: Config) -> tuple[Any, list[tuple[bytes, Any]]]:
    """Give a request to uvicorn's HTTP protocol. Returns our verdict, if it was asked for, and what came."""
    Asked.begun, Asked.given = [], []
    transport = Pipe()
    protocol: Any = door(config=config, server_state=ServerState(), app_state={})  # type: ignore[call-arg]
    transport.protocol = protocol
    protocol.connection_made(transport)
    try:
        protocol.data_received(head + b"\r\n\r\n")
    finally:
        protocol._unset_keepalive_if_required()
    if Asked.begun:
        return Asked.begun[0], Asked.given
    return (transport.written[9:12] if Asked.given else None), Asked.given


def uvicorns(ws: type[asyncio.Protocol]) -> Config:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    config = Config(app, ws=ws, log_config=None, lifespan="off")
    config.load()
    return config


@pytest.mark.parametrize("implementation", ["httptools", "h11"])
def test_a_verdict_behind_uvicorn_is_that_on_its_bytes(implementation: str) -> None:
    """Behind httptools the parser's findings are used: the bytes that uvicorn makes of them are not read."""
    door: type[asyncio.Protocol] = H11Protocol
    if implementation == "httptools":
        pytest.importorskip("httptools")
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        door = HttpToolsProtocol
    config = uvicorns(Asked)
    seen: Counter[bool] = Counter()

    async def judge_all() -> None:
        tasks: set[asyncio.Task[Any]] = asyncio.all_tasks()
        for seed in range(6_000 * TIMES):
            head = mutated(random.Random(seed))
            verdict, given = through(door, head, config)
            if not given:
                continue  # uvicorn has not taken it for a handshake
            data, at_that_time = given[0]
            assert len(given) == 1
            # What the code relies on: the type, and that the bytes are made of exactly these findings.
            assert at_that_time.__class__.__name__ == door.__name__
            if implementation == "httptools":
                assert data == b"".join(
                    (
                        at_that_time.scope["method"].encode() + b" " + at_that_time.url + b" HTTP/1.1\r\n",
                        *(b"%b: %b\r\n" % pair for pair in at_that_time.headers),
                        b"\r\n",
                    )
                ), f"seed {seed}"
            assert re.fullmatch(r"\d\.\d", at_that_time.scope["http_version"]), f"seed {seed}"
            version = at_that_time.scope["http_version"].encode()
            expected = judged(data[:-4].replace(b" HTTP/1.1\r\n", b" HTTP/%b\r\n" % version, 1))
            if isinstance(expected, Refusal):
                assert verdict == str(expected.status).encode(), f"seed {seed}"
            else:
                assert verdict == expected, f"seed {seed}"
            seen[isinstance(expected, Agreement)] += 1
        for task in asyncio.all_tasks() - tasks:
            task.cancel()

    asyncio.run(judge_all())
    assert min(seen[True], seen[False]) > 300


@pytest.mark.parametrize("implementation", ["httptools", "h11"])
def test_http_1_0_is_known_behind_uvicorn(implementation: str) -> None:
    """uvicorn writes 1.1 into what it gives."""
    door: type[asyncio.Protocol] = H11Protocol
    if implementation == "httptools":
        pytest.importorskip("httptools")
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        door = HttpToolsProtocol

    async def judge() -> tuple[Any, list[Any]]:
        return through(door, PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"), uvicorns(Asked))

    verdict, ((data, _),) = asyncio.run(judge())
    assert b" HTTP/1.1\r\n" in data
    assert verdict == b"505"
