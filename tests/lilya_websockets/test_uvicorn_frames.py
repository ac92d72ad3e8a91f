"""What `lilya.websockets.uvicorn` reads and writes, compared with the `websockets` library on both sides."""

from __future__ import annotations

import asyncio
import gc
import logging
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.server import ServerState
from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from lilya.websockets import WebSocket, WebSocketDisconnect
from lilya.websockets.uvicorn import HTTPProtocol, WebSocketProtocol
from lilya.websockets.uvicorn import _frames as reading
from lilya.websockets.uvicorn import _phases as phases
from lilya.websockets.uvicorn import _protocol as subject
from lilya.websockets.uvicorn._deflate import Deflate

REQUEST = (
    b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n%b\r\n"
)
OFFER = b"sec-websocket-extensions: permessage-deflate\r\n"
MAX_SIZE = 70_000


class Transport(asyncio.Transport):
    """Notes what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.done: list[str] = []
        self.reading = True
        self.lost = False

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, pieces: Any) -> None:
        for piece in pieces:
            self.written += piece

    def get_protocol(self) -> asyncio.BaseProtocol:
        return asyncio.Protocol()  # an HTTP protocol of nobody

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def is_closing(self) -> bool:
        return "close" in self.done or "abort" in self.done

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.done.append("eof")

    def close(self) -> None:
        self.done.append("close")

    def abort(self) -> None:
        self.done.append("abort")

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


class Outcome(NamedTuple):
    """What came of some bytes."""

    events: list[dict[str, Any]]
    written: bytes
    done: list[str]


async def played(
    pieces: Sequence[bytes],
    *,
    deflate: bool,
    echo: bool = True,
    slow: bool = False,
    max_size: int = MAX_SIZE,
) -> Outcome:
    """Let a client send these pieces, one by one, and then leave.

    Args:
        deflate: Whether the client offers compression.
        echo: Whether the app answers.
        slow: Whether the app begins to read when everything is there.
        max_size: The server's limit of a message.
    """
    events: list[dict[str, Any]] = []
    everything = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if slow:
            await everything.wait()
        while True:
            events.append(await receive())
            if events[-1]["type"] == "websocket.disconnect":
                break
            if echo:
                await send(events[-1] | {"type": "websocket.send"})
        assert await receive() == events[-1]

    config = Config(app, ws_max_size=max_size, ws_max_queue=3, ws_ping_interval=None, log_config=None)
    state, transport = ServerState(), Transport()
    protocol = WebSocketProtocol(config, state, {})
    protocol.connection_made(transport)
    protocol.data_received(REQUEST % (OFFER if deflate else b""))
    (task,) = state.tasks
    await settled(task)
    del transport.written[: transport.written.index(b"\r\n\r\n") + 4]
    waiting = list(pieces)
    while waiting and not transport.is_closing():
        if transport.reading:
            protocol.data_received(waiting.pop(0))
        elif slow and not everything.is_set():
            everything.set()
        await settled(task)
    protocol.connection_lost(None)
    everything.set()
    await asyncio.wait_for(task, 30)
    assert not state.connections
    assert protocol._timer is None  # it would keep the rest
    return Outcome(events, bytes(transport.written), transport.done)


async def settled(task: asyncio.Task[None]) -> None:
    """Let the app go on as far as it can."""
    for _ in range(12):
        await asyncio.sleep(0)


class AtTheHead(PerMessageDeflate):
    """The library's, which looks at two things before it inflates a frame instead of after it, as we do."""

    wire: ServerProtocol

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            if frame.rsv2 or frame.rsv3:
                raise ProtocolError("reserved bits must be 0")
            if self.wire.current_size is not None and frame.opcode is not Opcode.CONT:
                raise ProtocolError("expected a continuation frame")
        return super().decode(frame, max_size=max_size)


def by_websockets(data: bytes, *, deflate: bool, max_size: int = MAX_SIZE) -> Outcome:
    """What the `websockets` library makes of these bytes, with what it leaves to its user added: text."""
    wire = ServerProtocol(state=State.OPEN, max_size=max_size)
    if deflate:
        extension = AtTheHead(False, False, 15, 12, {"memLevel": 5})
        extension.wire = wire
        wire.extensions = [extension]
    events: list[dict[str, Any]] = []
    wire.receive_data(data)
    ending: tuple[int, str] | None = None
    message, is_text = b"", False
    for frame in cast("list[Frame]", wire.events_received()):
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            continue
        if frame.opcode is not Opcode.CONT:
            message, is_text = b"", frame.opcode is Opcode.TEXT
        message += frame.data
        if is_text:
            try:
                message.decode()
            except UnicodeDecodeError as error:
                if frame.fin or error.reason != "unexpected end of data":
                    return Outcome([*events, {"code": 1007}], b"", [])
        if frame.fin:
            payload: dict[str, Any] = {"text": message.decode()} if is_text else {"bytes": message}
            events.append({"type": "websocket.receive", **payload})
    for close in (wire.close_rcvd if wire.parser_exc is None else None, wire.close_sent):
        if close is not None:
            ending = (close.code, close.reason)
            break
    events.append({"code": 1006} if ending is None else {"code": ending[0], "reason": ending[1]})
    return Outcome(events, b"".join(wire.data_to_send()), [])


def to_websockets(written: bytes, *, deflate: bool) -> list[dict[str, Any]]:
    """What a client of the `websockets` library reads in what the server has written, as the app sent it."""
    wire = ClientProtocol(parse_uri("ws://a/"), state=State.OPEN, max_size=None)
    if deflate:
        wire.extensions = [PerMessageDeflate(False, False, 12, 15, {})]
    wire.receive_data(written)
    frames = [frame for frame in cast("list[Frame]", wire.events_received()) if frame.opcode < Opcode.CLOSE]
    assert wire.parser_exc is None
    assert all(frame.fin for frame in frames)
    return [
        {"type": "websocket.receive"}
        | ({"text": bytes(frame.data).decode()} if frame.opcode is Opcode.TEXT else {"bytes": frame.data})
        for frame in frames
    ]


# Frames, right and wrong


class Sent(NamedTuple):
    """A frame, before a client masks it."""

    first: int
    payload: bytes
    masked: bool = True
    compressed: bool = False
    declared: int | None = None


