"""permessage-deflate (RFC 7692): how it is negotiated, and the contexts of one connection."""

from __future__ import annotations

import zlib
from typing import Any, Final, cast

from websockets.exceptions import NegotiationError, PayloadTooBig, ProtocolError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.typing import ExtensionName

STEP = 1048576  # bytes that are inflated at once
MAX_STREAMS = 16  # blocks with BFINAL set in a frame: what follows each is copied


class Deflate(Extension):
    """permessage-deflate (RFC 7692) as it was negotiated.

    Unlike the one of `websockets` it makes its contexts when they are first needed, since they are most of
    the memory of a connection, and it keeps no more of a message than a step before it knows its size.
    """

    name = ExtensionName("permessage-deflate")

    __slots__ = (
        "_compressor",
        "_decompressor",
        "_level",
        "_local_bits",
        "_local_once",
        "_remote_bits",
        "_remote_once",
        "continued",
    )

    def __init__(self, negotiated: PerMessageDeflate, level: int) -> None:
        self._level = level
        self._local_bits = negotiated.local_max_window_bits
        self._local_once = negotiated.local_no_context_takeover
        self._remote_bits = negotiated.remote_max_window_bits
        self._remote_once = negotiated.remote_no_context_takeover
        self._compressor: zlib._Compress | None = None
        self._decompressor: zlib._Decompress | None = None
        self.continued = False
        """Whether the message under way is compressed, of which there are fragments."""

    def compressed(self, data: bytes) -> bytes:
        """The payload of a message (section 7.2.1)."""
        compressor = self._compressor
        if compressor is None:
            compressor = zlib.compressobj(self._level, wbits=-self._local_bits, memLevel=MEM_LEVEL)
            if not self._local_once:
                self._compressor = compressor
        return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def inflated(self, data: bytes, max_size: int, final: bool = True) -> bytes:
        """What is in the payload of a frame (section 7.2.2).

        Raises:
            PayloadTooBig: It is more than `max_size`.
            ProtocolError: It is no such thing.
        """
        result = b""
        if final:
            data += EMPTY_BLOCK
        for _ in range(MAX_STREAMS):
            decompressor = self._decompressor
            if decompressor is None:
                decompressor = self._decompressor = zlib.decompressobj(wbits=-self._remote_bits)
            try:
                inflated = decompressor.decompress(data, STEP)
                if len(inflated) == STEP or decompressor.unconsumed_tail:
                    self._measure(decompressor, len(result) + len(inflated), max_size)
                    inflated += decompressor.decompress(decompressor.unconsumed_tail)
            except zlib.error as error:
                raise ProtocolError("decompression failed") from error
            result = result + inflated if result else inflated
            if len(result) > max_size:
                raise PayloadTooBig(None, max_size)
            if not decompressor.eof:
                if final and self._remote_once:
                    self._decompressor = None
                return result
            # A block with BFINAL set (section 7.2.1): zlib takes nothing more, but the message may go on.
            self._decompressor = None
            data = decompressor.unused_data
            if not data:
                return result
        raise ProtocolError(f"more than {MAX_STREAMS} blocks with BFINAL set in a frame")

    def _measure(self, decompressor: zlib._Decompress, size: int, max_size: int) -> None:
        """Inflate a copy of the context and keep nothing: 65 KB may become 64 MB."""
        copy, data = decompressor.copy(), decompressor.unconsumed_tail
        while piece := copy.decompress(data, 65536):
            size += len(piece)
            if size > max_size:
                raise PayloadTooBig(None, max_size)
            data = copy.unconsumed_tail

    def encode(self, frame: Frame) -> Frame:
        """Compress a whole message, as `websockets` asks for it."""
        if frame.opcode not in DATA:
            return frame
        return Frame(frame.opcode, self.compressed(bytes(frame.data)), rsv1=True)

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Inflate a frame, as `websockets` asks for it."""
        if frame.opcode is Opcode.CONT:
            if not self.continued:
                return frame
            if frame.rsv1:
                raise ProtocolError("RSV1 bit set in continuation frame")
        elif frame.opcode in DATA:
            self.continued = frame.rsv1
        if frame.opcode not in DATA or not self.continued:
            return frame
        if frame.fin:
            self.continued = False
        data = self.inflated(bytes(frame.data), cast(int, max_size), frame.fin)
        return Frame(frame.opcode, data, frame.fin, rsv2=frame.rsv2, rsv3=frame.rsv3)


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
DATA: Final = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
