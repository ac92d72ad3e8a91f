"""Frames (RFC 6455 section 5): how a client's are read, and how the server writes its own.

The reader is given bytes and gives events. It knows no transport, no app and no event loop.

The rules of this file:

- What is wrong with a frame is found as soon as the bytes that show it are here, and not when the frame is
  whole. So the most that a client can make the reader keep is one frame of a legal size and one message.
- Every rule has one place, beside its section. Rare cases are separate methods, so that `next`
  shows how a frame is read.
- Bytes are copied if they are kept beyond a read, but not once for each frame in them.
- `websockets` is the oracle: tests read the same bytes with it, and compare the events, the faults and their
  texts.
"""

from __future__ import annotations

import codecs
from codecs import IncrementalDecoder
from collections.abc import Callable
from typing import Any, Final, cast

from websockets.exceptions import PayloadTooBig, ProtocolError

from ._deflate import Deflate

try:
    from websockets.speedups import apply_mask as apply_mask
except ImportError:
    from websockets.utils import apply_mask as apply_mask

# The first byte of a frame (section 5.2): FIN, three reserved bits, four bits of opcode. RSV1 has a meaning
# if permessage-deflate was negotiated: the message is compressed (RFC 7692 section 6).
FINAL, COMPRESSED, RESERVED, OPCODE = 0x80, 0x40, 0x70, 0x0F
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
CONTROL = 0x8  # the bit that the opcodes of control frames have, and no others (section 5.5)
OPCODES: Final = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))  # the others are for the future
# The second byte: whether there is a mask, and the length. Up to 125 it is the length itself; 126 says that
# it is in the next two bytes, 127 in the next eight.
MASKED, LENGTH = 0x80, 0x7F

TEXT_FRAME, BINARY_FRAME = FINAL | TEXT, FINAL | BINARY
PLAIN: Final = frozenset((TEXT_FRAME, BINARY_FRAME))
"""First bytes of whole messages that are not compressed."""
NONE: Final[frozenset[int]] = frozenset()
LEGAL: Final = PLAIN | {
    *(TEXT, BINARY, CONTINUATION, FINAL | CONTINUATION),
    # Control frames are never fragmented (section 5.5).
    *(FINAL | CLOSE, FINAL | PING, FINAL | PONG),
}
"""First bytes that a frame may have."""
DEFLATED: Final = frozenset(first | COMPRESSED for first in PLAIN)
WHOLE: Final = PLAIN | DEFLATED  # made once: a set for each connection would be 216 bytes
LEGAL_DEFLATED: Final = LEGAL | DEFLATED | {TEXT | COMPRESSED, BINARY | COMPRESSED}
"""The same with permessage-deflate. RSV1 is set on the first frame of a message only, and speaks for all of
its frames (RFC 7692 section 6.1)."""

MAX_CONTROL: Final = 125  # bytes in a control frame (section 5.5)
MAX_EMPTY: Final = 1024
"""Frames of one message that may be empty. The RFC sets no limit. Libraries write an empty frame at the end
of a stream, or when they flush a buffer that has nothing in it; a thousand in one message are nobody's
data."""

# What an endpoint may write into a close frame, beside 3000 to 4999 (section 7.4, and IANA's registry). 1005,
# 1006 and 1015 are for what was never said in a close frame.
CLOSE_CODES: Final = frozenset((*range(1000, 1004), *range(1007, 1015)))
NO_CODE: Final = 1005  # the code of a close frame that has none (section 7.1.5)

TEXT_HEADS: Final = [bytes((TEXT_FRAME, length)) for length in range(126)]

Event = tuple[int, Any, Any]
"""An opcode, and what has come with it.

- TEXT, the string, its bytes of UTF-8
- BINARY, the payload, its bytes
- PING or PONG, the payload, its bytes
- CLOSE, the code, the reason
"""