def encoded(frames: Sequence[Sent], deflate: bool) -> bytes:
    """The bytes of frames, in one piece."""
    return b"".join(encoded_apart(frames, deflate))


def encoded_apart(frames: Sequence[Sent], deflate: bool) -> list[bytes]:
    """The bytes of each frame; the mask is of the position, so that they can be made again."""
    compressor = zlib.compressobj(wbits=-12)
    pieces = []
    for number, frame in enumerate(frames):
        first, payload = frame.first, frame.payload
        if frame.compressed and deflate:
            first |= 0x40 if first & 0x0F else 0
            payload = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
            if first & 0x80:
                payload = payload[:-4]
        length = len(payload) if frame.declared is None else frame.declared
        bit = 0x80 if frame.masked else 0
        if length < 126:
            data = bytes((first, bit | length))
        elif length < 65536:
            data = bytes((first, bit | 126)) + length.to_bytes(2, "big")
        else:
            data = bytes((first, bit | 127)) + length.to_bytes(8, "big")
        if frame.masked:
            mask = (number * 2654435761 % 2**32).to_bytes(4, "big")
            data += mask
            payload = masked(payload, mask)
        pieces.append(data + payload)
    return pieces


def masked(payload: bytes, mask: bytes) -> bytes:
    """RFC 6455 section 5.3."""
    length = len(payload)
    whole = mask * (length // 4 + 1)
    return (int.from_bytes(payload, "big") ^ int.from_bytes(whole[:length], "big")).to_bytes(length, "big")


TEXTS = st.text(max_size=30).map(str.encode)
LENGTHS = st.sampled_from([0, 1, 125, 126, 127, 4095, 4096, 16384, 65535, 65536])
PAYLOADS = TEXTS | st.binary(max_size=10) | LENGTHS.map(lambda length: b"x" * length)
WHOLE = st.tuples(st.sampled_from([0x81, 0x82]), PAYLOADS, st.just(True), st.booleans()).map(
    lambda fields: Sent(*fields)
)
CONTROL = st.tuples(st.sampled_from([0x89, 0x8A]), st.binary(max_size=125)).map(lambda fields: Sent(*fields))
CLOSE = st.builds(
    lambda code, reason: Sent(0x88, code.to_bytes(2, "big") + reason),
    st.sampled_from([1000, 1001, 1005, 1006, 1011, 2999, 3000, 4999]),
    st.sampled_from([b"", b"bye", "été".encode(), b"\xff"]),
) | st.sampled_from([Sent(0x88, b""), Sent(0x88, b"\x03")])
WRONG = st.one_of(
    st.tuples(st.integers(0, 255), st.binary(max_size=200), st.booleans(), st.booleans()).map(
        lambda fields: Sent(*fields)
    ),
    st.sampled_from(
        [
            Sent(0x81, b"\xff"),
            Sent(0x82, b"x" * (MAX_SIZE + 1)),
            Sent(0x82, b"x" * (MAX_SIZE + 1), compressed=True),
            Sent(0x82, b"", declared=2**63 + 5),
            Sent(0x81, b"abc", masked=False),
            Sent(0xC1, b"\xff\xff"),
        ]
    ),
)


@st.composite
def fragmented(draw: st.DrawFn) -> list[Sent]:
    """A message in several frames, with control frames between them."""
    payload = draw(st.text(max_size=12).map(str.encode) | st.binary(max_size=12))
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), min_size=1, max_size=3)))
    parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    compressed = draw(st.booleans())
    frames = [Sent(draw(st.sampled_from([0x01, 0x02])), parts[0], compressed=compressed)]
    for number, part in enumerate(parts[1:], 2):
        frames += draw(st.lists(CONTROL, max_size=1))
        frames.append(Sent(0x80 if number == len(parts) else 0x00, part, compressed=compressed))
    return frames


FRAMES = st.lists(
    st.one_of(*[WHOLE.map(lambda frame: [frame])] * 4, fragmented(), CONTROL.map(lambda frame: [frame])),
    max_size=8,
).map(lambda groups: [frame for group in groups for frame in group])
# Most sessions end well, or in one of the many ways in which they do not.
SESSIONS = st.tuples(FRAMES, st.lists(CLOSE | WRONG, max_size=1), st.lists(WHOLE, max_size=2)).map(
    lambda parts: [*parts[0], *parts[1], *parts[2]]
)


@st.composite
def split(draw: st.DrawFn, apart: list[bytes]) -> list[bytes]:
    """The bytes of frames, in pieces: every frame by itself, which is the most common, or anyhow."""
    if draw(st.booleans()):
        return apart
    data = b"".join(apart)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


@settings(max_examples=200)
@given(st.data(), SESSIONS, st.booleans(), st.booleans())
def test_an_echo_is_what_has_come(data: st.DataObject, frames: list[Sent], deflate: bool, slow: bool) -> None:
    outcome = run(played(data.draw(split(encoded_apart(frames, deflate))), deflate=deflate, slow=slow))
    echoed = to_websockets(outcome.written, deflate=deflate)
    assert echoed == outcome.events[: len(echoed)]
    if (
        not slow and outcome.events[-1].get("code") == 1006
    ):  # else the end may have come before the last answers
        assert len(echoed) == len(outcome.events) - 1


def compare(
    pieces: Sequence[bytes], deflate: bool = False, slow: bool = False, max_size: int = MAX_SIZE
) -> None:
    """Compare with the library: what the app is told, what is written, how it ends."""
    outcome = run(played(pieces, deflate=deflate, echo=False, slow=slow, max_size=max_size))
    expected = by_websockets(b"".join(pieces), deflate=deflate, max_size=max_size)
    assert outcome.events[:-1] == expected.events[:-1]
    ending = outcome.events[-1]
    assert ending["type"] == "websocket.disconnect"
    if expected.events[-1] == {"code": 1007}:
        assert ending["code"] == 1007
        assert outcome.done == ["eof"]
    else:
        assert {"type": "websocket.disconnect", **expected.events[-1]} == ending
        assert outcome.written == expected.written


