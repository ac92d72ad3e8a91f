"""`lilya.websockets.uvicorn:WebSocketProtocol` against RFC 6455 and RFC 7692, over raw sockets.

The cases follow the Autobahn test-suite, the yardstick of WebSocket servers, under its numbers; the suite
itself, which takes minutes, is run by `test_uvicorn_autobahn.py`. Here, what the app saw is compared, too. A
`+` in a number marks a case that Autobahn does not have. What Autobahn calls *non-strict* is let pass in two
respects: an echo may be missing when the client's next frame ended the connection before the app had its
turn; and text that is not UTF-8 is found at the end of a frame (6.4.3, 6.4.4), as the RFC allows.

`nox -s conformance` runs every case in every chopping, on asyncio and on uvloop; here each runs once.
"""

from __future__ import annotations

import re
import socket
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets import frames as their_frames
from websockets.server import ServerProtocol

from . import frames as wire
from .frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    BadFrame,
    Client,
    Deflater,
    Ended,
    Frame,
    Reader,
    binary,
    close,
    closing,
    cont,
    fragments,
    frame,
    ping,
    pong,
    request,
    text,
)
from .serving import EXHAUSTIVE, Serving, loops

LOOPS = loops(["asyncio", "uvloop"]) if EXHAUSTIVE else ["asyncio"]
CHOPS: list[int | None] = [None, -1, 1, 2, 7]
"""At once, a frame at a time, and so many octets at a time."""

MiB = 1 << 20
SMALL = 1 << 16  # the limit of the server whose messages are limited


