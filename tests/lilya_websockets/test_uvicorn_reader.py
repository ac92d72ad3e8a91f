"""The reader of frames of `lilya.websockets.uvicorn` by itself: no loop, no transport, no app."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest
from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close
from websockets.protocol import State
from websockets.server import ServerProtocol

from lilya.websockets.uvicorn import _deflate as inflating
from lilya.websockets.uvicorn import _frames as subject
from lilya.websockets.uvicorn._deflate import Deflate
from lilya.websockets.uvicorn._frames import Fault, Reader

from . import frames as wire
from .frames import Deflater, binary, close, cont, frame, ping, pong, text

MANY = 10_000
NEGOTIATED = PerMessageDeflate(False, False, 15, 15, {})


def made(
    *, max_size: int = 1000, max_fragments: int = 1000, frames: int = MANY, deflate: bool = False
) -> Reader:
    return Reader(max_size, max_fragments, frames, Deflate(NEGOTIATED, 3) if deflate else None)


def events(reader: Reader, *pieces: bytes) -> list[tuple[int, Any, Any]]:
    """All events in these bytes; a fault is the last one: its code and its reason."""
    found: list[tuple[int, Any, Any]] = []
    try:
        for piece in pieces:
            data = piece
            while (event := reader.next(data)) is not None:
                found.append(event)
                data = b""
    except Fault as fault:
        found.append((-1, fault.code, fault.reason))
    return found


def fault(reader: Reader, *pieces: bytes) -> tuple[int, str] | None:
    """The fault in these bytes, which must be the last event, if there is one."""
    found = events(reader, *pieces)
    return (found[-1][1], found[-1][2]) if found and found[-1][0] == -1 else None


# By the oracle


def by_websockets(data: bytes, begun: bytes, deflate: bool) -> tuple[int, str] | None:
    """The fault that the library finds."""
    library = ServerProtocol(state=State.OPEN, max_size=1000)
    if deflate:
        library.extensions = [PerMessageDeflate(False, False, 15, 15, {})]
    library.receive_data(begun + data)
    if library.parser_exc is None:
        return None
    sent = cast(Close, library.close_sent)
    return sent.code, sent.reason


SQUEEZED = Deflater().compress(b"abc")
BEGUN = {
    "nothing": b"",
    "a message": text("abc", fin=False),
    "a compressed one": text(SQUEEZED, fin=False, rsv=4),
}


# A frame may have two faults. The one in its head is found before it is inflated, in the library after it.
TWO_FAULTS = {(1002, "reserved bits must be 0"), (1002, "expected a continuation frame")}


@pytest.mark.parametrize(
    ("begun", "deflate"),
    [
        ("nothing", False),
        ("nothing", True),
        ("a message", False),
        ("a message", True),
        ("a compressed one", True),
    ],
)
def test_every_first_byte_after_everything(begun: str, deflate: bool) -> None:
    differ = {}
    for first in range(256):
        for payload, key in ((b"", wire.KEY), (b"", None), (b"\x00", wire.KEY), (bytes(126), wire.KEY)):
            data = bytes((first,)) + frame(0, payload, key=key)[1:]
            ours = fault(made(deflate=deflate), BEGUN[begun] + data)
            theirs = by_websockets(data, BEGUN[begun], deflate)
            if first & 0x0F == 8 and begun != "nothing" and theirs == (1002, "incomplete fragmented message"):
                theirs = None  # section 5.4: a control frame may be in the middle of a message, a close too
            if theirs == (1002, "decompression failed") and ours in TWO_FAULTS:
                continue
            if ours != theirs:
                differ[first, len(payload), key is None] = (ours, theirs)
    assert differ == {}


def test_every_code_of_a_close() -> None:
    for code in (*range(5100), 65535):
        payload = code.to_bytes(2, "big")
        try:
            expected: list[tuple[int, Any, Any]] = [(subject.CLOSE, code, Close.parse(payload).reason)]
        except ProtocolError as error:
            expected = [(-1, 1002, str(error))]
        assert events(made(), frame(wire.CLOSE, payload)) == expected
        try:
            written: bytes | None = Close(code, "bye").serialize()
        except ProtocolError:
            written = None
        if written is None:
            with pytest.raises(ValueError, match=f"the code {code} "):
                subject.close_payload(code, "bye")
        else:
            assert subject.close_payload(code, "bye") == written


@pytest.mark.parametrize("size", [0, 1, 123])
def test_a_reason_of_a_close(size: int) -> None:
    assert events(made(), close(4000, "x" * size)) == [(subject.CLOSE, 4000, "x" * size)]
    assert subject.close_payload(4000, "x" * size) == b"\x0f\xa0" + b"x" * size


def test_a_close_that_cannot_be() -> None:
    assert events(made(), close(None)) == [(subject.CLOSE, 1005, "")]
    assert fault(made(), frame(wire.CLOSE, b"\x03")) == (1002, "close frame too short")
    assert fault(made(), close(1000, b"\xff")) == (1007, "invalid start byte at position 0")
    # What is wrong with the reason is told before what is wrong with the code, as the library does.
    assert fault(made(), close(1005, b"\xff")) == (1007, "invalid start byte at position 0")
    with pytest.raises(ValueError, match="a reason of 124 bytes"):
        subject.close_payload(4000, "x" * 124)


# When it is found


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"\x83\x80", 1002),  # an opcode that is reserved
        (b"\x81\x00", 1002),  # no mask
        (b"\xa1\x80", 1002),  # RSV2
        (b"\xc1\x80", 1002),  # RSV1, without an extension
        (b"\x09\x80", 1002),  # a ping in fragments
        (b"\x89\xfe", 1002),  # a ping of 126 bytes or more
        (b"\x80\x80", 1002),  # goes on with nothing
        (b"\x82\xfe\x03\xe9", 1009),  # 1001 bytes
        (b"\x82\xff" + (2**63).to_bytes(8, "big"), 1009),
        (b"\x82\xff" + (1001).to_bytes(8, "big"), 1009),
    ],
)
def test_a_fault_is_found_with_the_byte_that_shows_it(head: bytes, code: int) -> None:
    reader = made()
    assert events(reader, *(head[at : at + 1] for at in range(len(head) - 1))) == []
    assert fault(reader, head[-1:]) is not None
    for cut in range(len(head)):
        found = fault(made(), head[:cut], head[cut:])
        assert found is not None
        assert found[0] == code


@pytest.mark.parametrize("begun", ["nothing", "a message"])
@pytest.mark.parametrize("first", [b"\x02", b"\x82", b"\x00", b"\x80", b"\x83", b"\x8b"])
@pytest.mark.parametrize("length", [2**31, 2**32, 2**63 - 3, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_length_beyond_all_limits(length: int, first: bytes, begun: str) -> None:
    """No sum of it overflows, and nothing is reserved for it, whatever the kind of frame."""
    reader = made()
    assert events(reader, BEGUN[begun]) == []
    tracemalloc.start()
    try:
        found = fault(reader, first + b"\xff" + length.to_bytes(8, "big"), bytes(4))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    unknown = first[0] & 0x0F in (0x3, 0xB)
    out_of_turn = (first[0] & 0x0F == 0) == (begun == "nothing")
    assert found is not None
    assert found[0] in ({1002} if unknown else {1002, 1009} if out_of_turn else {1009})
    assert peak < 65536


def test_a_fragment_that_is_no_text_fails_before_the_last() -> None:
    assert fault(made(), text(b"\xff", fin=False)) == (1007, "invalid start byte at position 0")
    assert fault(made(), text(b"\xc3", fin=False)) is None
    assert fault(made(), text(b"\xc3", fin=False), cont(b"", fin=False)) is None
    assert fault(made(), text(b"\xc3", fin=False), cont(b"\xc3")) == (
        1007,
        "invalid continuation byte at position 0",
    )
    assert fault(made(), text(b"\xc3", fin=False), cont(b"")) == (
        1007,
        "unexpected end of data at position 0",
    )
    assert events(made(), binary(b"\xff", fin=False), cont(b"\xfe")) == [(subject.BINARY, b"\xff\xfe", 2)]


# Limits


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_limit_of_frames_in_a_message(limit: int) -> None:
    reader = made(max_fragments=limit)
    for _ in range(3):  # each message is counted anew
        pieces = [
            binary(b"x", fin=limit == 1),
            *[cont(b"x", fin=False)] * (limit - 2),
            *[cont(b"x")] * (limit > 1),
        ]
        assert events(reader, *pieces) == [(subject.BINARY, b"x" * limit, limit)]
    pieces = [binary(b"x", fin=False), *[cont(b"x", fin=False)] * (limit - 1)]
    assert events(reader, *pieces) == []
    assert events(reader, ping(b"p"), cont(b"")[:2]) == [
        (subject.PING, b"p", 1),
        (-1, 1008, f"more than {limit} frames in a message"),
    ]


def test_the_limit_of_empty_frames_in_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MAX_EMPTY", 3)
    reader = made()
    for _ in range(2):
        assert events(
            reader, text("", fin=False), *[cont("", fin=False), cont("x", fin=False)] * 2, cont("y")
        ) == [(subject.TEXT, "xxy", 3)]
    assert (
        events(reader, text("", fin=False), cont("", fin=False), cont("", fin=False), cont("x", fin=False))
        == []
    )
    assert fault(reader, cont("")) == (1008, "more than 3 empty frames in a message")


def test_the_limits_that_are_promised() -> None:
    assert subject.MAX_EMPTY == 1024
    reader = made(max_fragments=10**6)
    assert events(reader, binary(b"", fin=False), cont(b"", fin=False) * 1023) == []
    assert fault(reader, cont(b"")) == (1008, "more than 1024 empty frames in a message")


@pytest.mark.parametrize("deflate", [False, True])
def test_a_control_frame_is_no_part_of_a_message(deflate: bool) -> None:
    """It does not count into the size, not even inside a message that has all of it."""
    first, last = b"x" * 6, b"x" * 4
    if deflate:
        squeeze = zlib.compressobj(wbits=-15)
        whole = squeeze.compress(first + last) + squeeze.flush(zlib.Z_SYNC_FLUSH)
        first, last = whole[:3], whole[3:-4]
    assert events(
        made(max_size=10, deflate=deflate),
        binary(first, fin=False, rsv=4 * deflate),
        ping(b"p" * 125),
        pong(b"p" * 125),
        cont(last),
    ) == [(subject.PING, b"p" * 125, 125), (subject.PONG, b"p" * 125, 125), (subject.BINARY, b"x" * 10, 10)]
    assert events(made(max_size=10, deflate=deflate), ping(b"p" * 125)) == [(subject.PING, b"p" * 125, 125)]


def test_no_more_is_read_than_is_asked_for() -> None:
    reader = made(frames=3)
    data = ping(b"1") + pong(b"2") + text("a", fin=False) + cont("b", fin=False) + cont("c") + text("d")
    assert events(reader, data) == [(subject.PING, b"1", 1), (subject.PONG, b"2", 1)]
    assert reader.left == 0
    assert not reader.at_rest
    assert events(reader, b"") == []
    reader.left = 2
    assert events(reader, b"") == [(subject.TEXT, "abc", 3)]
    assert reader.left == 0
    reader.keep(text("e")[:4])
    reader.left = 9
    assert events(reader, b"", text("e")[4:]) == [(subject.TEXT, "d", 1), (subject.TEXT, "e", 1)]
    assert reader.at_rest


@pytest.mark.parametrize("log", [None, lambda first, payload: None], ids=["", "logged"])
def test_messages_that_are_compressed_and_not_take_turns(log: Any) -> None:
    reader = Reader(1000, 10, MANY, Deflate(NEGOTIATED, 3), log)
    squeeze = Deflater()
    for _ in range(2):
        first, second = squeeze.compress(b"abc"), squeeze.compress(b"def")
        assert events(
            reader,
            *(binary(first[:2], fin=False, rsv=4), cont(first[2:])),
            binary(b"plain"),
            *(binary(b"in ", fin=False), cont(b"two")),
            binary(second, rsv=4),
        ) == [(subject.BINARY, payload, len(payload)) for payload in (b"abc", b"plain", b"in two", b"def")]


# What is kept


def test_of_a_read_only_the_beginning_of_a_frame_is_kept() -> None:
    reader = made(max_size=2**20)
    assert len(events(reader, binary(b"x" * 1000) * 200 + binary(b"y" * 1000)[:9])) == 200
    assert len(reader._data) == 9
    assert events(reader, binary(b"y" * 1000)[9:]) == [(subject.BINARY, b"y" * 1000, 1000)]
    assert reader._data == b""


def test_bytes_of_a_read_are_not_copied_for_each_frame() -> None:
    reader = made(max_size=2**20)
    data = text("a") * 1000
    reader.next(data)
    assert reader._data is data
    reader.next()
    assert reader._data is data


def test_what_was_read_is_not_kept_with_what_comes() -> None:
    reader = made(frames=1)
    assert events(reader, ping(b"1")[:3]) == []
    assert events(reader, ping(b"1")[3:] + ping(b"2")) == [(subject.PING, b"1", 1)]
    reader.keep(ping(b"3"))
    assert bytes(reader._data) == ping(b"2") + ping(b"3")


def kept_of_tiny_reads(make: Callable[[], Callable[[bytes], object]], size: int) -> int:
    """The bytes that are allocated when a frame has come one byte at a time, without its last one."""
    data = binary(b"x" * size)
    # What measures coverage allocates for each line when it sees it first, so all of it is done once before.
    for keep in (make(), make()):
        tracemalloc.start()
        try:
            for at in range(len(data) - 1):
                keep(data[at : at + 1])
            kept = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    return kept


def test_a_frame_in_tiny_reads_takes_what_it_weighs() -> None:
    size = 20_000
    assert kept_of_tiny_reads(lambda: made(max_size=size).next, size) < 2 * size
    assert kept_of_tiny_reads(lambda: made(max_size=size).keep, size) < 2 * size


def test_a_frame_that_takes_more_than_it_weighs_is_seen() -> None:
    def pieces() -> Callable[[bytes], object]:
        those: list[bytearray] = []
        return lambda data: those.append(bytearray(data))

    assert kept_of_tiny_reads(pieces, 20_000) > 40_000


def test_a_head_is_read_once_however_its_payload_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = made(max_size=2**20)
    data = binary(b"x" * 100_000)
    assert events(reader, data[:20]) == []
    monkeypatch.setattr(reader, "_legal", None)  # with which the head is looked at
    assert events(reader, *(data[at : at + 1000] for at in range(20, 90_020, 1000))) == []
    monkeypatch.undo()
    assert events(reader, data[90_020:]) == [(subject.BINARY, b"x" * 100_000, 100_000)]


def test_at_rest() -> None:
    reader = made()
    assert reader.at_rest
    assert events(reader, b"") == []
    assert reader.at_rest
    for piece, rests in (
        (b"\x81", False),
        (text("a")[1:], True),
        (text("a", fin=False), False),
        (ping(), False),
        (cont("b", fin=False), False),
        (cont("c"), True),
        (ping(), True),
    ):
        events(reader, piece)
        assert reader.at_rest is rests
    reader.keep(b"\x81")
    assert not reader.at_rest


def test_after_our_close_only_the_client_s_is_awaited() -> None:
    for begun in (b"", text(b"\xc3", fin=False), binary(SQUEEZED, fin=False, rsv=4)):
        reader = made(deflate=True)
        assert events(reader, begun) == []
        reader.ignore_data()
        late = [] if begun == b"" else [cont(b"\xff", fin=False), cont(b"\xff")]
        late += [text(b"\xff"), text(b"no deflate", rsv=4), text(b"\xff", fin=False), ping(b"p"), cont(b"")]
        assert events(reader, *late, close(4000)) == [(subject.PING, b"p", 1), (subject.CLOSE, 4000, "")]
    assert fault(reader, frame(3)) == (1002, "invalid opcode")


def test_nothing_is_kept_at_the_end() -> None:
    reader = made()
    events(reader, text("abc", fin=False), cont("d" * 500)[:300])
    reader.end()
    assert events(reader, b"") == []
    assert (len(reader._data), reader._message, reader._decoder) == (0, None, None)


# A message that comes alone


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 4095, 4096, 65535, 65536])
@pytest.mark.parametrize("rsv", [0, 4], ids=["plain", "deflate"])
def test_a_message_alone_is_read_as_any_other(size: int, rsv: int) -> None:
    payload = bytes(index % 251 for index in range(size))
    data = binary(Deflater().compress(payload) if rsv else payload, rsv=rsv)
    limit = size + 20 if rsv else size  # what is small becomes larger
    assert made(max_size=limit, deflate=bool(rsv)).alone(data) == payload
    assert events(made(max_size=limit, deflate=bool(rsv)), data) == [(subject.BINARY, payload, size)]
    for other in (data[:-1], data + b"x", data[:1], b""):
        assert made(max_size=limit, deflate=bool(rsv)).alone(other) is None
    if size and not rsv:
        assert made(max_size=size - 1).alone(data) is None


@pytest.mark.parametrize(
    "data",
    [
        ping(),
        text("a", fin=False),
        cont("a"),
        close(),
        frame(wire.TEXT, b"abcd", key=None),
        frame(3),
        text("a", rsv=4),
    ],
)
def test_what_is_no_message_alone(data: bytes) -> None:
    assert made().alone(data) is None


def test_a_fault_in_a_message_alone() -> None:
    for payload, code in ((b"no deflate", 1002), (Deflater().compress(bytes(1001)), 1009)):
        with pytest.raises(Fault) as caught:
            made(deflate=True).alone(binary(payload, rsv=4))
        assert caught.value.code == code


# Logging


def test_every_frame_is_logged_as_it_was_sent() -> None:
    logged: list[tuple[int, bytes]] = []
    reader = Reader(
        1000, 10, MANY, Deflate(NEGOTIATED, 3), lambda first, payload: logged.append((first, payload))
    )
    data = [text("a"), binary(SQUEEZED, rsv=4), ping(b"p"), text("x", fin=False), cont("y"), close(4000)]
    assert reader.alone(data[0]) is None
    for piece in data:
        assert not reader.at_rest
        events(reader, piece)
    assert logged == [
        (0x81, b"a"),
        (0xC2, b"abc"),
        (0x89, b"p"),
        (0x01, b"x"),
        (0x80, b"y"),
        (0x88, b"\x0f\xa0"),
    ]


# How much is inflated


class Counting:
    """zlib's, and how many bytes came out of it and its copies."""

    total = 0

    def __init__(self, made: Any) -> None:
        self._made = made

    def decompress(self, *arguments: Any) -> bytes:
        piece = cast(bytes, self._made.decompress(*arguments))
        Counting.total += len(piece)
        return piece

    def copy(self) -> Counting:
        return Counting(self._made.copy())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