A_BIT_IN_A_CONTINUATION = [Sent(0x01, b"a", compressed=True), Sent(0xC0, b"b")]
NO_FRAME = [Sent(0x81, b"a"), Sent(0xA1, b"b")]
NOT_MASKED = [Sent(0x81, b"abcd", masked=False), Sent(0x81, b"ab", masked=False)]  # as long as with a mask
TOO_LARGE = [Sent(0x82, b"x" * (MAX_SIZE + 1))]
INSIDE = [Sent(0x01, b"a"), Sent(0x81, b"b")]


@pytest.mark.parametrize("frames", [A_BIT_IN_A_CONTINUATION, NO_FRAME, NOT_MASKED, TOO_LARGE, INSIDE])
def test_they_agree_on_what_is_wrong(frames: list[Sent]) -> None:
    compare([encoded(frames, True)], deflate=True)
    compare(encoded_apart(frames, True), deflate=True)


@pytest.mark.parametrize("cut", [131, 132, 133, 134])
def test_they_agree_on_the_beginning_of_a_longer_frame(cut: int) -> None:
    for length in (126, 127, 200):  # with 126 and 127, a second byte says that more bytes say the length
        whole = encoded([Sent(0x82, b"x" * length)], False)
        compare([whole[:cut], whole[cut:]])


def test_a_payload_that_looks_like_a_frame_is_none() -> None:
    whole = encoded([Sent(0x82, b"x" * 20 + b"\x81\x81\0\0\0\0a")], False)  # the mask of the first frame is 0
    compare([whole[:-7], whole[-7:]])


def test_they_agree_on_a_small_limit_of_size() -> None:
    compare(encoded_apart([Sent(0x81, b"x" * 10), Sent(0x82, b"x" * 11)], False), max_size=10)


@pytest.mark.parametrize(
    ("sizes", "code"),
    [
        ((5, 5), 1006),
        ((5, 0, 5, 0), 1006),
        ((10, 0), 1006),
        ((11, 0), 1009),
        ((5, 6), 1009),
        ((5, 0, 5, 1), 1009),
    ],
)
def test_the_limit_of_size_is_one_of_all_fragments(sizes: tuple[int, ...], code: int) -> None:
    first, *between, last = sizes
    frames = [
        Sent(0x02, b"x" * first),
        *(Sent(0x00, b"x" * size) for size in between),
        Sent(0x80, b"x" * last),
    ]
    compare(encoded_apart(frames, False), max_size=10)
    outcome = run(played(encoded_apart(frames, False), deflate=False, echo=False, max_size=10))
    assert outcome.events[-1]["code"] == code