class Fault(Exception):
    """A client has broken a rule: fail its connection (section 7.1.7).

    Args:
        code: What the close frame says (section 7.4.1).
        reason: What it says, too.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Reader:
    """Reads the frames of one client: bytes in, events out.

    Args:
        max_size: Bytes that a message may have, over all its fragments, and inflated.
        max_fragments: Frames that a message may have.
        frames: How many are read before `next` stops, until `left` is set anew.
        deflate: permessage-deflate, if it was negotiated.
        log: Called with every frame that was read: its first byte, and its payload, unmasked and inflated.
    """

    __slots__ = (
        "_at",
        "_data",
        "_decoder",
        "_deflate",
        "_deflated",
        "_empty",
        "_fragments",
        "_ignores",
        "_legal",
        "_log",
        "_max_fragments",
        "_max_size",
        "_message",
        "_missing",
        "_plain",
        "_whole",
        "at_rest",
        "left",
    )

    def __init__(
        self,
        max_size: int,
        max_fragments: int,
        frames: int,
        deflate: Deflate | None = None,
        log: Callable[[int, bytes], object] | None = None,
    ) -> None:
        self._max_size = max_size
        self._max_fragments = max_fragments
        self._deflate = deflate
        self._legal = LEGAL if deflate is None else LEGAL_DEFLATED
        self._log = log
        # First bytes of messages in one frame: those that `next` reads itself, and those that `alone` reads.
        self._plain = PLAIN if log is None else NONE
        self._whole = self._plain if deflate is None or log is not None else WHOLE
        self._ignores = False
        # What has come and was not read; empty if there is nothing.
        self._data: bytes | bytearray = b""
        self._at = 0  # where in it the next frame begins
        self._missing = 0  # bytes without which nothing more can be said of that frame
        # The message under way of which there are fragments (section 5.4)
        self._message: bytearray | None = None
        self._decoder: IncrementalDecoder | None = None  # if it is a text
        self._deflated = False  # whether it is compressed
        self._fragments = 0  # its frames so far
        self._empty = 0  # those without a payload
        self.left = frames
        """Frames that `next` may still read. An empty frame costs a client six bytes, and one read of a
        socket brings 40,000 of them: without a limit, everybody else would wait until all are read."""
        self.at_rest = log is None
        """Whether nothing is under way, neither a frame nor a message. Then `next` has nothing more to give,
        and a message in one frame needs no reader. It is never so while frames are logged."""

    def alone(self, data: bytes) -> bytes | None:
        """Read a message that has come in one frame, with nothing before it and nothing after it.

        `next` does the same, and more, and takes longer. Ask only if `at_rest`.

        Returns:
            The inflated payload; of a text, the bytes. None if it is something else, which `next` returns.

        Raises:
            Fault: The client has broken a rule.
        """
        size = len(data)
        if size < 6 or (first := data[0]) not in self._whole or (length := data[1] - MASKED) < 0:
            return None
        start = 6
        if length > 125:
            start = 8 if length == 126 else 14
            length = int.from_bytes(data[2 : start - 4], "big")
        if size - start != length or length > self._max_size:
            return None
        payload = apply_mask(
            data[start:] if length < 4096 else memoryview(data)[start:], data[start - 4 : start]
        )
        return payload if first < COMPRESSED | FINAL else self._inflated(payload, True)

    def next(self, data: bytes | bytearray = b"") -> Event | None:
        """Read up to the next event.

        Args:
            data: What has come since the last call.

        Returns:
            The event. None says that more bytes are needed, or that `left` is 0.

        Raises:
            Fault: The client has broken a rule. Nothing can be read after that.
        """
        at = 0
        if self._data:
            if data:
                self.keep(data)
            if self._missing > 0:
                return None  # of a large frame that comes in many reads, the head is read once
            data, at = self._data, self._at
        end = len(data)
        while self.left:
            # The head (section 5.2)
            if end - at < 2:
                return self._wait(data, at, at + 2)
            first, second = data[at], data[at + 1]
            length = second & LENGTH
            if first not in self._legal or second < MASKED or (first & CONTROL and length > MAX_CONTROL):
                raise self._fault_of_head(first, second)
            start = at + 6  # of the payload; the four bytes before it are the mask
            if length > 125:
                start += 2 if length == 126 else 8
                if start - 4 > end:
                    return self._wait(data, at, start - 4)
                # That it is said in more bytes than it needs does no harm. The highest bit of eight bytes has
                # to be 0: if it is not, the length is beyond any limit.
                length = int.from_bytes(data[at + 2 : start - 4], "big")
            plain = first in self._plain and self._message is None
            if not plain or length > self._max_size:
                self._check(first, length)
            # The payload, without its mask (section 5.3)
            stop = start + length
            if stop > end:
                return self._wait(data, at, stop)
            payload = apply_mask(
                data[start:stop] if length < 4096 else memoryview(data)[start:stop], data[start - 4 : start]
            )
            at = stop
            self.left -= 1
            event = whole(first, payload) if plain else self._event(first, payload)
            if event is not None:
                self._wait(data, at, at)
                return event
        return self._wait(data, at, at)

    def keep(self, data: bytes | bytearray) -> None:
        """Keep bytes to read later."""
        kept, at = self._data, self._at
        if at or not isinstance(kept, bytearray):
            kept = self._data = bytearray(memoryview(kept)[at:])
            self._at = 0
        kept += data
        self._missing -= len(data)
        self.at_rest = False

    def ignore_data(self) -> None:
        """Give no messages any more: our close frame is out, and only the client's is awaited (section 1.4).

        Frames are checked as before. What they contain is not.
        """
        self._ignores = True
        self._plain = NONE
        self._decoder = None
        if self._message is not None:
            self._message = bytearray()

    def end(self) -> None:
        """Forget what has come: after a close frame, or a fault, nothing more is read (section 5.5.1)."""
        self._data, self._at, self._message, self._decoder = b"", 0, None, None

    def _wait(self, data: bytes | bytearray, at: int, until: int) -> Event | None:
        """Keep what was not read, from `at` on; it takes bytes up to `until` to read on."""
        if at == len(data):
            self._data, self._at, self._missing = b"", 0, 0
            self.at_rest = self._message is None and self._log is None
            return None
        missing = until - len(data)
        if missing > 0 and (at or not isinstance(data, bytearray)):
            # Of a read of 256 KiB, keep no more than the beginning of this frame.
            data, at = bytearray(memoryview(data)[at:]), 0
        self._data, self._at, self._missing, self.at_rest = data, at, missing, False
        return None

    # What is wrong. Texts and codes are those of `websockets`.

    def _fault_of_head(self, first: int, second: int) -> Fault:
        """Say what is wrong with the first two bytes of a frame."""
        if first & OPCODE not in OPCODES:
            return Fault(1002, "invalid opcode")  # section 5.2: an unknown one fails the connection
        if second < MASKED:
            return Fault(1002, "incorrect masking")  # section 5.1: every frame of a client is masked
        if not first & OPCODE and first & COMPRESSED and self._message is not None and self._deflated:
            return Fault(1002, "RSV1 bit set in continuation frame")  # RFC 7692 section 6.1
        if first & RESERVED and (first not in self._legal):
            return Fault(
                1002, "reserved bits must be 0"
            )  # section 5.2, unless an extension gives them a meaning
        if second & LENGTH > MAX_CONTROL:
            return Fault(1002, "control frame too long")  # section 5.5
        return Fault(1002, "fragmented control frame")  # section 5.5

    def _check(self, first: int, length: int) -> None:
        """Check that a frame of a message may come now, and is not too much.

        Raises:
            Fault: It must not, or it is.
        """
        if first & CONTROL:
            return  # it may come inside a message, and is no part of it (section 5.4)
        message = self._message
        size = 0 if message is None else len(message)
        if length > self._max_size - size:
            raise self._too_big(length)
        if message is None:
            if not first & OPCODE:
                raise Fault(1002, "unexpected continuation frame")  # section 5.4
            return
        if first & OPCODE:
            raise Fault(1002, "expected a continuation frame")  # section 5.4: messages are not interleaved
        # 1008, not 1009: such a message is not too big, it is against the policy (section 7.4.1).
        if self._fragments >= self._max_fragments:
            raise Fault(1008, f"more than {self._max_fragments} frames in a message")
        if not length and self._empty >= MAX_EMPTY:
            raise Fault(1008, f"more than {MAX_EMPTY} empty frames in a message")

    def _too_big(self, length: int | None) -> Fault:
        """Section 7.4.1: 1009. How large a message may be is for each endpoint to say (section 10.4)."""
        current = None if self._message is None else len(self._message)
        return Fault(1009, str(PayloadTooBig(length, self._max_size - (current or 0), current)))

    # What has come

    def _event(self, first: int, payload: bytes) -> Event | None:
        """What a frame means, if it is not a plain message."""
        opcode = first & OPCODE
        if opcode & CONTROL:
            if self._log is not None:
                self._log(first, payload)
            return (opcode, payload, len(payload)) if opcode != CLOSE else close_of(payload)
        is_fragment = self._message is not None or not first & FINAL
        if is_fragment and opcode:
            # One piece of memory: a list of the fragments may take many times what is in them.
            self._message = bytearray()
            self._decoder = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
            self._deflated = bool(first & COMPRESSED)
            self._fragments = self._empty = 0
        if is_fragment:
            self._fragments += 1
            self._empty += not payload
        if self._ignores:
            if first & FINAL:
                self._message = None
            return None
        if first & COMPRESSED or (is_fragment and self._deflated):
            payload = self._inflated(payload, first >= FINAL)
        if self._log is not None:
            self._log(first, payload)
        return self._fragment(first, payload) if is_fragment else whole(first, payload)

    def _fragment(self, first: int, payload: bytes) -> Event | None:
        """Put a message together (section 5.4)."""
        message, decoder = cast(bytearray, self._message), self._decoder
        message += payload
        if decoder is not None:
            # Invalid text fails at once, even if the message goes on for long (section 8.1). What is at
            # the end of a fragment may be a part of a character.
            try:
                decoder.decode(payload, first >= FINAL)
            except UnicodeDecodeError as error:
                raise not_utf_8(error) from error
        if first < FINAL:
            return None
        self._message = self._decoder = None
        if decoder is not None:
            return TEXT, message.decode(), len(message)
        return BINARY, bytes(message), len(message)

    def _inflated(self, payload: bytes, final: bool) -> bytes:
        """The payload of a frame that is compressed (RFC 7692 section 6.2)."""
        size = 0 if self._message is None else len(self._message)
        try:
            return cast(Deflate, self._deflate).inflated(payload, self._max_size - size, final)
        except PayloadTooBig:
            raise self._too_big(None) from None
        except ProtocolError as error:
            raise Fault(1002, str(error)) from error


def whole(first: int, payload: bytes) -> Event:
    """A message in one frame (section 5.6).

    Raises:
        Fault: It is a text, and not UTF-8.
    """
    if first & TEXT:
        try:
            return TEXT, payload.decode(), len(payload)
        except UnicodeDecodeError as error:
            raise not_utf_8(error) from error
    return BINARY, payload, len(payload)


def not_utf_8(error: UnicodeDecodeError) -> Fault:
    """Section 8.1: 1007 (section 7.4.1)."""
    return Fault(1007, f"{error.reason} at position {error.start}")


def close_of(payload: bytes) -> Event:
    """The code and the reason in a close frame (section 5.5.1).

    Raises:
        Fault: They cannot be there.
    """
    if not payload:
        return CLOSE, NO_CODE, ""
    if len(payload) == 1:
        raise Fault(1002, "close frame too short")
    try:
        reason = payload[2:].decode()
    except UnicodeDecodeError as error:
        raise not_utf_8(error) from error
    code = int.from_bytes(payload[:2], "big")
    if not can_be_sent(code):
        raise Fault(1002, "invalid status code")
    return CLOSE, code, reason


# What the server writes


def can_be_sent(code: int) -> bool:
    """Whether a close frame may have this code (section 7.4)."""
    return code in CLOSE_CODES or 3000 <= code < 5000


def close_payload(code: int, reason: str) -> bytes:
    """What is in a close frame (section 5.5.1).

    Raises:
        ValueError: They cannot be there.
    """
    payload = code.to_bytes(2, "big") + reason.encode()
    if not can_be_sent(code) or len(payload) > MAX_CONTROL:
        raise ValueError(f"no close frame can have the code {code} and a reason of {len(payload) - 2} bytes")
    return payload


def payload_of(message: Any) -> tuple[int, bytes]:
    """The first byte of a frame for a `websocket.send`, and its payload."""
    if (data := message.get("bytes")) is not None:
        return BINARY_FRAME, data if type(data) is bytes else bytes(memoryview(data))
    if (text := message.get("text")) is not None:
        return TEXT_FRAME, text.encode()
    raise RuntimeError("Expected 'text' or 'bytes' in ASGI message 'websocket.send', but got neither.")


def framed(first: int, data: bytes) -> tuple[bytes, bytes]:
    """A frame of the server (section 5.2), in two parts. A server masks nothing (section 5.1)."""
    length = len(data)
    if length < 126:
        return bytes((first, length)), data
    if length < 65536:
        return b"%c\x7e%b" % (first, length.to_bytes(2, "big")), data
    return b"%c\x7f%b" % (first, length.to_bytes(8, "big")), data