@pytest.fixture(scope="module", params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(loop: str) -> Iterator[Serving]:
    """A server with uvicorn's defaults: 16 MiB, permessage-deflate."""
    with Serving(loop=loop) as serving:
        yield serving


@pytest.fixture(scope="module")
def small(loop: str) -> Iterator[Serving]:
    """A server that takes messages up to 64 KiB."""
    with Serving(loop=loop, ws_max_size=SMALL) as serving:
        yield serving


# ------------------------------------------------------------------------------------------------- the cases


@dataclass(frozen=True)
class Case:
    """What a client sends, and what must be seen on both sides."""

    number: str
    what: str
    send: Sequence[bytes]
    """The octets of each frame."""
    app: Sequence[str | bytes] = ()
    """The messages that the app receives, in order. It sends them back."""
    pongs: Sequence[bytes] = ()
    """The payloads of the pongs that the client gets, in order."""
    fails: Sequence[int] = ()
    """The close codes of which the server sends one, when it must fail the connection."""
    closed: bytes | None = None
    """The payload of the client's close frame, where it is among what is sent."""
    chop: int | None = None
    """The octets of each write; -1 for a frame a write, `None` for one write."""


@dataclass(frozen=True)
class Outcome:
    frames: list[Frame]
    end: str
    events: list[tuple[Any, ...]]


def play(serving: Serving, case: Case, chop: int | None) -> Outcome:
    """Send what the case says, and see everything, to the ends of both sides."""
    client, seen = serving.connect()
    with client:
        return Outcome(*talk(client, case, chop), seen.wait())


def talk(client: Client, case: Case, chop: int | None) -> tuple[list[Frame], str]:
    client.send(*wire.chopped(case.send, chop))
    received: list[Frame] = []
    if not case.fails and case.closed is None:
        try:
            for _ in range(len(case.app) + len(case.pongs)):
                received.append(client.frame())
                while not received[-1].fin:
                    received.append(client.frame())
            client.send(close(1000))
        except Ended as ended:
            return received, ended.end
    more, end = client.rest()
    return received + more, end


def verdict(case: Case, outcome: Outcome) -> str:
    """What is wrong, or nothing."""
    *events, disconnect = outcome.events
    if [event[1] for event in events] != list(case.app):
        return f"the app received {brief(events)}"
    if any((event[0] == "text") != isinstance(event[1], str) for event in events):
        return f"a message came as the wrong kind: {brief(events)}"
    frames = wire.merged(outcome.frames)
    if not frames or frames[-1].opcode != CLOSE:
        return f"the client got no close frame: {brief(frames)}"
    pongs = [each.data for each in frames if each.opcode == PONG]
    if pongs != list(case.pongs):
        return f"the client got the pongs {brief(pongs)}"
    if any(each.opcode == PING for each in frames):
        return "the client was pinged"
    echoes = [
        each.data.decode() if each.opcode == TEXT else each.data
        for each in frames
        if each.opcode in (TEXT, BINARY)
    ]
    overtaken = bool(case.fails) or case.closed is not None
    if echoes != list(case.app[: len(echoes)]) or (len(echoes) < len(case.app) and not overtaken):
        return f"the client got the messages {brief(echoes)}"
    data = frames[-1].data
    code = int.from_bytes(data[:2], "big") if data else 1005
    if case.fails:
        if code not in case.fails:
            return f"the client was closed with {code} {data[2:]!r}"
        if disconnect[:2] != ("disconnect", code):
            return f"the app saw {disconnect}, the client {code}"
        return ""
    sent = closing(1000) if case.closed is None else case.closed
    wanted = int.from_bytes(sent[:2], "big") if sent else 1005
    if code != wanted and (sent or code != 1000):
        return f"the client's close {wanted} was answered with {code}"
    if disconnect != ("disconnect", wanted, sent[2:].decode()):
        return f"the app saw {disconnect}"
    # What the client still sends after its close frame may come to a socket that is closed.
    goes_on = any(each[0] & 0xF == CLOSE for each in case.send[:-1])
    if outcome.end != "eof" and not goes_on:
        return f"the TCP connection ended with {outcome.end}"
    return ""


def brief(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) < 400 else f"{shown[:200]} … {shown[-100:]}"


def bulk(kind: int, size: int) -> tuple[bytes, str | bytes]:
    """A payload without period, so that a slip of one octet shows; and the message that it is."""
    data = bytes((at * 7 + at // 256) % 251 for at in range(min(size, 4096)))
    if kind == TEXT:
        data = bytes(32 + octet % 95 for octet in data)
    data = (data * (size // 4096 + 1))[:size]
    return data, data.decode() if kind == TEXT else data


KINDS = ((1, TEXT, "text"), (2, BINARY, "binary"))
REST = [text("not to be seen"), ping(b"not to be answered")]
"""What follows a fault, and must be ignored."""


def group_1() -> Iterator[Case]:
    for kind, opcode, name in KINDS:
        for number, size in enumerate((0, 125, 126, 127, 128, 65535, 65536), 1):
            data, message = bulk(opcode, size)
            yield Case(f"1.{kind}.{number}", f"{name} of {size}", [frame(opcode, data)], [message])
        data, message = bulk(opcode, 65536)
        yield Case(f"1.{kind}.8", f"{name} of 65536 in pieces", [frame(opcode, data)], [message], chop=997)
        data, message = bulk(opcode, 200)
        yield Case(f"1.+{kind}", "octet by octet", [frame(opcode, data)] * 3, [message] * 3, chop=1)
        zeroed = frame(opcode, data, key=b"\0\0\0\0")
        yield Case(f"1.+{kind}.zero", "masked with zeros", [zeroed], [message])
    # 5.1: "The server MUST close the connection upon receiving a frame that is not masked."
    for opcode, name in ((TEXT, "text"), (BINARY, "binary"), (PING, "ping"), (CLOSE, "close")):
        data = closing(1000) if opcode == CLOSE else b"bare"
        yield Case(f"1.+bare.{name}", "not masked", [frame(opcode, data, key=None), *REST], fails=[1002])
    yield Case("1.+bare.second", "not masked", [text("a"), frame(TEXT, b"b", key=None)], ["a"], fails=[1002])
    yield Case("1.+bare.empty", "not masked, and empty", [frame(TEXT, key=None), *REST], fails=[1002])
    # 5.2: "the most significant bit MUST be 0"
    yield Case(
        "1.+length",
        "a length of more than 63 bits",
        [frame(BINARY, b"x" * 9, length=1 << 63, form=64)],
        fails=[1002, 1009],
    )


def group_2() -> Iterator[Case]:
    full = bytes(range(256))[130 : 130 + 125]
    yield Case("2.1", "a ping without payload", [ping()], pongs=[b""])
    yield Case("2.2", "a ping with text", [ping(b"Hello, world!")], pongs=[b"Hello, world!"])
    yield Case(
        "2.3",
        "a ping that is no UTF-8",
        [ping(b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")],
        pongs=[b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"],
    )
    yield Case("2.4", "a ping of 125", [ping(full)], pongs=[full])
    yield Case("2.5", "a ping of 126", [ping(b"\xfe" * 126), *REST], fails=[1002])
    yield Case("2.+5", "a pong of 126", [pong(b"\xfe" * 126), *REST], fails=[1002])
    yield Case("2.+5.64", "a ping of 65536", [ping(b"\xfe" * 65536), *REST], fails=[1002])
    yield Case("2.6", "a ping of 125 octet by octet", [ping(full)], pongs=[full], chop=1)
    yield Case("2.7", "a pong that was not asked for", [pong()])
    yield Case("2.8", "a pong with payload that was not asked for", [pong(b"unsolicited")])
    yield Case("2.9", "such a pong, then a ping", [pong(b"unsolicited"), ping(b"ping")], pongs=[b"ping"])
    ten = [b"payload-%d" % number for number in range(10)]
    yield Case("2.10", "ten pings", [ping(data) for data in ten], pongs=ten)
    yield Case("2.11", "ten pings octet by octet", [ping(data) for data in ten], pongs=ten, chop=1)
    many = [b"%d" % number for number in range(1000)]
    yield Case("2.+12", "a thousand pings", [ping(data) for data in many], pongs=many)
    mixed = [piece for number in range(20) for piece in (text(str(number)), ping(b"%d" % number), pong(b"?"))]
    yield Case(
        "2.+13",
        "among messages",
        mixed,
        [str(number) for number in range(20)],
        pongs=[b"%d" % n for n in range(20)],
    )


def group_3() -> Iterator[Case]:
    hello, after = text("Hello"), ping(b"later")
    yield Case("3.1", "text with RSV3", [text("Hello", rsv=1)], fails=[1002])
    yield Case("3.2", "text, then RSV2", [hello, text("Hello", rsv=2), after], ["Hello"], fails=[1002])
    yield Case(
        "3.3", "text, then RSV2 and 3", [hello, text("Hello", rsv=3), after], ["Hello"], fails=[1002], chop=-1
    )
    yield Case(
        "3.4", "text, then RSV1", [hello, text("Hello", rsv=4), after], ["Hello"], fails=[1002], chop=1
    )
    yield Case("3.5", "binary with RSV1 and 3", [binary(b"\x00\xff", rsv=5), *REST], fails=[1002])
    yield Case("3.6", "ping with RSV1 and 2", [ping(b"Hello", rsv=6), *REST], fails=[1002])
    yield Case("3.7", "close with all", [frame(CLOSE, closing(1000), rsv=7)], fails=[1002])
    for rsv in range(1, 8):
        for name, send, app in (
            ("text", [text("", rsv=rsv)], []),
            ("binary", [binary(b"x" * 200, rsv=rsv)], []),
            ("ping", [ping(b"", rsv=rsv)], []),
            ("pong", [pong(b"x", rsv=rsv)], []),
            ("close", [frame(CLOSE, closing(1000), rsv=rsv)], []),
            ("fragment", [text("a", fin=False, rsv=rsv), cont("b")], []),
            ("inside", [hello, text("a", fin=False), cont("b", rsv=rsv)], ["Hello"]),
            ("inside, not last", [text("a", fin=False), cont("b", fin=False, rsv=rsv), cont("c")], []),
            ("ping inside", [text("a", fin=False), ping(b"", rsv=rsv), cont("c")], []),
        ):
            yield Case(f"3.+{name}.{rsv}", f"RSV {rsv:03b}", [*send, *REST], app, fails=[1002])


def group_4() -> Iterator[Case]:
    for part, opcodes in ((1, range(3, 8)), (2, range(11, 16))):
        for number, opcode in enumerate(opcodes, 1):
            data = b"" if number % 2 else b"reserved opcode payload"
            bad = frame(opcode, data)
            first = number > 2
            yield Case(
                f"4.{part}.{number}",
                f"opcode {opcode}",
                [*([text("Hello")] if first else []), bad, ping(b"later")],
                ["Hello"] if first else [],
                fails=[1002],
                chop=1 if number == 5 else None,
            )
            for fin in (True, False):
                send = [text("a", fin=False), frame(opcode, data, fin=fin), cont("b")]
                yield Case(f"4.+{part}.{number}.{fin:d}", "inside a message", [*send, *REST], fails=[1002])


def group_5() -> Iterator[Case]:
    one, two, both = "fragment1", "fragment2", "fragment1fragment2"
    split = [text(one, fin=False), cont(two)]
    yield Case("5.1", "a ping in two", [ping(b"a", fin=False), cont("b"), *REST], fails=[1002])
    yield Case("5.2", "a pong in two", [pong(b"a", fin=False), cont("b"), *REST], fails=[1002])
    yield Case("5.+2", "a close in two", [frame(CLOSE, closing(), fin=False), cont("b"), *REST], fails=[1002])
    for number, chop in (("5.3", None), ("5.4", -1), ("5.5", 1)):
        yield Case(number, "text in two", split, [both], chop=chop)
    for number, chop in (("5.6", None), ("5.7", -1), ("5.8", 1)):
        send = [text(one, fin=False), ping(b"between"), cont(two)]
        yield Case(number, "text in two, a ping between", send, [both], pongs=[b"between"], chop=chop)
    for first, fin in ((9, True), (12, False)):
        for offset, chop in enumerate((None, -1, 1)):
            send = [cont("non-continuation payload", fin=fin), text("Hello")]
            yield Case(
                f"5.{first + offset}", f"continues nothing, FIN {fin:d}", send, fails=[1002], chop=chop
            )
    yield Case("5.15", "continues an end", [*split, cont("3", fin=False), text("4")], [both], fails=[1002])
    again = [cont("1", fin=False), text("2", fin=False), cont("3")]
    yield Case("5.16", "continues nothing, twice", again * 2, fails=[1002])
    again = [cont("1"), text("2", fin=False), cont("3")]
    yield Case("5.17", "continues nothing with FIN, twice", again * 2, fails=[1002])
    yield Case("5.18", "a message inside a message", [text(one, fin=False), text(two), *REST], fails=[1002])
    yield Case("5.+18", "binary inside text", [text(one, fin=False), binary(b"x"), *REST], fails=[1002])
    yield Case(
        "5.+18.open", "text inside binary", [binary(b"a", fin=False), text(two, fin=False)], fails=[1002]
    )
    five = [text("1", fin=False), *(cont(str(number), fin=number == 5) for number in range(2, 6))]
    for number, chop in (("5.20", None), ("5.+20", -1), ("5.+20.octets", 1)):
        send = [*five[:2], ping(b"pongme 1!"), *five[2:4], ping(b"pongme 2!"), five[4]]
        yield Case(number, "five, with pings", send, ["12345"], pongs=[b"pongme 1!", b"pongme 2!"], chop=chop)
    yield Case("5.+21", "five, with pongs", [five[0], pong(b"?"), *five[1:4], pong(), five[4]], ["12345"])
    yield Case("5.+22", "binary in octets", fragments(BINARY, bytes(range(256)), 1), [bytes(range(256))])
    yield Case("5.+23", "one after the other", split * 5, [both] * 5)
    yield Case(
        "5.+24", "whole ones between", [*split, text("x"), *split, binary(b"")], [both, "x", both, b""]
    )
    yield Case("5.+25", "first empty", [text("", fin=False), cont("a", fin=False), cont("")], ["a"])
    yield Case(
        "5.+26", "a thousand empty", [binary(b"", fin=False), *[cont("", fin=False)] * 1000, cont("")], [b""]
    )


GREEK = "Hello-µ@ßöäüàá-UTF-8!!"
BEGUN, SURROGATE, GOES_ON = "κόσμε".encode(), b"\xed\xa0\x80", b"edited"


def utf8() -> Iterator[tuple[str, str, Iterable[bytes]]]:
    """Autobahn's groups of texts: sequences at and beyond every edge of RFC 3629."""
    yield (
        "6.5",
        "valid",
        [
            b"hello$world",
            "hello¢world".encode(),
            "hello€world".encode(),
            "hello𤭢world".encode(),
            BEGUN,
        ],
    )
    yield "6.6", "prefixes", [BEGUN[:end] for end in range(1, len(BEGUN) + 1)]
    yield "6.7", "first of each length", [chr(point).encode() for point in (0, 0x80, 0x800, 0x10000)]
    yield "6.8", "first of 5 and 6", [b"\xf8\x88" + b"\x80" * 3, b"\xfc\x84" + b"\x80" * 4]
    yield "6.9", "last of each length", [chr(point).encode() for point in (0x7F, 0x7FF, 0xFFFF, 0x10FFFF)]
    yield (
        "6.10",
        "last of 4, 5 and 6",
        [head + b"\xbf" * more for head, more in ((b"\xf7", 3), (b"\xfb", 4), (b"\xfd", 5))],
    )
    edges = [chr(point).encode() for point in (0xD7FF, 0xE000, 0xFFFD, 0x10FFFF)]
    yield "6.11", "other edges", [*edges, b"\xf4\x90\x80\x80"]
    yield (
        "6.12",
        "unexpected continuations",
        [
            b"\x80",
            *((b"\x80\xbf" * 3)[:length] for length in range(2, 7)),
            b"\xbf",
            bytes(range(0x80, 0xC0)),
        ],
    )
    yield (
        "6.13",
        "lonely starts",
        [
            b"".join(bytes([head, 0x20]) for head in range(first, last + 1))
            for first, last in ((0xC0, 0xDF), (0xE0, 0xEF), (0xF0, 0xF7), (0xF8, 0xFB), (0xFC, 0xFD))
        ],
    )
    unended = [
        bytes([head]) + bytes([filled]) * more
        for filled, heads in ((0x80, (0xC0, 0xE0, 0xF0, 0xF8, 0xFC)), (0xBF, (0xDF, 0xEF, 0xF7, 0xFB, 0xFD)))
        for more, head in enumerate(heads)
    ]
    yield "6.14", "last octet missing", unended
    yield "6.15", "those, joined", [b"".join(unended)]
    yield "6.16", "impossible octets", [b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]
    for number, what, last in (("6.17", "overlong slash", 0x2F), ("6.19", "overlong NUL", 0)):
        yield (
            number,
            what,
            [
                head + b"\x80" * more + bytes([0x80 | last])
                for head, more in ((b"\xc0", 0), (b"\xe0", 1), (b"\xf0", 2), (b"\xf8", 3), (b"\xfc", 4))
            ],
        )
    yield (
        "6.18",
        "longest overlong",
        [
            b"\xc1\xbf",
            b"\xe0\x9f\xbf",
            b"\xf0\x8f\xbf\xbf",
            b"\xf8\x87" + b"\xbf" * 3,
            b"\xfc\x83" + b"\xbf" * 4,
        ],
    )
    high, low = (0xD800, 0xDB7F, 0xDB80, 0xDBFF), (0xDC00, 0xDF80, 0xDFFF)
    yield "6.20", "surrogates", [chr(point).encode("utf-8", "surrogatepass") for point in high + low]
    yield (
        "6.21",
        "pairs of surrogates",
        [
            (chr(one) + chr(other)).encode("utf-8", "surrogatepass")
            for one in high
            for other in (low[0], low[-1])
        ],
    )
    yield (
        "6.22",
        "noncharacters",
        [chr(plane << 16 | point).encode() for plane in range(17) for point in (0xFFFE, 0xFFFF)],
    )
    yield "6.23", "specials", [chr(point).encode() for point in range(0xFFF9, 0x10000)]


def group_6() -> Iterator[Case]:
    good = GREEK.encode()
    bad = BEGUN + SURROGATE + GOES_ON
    yield Case("6.1.1", "empty", [text("")], [""])
    yield Case("6.1.2", "three empty", [text("", fin=False), cont("", fin=False), cont("")], [""])
    yield Case("6.1.3", "one of three empty", [text("", fin=False), cont(good, fin=False), cont("")], [GREEK])
    yield Case("6.2.1", "whole", [text(good)], [GREEK])
    at = good.index("ß".encode())
    yield Case("6.2.2", "between code points", [text(good[:at], fin=False), cont(good[at:])], [GREEK])
    yield Case("6.2.3", "octets", fragments(TEXT, good, 1), [GREEK])
    yield Case("6.2.4", "octets of code points", fragments(TEXT, BEGUN, 1), [BEGUN.decode()])
    yield Case("6.+2", "octets of four each", fragments(TEXT, "😀🤭𤭢".encode(), 1), ["😀🤭𤭢"], chop=3)
    yield Case("6.3.1", "not valid", [text(bad), *REST], fails=[1007])
    yield Case("6.3.2", "not valid, in octets", [*fragments(TEXT, bad, 1), *REST], fails=[1007])
    yield Case("6.+3", "after a valid one", [text(good), text(bad), *REST], [GREEK], fails=[1007])
    yield Case("6.+4", "binary is no text", [binary(bad), *fragments(BINARY, bad, 3)], [bad, bad])
    yield Case("6.+5", "ends inside a code point", [text(b"a", fin=False), cont(b"\xe2\x82")], fails=[1007])
    yield Case("6.+6", "ends inside, empty last", [text(b"\xe2\x82", fin=False), cont(b"")], fails=[1007])
    apart = [text(b"\xe2\x82", fin=False), ping(b"\xac"), cont(b"\xac")]
    yield Case("6.+7", "a ping inside a code point", apart, ["€"], pongs=[b"\xac"])
    apart = [text(b"\xe2", fin=False), cont(b"\x28"), *REST]
    yield Case("6.+8", "not valid only together", apart, fails=[1007])
    alone = [text(b"\xe2\x82"), text(b"\xac")]
    yield Case("6.+9", "no code point over two messages", [*alone, *REST], fails=[1007])
    large = ("€" * 50000).encode()
    yield Case("6.+10", "large", [*fragments(TEXT, large, 1000), text(large)], [large.decode()] * 2)
    yield Case("6.+11", "large, its last octet wrong", [text(large[:-1] + b"\xff"), *REST], fails=[1007])
    for number, what, texts in utf8():
        for each, data in enumerate(texts, 1):
            try:
                valid = [data.decode()]
            except UnicodeDecodeError:
                valid = []
            fails = [] if valid else [1007]
            yield Case(f"{number}.{each}", what, [text(data)], valid, fails=fails)
            if len(data) > 1:
                yield Case(f"{number}.+{each}", what, fragments(TEXT, data, 1), valid, fails=fails)


LEGAL = (*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999)
ILLEGAL = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999)
BEYOND = (5000, 65535)


def group_7() -> Iterator[Case]:
    end, hello = closing(1000), text("Hello World!")
    yield Case("7.1.1", "text, then close", [hello, close()], ["Hello World!"], closed=end)
    yield Case("7.1.2", "two closes", [close(), close()], closed=end)
    yield Case("7.+1.2", "a second close with another code", [close(), close(1001)], closed=end)
    yield Case("7.1.3", "a ping after the close", [close(), ping(b"late")], closed=end)
    yield Case("7.1.4", "text after the close", [close(), hello], closed=end)
    yield Case("7.+1.4", "what is illegal after the close", [close(), frame(3, b"x", key=None)], closed=end)
    split = [text("fragment1", fin=False), close(), cont("fragment2")]
    yield Case("7.1.5", "a close inside a message", split, closed=end)
    data, message = bulk(TEXT, 256 * 1024)
    yield Case(
        "7.1.6",
        "256 KiB, text, close, ping",
        [text(data), hello, close(), ping()],
        [message, "Hello World!"],
        closed=end,
    )
    yield Case("7.3.1", "close without payload", [close(None)], closed=b"")
    yield Case("7.3.2", "close with one octet", [frame(CLOSE, b"\x03"), *REST], fails=[1002])
    yield Case("7.3.3", "close with a code", [close()], closed=end)
    yield Case("7.3.4", "with a reason", [close(1000, "Hello World!")], closed=closing(1000, "Hello World!"))
    reason = "é" * 61 + "x"
    yield Case("7.3.5", "a reason of 123", [close(1000, reason)], closed=closing(1000, reason))
    yield Case("7.3.6", "a reason of 124", [close(1000, reason + "x"), *REST], fails=[1002])
    # Autobahn takes 1007, and 1002.
    for number, bad in (("7.5.1", BEGUN + SURROGATE), ("7.+5.1", b"\xff"), ("7.+5.2", b"\xe2\x82")):
        yield Case(number, "a reason that is no UTF-8", [close(1000, bad), *REST], fails=[1007, 1002])
    for each, code in enumerate(LEGAL, 1):
        yield Case(f"7.7.{each}", f"code {code}", [close(code)], closed=closing(code))
        yield Case(f"7.+7.{each}", f"code {code}", [close(code, "x")], closed=closing(code, "x"), chop=1)
    for each, code in enumerate(ILLEGAL, 1):
        yield Case(f"7.9.{each}", f"code {code}", [close(code), *REST], fails=[1002])
        yield Case(f"7.+9.{each}", f"code {code}, with a reason", [close(code, "x"), *REST], fails=[1002])
    # 7.4.2 gives them no meaning. Autobahn only looks; here they are refused as other undefined ones are.
    for each, code in enumerate(BEYOND, 1):
        yield Case(f"7.13.{each}", f"code {code}", [close(code), *REST], fails=[1002])
    yield Case("7.+14", "a close after a ping", [ping(b"x"), close(4000)], pongs=[b"x"], closed=closing(4000))


def group_9() -> Iterator[Case]:
    sizes = (64 << 10, 256 << 10, MiB, 4 * MiB, 8 * MiB, 16 * MiB)
    for kind, opcode, name in KINDS:
        for number, size in enumerate(sizes, 1):
            if EXHAUSTIVE or number < 4 or (number, kind) == (6, 2):
                data, message = bulk(opcode, size)
                yield Case(f"9.{kind}.{number}", f"{name} of {size}", [frame(opcode, data)], [message])
        whole = 4 * MiB if EXHAUSTIVE else MiB // 2
        data, message = bulk(opcode, whole)
        for number, size in enumerate(
            (64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, MiB, 4 * MiB), 1
        ):
            if EXHAUSTIVE or number in (1, 2, 4, 7):
                pieces = fragments(opcode, data, size)
                yield Case(f"9.{kind + 2}.{number}", f"{name} in fragments of {size}", pieces, [message])
        data, message = bulk(opcode, MiB if EXHAUSTIVE else MiB // 8)
        for number, size in enumerate((64, 128, 256, 512, 1024, 2048), 1):
            if EXHAUSTIVE or number in (2, 6):
                yield Case(
                    f"9.{kind + 4}.{number}",
                    f"{name} in chops of {size}",
                    [frame(opcode, data)],
                    [message],
                    chop=size,
                )
        for number, size in enumerate((0, 16, 64, 256, 1024, 4096), 1):
            count = 1000 if EXHAUSTIVE or size < 64 else 100
            data, message = bulk(opcode, size)
            yield Case(
                f"9.{kind + 6}.{number}",
                f"{count} of {size}",
                [frame(opcode, data)] * count,
                [message] * count,
            )


def group_10() -> Iterator[Case]:
    data, message = bulk(TEXT, 65536)
    yield Case("10.1.1", "text of 65536 in fragments of 1300", fragments(TEXT, data, 1300), [message])


GROUPS = (group_1, group_2, group_3, group_4, group_5, group_6, group_7, group_9, group_10)
CASES = {case.number: case for group in GROUPS for case in group()}


def test_every_case_has_a_number_of_its_own() -> None:
    assert len(CASES) == sum(1 for group in GROUPS for _ in group())


def choppings(case: Case) -> list[int | None]:
    octets = sum(map(len, case.send))
    if not EXHAUSTIVE:
        return [case.chop]
    return [case.chop, *(chop for chop in CHOPS if chop != case.chop and (chop is None or octets < 3000))]


@pytest.mark.parametrize(
    ("number", "chop"),
    [
        pytest.param(number, chop, id=number if chop == case.chop else f"{number}-chop{chop}")
        for number, case in CASES.items()
        for chop in choppings(case)
    ],
)
def test_case(number: str, chop: int | None, server: Serving) -> None:
    case = CASES[number]
    wrong = verdict(case, play(server, case, chop))
    assert not wrong, f"{case.number} ({case.what}): {wrong}"
    server.settled()


# -------------------------------------------------------------------- what needs a look before the next step


def test_5_19_a_ping_is_answered_while_the_message_is_open(server: Serving) -> None:
    client, seen = server.connect()
    with client:
        client.send(text("fragment1", fin=False), cont("fragment2", fin=False), ping(b"pongme 1!"))
        assert client.frame() == Frame(PONG, b"pongme 1!")
        client.send(cont("fragment3", fin=False), cont("fragment4", fin=False), ping(b"pongme 2!"))
        assert client.frame() == Frame(PONG, b"pongme 2!")
        client.send(cont("fragment5"))
        assert client.message() == "fragment1fragment2fragment3fragment4fragment5"
        client.send(close())
        assert client.rest() == ([Frame(CLOSE, closing(1000))], "eof")
    assert [event[0] for event in seen.wait()] == ["text", "disconnect"]
    server.settled()


@pytest.mark.parametrize(
    "parts",
    [
        # 6.4.1 and 6.4.2: the whole of what is wrong, and its first wrong octet alone.
        pytest.param([BEGUN, b"\xf4\x90\x80\x80"], id="6.4.1"),
        pytest.param([BEGUN + b"\xf4", b"\x90"], id="6.4.2"),
        pytest.param([BEGUN, b"\xed\xa0\x80"], id="6.+4.surrogate"),
        # Not [b"\xed", b"\xa0"]: Python's incremental decoder waits for the third octet of a surrogate.
        pytest.param([b"\xed", b"\xa0\x80"], id="6.+4.surrogate-split"),
        pytest.param([b"\xe0", b"\x80"], id="6.+4.overlong"),
        pytest.param([b"\xff"], id="6.+4.first"),
        pytest.param([b"\xe2\x82", b"\xac" + b"a" * 200, b"\xc0"], id="6.+4.later"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_6_4_fails_before_the_message_is_whole(parts: list[bytes], compressed: bool, server: Serving) -> None:
    """Nothing more is sent until the server has failed the connection."""
    client, seen = server.connect("/echo", DEFLATE if compressed else None)
    with client:
        if compressed:
            squeeze = zlib.compressobj(wbits=-15)
            parts = [squeeze.compress(part) + squeeze.flush(zlib.Z_SYNC_FLUSH) for part in parts]
        first, *others = parts
        client.send(
            text(first, fin=False, rsv=4 if compressed else 0), *(cont(each, fin=False) for each in others)
        )
        (last,), _ = client.rest()
        assert last.opcode == CLOSE
        assert last.data[:2] == closing(1007)
    assert [event[:2] for event in seen.wait()] == [("disconnect", 1007)]
    server.settled()


@pytest.mark.parametrize(("number", "head"), [("6.4.3", BEGUN), ("6.4.4", BEGUN + b"\xf4")])
def test_6_4_inside_a_frame(number: str, head: bytes, server: Serving) -> None:
    """In one frame that comes in pieces, it may fail at the wrong octet, and must at the frame's end."""
    octets = text(head + b"\xf4\x90\x80\x80" + GOES_ON)
    client, seen = server.connect()
    with client:
        client.send(octets[:20], octets[20:24], octets[24:])
        (last,), _ = client.rest()
        assert last.data[:2] == closing(1007)
    assert [event[:2] for event in seen.wait()] == [("disconnect", 1007)]
    server.settled()


def test_utf8_is_python_s(server: Serving) -> None:
    """Every sequence of one or two octets, and the edges of three and four: valid where RFC 3629 says so."""
    edges = (0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF)
    sequences = [bytes([one]) for one in range(256)]
    sequences += [
        bytes([one, two]) for one in range(0xC0, 256) for two in (range(256) if EXHAUSTIVE else edges)
    ]
    thirds = [bytes([one, two, 0x80]) for one in (0xE0, 0xE1, 0xED, 0xEE, 0xEF, 0xF0) for two in edges]
    fourths = [bytes([one, two, 0xBF, 0xBF]) for one in (0xF0, 0xF1, 0xF3, 0xF4, 0xF5) for two in edges]
    valid, wrong = [], []
    for sequence in [*sequences, *thirds, *fourths]:
        try:
            valid.append(sequence.decode())
        except UnicodeDecodeError:
            wrong.append(sequence)
    assert len(valid) > 150
    assert len(wrong) > 500
    whole = Case("", "", [text(each) for each in valid], valid)
    assert not verdict(whole, play(server, whole, None))
    apart = Case("", "", [piece for each in valid for piece in fragments(TEXT, each.encode(), 1)], valid)
    assert not verdict(apart, play(server, apart, None))
    for sequence in wrong:
        case = Case("", "", [text(sequence)], fails=[1007])
        assert not verdict(case, play(server, case, None)), sequence
    server.settled()


# ---------------------------------------------------------------------------------------- limits of the size


def limited(*send: bytes, app: Sequence[str | bytes] = (), fails: bool = False) -> Case:
    return Case("", "", send, app, fails=[1009] if fails else [])


def at_the_limit() -> Iterator[tuple[str, Case]]:
    full, message = bulk(BINARY, SMALL)
    one, half = full + b"x", SMALL // 2
    yield "exactly", limited(binary(full), app=[message])
    yield "one more", limited(binary(one), fails=True)
    yield "one more after others", limited(binary(b"a"), text("b"), binary(one), app=[b"a", "b"], fails=True)
    yield "exactly, in fragments", limited(*fragments(BINARY, full, 1000), app=[message])
    yield "one more, in fragments", limited(*fragments(BINARY, one, 1000), *REST, fails=True)
    filled = [binary(full, fin=False), cont(b"", fin=False), cont(b"")]
    yield "filled, then empty fragments", limited(*filled, app=[message])
    yield "filled, then one octet", limited(binary(full, fin=False), cont(b"x", fin=False), fails=True)
    yield "again and again", limited(*[binary(full)] * 3, app=[message] * 3)
    yield "in text, octets count", limited(text("é" * half), app=["é" * half])
    yield "in text, one more", limited(text("é" * half + "x"), fails=True)
    # It need not come to be refused.
    yield "announced", limited(frame(BINARY, b"", length=SMALL + 1, form=64), fails=True)
    yield "announced, without end", limited(frame(BINARY, b"", length=(1 << 63) - 1, form=64), fails=True)
    yield (
        "announced in a fragment",
        limited(binary(full[:half], fin=False), frame(0, b"", length=half + 1, form=64), fails=True),
    )
    yield (
        "a ping between does not count",
        Case(
            "",
            "",
            [binary(full[:half], fin=False), ping(b"x" * 125), cont(full[half:])],
            [message],
            [b"x" * 125],
        ),
    )


LIMITS = dict(at_the_limit())


@pytest.mark.parametrize("name", LIMITS)
def test_the_size_of_a_message(name: str, small: Serving) -> None:
    case = LIMITS[name]
    wrong = verdict(case, play(small, case, None))
    assert not wrong, wrong
    small.settled()


def squeezed(data: bytes, *, fin: bool = True) -> bytes:
    """In the format of the extension, with the most that zlib can do."""
    out = zlib.compressobj(9, zlib.DEFLATED, -15)
    octets = out.compress(data) + out.flush(zlib.Z_SYNC_FLUSH)
    return octets[:-4] if fin else octets


def compressed_limits() -> Iterator[tuple[str, list[bytes], list[bytes]]]:
    full = bytes(SMALL)
    yield "exactly", [binary(squeezed(full), rsv=4)], [full]
    yield "one more", [binary(squeezed(full + b"x"), rsv=4)], []
    yield "far more", [binary(squeezed(bytes(SMALL * 500)), rsv=4)], []
    half = squeezed(full[: SMALL // 2], fin=False)
    yield (
        "in fragments",
        [
            binary(half, fin=False, rsv=4),
            cont(squeezed(full[SMALL // 2 :])),
        ],
        [full],
    )
    yield (
        "one more, in fragments",
        [
            binary(half, fin=False, rsv=4),
            cont(squeezed(full[SMALL // 2 :] + b"x")),
        ],
        [],
    )
    # With nothing left of the limit, none must not be taken for no limit.
    yield (
        "filled, then far more",
        [
            binary(squeezed(full, fin=False), fin=False, rsv=4),
            cont(squeezed(bytes(SMALL * 500))),
        ],
        [],
    )
    yield (
        "filled, then octet by octet",
        [
            binary(squeezed(full, fin=False), fin=False, rsv=4),
            *(cont(bytes([octet]), fin=False) for octet in squeezed(bytes(SMALL * 20))),
        ],
        [],
    )
    yield (
        "many fragments far more",
        [
            binary(squeezed(bytes(SMALL // 4), fin=False), fin=False, rsv=4),
            *[cont(squeezed(bytes(SMALL // 4), fin=False), fin=False)] * 10,
        ],
        [],
    )


@pytest.mark.parametrize(
    ("send", "app"), [pytest.param(send, app, id=name) for name, send, app in compressed_limits()]
)
def test_the_size_of_an_inflated_message(send: list[bytes], app: list[bytes], small: Serving) -> None:
    client, seen = small.connect("/sink", DEFLATE)
    with client:
        client.send(*send)
        if app:
            client.send(close())
        (last,), _ = client.rest()
        code = int.from_bytes(last.data[:2], "big")
    assert code == (1000 if app else 1009)
    assert seen.wait() == [*(("bytes", data) for data in app), ("disconnect", code, seen.events[-1][2])]
    small.settled()


# ----------------------------------------------------------------------------------------------- compression

DEFLATE: dict[str, str | None] = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
BITS = ("server_max_window_bits", "client_max_window_bits")


def split(extension: str) -> dict[str, str | None]:
    """The parameters of an offer or an answer; `None` for those without a value."""
    name, *rest = [part.strip() for part in extension.split(";")]
    assert name == "permessage-deflate", extension
    found: dict[str, str | None] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        assert key not in found, extension
        found[key.strip()] = value.strip(' "') if equals else None
    return found


def parameters(header: str) -> dict[str, str | None]:
    """The parameters of the one extension in the server's answer, checked as a client must (RFC 7692)."""
    found = split(header)
    for key, given in found.items():
        assert key in (*FLAGS, *BITS), header
        assert (given is None) if key in FLAGS else re.fullmatch("[89]|1[0-5]", given or ""), header
    return found


OFFERS = {
    "12.+plain": "permessage-deflate",
    "13.1": "permessage-deflate; client_max_window_bits",
    "13.2": "permessage-deflate; client_no_context_takeover; client_max_window_bits",
    "13.3": "permessage-deflate; server_max_window_bits=9; client_max_window_bits",
    "13.4": "permessage-deflate; server_max_window_bits=15; client_max_window_bits",
    "13.5": "permessage-deflate; server_no_context_takeover; server_max_window_bits=9",
    "13.6": "permessage-deflate; server_no_context_takeover; server_max_window_bits=15;"
    " client_max_window_bits",
    "13.7": "permessage-deflate; server_no_context_takeover; server_max_window_bits=9;"
    " client_max_window_bits, permessage-deflate; server_no_context_takeover; client_max_window_bits,"
    " permessage-deflate",
    "13.+server": "permessage-deflate; server_no_context_takeover",
    "13.+client": "permessage-deflate; client_no_context_takeover",
    "13.+both": "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    "13.+quoted": 'permessage-deflate; server_max_window_bits="10"',
    "13.+spaces": "permessage-deflate ;  client_max_window_bits ; server_max_window_bits = 12",
    "13.+second": "x-unknown; a=1, permessage-deflate; client_max_window_bits",
    "13.+after": "permessage-deflate; mystery, permessage-deflate; client_max_window_bits",
    **{f"13.+server{bits}": f"permessage-deflate; server_max_window_bits={bits}" for bits in range(9, 16)},
    **{f"13.+client{bits}": f"permessage-deflate; client_max_window_bits={bits}" for bits in range(8, 16)},
}


@pytest.mark.parametrize("number", OFFERS)
def test_an_offer_is_accepted(number: str, server: Serving) -> None:
    """What is agreed is what was offered; then both directions keep to it, with context and without."""
    client, seen = server.connect("/echo", {"Sec-WebSocket-Extensions": OFFERS[number]})
    with client:
        header = client.response.get("sec-websocket-extensions")
        assert header, "the offer was declined"
        agreed = parameters(header)
        offers = [
            split(each)
            for each in OFFERS[number].split(",")
            if "permessage-deflate" in each and "mystery" not in each
        ]
        assert any(fits(agreed, offer) for offer in offers), f"{header} does not answer {OFFERS[number]}"
        up = Deflater(
            # zlib makes no window of 8 bits, but one of 9 does not look back further for so little data
            max(9, int(agreed.get("client_max_window_bits") or 15)),
            takeover="client_no_context_takeover" not in agreed,
        )
        down = Deflater(
            max(9, int(agreed.get("server_max_window_bits") or 15)),
            takeover="server_no_context_takeover" not in agreed,
        )
        noise, _ = bulk(BINARY, 3000)
        # What comes again is found by a window that is larger than agreed, or a context that should be gone.
        messages: list[str | bytes] = [
            noise[:100],
            noise,
            noise[:100],
            "again " * 20,
            "again " * 20,
            b"",
            "",
            noise,
        ]
        if agreed.get("client_max_window_bits") == "8":
            messages = [message[:100] for message in messages]
            up.takeover = False
        for message in messages:
            data = message.encode() if isinstance(message, str) else message
            client.send(frame(TEXT if isinstance(message, str) else BINARY, up.compress(data), rsv=4))
            assert client.message(down) == message
        client.send(close())
        assert client.rest() == ([Frame(CLOSE, closing(1000))], "eof")
    assert seen.wait()[-1] == ("disconnect", 1000, "")
    assert seen.messages == messages
    server.settled()


def parameters_fit(agreed: dict[str, str | None], offer: dict[str, str | None], name: str) -> bool:
    """Whether the agreed window is one that this offer allows (7.1.2)."""
    if name not in agreed:
        # Without a word the client's own limit holds; the server's must be confirmed.
        return name == "client_max_window_bits" or name not in offer
    if name not in offer:
        return name == "server_max_window_bits"  # the server may bind itself unasked, not the client
    asked = offer[name]
    return asked is None or int(agreed[name] or 0) <= int(asked)


def fits(agreed: dict[str, str | None], offer: dict[str, str | None]) -> bool:
    if "server_no_context_takeover" in offer and "server_no_context_takeover" not in agreed:
        return False
    return all(parameters_fit(agreed, offer, name) for name in BITS)


DECLINED = [
    "permessage-deflate; mystery",
    "permessage-deflate; server_no_context_takeover=1",
    "permessage-deflate; client_no_context_takeover=true",
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
    "permessage-deflate; server_max_window_bits",
    *(
        f"permessage-deflate; server_max_window_bits={bits}"
        for bits in ("7", "16", "08", "0", "-1", "1e1", "abc")
    ),
    *(f"permessage-deflate; client_max_window_bits={bits}" for bits in ("7", "16", "09", "x")),
    "permessage-bzip2",
    "x-webkit-deflate-frame; no_context_takeover",
    "permessage-deflate; mystery, permessage-deflate; server_max_window_bits=99",
]


@pytest.mark.parametrize("offer", DECLINED)
def test_an_offer_is_declined(offer: str, server: Serving) -> None:
    """The connection opens without the extension, and RSV1 means nothing then (RFC 7692, 5)."""
    for send, app, fails in (([text("plain")], ["plain"], []), ([text(squeezed(b"x"), rsv=4)], [], [1002])):
        client, seen = server.connect("/echo", {"Sec-WebSocket-Extensions": offer})
        with client:
            assert client.response.get("sec-websocket-extensions") is None
            case = Case("", "", send, app, fails=fails)
            assert not verdict(case, Outcome(*talk(client, case, None), seen.wait()))
    server.settled()


# zlib makes no window of 8 bits, so a server may decline it, and may not agree to more.
def test_a_window_of_8_bits_for_the_server(server: Serving) -> None:
    offer: dict[str, str | None] = {
        "Sec-WebSocket-Extensions": "permessage-deflate; server_max_window_bits=8"
    }
    client, _ = server.connect("/echo", offer)
    with client:
        header = client.response.get("sec-websocket-extensions")
        assert header is None or parameters(header)["server_max_window_bits"] == "8"
    server.settled()


@pytest.mark.parametrize(
    "header", ["permessage-deflate; =1", "permessage-deflate; a=", ";", "a b", 'permessage-deflate; x="']
)
def test_an_extension_header_without_sense(header: str, server: Serving) -> None:
    """9.1: what does not follow the grammar fails the connection; the status is that of a bad request."""
    with server.client() as client:
        assert client.ask(request("/echo", {"Sec-WebSocket-Extensions": header})).status == 400
    server.settled()


def hexed(octets: str) -> bytes:
    return bytes.fromhex(octets)


class Squeezed:
    """The client's context of one connection, in the smallest window, which every agreement allows."""

    def __init__(self) -> None:
        self.up = Deflater(9)

    def __call__(self, data: bytes) -> bytes:
        return self.up.compress(data)


def compressed() -> Iterator[Case]:
    """What is sent where a context of the client and one of the server was agreed."""
    # 7.2.3 shows these octets of "Hello".
    hello = "f248cdc9c90700"
    yield Case("7.2.3.1", "one block", [text(hexed(hello), rsv=4)], ["Hello"])
    yield Case(
        "7.2.3.1",
        "in fragments",
        [text(hexed("f248cd"), fin=False, rsv=4), cont(hexed("c9c90700"))],
        ["Hello"],
    )
    yield Case(
        "7.2.3.2",
        "from the window",
        [text(hexed(hello), rsv=4), text(hexed("f200110000"), rsv=4)],
        ["Hello"] * 2,
    )
    yield Case("7.2.3.3", "without compression", [text(hexed("000500faff48656c6c6f00"), rsv=4)], ["Hello"])
    yield Case("7.2.3.4", "BFINAL", [text(hexed("f348cdc9c9070000"), rsv=4)], ["Hello"])
    yield Case(
        "7.2.3.4",
        "BFINAL, then another",
        [
            text(hexed("f348cdc9c9070000"), rsv=4),
            text(hexed(hello), rsv=4),
            text(hexed("f348cdc9c9070000"), rsv=4),
        ],
        ["Hello"] * 3,
    )
    final = hexed("f348cdc9c90700")  # with the padding to a whole octet
    yield Case("7.2.1", "BFINAL, then a block", [text(final + hexed(hello), rsv=4)], ["HelloHello"])
    yield Case(
        "7.2.1",
        "BFINAL, then a block, in fragments",
        [text(final, fin=False, rsv=4), cont(hexed(hello))],
        ["HelloHello"],
    )
    yield Case(
        "7.2.1",
        "BFINAL again and again",
        [text(final * 3 + b"\x00", rsv=4), *fragments(TEXT, final * 3 + b"\x00", 1, rsv=4)],
        ["Hello" * 3] * 2,
    )
    yield Case("7.2.3.5", "two blocks", [text(hexed("f248050000 00ffffcac9c90700"), rsv=4)], ["Hello"])
    yield Case("7.2.3.6", "empty", [text(hexed("00"), rsv=4), binary(hexed("0200"), rsv=4)], ["", b""])
    out = Squeezed()
    yield Case(
        "6",
        "plain among compressed ones",
        [
            text(out(b"one"), rsv=4),
            text("two"),
            binary(out(b"three"), rsv=4),
            binary(b"four"),
            text(out(b"one"), rsv=4),
        ],
        ["one", "two", b"three", b"four", "one"],
    )
    out = Squeezed()
    data = out("κόσμε".encode() * 5)
    yield Case("6.1", "octets", fragments(TEXT, data, 1, rsv=4), ["κόσμε" * 5])
    out = Squeezed()
    yield Case(
        "6.1",
        "a ping between",
        [text(out(b"Hello")[:3], fin=False, rsv=4), ping(b"plain"), cont(Squeezed()(b"Hello")[3:])],
        ["Hello"],
        [b"plain"],
    )
    out = Squeezed()
    yield Case(
        "6.1",
        "empty fragments around",
        [text(b"", fin=False, rsv=4), cont(out(b"Hello"), fin=False), cont(b"")],
        ["Hello"],
    )
    out = Squeezed()
    many = [bytes([65 + number % 26]) * number for number in range(200)]
    yield Case("12.+", "many", [binary(out(each), rsv=4) for each in many], many)
    for level in (0, 1, 9):
        up = Deflater(9, level=level)
        data, message = bulk(BINARY, 100_000)
        yield Case(
            "12.+", f"level {level}", [binary(up.compress(data), rsv=4) for _ in range(2)], [message] * 2
        )
    # Refused:
    yield Case(
        "6.1",
        "RSV1 on a continuation",
        [text(hexed("f248cd"), fin=False, rsv=4), cont(hexed("c9c90700"), rsv=4), *REST],
        fails=[1002],
    )
    yield Case(
        "6.1",
        "RSV1 on a continuation alone",
        [text("a", fin=False), cont(hexed(hello), rsv=4), *REST],
        fails=[1002],
    )
    yield Case(
        "6.1",
        "RSV1 on one in the middle",
        [text("a", fin=False), cont(hexed(hello), fin=False, rsv=4), *REST],
        fails=[1002],
    )
    for name, opcode in (("ping", PING), ("pong", PONG), ("close", CLOSE)):
        yield Case("6.1", f"RSV1 on a {name}", [frame(opcode, hexed(hello), rsv=4), *REST], fails=[1002])
    for rsv in (1, 2, 3, 5, 6, 7):
        yield Case("6", f"RSV {rsv:03b}", [text(hexed(hello), rsv=rsv), *REST], fails=[1002])
    yield Case(
        "6",
        "RSV2 after a compressed one",
        [text(hexed(hello), rsv=4), text(hexed(hello), rsv=6), *REST],
        ["Hello"],
        fails=[1002],
    )
    for name, bad in (
        ("block type 3", "06"),
        ("a wrong complement", "000500000048656c6c6f00"),
        ("too far back", "f200110000"),
        ("not deflate", "ffffffffffff"),
        ("text", "48656c6c6f20776f726c64"),
    ):
        yield Case("7.2.2", name, [text(hexed(bad), rsv=4), *REST], fails=[1002, 1007])
        yield Case(
            "7.2.2",
            f"{name}, in octets",
            [*fragments(BINARY, hexed(bad), 1, rsv=4), *REST],
            fails=[1002, 1007],
        )
    yield Case(
        "7.2.2",
        "bad after a good one",
        [text(hexed(hello), rsv=4), text(hexed("06"), rsv=4), *REST],
        ["Hello"],
        fails=[1002, 1007],
    )
    out = Squeezed()
    yield Case("12.+", "not UTF-8", [text(out(BEGUN + SURROGATE), rsv=4), *REST], fails=[1007])
    out = Squeezed()
    yield Case(
        "12.+", "not UTF-8, in octets", [*fragments(TEXT, out(b"\xe2\x28"), 1, rsv=4), *REST], fails=[1007]
    )


def inflated(frames: list[Frame]) -> list[Frame]:
    """The server's messages without their compression."""
    down = Deflater()
    return [
        each._replace(data=down.decompress(each.data), rsv=0) if each.rsv else each
        for each in wire.merged(frames)
    ]


@pytest.mark.parametrize("chop", [None, -1, 1] if EXHAUSTIVE else [None])
@pytest.mark.parametrize(
    "case", [pytest.param(each, id=f"{each.number} {each.what}") for each in compressed()]
)
def test_compressed(case: Case, chop: int | None, server: Serving) -> None:
    if chop == 1 and sum(map(len, case.send)) > 3000:
        chop = 97
    client, seen = server.connect("/echo", DEFLATE)
    with client:
        assert "client_no_context_takeover" not in (client.response.get("sec-websocket-extensions") or "")
        received, end = talk(client, case, chop)
    wrong = verdict(case, Outcome(inflated(received), end, seen.wait()))
    assert not wrong, f"{case.number} ({case.what}): {wrong}"
    server.settled()


def test_12_messages_of_every_size(server: Serving) -> None:
    """Autobahn's 12.1 to 12.5: text and binary, easy and hard to compress, of 16 octets to 128 KiB."""
    noise = b"".join(zlib.crc32(b"%d" % number).to_bytes(4, "big") for number in range(1 << 15))
    sizes = (16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072)
    client, seen = server.connect("/echo", DEFLATE)
    up, down = Deflater(9), Deflater()
    messages: list[str | bytes] = []
    for size in sizes:
        easy = (b"lorem ipsum dolor sit amet " * 5000)[:size]
        messages += [easy, easy.decode(), noise[:size], noise[:size].hex()[:size]]
    with client:
        for message in messages * (10 if EXHAUSTIVE else 1):
            data = message.encode() if isinstance(message, str) else message
            client.send(
                *fragments(TEXT if isinstance(message, str) else BINARY, up.compress(data), 40_000, rsv=4)
            )
            assert client.message(down) == message
        client.send(close())
        assert client.rest() == ([Frame(CLOSE, closing(1000))], "eof")
    assert seen.wait()[-1][:2] == ("disconnect", 1000)
    server.settled()


# ---------------------------------------------------------------------------------- the end, from every side


def test_the_app_closes(server: Serving) -> None:
    """The client answers, and the server ends the TCP connection first (7.1.1)."""
    client, seen = server.connect("/close?code=4000&reason=enough")
    with client:
        assert client.frame() == Frame(CLOSE, closing(4000, "enough"))
        client.send(close(4000))
        assert client.end() == "eof"
    assert [event[:2] for event in seen.wait()] == [("disconnect", 4000)]
    server.settled()


def test_both_close_at_once(server: Serving) -> None:
    client, seen = server.connect("/close?code=4000&after=1")
    with client:
        client.send(text("go"), close(4001))
        frames, end = client.rest()
        assert [each.opcode for each in frames] == [CLOSE]
        assert end == "eof"
        assert int.from_bytes(frames[0].data[:2], "big") in (4000, 4001)
    assert seen.wait()[0] == ("text", "go")
    assert len(seen.events) == 2
    assert seen.events[1][:2] in [("disconnect", 4000), ("disconnect", 4001)]
    server.settled()


def test_what_comes_while_the_server_waits_for_the_close(server: Serving) -> None:
    """Messages that were on their way reach no app any more, and a ping may be answered (5.5.1)."""
    client, seen = server.connect("/close?code=4000")
    with client:
        assert client.frame() == Frame(CLOSE, closing(4000))
        client.send(text("late"), binary(b"x" * 70000), *fragments(TEXT, b"late too", 3), close(4000))
        assert client.end() == "eof"
    assert [event[:2] for event in seen.wait()] == [("disconnect", 4000)]
    server.settled()


def test_a_fault_while_the_server_waits_for_the_close(server: Serving) -> None:
    client, seen = server.connect("/close?code=4000")
    with client:
        assert client.frame() == Frame(CLOSE, closing(4000))
        client.send(frame(3, b"reserved"))
        assert client.rest()[0] == []
    assert [event[0] for event in seen.wait()] == ["disconnect"]
    server.settled()


@pytest.mark.parametrize("reset", [False, True], ids=["eof", "reset"])
@pytest.mark.parametrize(
    "before",
    [[], [text("whole")], [text("open", fin=False)], [text("half of a frame")[:-3]], [b"\x81"]],
    ids=["silent", "message", "fragment", "half a frame", "one octet"],
)
def test_the_client_goes_without_a_word(before: list[bytes], reset: bool, server: Serving) -> None:
    """7.1.5: without a close frame the code is 1006."""
    client, seen = server.connect("/sink")
    with client:
        client.send(*before)
        messages = ["whole"] if before == [text("whole")] else []
        wire.eventually(lambda: seen.messages == messages and seen.connected, "the app has what came")
        client.leave(reset=reset)
    assert seen.wait() == [
        *(("text", message) for message in messages),
        ("disconnect", 1006, seen.events[-1][2]),
    ]
    server.settled()


def test_the_client_ends_its_half(server: Serving) -> None:
    """After the end of the client's octets there is nothing to wait for."""
    client, seen = server.connect("/sink")
    with client:
        client.socket.shutdown(socket.SHUT_WR)
        assert [each.opcode for each in client.rest()[0]] in ([], [CLOSE])
    assert [event[:2] for event in seen.wait()] == [("disconnect", 1006)]
    server.settled()


# --------------------------------------------------------------------------------------------- the handshake


REFUSED: list[tuple[str, dict[str, Any], dict[str, str | None], int]] = [
    ("no key", {}, {"Sec-WebSocket-Key": None}, 400),
    ("an empty key", {}, {"Sec-WebSocket-Key": ""}, 400),
    ("a key that is no base64", {}, {"Sec-WebSocket-Key": "@" * 24}, 400),
    ("a key of 15 octets", {}, {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAA"}, 400),
    ("a key of 17 octets", {}, {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAAA="}, 400),
    ("no version", {}, {"Sec-WebSocket-Version": None}, 400),
    ("version 8", {}, {"Sec-WebSocket-Version": "8"}, 426),
    ("version 0", {}, {"Sec-WebSocket-Version": "0"}, 426),
    ("version 14", {}, {"Sec-WebSocket-Version": "14"}, 426),
    ("version 013", {}, {"Sec-WebSocket-Version": "013"}, 426),
    ("two keys", {"more": [("Sec-WebSocket-Key", wire.NONCE)]}, {}, 400),
]


@pytest.mark.parametrize(
    ("how", "changes", "status"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED]
)
def test_a_handshake_is_refused(
    how: dict[str, Any], changes: dict[str, str | None], status: int, server: Serving
) -> None:
    """4.2.1 and 4.2.2. The app hears nothing of it; the TCP connection ends."""
    path, seen = server.place("/echo")
    with server.client() as client:
        response = client.ask(request(path, changes, **how))
        assert response.status == status
        if status == 426:
            assert response.get("sec-websocket-version") == "13"
        assert response.get("sec-websocket-accept") is None
        client.drain()
    server.settled()
    assert not seen.connected


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT"])
def test_a_handshake_with_another_method(method: str, server: Serving) -> None:
    path, seen = server.place("/echo")
    with server.client() as client:
        assert client.ask(request(path, method=method)).status in (400, 405)
        client.drain()
    server.settled()
    assert not seen.connected


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"Upgrade": "WebSocket"}, []),
        ({"Connection": "keep-alive, Upgrade"}, []),
        ({"Connection": "UPGRADE"}, []),
        ({"Connection": None}, [("Connection", "keep-alive"), ("Connection", "upgrade")]),
        ({"Origin": "https://example.org"}, [("X-Other", "\xe9")]),
        ({"Sec-WebSocket-Protocol": "a, b"}, [("Sec-WebSocket-Protocol", "c")]),
    ],
)
def test_a_handshake_in_other_words(
    changes: dict[str, str | None], more: list[tuple[str, str]], server: Serving
) -> None:
    path, seen = server.place("/echo")
    with server.client() as client:
        response = client.ask(request(path, changes, more=more))
        assert response.status == 101
        assert response.get("sec-websocket-accept") == wire.ACCEPT
        assert response.get("sec-websocket-protocol") is None  # the app chose none
        client.send(text("Hello"), close())
        frames, end = client.rest()
        assert frames[-1] == Frame(CLOSE, closing(1000))
        assert end == "eof"
    assert seen.wait() == [("text", "Hello"), ("disconnect", 1000, "")]
    server.settled()


def test_a_handshake_in_octets(server: Serving) -> None:
    path, seen = server.place("/echo")
    with server.client() as client:
        octets = request(path)
        client.send(*(octets[at : at + 1] for at in range(len(octets) - 1)))
        assert client.ask(octets[-1:]).status == 101
        client.send(text("Hello"))
        assert client.message() == "Hello"
        client.send(close())
        assert client.rest() == ([Frame(CLOSE, closing(1000))], "eof")
    assert seen.wait()[-1] == ("disconnect", 1000, "")
    server.settled()


# ------------------------------------------------------------------------------------- these checks can fail


def answers_a_ping_wrongly(patch: pytest.MonkeyPatch) -> None:
    send_frame = ServerProtocol.send_frame

    def wrong(self: ServerProtocol, sent: their_frames.Frame) -> None:
        if sent.opcode is their_frames.Opcode.PONG:
            sent.data = bytes(sent.data)[::-1]
        send_frame(self, sent)

    patch.setattr(ServerProtocol, "send_frame", wrong)


def checks_no_frame(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(their_frames.Frame, "check", lambda self: None)


def continues_anything(patch: pytest.MonkeyPatch) -> None:
    recv_frame = ServerProtocol.recv_frame

    def wrong(self: ServerProtocol, received: their_frames.Frame) -> None:
        if received.opcode is their_frames.Opcode.CONT and self.current_size is None:
            self.current_size = 0
        recv_frame(self, received)

    patch.setattr(ServerProtocol, "recv_frame", wrong)


def takes_any_close(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(their_frames.Close, "parse", lambda data: their_frames.Close(1000, ""))


def takes_any_text(patch: pytest.MonkeyPatch) -> None:
    deliver = WebSocketsSansIOProtocol.send_receive_event_to_app

    def wrong(self: WebSocketsSansIOProtocol) -> None:
        self.frames = [bytes(b"".join(self.frames)).decode(errors="replace").encode()]
        deliver(self)

    patch.setattr(WebSocketsSansIOProtocol, "send_receive_event_to_app", wrong)


def closes_without_a_code(patch: pytest.MonkeyPatch) -> None:
    send_frame = ServerProtocol.send_frame

    def wrong(self: ServerProtocol, sent: their_frames.Frame) -> None:
        if sent.opcode is their_frames.Opcode.CLOSE and self.parser_exc is None:
            sent.data = b""
        send_frame(self, sent)

    patch.setattr(ServerProtocol, "send_frame", wrong)


def echoes_one_octet_wrongly(patch: pytest.MonkeyPatch) -> None:
    send_binary = ServerProtocol.send_binary

    def wrong(self: ServerProtocol, data: Any, fin: bool = True) -> None:
        send_binary(self, data[:-1] + b"\0" if data else data, fin)

    patch.setattr(ServerProtocol, "send_binary", wrong)


def wants_no_mask(patch: pytest.MonkeyPatch) -> None:
    parse = their_frames.Frame.parse

    def wrong(*args: Any, mask: bool, **options: Any) -> Any:
        return (yield from parse(*args, mask=False, **options))

    patch.setattr(their_frames.Frame, "parse", wrong)


PLANTED: list[tuple[Any, list[str]]] = [
    (answers_a_ping_wrongly, ["2.3", "2.10", "5.6"]),
    (checks_no_frame, ["2.5", "3.1", "3.5", "3.7", "3.+ping.2", "5.1"]),
    (continues_anything, ["5.9", "5.10"]),
    (takes_any_close, ["7.3.2", "7.5.1", "7.7.2", "7.9.2", "7.13.1"]),
    (takes_any_text, ["6.8.1", "6.20.1", "6.20.+1"]),
    (closes_without_a_code, ["7.7.1", "7.7.13", "7.3.4", "1.1.1"]),
    (echoes_one_octet_wrongly, ["1.2.2", "1.2.8", "5.+22"]),
    (wants_no_mask, ["1.+bare.close", "1.1.2"]),
]


def on_uvicorn_s_own(numbers: Iterable[str], run: Callable[[Serving, Case], Outcome]) -> dict[str, str]:
    """The verdicts on another class, which stands on the same library and keeps these rules."""
    verdicts = {}
    with Serving(WebSocketsSansIOProtocol) as serving:
        for number in numbers:
            try:
                verdicts[number] = verdict(CASES[number], run(serving, CASES[number]))
            except BadFrame as bad:
                verdicts[number] = str(bad)
    return verdicts


def and_close(serving: Serving, case: Case) -> Outcome:
    """A case on a server that may see no fault, and go on: then the client closes."""
    if not case.fails:
        return play(serving, case, None)
    client, seen = serving.connect()
    with client:
        client.send(*case.send, close(1000))
        received, end = client.rest()
        return Outcome(received, end, seen.wait())


def test_the_cases_let_pass_what_is_right() -> None:
    numbers = [number for _, numbers in PLANTED for number in numbers]
    verdicts = on_uvicorn_s_own(numbers, lambda serving, case: play(serving, case, None))
    assert not any(verdicts.values()), verdicts


@pytest.mark.parametrize(("plant", "numbers"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_the_cases_catch(plant: Any, numbers: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    verdicts = on_uvicorn_s_own(numbers, and_close)
    assert all(verdicts.values()), verdicts


@pytest.mark.parametrize("name", [name for name in LIMITS if name.startswith(("one more", "in text, one"))])
def test_the_limits_catch_a_limit_that_is_too_large(name: str) -> None:
    with Serving(WebSocketsSansIOProtocol, ws_max_size=SMALL + 1) as serving:
        assert verdict(LIMITS[name], and_close(serving, LIMITS[name]))


@pytest.mark.parametrize("wrong", ["takeover", "window"])
def test_a_client_notices_a_context_that_was_not_agreed(wrong: str) -> None:
    """What the tests of compression catch: a window that is too large, a context that should be gone."""
    noise, _ = bulk(BINARY, 3000)
    if wrong == "takeover":
        up, down = Deflater(), Deflater(takeover=False)
        octets = [up.compress(b"again " * 20), up.compress(b"again " * 20)]
    else:
        noise = b"".join(zlib.crc32(b"%d" % number).to_bytes(4, "big") for number in range(700))
        up, down = Deflater(15), Deflater(9)
        octets = [up.compress(noise[:100] + noise + noise[:100])]
    *first, last = octets
    for each in first:
        down.decompress(each)
    with pytest.raises(zlib.error):
        down.decompress(last)


@pytest.mark.parametrize(
    ("answer", "offer", "right"),
    [
        ("permessage-deflate; server_max_window_bits=12", "permessage-deflate", True),
        ("permessage-deflate", "permessage-deflate; client_max_window_bits=9", True),
        ("permessage-deflate; client_max_window_bits=12", "permessage-deflate; client_max_window_bits", True),
        ("permessage-deflate; client_max_window_bits=12", "permessage-deflate", False),
        (
            "permessage-deflate; client_max_window_bits=12",
            "permessage-deflate; client_max_window_bits=9",
            False,
        ),
        ("permessage-deflate", "permessage-deflate; server_max_window_bits=9", False),
        (
            "permessage-deflate; server_max_window_bits=12",
            "permessage-deflate; server_max_window_bits=9",
            False,
        ),
        ("permessage-deflate", "permessage-deflate; server_no_context_takeover", False),
    ],
)
def test_an_answer_fits_an_offer(answer: str, offer: str, right: bool) -> None:
    assert fits(parameters(answer), split(offer)) is right


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(frame(TEXT, b"a"), id="masked"),
        pytest.param(frame(TEXT, b"a", key=None, rsv=4), id="RSV1"),
        pytest.param(frame(TEXT, b"a", key=None, rsv=2), id="RSV2"),
        pytest.param(frame(3, b"a", key=None), id="opcode 3"),
        pytest.param(frame(11, b"", key=None), id="opcode 11"),
        pytest.param(frame(TEXT, b"a", key=None, form=16), id="a long length"),
        pytest.param(frame(TEXT, b"a" * 200, key=None, form=64), id="a longer length"),
        pytest.param(frame(PONG, b"a" * 126, key=None), id="a large pong"),
        pytest.param(frame(PONG, b"a", key=None, fin=False), id="a pong in two"),
        pytest.param(frame(wire.CONT, b"a", key=None), id="continues nothing"),
        pytest.param(
            frame(TEXT, b"a", key=None, fin=False) + frame(TEXT, b"b", key=None), id="inside another"
        ),
        pytest.param(frame(CLOSE, b"a", key=None), id="half a code"),
        pytest.param(
            frame(CLOSE, closing(1000), key=None) + frame(PONG, b"", key=None), id="after the close"
        ),
        pytest.param(frame(CLOSE, closing(1000, b"\xff"), key=None), id="no UTF-8"),
    ],
)
def test_the_client_is_strict(octets: bytes) -> None:
    reader = Reader()
    reader.feed(octets)
    with pytest.raises(BadFrame):
        list(iter(reader.next, None))


def test_the_client_reads_what_is_right() -> None:
    reader = Reader(deflate=True)
    sent = [
        Frame(TEXT, b"a" * 125),
        Frame(BINARY, b"b" * 126, fin=False, rsv=4),
        Frame(PONG, b"c" * 125),
        Frame(wire.CONT, b"d" * 65536),
        Frame(CLOSE, closing(1000, "é")),
    ]
    octets = b"".join(frame(each.opcode, each.data, fin=each.fin, rsv=each.rsv, key=None) for each in sent)
    received = []
    for at in range(0, len(octets), 1000):
        reader.feed(octets[at : at + 1000])
        while (found := reader.next()) is not None:
            received.append(found)
    assert received == sent
    assert reader.rest == b""