@pytest.mark.parametrize(
    ("module", "name", "planted", "frames"),
    [
        (subject, "PLAIN", {0x81, 0x82, 0x01}, [Sent(0x01, b"a"), Sent(0x80, b"b")]),
        (subject, "PLAIN", {0x81, 0x82, 0xA1}, NO_FRAME),
        (subject, "PLAIN", {0x81, 0x82, 0x89}, [Sent(0x89, b"a")]),
        (subject, "apply_mask", lambda data, mask: bytes(data), [Sent(0x81, b"a"), Sent(0x81, b"b")]),
        (reading, "apply_mask", lambda data, mask: bytes(data), [Sent(0x81, b"a"), Sent(0x81, b"b" * 200)]),
        (reading, "LEGAL", reading.LEGAL | {0xA1}, NO_FRAME),
        (reading, "LEGAL", reading.LEGAL | {0x09}, [Sent(0x09, b"a")]),
        (reading, "MAX_CONTROL", 126, [Sent(0x89, b"a" * 126)]),
        (reading, "CLOSE_CODES", {1000, 1005}, [Sent(0x88, b"\x03\xed")]),
    ],
)
def test_a_planted_fault_is_found(
    module: Any, name: str, planted: Any, frames: list[Sent], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(encoded_apart(frames, False))
    monkeypatch.setattr(module, name, planted)
    with pytest.raises((AssertionError, TypeError, UnicodeDecodeError)):
        compare(encoded_apart(frames, False))


@settings(max_examples=200)
@given(st.data(), SESSIONS, st.booleans())
@example(None, [Sent(0x82, b"x" * 65536), Sent(0x82, b"x" * 65535), Sent(0x82, b"x" * MAX_SIZE)], False)
@example(
    None,
    [
        Sent(0x01, b"a", compressed=True),
        Sent(0x80, b"b", compressed=True),
        Sent(0x00, b"no message to go on with"),
    ],
    True,
)
def test_they_agree_with_the_library(data: Any, frames: list[Sent], deflate: bool) -> None:
    apart = encoded_apart(frames, deflate)
    compare([b"".join(apart)] if data is None else data.draw(split(apart)), deflate)


@settings(max_examples=300)
@given(
    st.binary(max_size=300) | st.binary(max_size=60).map(lambda data: REQUEST % OFFER + data),
    st.integers(1, 50),
)
def test_any_bytes_at_all(data: bytes, size: int) -> None:
    async def fuzz() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass

        state, transport = ServerState(), Transport()
        protocol = WebSocketProtocol(Config(app, ws_max_size=MAX_SIZE, log_config=None), state, {})
        protocol.connection_made(transport)
        for at in range(0, len(data), size):
            protocol.data_received(data[at : at + size])
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        for task in list(state.tasks):
            await asyncio.wait_for(task, 30)
        assert len(protocol._pending or b"") <= len(data)

    run(fuzz())


@pytest.mark.parametrize(
    "piece", [b"\x02\x80\0\0\0\0", b"\x00\x80\0\0\0\0", b"\x00\x82\0\0\0\0xy", b"\x8a\x80\0\0\0\0"]
)
def test_small_frames_do_not_pile_up(piece: bytes) -> None:
    async def flood() -> int:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await receive()
            await receive()

        state, transport = ServerState(), Transport()
        config = Config(app, ws_max_size=2**20, ws_ping_interval=None, log_config=None)
        protocol = WebSocketProtocol(config, state, {})
        protocol.connection_made(transport)
        protocol.data_received(REQUEST % b"")
        await asyncio.sleep(0)
        if piece[0] == 0:
            protocol.data_received(b"\x02\x80\0\0\0\0")
        tracemalloc.start()
        try:
            for _ in range(5):
                protocol.data_received(piece * 1000)
                for _ in range(10):  # turns, in each of which a share is read
                    await asyncio.sleep(0)
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        protocol.connection_lost(None)
        for task in list(state.tasks):
            await asyncio.wait_for(task, 30)
        return held

    assert run(flood()) < 65536  # there are 5,000 of them


# What one client may take of a turn of the loop


NO_OUTPUT = b"\x00\x00\x00\xff\xff"  # an empty block of deflate, whole
FLOODS = {
    "pings": (b"", [Sent(0x89, b"")], 1006),
    "large pings": (b"", [Sent(0x89, b"x" * 125)], 1006),
    "pongs": (b"", [Sent(0x8A, b"")], 1006),
    "empty fragments": (b"\x01\x80\0\0\0\0", [Sent(0x00, b"")], 1008),
    "fragments of a byte": (b"\x01\x80\0\0\0\0", [Sent(0x00, b"x")], 1006),
    "empty compressed fragments": (b"\x41\x80\0\0\0\0", [Sent(0x00, b"")], 1008),
    "fragments with no output": (b"\x41\x80\0\0\0\0", [Sent(0x00, NO_OUTPUT)], 1006),
    "of all": (b"\x41\x80\0\0\0\0", [Sent(0x89, b""), Sent(0x8A, b"x"), Sent(0x00, NO_OUTPUT)], 1006),
}


@pytest.mark.parametrize("closing", [False, True], ids=["open", "closing"])
@pytest.mark.parametrize("kind", FLOODS)
def test_frames_that_reach_no_app_are_shared_out_over_turns(kind: str, closing: bool) -> None:
    begun, frames, code = FLOODS[kind]
    flood = encoded(frames, False)
    flood = begun + flood * (262_144 // len(flood))
    told: list[Any] = []

    async def main() -> None:
        async with accepted(REQUEST % OFFER, ws_max_size=2**20) as protocol:
            protocol.watch(told.append)
            if closing:
                protocol._close(4000, "")
            reader, transport = protocol._frames, protocol._transport
            protocol.data_received(flood)
            left = [len(flood), len(reader._data) - reader._at]
            turns = 0
            while left[-1]:
                assert not transport.reading
                assert turns < 3000
                turns += 1
                await asyncio.sleep(0)
                left.append(len(reader._data) - reader._at)
            if code == 1006:
                # 128 frames in a turn, of which the largest that reaches no app has 131 bytes.
                assert max(one - other for one, other in pairwise(left)) <= 128 * 131
                assert turns >= len(flood) // (128 * 131) - 1
                assert not told or closing
                await asyncio.sleep(0)
            assert transport.reading

    run(main())
    assert [end["code"] for end in told] == [4000 if closing else code]


def test_short_messages_are_shared_out_over_turns() -> None:
    """An app that receives without ever waiting would keep the loop for one client."""
    received = 0
    in_a_turn: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal received
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            received += 1

    async def main() -> None:
        async with made(app) as protocol:
            await settled(cast(Any, None))
            protocol.data_received(encoded([Sent(0x81, b"x")], False) * 5000)
            while received < 5000:
                before = received
                await asyncio.sleep(0)
                in_a_turn.append(received - before)

    run(main())
    assert max(in_a_turn) <= 128
    assert len(in_a_turn) < 200


# More of them than one turn reads, and then a message and a close frame.
LONG = encoded([Sent(0x89, b"")], False) * 1000


@pytest.mark.parametrize("then", ["lost", "eof", "shutdown", "more"])
def test_an_end_while_frames_wait_for_their_turn(then: str) -> None:
    events: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while not events or events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())

    async def main() -> None:
        async with made(app) as protocol:
            (task,) = protocol._server.tasks
            await settled(task)
            transport = protocol._transport
            last = encoded([MESSAGE, GOODBYE], False)
            protocol.data_received(LONG + (b"" if then == "more" else last))
            assert events == []
            assert not transport.reading
            if then == "more":  # as TLS may
                protocol.data_received(last[:3])
                protocol.data_received(last[3:])
            elif then == "shutdown":
                protocol.shutdown()
            elif then == "eof":
                protocol.eof_received()
            if then in ("lost", "eof"):
                transport.lost = True
                protocol.connection_lost(None)
            await asyncio.wait_for(task, 30)
            if then == "more":
                assert transport.written.count(b"\x8a\x00") == 1000
                assert transport.written.endswith(b"\x88\x05\x0f\xa0bye")

    run(main())
    if then == "shutdown":
        assert [event["code"] for event in events] == [1012]
    else:
        assert [event.get("text") for event in events] == ["a", None]
        assert events[-1] == LEFT


def test_an_app_that_receives_makes_no_more_turns() -> None:
    async def main() -> None:
        async with accepted() as protocol:
            reader = protocol._frames
            protocol.data_received(encoded([MESSAGE], False) + LONG)
            assert (await protocol.receive())["text"] == "a"
            assert protocol._stopped == subject.SHARED
            left = [len(reader._data) - reader._at]
            while left[-1]:
                await asyncio.sleep(0)
                left.append(len(reader._data) - reader._at)
            assert max(one - other for one, other in pairwise(left)) <= 128 * 6
            assert protocol._transport.written.count(b"\x8a\x00") == 1000

    run(main())


def test_there_is_one_close_frame() -> None:
    """RFC 6455 section 5.5.1: who has sent one sends nothing after it."""

    async def main() -> None:
        for last, done in ((GOODBYE, ["close"]), (Sent(0x83, b""), ["eof"]), (Sent(0x89, b""), [])):
            async with accepted() as protocol:
                protocol._close(4001, "")
                written = bytes(protocol._transport.written)
                assert written.endswith(b"\x88\x02\x0f\xa1")
                protocol.data_received(encoded([last], False))
                assert protocol._transport.written == written
                assert protocol._transport.done == done

    run(main())


def test_a_receive_that_is_cancelled_while_frames_wait_for_their_turn() -> None:
    async def main() -> None:
        async with accepted() as protocol:
            protocol.data_received(LONG + encoded([MESSAGE], False))
            receiving = asyncio.create_task(protocol.receive())
            await asyncio.sleep(0)
            receiving.cancel()
            with suppress(asyncio.CancelledError):
                await receiving
            assert (await asyncio.wait_for(protocol.receive(), 30))["text"] == "a"

    run(main())


def test_a_client_that_floods_has_no_more_time_for_a_pong() -> None:
    async def main() -> None:
        async with accepted(ws_ping_interval=20) as protocol:
            protocol._ping()
            protocol.data_received(LONG)
            assert protocol._stopped
            protocol._unanswered()
            assert protocol._phase is phases.DONE
            for _ in range(20):
                await asyncio.sleep(0)
            assert protocol._transport.written.endswith(b"keepalive ping timeout")

    run(main())


def test_pongs_are_written_in_one_piece() -> None:
    """Each write is a call of the system."""

    async def main() -> None:
        async with accepted() as protocol:
            writes: list[bytes] = []
            protocol._transport.write = writes.append
            protocol.data_received(encoded([Sent(0x89, b"%d" % number) for number in range(5)], False))
            assert writes == [b"".join(b"\x8a\x01%d" % number for number in range(5))]
            protocol.data_received(encoded([Sent(0x89, b"x"), GOODBYE], False))
            assert b"".join(writes[1:]) == b"\x8a\x01x\x88\x05\x0f\xa0bye"
        async with accepted() as protocol:
            del protocol._transport.written[:]
            protocol.data_received(encoded([Sent(0x89, b"x"), Sent(0x83, b"")], False))
            assert protocol._transport.written == b"\x8a\x01x\x88\x10\x03\xeainvalid opcode"

    run(main())


def test_a_message_may_have_so_many_frames() -> None:
    class Protocol(WebSocketProtocol):
        max_fragments = 3

    async def main() -> None:
        for number, end in ((1, []), (2, [1008])):
            told: list[Any] = []
            async with accepted(kind=Protocol) as protocol:
                protocol.watch(told.append)
                frames = [Sent(0x01, b"a"), *[Sent(0x00, b"b")] * number, Sent(0x80, b"c")]
                protocol.data_received(encoded(frames, False))
                assert [message["code"] for message in told] == end
        assert WebSocketProtocol.max_fragments == 65536

    run(main())


# What a real transport does rarely


@asynccontextmanager
async def made(
    app: Any,
    request: bytes = REQUEST % b"",
    kind: type[WebSocketProtocol] = WebSocketProtocol,
    **options: Any,
) -> AsyncIterator[Any]:
    """A protocol on a transport that notes what is done to it."""
    state, transport = ServerState(), Transport()
    arguments = {"ws_ping_interval": None, "log_config": None, "date_header": False} | options
    protocol = kind(Config(app, **arguments), state, {})
    protocol.connection_made(transport)
    if request:
        protocol.data_received(request)
    yield protocol
    if not transport.lost:
        protocol.connection_lost(None)
    for task in list(state.tasks):
        await asyncio.wait_for(task, 30)
    assert not state.connections


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    await receive()


def test_a_head_in_pieces() -> None:
    async def main() -> None:
        async with made(nothing, b"") as protocol:
            for byte in REQUEST % b"":
                protocol.data_received(bytes((byte,)))
            assert protocol.scope["path"] == "/"
        async with made(nothing, b"") as protocol:
            protocol.data_received(b"GET / HTTP/1.1\r\nx: " + b"y" * 66_000)
            protocol.data_received(b"z")
            assert protocol._transport.written.startswith(b"HTTP/1.1 431 ")

    run(main())


def test_what_comes_after_a_refusal_is_no_head() -> None:
    async def main() -> None:
        state, transport = ServerState(), Transport()
        protocol = HTTPProtocol(Config(nothing, log_config=None), state, {})
        protocol.connection_made(transport)
        protocol.data_received(b"GET /" + b"x" * 70_000)
        written = bytes(transport.written)
        assert written.startswith(b"HTTP/1.1 414 ")
        protocol.data_received(b" HTTP/1.1\r\nhost: a\r\n\r\n")
        assert transport.written == written
        assert transport.done == ["close"]
        assert len(state.connections) == 1
        protocol.connection_lost(None)
        assert not state.connections

    run(main())


def test_what_comes_while_reading_is_paused_waits() -> None:
    events: list[Any] = []
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go.wait()
        while len(events) < 5:
            events.append((await receive())["text"])

    async def main() -> None:
        async with made(app, ws_max_queue=2) as protocol:
            await asyncio.sleep(0)
            for text in (b"1", b"2", b"3", b"4", b"5"):
                protocol.data_received(encoded([Sent(0x81, text)], False))  # as TLS may
            assert len([protocol._next, *protocol._later]) == 2
            go.set()

    run(main())
    assert events == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (Sent(0x88, b"\x0f\xa0"), 4000),
        (Sent(0x81, b"\xff"), 1007),
        (Sent(0x83, b""), 1002),
        (Sent(0x89, b""), 1006),
    ],
)
def test_what_had_arrived_before_the_end_is_not_lost(last: Sent, code: int) -> None:
    events: list[Any] = []
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go.wait()
        while not events or events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())

    async def main() -> None:
        async with made(app, ws_max_queue=2) as protocol:
            await asyncio.sleep(0)
            protocol.data_received(encoded([Sent(0x81, b"a")] * 5 + [last], False))
            assert protocol._stopped
            protocol.data_received(b"")  # as TLS may
            written = len(protocol._transport.written)
            protocol._transport.lost = True
            protocol.connection_lost(None)
            go.set()
        assert len(protocol._transport.written) == written

    run(main())
    assert [event.get("text", event.get("code")) for event in events] == ["a"] * 5 + [code]