def squeezed(parts: Iterable[bytes]) -> bytes:
    squeeze = zlib.compressobj(9, wbits=-15)
    return b"".join(squeeze.compress(part) for part in parts) + squeeze.flush(zlib.Z_SYNC_FLUSH)[:-4]


NOISE = bytes((index * index * 7919 >> 5) & 0xFF for index in range(1 << 20)) * 2
ZEROS = bytes(1 << 20)


@pytest.mark.parametrize(
    ("parts", "limit", "fits"),
    [
        ([ZEROS] * 40, 8 << 20, False),
        ([NOISE, *[ZEROS] * 40], 8 << 20, False),
        ([ZEROS] * 6, 8 << 20, True),
        ([NOISE] * 3, 8 << 20, True),
        ([ZEROS] * 8, 8 << 20, True),
        ([ZEROS] * 8 + [b"x"], 8 << 20, False),
        ([ZEROS] * 2, 1000, False),
    ],
    ids=[
        "zeros",
        "zeros behind noise",
        "fits",
        "noise fits",
        "just fits",
        "a byte too much",
        "a small limit",
    ],
)
@pytest.mark.parametrize("fragments", [1, 3])
def test_nothing_is_inflated_twice(
    parts: list[bytes], limit: int, fits: bool, fragments: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", lambda **options: Counting(real(**options)))
    monkeypatch.setattr(Counting, "total", 0)
    data = squeezed(parts)
    size = -(-len(data) // fragments)
    pieces = wire.fragments(wire.BINARY, data, size, rsv=4)
    found = events(made(max_size=limit, deflate=True), *pieces)
    if fits:
        whole = b"".join(parts)
        assert found == [(subject.BINARY, whole, len(whole))]
        assert Counting.total == len(whole)
    else:
        assert [event[:2] for event in found] == [(-1, 1009)]
        assert Counting.total <= limit + inflating.STEP


def test_contexts_that_end_with_each_message() -> None:
    """RFC 7692 section 7.1.1: neither side takes over what it knows of the message before."""
    deflate = Deflate(PerMessageDeflate(True, True, 15, 15, {}), 3)
    data = Deflater().compress(b"Hello" * 3)
    for _ in range(2):
        assert deflate.inflated(data[:3], 100, False) + deflate.inflated(data[3:], 100) == b"Hello" * 3
        assert deflate._decompressor is None
    assert deflate.compressed(b"Hello") == deflate.compressed(b"Hello")
    assert deflate._compressor is None
