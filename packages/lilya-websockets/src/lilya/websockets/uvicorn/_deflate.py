"""permessage-deflate (RFC 7692): how it is negotiated, and the contexts of one connection."""

from __future__ import annotations

import zlib
from typing import Any, Final

from websockets.exceptions import NegotiationError, PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory

STEP: Final = 1048576  # bytes that are inflated at once
MAX_STREAMS: Final = 16  # blocks with BFINAL set in a frame: what follows each is copied


class Deflate:
    """The two contexts of a connection.

    They are most of the memory of a connection, so each is made when it is first needed.

    Args:
        negotiated: What `websockets` has agreed upon with the client.
        level: zlib's, for what is sent.
    """

    __slots__ = (
        "_compressor",
        "_decompressor",
        "_level",
        "_local_bits",
        "_local_once",
        "_remote_bits",
        "_remote_once",
    )

    def __init__(self, negotiated: PerMessageDeflate, level: int) -> None:
        self._level = level
        # The size of the window (section 7.1.2), and whether the context ends with each message (section
        # 7.1.1): for what the server sends, and for what the client sends.
        self._local_bits = negotiated.local_max_window_bits
        self._local_once = negotiated.local_no_context_takeover
        self._remote_bits = negotiated.remote_max_window_bits
        self._remote_once = negotiated.remote_no_context_takeover
        self._compressor: zlib._Compress | None = None
        self._decompressor: zlib._Decompress | None = None

    def compressed(self, data: bytes) -> bytes:
        """The payload of a message (section 7.2.1).

        A sync flush ends with an empty block; its last four bytes are always the same, and left out.
        """
        compressor = self._compressor
        if compressor is None:
            compressor = zlib.compressobj(self._level, wbits=-self._local_bits, memLevel=MEM_LEVEL)
            if not self._local_once:
                self._compressor = compressor
        return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def inflated(self, data: bytes, max_size: int, final: bool = True) -> bytes:
        """What is in the payload of a frame (section 7.2.2).

        Args:
            data: The payload.
            max_size: Bytes that may be in it. No more than a step beyond it is inflated.
            final: Whether it is the last frame of its message, to which the four bytes belong that
                `compressed` leaves out.

        Raises:
            PayloadTooBig: There are more.
            ProtocolError: It is not deflate.
        """
        result = b""
        if final:
            data += EMPTY_BLOCK
        for _ in range(MAX_STREAMS):
            decompressor = self._decompressor
            if decompressor is None:
                decompressor = self._decompressor = zlib.decompressobj(wbits=-self._remote_bits)
            room = max_size - len(result)
            try:
                inflated = decompressor.decompress(data, STEP)
                if len(inflated) == STEP or decompressor.unconsumed_tail:
                    inflated = self._large(decompressor, inflated, len(data), room)
            except zlib.error as error:
                raise ProtocolError("decompression failed") from error
            if len(inflated) > room:
                raise PayloadTooBig(None, max_size)
            result = result + inflated if result else inflated
            if not decompressor.eof:
                if final and self._remote_once:
                    self._decompressor = None
                return result
            # A block with BFINAL set may be anywhere in a message (section 7.2.3.4). zlib takes nothing more
            # after it, but the message may go on, with a context that is new.
            self._decompressor = None
            data = decompressor.unused_data
            if not data:
                return result
        raise ProtocolError(f"more than {MAX_STREAMS} blocks with BFINAL set in a frame")

    def _large(self, decompressor: zlib._Decompress, first: bytes, length: int, room: int) -> bytes:
        """Inflate the rest of a frame of which a step is there: all of it, or a little more than `room`.

        65 KB can become 64 MB. A frame that would be a quarter too large, if it goes on as it began, is
        measured first, and nothing of it is kept. Any other is inflated right away: to measure it takes as
        long.
        """
        tail = len(decompressor.unconsumed_tail)
        if len(first) + len(first) * tail // max(1, length - tail) > room + room // 4:
            self._measure(decompressor, room - len(first))
        result = bytearray(first)
        while len(result) <= room and (piece := decompressor.decompress(decompressor.unconsumed_tail, STEP)):
            result += piece
        return bytes(result)

    def _measure(self, decompressor: zlib._Decompress, room: int) -> None:
        """Inflate with a copy of the context, and keep nothing.

        Raises:
            PayloadTooBig: It is more than `room`.
        """
        copy, data = decompressor.copy(), decompressor.unconsumed_tail
        while room >= 0 and (piece := copy.decompress(data, 65536)):
            room -= len(piece)
            data = copy.unconsumed_tail
        if room < 0:
            raise PayloadTooBig(None, 0)


class DeflateFactory(ServerPerMessageDeflateFactory):
    """The negotiation of `websockets`, for its versions before 17, too."""

    def process_request_params(self, params: Any, accepted_extensions: Any) -> Any:
        """Decline a window of 8 bits, which zlib cannot make; it would be an HTTP 500."""
        if ("server_max_window_bits", "8") in params:
            raise NegotiationError("unsupported server_max_window_bits = 8")
        return super().process_request_params(params, accepted_extensions)


# What uvicorn's own class and `websockets` negotiate: 12 bits are 4 KiB of window.
MEM_LEVEL = 5
DEFLATE: Final = DeflateFactory(server_max_window_bits=12, client_max_window_bits=12)
EMPTY_BLOCK: Final = b"\x00\x00\xff\xff"