# Who watches for the end


async def accepts(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


@asynccontextmanager
async def accepted(request: bytes = REQUEST % b"", **options: Any) -> AsyncIterator[Any]:
    """A protocol whose app has accepted, and does nothing more."""
    async with made(accepts, request, **options) as protocol:
        (task,) = protocol._server.tasks
        await settled(task)
        yield protocol
        task.cancel()


@pytest.mark.contract("block-direct", "block-counts")
def test_what_comes_is_counted_when_it_comes() -> None:
    """And what waits for the app already, but not what it has received."""
    texts = [Sent(0x81, "é".encode()), Sent(0x82, b"123"), Sent(0x81, b"x" * 70000), Sent(0x81, b"")]

    async def main() -> None:
        async with accepted() as protocol:
            connection = protocol.scope["extensions"]["lilya.websocket.end"]["connection"]
            protocol.data_received(encoded([texts[0]], False))
            await protocol.receive()
            protocol.data_received(encoded([texts[0]], False))
            protocol.data_received(encoded([texts[1]], False))
            counts = connection.count()
            assert (counts.messages_received, counts.bytes_received) == (2, 5)
            for sent in texts:
                protocol.data_received(encoded([sent], False))
            assert (counts.messages_received, counts.bytes_received) == (6, 70010)
            for _ in range(6):
                await protocol.receive()
            assert (counts.messages_received, counts.bytes_received) == (6, 70010)
            assert (counts.messages_sent, counts.bytes_sent) == (0, 0)

    run(main())


@pytest.mark.contract("block-direct")
@pytest.mark.parametrize("how", ["full", "shutdown", "closed", "left"])
def test_when_a_message_is_written_at_once(how: str) -> None:
    async def main() -> None:
        async with accepted() as protocol:
            assert protocol.is_ready
            if how == "full":
                protocol.pause_writing()
                assert not protocol.is_ready
                protocol.resume_writing()
                assert protocol.is_ready
                return
            if how == "shutdown":
                protocol.shutdown()
            elif how == "closed":
                await protocol.send({"type": "websocket.close", "code": 1000, "reason": ""})
            else:
                protocol.data_received(encoded([GOODBYE], False))
            assert not protocol.is_ready

    run(main())


MESSAGE, GOODBYE = Sent(0x81, b"a"), Sent(0x88, b"\x0f\xa0bye")
LEFT = {"type": "websocket.disconnect", "code": 4000, "reason": "bye"}


def test_who_watches_is_told_before_what_came_is_received(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[int, Any]] = []

    def fail(_: Any) -> None:
        raise LookupError("a fault of a watcher")

    async def main() -> None:
        async with accepted() as protocol:
            watch = protocol.scope["extensions"]["lilya.websocket.end"]["watch"]
            watch(lambda end: told.append((1, end)))
            watch(fail)
            watch(lambda end: told.append((2, end)))
            protocol.data_received(encoded([MESSAGE] * 3, False))
            assert told == []
            protocol.data_received(encoded([GOODBYE], False))
            assert told == [(1, LEFT), (2, LEFT)]
            watch(fail)
            watch(lambda end: told.append((3, end)))  # who comes late
            assert told[2:] == [(3, LEFT)]
            for _, end in told:
                end.clear()  # it was a copy
            received = [await protocol.receive() for _ in range(4)]
            assert [message.get("text") for message in received] == ["a", "a", "a", None]
            assert received[3] == LEFT

    run(main())
    assert len(told) == 3
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [
        "a fault of a watcher"
    ] * 2


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda protocol: protocol.connection_lost(None), 1006),
        (lambda protocol: protocol.shutdown(), 1012),
        (lambda protocol: protocol.data_received(encoded([Sent(0x83, b"")], False)), 1002),
        (lambda protocol: protocol._close(4001, "enough"), 4001),
    ],
    ids=["lost", "shutdown", "a fault", "the app"],
)
def test_every_end_is_told(end: Any, code: int) -> None:
    told: list[Any] = []

    async def main() -> None:
        async with accepted() as protocol:
            protocol.watch(told.append)
            end(protocol)
            assert [message["code"] for message in told] == [code]
            if code != 1006:
                protocol.connection_lost(None)
            protocol._transport.lost = True

    run(main())
    assert len(told) == 1


