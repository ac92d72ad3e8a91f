"""Frames of RFC 6455 section 5: their first bytes, and how the server writes them."""

from __future__ import annotations

from typing import Any, Final

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

__all__ = ["apply_mask"]

# The first byte of a frame: final, and its opcode; for a compressed message RSV1 (RFC 7692 section 6).
TEXT, BINARY, COMPRESSED = 0x81, 0x82, 0x40
PING, PONG = 0x89, 0x8A
PIECES: Final = frozenset((0x01, 0x02, 0x00, 0x80))  # of a text or a binary message, and what follows
CONTINUATIONS: Final = frozenset((0x00, 0x80))
BEATS: Final = frozenset((PING, PONG))
PONG_HEAD: Final = bytes((PONG,))
PLAIN: Final = frozenset((TEXT, BINARY))
DEFLATED: Final = frozenset((TEXT | COMPRESSED, BINARY | COMPRESSED))
TEXT_HEADS: Final = [bytes((TEXT, length)) for length in range(126)]


def payload_of(message: Any) -> tuple[int, bytes]:
    """The first byte of a frame for a `websocket.send`, and its payload."""
    if (data := message.get("bytes")) is not None:
        return BINARY, data if type(data) is bytes else bytes(memoryview(data))
    if (text := message.get("text")) is not None:
        return TEXT, text.encode()
    raise RuntimeError("Expected 'text' or 'bytes' in ASGI message 'websocket.send', but got neither.")


def framed(first: int, data: bytes) -> tuple[bytes, bytes]:
    """A frame of the server (RFC 6455 section 5.2), in two parts."""
    length = len(data)
    if length < 126:
        return bytes((first, length)), data
    if length < 65536:
        return b"%c\x7e%b" % (first, length.to_bytes(2, "big")), data
    return b"%c\x7f%b" % (first, length.to_bytes(8, "big")), data