@pytest.mark.parametrize("last", [GOODBYE, Sent(0x89, b"")], ids=["closed", "lost"])
def test_a_block_on_a_connection_that_has_stopped_to_read(last: Sent) -> None:
    """What the app does not receive makes the protocol stop, before it has seen the end."""
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        async with websocket:
            await go.wait()
            got.append(websocket.close_code)
            try:
                await websocket.send_text("to nobody")
            except WebSocketDisconnect as error:
                got.append((error.code, error.reason))
            got.extend([text async for text in websocket.iter_text()])

    async def main() -> None:
        async with made(app, ws_max_queue=2) as protocol:
            await asyncio.sleep(0)
            protocol.data_received(encoded([MESSAGE] * 5 + [last], False))
            assert protocol._stopped
            protocol._transport.lost = True
            protocol.connection_lost(None)
            go.set()

    go = asyncio.Event()
    run(main())
    assert got == [None, (4000, "bye") if last is GOODBYE else (1006, ""), "a", "a", "a", "a", "a"]


def test_a_connection_that_has_ended_leaves_nothing_to_the_garbage_collector() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with WebSocket(scope, receive, send) as websocket:
            got.extend([text async for text in websocket.iter_text()])

    async def main() -> None:
        for _ in range(3):
            async with made(app) as protocol:
                (task,) = protocol._server.tasks
                await settled(task)
                protocol.data_received(encoded([MESSAGE, GOODBYE], False))
                await settled(task)
            del protocol, task

    got: list[str] = []
    gc.collect()
    gc.disable()
    before = {id(one) for one in gc.get_objects() if type(one) in (WebSocketProtocol, WebSocket)}
    try:
        run(main())
        left = [
            one
            for one in gc.get_objects()
            if type(one) in (WebSocketProtocol, WebSocket) and id(one) not in before
        ]
    finally:
        gc.enable()
    assert got == ["a"] * 3
    assert left == []


def test_much_that_comes_before_the_answer() -> None:
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await receive()
        assert not protocols[0]._transport.reading
        await send({"type": "websocket.accept"})
        got.append(await receive())

    protocols: list[Any] = []

    async def main() -> None:
        async with made(app) as protocol:
            protocols.append(protocol)
            protocol.data_received(encoded([Sent(0x82, b"x" * MAX_SIZE)], False))
            (task,) = protocol._server.tasks
            await settled(task)

    run(main())
    assert got == [{"type": "websocket.receive", "bytes": b"x" * MAX_SIZE}]


def test_much_from_a_client_that_leaves_before_the_answer() -> None:
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        got.extend([await receive(), await receive()])

    async def main() -> None:
        async with made(app) as protocol:
            protocol.data_received(encoded([Sent(0x82, b"x" * MAX_SIZE)], False))

    run(main())
    assert got == [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1006}]


def test_a_client_that_does_not_answer_is_let_go_while_reading_is_paused() -> None:
    """Who does not read on, does not see that the client has closed, too."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await go.wait()

    go = asyncio.Event()

    async def main() -> None:
        async with made(app, ws_max_queue=2) as protocol:
            (task,) = protocol._server.tasks
            await settled(task)
            transport = protocol._transport
            protocol.data_received(encoded([Sent(0x81, b"x")] * 4, False))
            protocol.pause_writing()
            assert not transport.reading
            protocol._unanswered()
            assert transport.done == ["eof"]
            assert transport.reading
            go.set()

    run(main())


@pytest.mark.parametrize("answers", [False, True])
def test_an_app_that_reads_again_gives_the_client_its_time(answers: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await go.wait()
        while (await receive())["type"] != "websocket.disconnect":
            pass

    go = asyncio.Event()

    async def main() -> None:
        async with made(app, ws_max_queue=2, ws_ping_interval=20) as protocol:
            (task,) = protocol._server.tasks
            await settled(task)
            protocol.data_received(encoded([Sent(0x81, b"x")] * 4, False))
            protocol._ping()
            for _ in range(2):
                protocol._unanswered()
                assert protocol._phase is phases.OPEN
            go.set()
            await settled(task)
            if answers:
                protocol.data_received(encoded([Sent(0x8A, protocol._pong)], False))
                protocol._ping()
            else:
                protocol._unanswered()
                assert protocol._phase is phases.OPEN
            protocol._unanswered()
            assert protocol._phase is phases.DONE

    run(main())


@pytest.mark.parametrize(("taken", "rest"), [(3.0, 17.0), (25.0, 0.0)])
def test_the_interval_is_from_ping_to_ping(taken: float, rest: float) -> None:
    class Loop:
        now = 100.0
        timers: ClassVar[list[float]] = []

        def time(self) -> float:
            return self.now

        def call_later(self, seconds: float, callback: Any) -> asyncio.TimerHandle:
            self.timers.append(seconds)
            return asyncio.get_running_loop().call_later(1000, callback)

    async def main() -> None:
        async with made(nothing_more, ws_ping_interval=20.0, ws_ping_timeout=30.0) as protocol:
            (task,) = protocol._server.tasks
            await settled(task)
            loop = protocol._loop = Loop()
            protocol._cancel_timer()
            protocol._ping()
            loop.now += taken
            protocol.data_received(encoded([Sent(0x8A, protocol._pong)], False))
            assert loop.timers == [30.0, rest]

    run(main())


def test_reading_goes_on_when_the_app_has_taken_all() -> None:
    async def main() -> None:
        async with accepted(ws_max_queue=4) as protocol:
            protocol.data_received(encoded([Sent(0x81, b"x")] * 4, False))
            for _ in range(4):
                assert not protocol._transport.reading
                await protocol.receive()
            assert protocol._transport.reading

    run(main())


def test_who_waits_to_send_waits_again_if_the_client_stops_again() -> None:
    async def main() -> None:
        async with accepted() as protocol:
            before = len(protocol._transport.written)
            protocol.pause_writing()
            sending = asyncio.create_task(protocol.send({"type": "websocket.send", "text": "later"}))
            await settled(sending)
            protocol.resume_writing()
            protocol.pause_writing()
            await settled(sending)
            assert len(protocol._transport.written) == before
            protocol.resume_writing()
            await settled(sending)
            assert protocol._transport.written[before:] == b"\x81\x05later"

    run(main())


@pytest.mark.parametrize(("half", "done"), [(True, ["eof"]), (False, ["close"])], ids=["TCP", "TLS"])
def test_what_fails_hangs_up_as_far_as_the_transport_can(half: bool, done: list[str]) -> None:
    async def main() -> None:
        async with accepted() as protocol:
            protocol._transport.can_write_eof = lambda: half
            protocol.data_received(encoded([Sent(0x83, b"")], False))
            assert protocol._transport.done == done

    run(main())


def test_contexts_are_made_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    made_now: list[str] = []
    for name in ("compressobj", "decompressobj"):
        make = getattr(zlib, name)

        def counted(*args: Any, name: str = name, make: Any = make, **options: Any) -> Any:
            made_now.append(name)
            return make(*args, **options)

        monkeypatch.setattr(zlib, name, counted)

    async def main() -> None:
        async with accepted(REQUEST % OFFER) as protocol:
            plain = encoded([Sent(0x81, b"plain")], False)
            message = encoded([Sent(0x81, b"x", compressed=True)], True)
            made_now.clear()  # of the client, and those of the negotiation, which were dropped with it
            protocol.data_received(plain)
            assert made_now == []
            protocol.data_received(message)
            assert made_now == ["decompressobj"]
            assert protocol._deflate._compressor is None
            await protocol.send({"type": "websocket.send", "text": "x"})
            assert made_now == ["decompressobj", "compressobj"]

    run(main())


def test_what_comes_after_a_close_of_the_app_is_thrown_away() -> None:
    async def main() -> None:
        async with accepted() as protocol:
            protocol._close(4000, "enough")
            protocol.data_received(
                encoded([Sent(0x81, b"late"), Sent(0x01, b"la"), Sent(0x80, b"te")], False)
            )
            assert await protocol.receive() == {
                "type": "websocket.disconnect",
                "code": 4000,
                "reason": "enough",
            }

    run(main())


def test_ends_that_meet() -> None:
    async def main() -> None:
        async with made(nothing) as protocol:
            protocol._accept({})
            protocol.shutdown()
            protocol.shutdown()
            protocol.pause_writing()
            assert protocol._drained is None
            assert bytes(protocol._transport.written).count(b"\x88\x02\x03\xf4") == 1

    run(main())


def test_an_answer_that_is_too_much_for_the_transport() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "headers": [(b"x-large", b"x" * 2000)]})
        await send({"type": "websocket.send", "text": "next"})

    async def main() -> None:
        async with made(app, b"") as protocol:
            transport = protocol._transport
            transport.write = lambda data: (transport.written.extend(data), protocol.pause_writing())
            protocol.data_received(REQUEST % b"")
            (task,) = protocol._server.tasks
            await settled(task)
            assert transport.written.endswith(b"xx\r\n\r\n")
            protocol.resume_writing()
            await settled(task)
            assert b"\r\n\r\n\x81\x04next" in transport.written

    run(main())


def test_a_sender_lets_the_loop_tell_that_the_transport_has_failed() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        protocols[0]._transport.done.append("abort")
        asyncio.get_running_loop().call_soon(protocols[0].connection_lost, None)
        protocols[0]._transport.lost = True
        await send({"type": "websocket.send", "text": "into the void"})
        with pytest.raises(OSError):  # noqa: PT011  # it says nothing
            await send({"type": "websocket.send", "text": "never"})
        ended.append(True)

    protocols: list[Any] = []
    ended: list[bool] = []

    async def main() -> None:
        async with made(app) as protocol:
            protocols.append(protocol)
            await asyncio.sleep(0.01)

    run(main())
    assert ended


@pytest.mark.parametrize(("level", "sizes"), [(0, range(1000, 1100)), (3, range(10, 30)), (9, range(10, 30))])
def test_the_level_of_compression(level: int, sizes: range, monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "x" * 1000})

    async def main() -> None:
        async with made(app, REQUEST % OFFER) as protocol:
            (task,) = protocol._server.tasks
            await settled(task)
            sent = bytes(protocol._transport.written).partition(b"\r\n\r\n")[2]
            assert sent[0] == 0xC1
            assert len(sent) - len(b"\x88\x02\x03\xe8") in sizes

    monkeypatch.setattr(WebSocketProtocol, "compression_level", level)
    run(main())


@pytest.mark.parametrize("deflate", [False, True])
def test_a_text_in_fragments_that_are_in_pieces(deflate: bool) -> None:
    sent = [Sent(0x01, b"caf\xc3"), Sent(0x89, b""), Sent(0x00, b"\xa9"), Sent(0x00, b""), Sent(0x80, b"!")]
    apart = encoded_apart(sent, False)
    outcome = run(played([part for piece in apart for part in (piece[:3], piece[3:])], deflate=deflate))
    assert [event.get("text") for event in outcome.events] == ["café!", None]


async def nothing_more(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


# Each with a message after it: the app that takes it must not be what lets the next pong out.
PINGS = [frame for number in range(100) for frame in (Sent(0x89, b"%03d" % number), Sent(0x81, b"x"))]


@pytest.mark.parametrize("then", ["reads", "resets", "is closed"])
def test_a_client_that_pings_and_does_not_read_is_owed_one_pong(then: str) -> None:
    events: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while not events or events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())

    async def main() -> None:
        async with made(app) as protocol:
            (task,) = protocol._server.tasks
            await settled(task)
            transport = protocol._transport
            del transport.written[:]
            protocol.pause_writing()
            for piece in encoded_apart(PINGS, False):
                protocol.data_received(piece)
                await settled(task)
            assert transport.reading
            assert transport.written == b""
            if then == "reads":
                protocol.resume_writing()
                assert transport.written == b"\x8a\x03099"
                protocol.pause_writing()
                protocol.resume_writing()
                assert transport.written == b"\x8a\x03099"
            elif then == "is closed":
                protocol.shutdown()
                protocol.resume_writing()
                assert transport.written == b"\x88\x02\x03\xf4"
            transport.lost = True
            protocol.connection_lost(None)
            await settled(task)

    run(main())
    assert [event.get("text") for event in events[:-1]] == ["x"] * 100
    assert events[-1]["code"] == (1012 if then == "is closed" else 1006)


def test_a_fragment_that_ends_with_its_last_block() -> None:
    """BFINAL (RFC 7692 section 7.2.3.4) at the very end of a fragment: the next one begins anew."""
    deflate = Deflate(PerMessageDeflate(False, False, 15, 15, {}), 3)
    compressor = zlib.compressobj(wbits=-15)
    fragment = compressor.compress(b"Hello") + compressor.flush(zlib.Z_FINISH)
    assert deflate.inflated(fragment, 10, final=False) == b"Hello"
    assert deflate.inflated(fragment + b"\0", 10) == b"Hello"
    assert deflate.inflated(fragment + fragment, 10, final=False) == b"HelloHello"
    with pytest.raises(PayloadTooBig):
        deflate.inflated(fragment + fragment, 9, final=False)
    with pytest.raises(ProtocolError, match="more than 16 blocks"):
        deflate.inflated(fragment * 17, 1000, final=False)


def test_what_is_measured_and_fits_is_inflated() -> None:
    deflate = Deflate(PerMessageDeflate(False, False, 15, 15, {}), 3)
    compressor = zlib.compressobj(wbits=-15)
    payload = compressor.compress(bytes(500_000)) + compressor.flush()
    decompressor = zlib.decompressobj(wbits=-15)
    decompressor.decompress(payload, 10)
    deflate._measure(decompressor, 500_000)
    with pytest.raises(PayloadTooBig):
        deflate._measure(decompressor, 400_000)


def test_a_prepared_message_is_logged_as_others_are(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello", "prepared": {}})
        await receive()

    async def main() -> None:
        async with made(app) as protocol:
            await asyncio.sleep(0)
            assert protocol._transport.written.endswith(b"\x81\x05hello")

    with caplog.at_level(logging.DEBUG, "uvicorn.error"):
        run(main())
    assert [record for record in caplog.records if "hello" in record.getMessage()]


def test_what_comes_before_the_answer_waits_however_much_it_is() -> None:
    events: list[Any] = []
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await go.wait()
        await send({"type": "websocket.accept"})
        events.extend([await receive(), await receive()])

    async def main() -> None:
        async with made(app) as protocol:
            first = encoded([Sent(0x82, bytes(70_000))], False)
            for piece in (first[:69_000], first[69_000:], encoded([Sent(0x81, b"b")], False)):
                protocol.data_received(piece)  # as TLS may, while reading is paused
            go.set()
            for _ in range(20):
                await asyncio.sleep(0)

    run(main())
    assert [len(event.get("bytes") or event["text"]) for event in events] == [70_000, 1]
