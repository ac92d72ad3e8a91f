"""A WebSocket client made of nothing but a socket: it sends any octets, and reads strictly.

It stands on no WebSocket library, so that it can be wrong in no way in which the server under test is wrong.
What it writes may be illegal in every way; what it reads must be right in every way that RFC 6455 asks of a
server, else it raises `BadFrame`.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
CONTROL = 0x8  # the bit of the opcode that makes a frame a control frame

LIMIT = 30.0  # seconds for anything that is waited for; far more than a slow machine needs
KEY = b"\x37\xfa\x21\x3d"  # the masking key of the RFC's example; no octet of it is zero


class BadFrame(Exception):
    """The server sent what no server may send."""


class Frame(NamedTuple):
    opcode: int
    data: bytes = b""
    fin: bool = True
    rsv: int = 0  # RSV1 is 4, RSV2 is 2, RSV3 is 1


def masked(data: bytes, key: bytes) -> bytes:
    """The data under the key; applied twice, the data again (RFC 6455, 5.3)."""
    if not data:
        return b""
    stream = (key * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(data), "big")


def frame(
    opcode: int,
    data: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes | None = KEY,
    length: int | None = None,
    form: int | None = None,
) -> bytes:
    """The octets of a frame (RFC 6455, 5.2), legal or not.

    Args:
        opcode: 0 to 15.
        data: the payload.
        fin: whether it is the last of its message.
        rsv: the three reserved bits, 0 to 7.
        key: the masking key; with `None` the frame is not masked.
        length: what is announced as the length of the payload; that of `data` by default.
        form: 7, 16 or 64, the bits in which the length is written; the fewest that hold it by default.
    """
    length = len(data) if length is None else length
    form = form or (7 if length < 126 else 16 if length < 65536 else 64)
    mask = 0x80 if key else 0
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if form == 7:
        head += bytes([mask | length])
    elif form == 16:
        head += struct.pack("!BH", mask | 126, length)
    else:
        head += struct.pack("!BQ", mask | 127, length)
    return head + (key + masked(data, key) if key else data)


def text(data: str | bytes, *, fin: bool = True, rsv: int = 0) -> bytes:
    return frame(TEXT, data.encode() if isinstance(data, str) else data, fin=fin, rsv=rsv)


def binary(data: bytes, *, fin: bool = True, rsv: int = 0) -> bytes:
    return frame(BINARY, data, fin=fin, rsv=rsv)


def cont(data: str | bytes, *, fin: bool = True, rsv: int = 0) -> bytes:
    return frame(CONT, data.encode() if isinstance(data, str) else data, fin=fin, rsv=rsv)


def ping(data: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    return frame(PING, data, fin=fin, rsv=rsv)


def pong(data: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    return frame(PONG, data, fin=fin, rsv=rsv)


def closing(code: int | None = 1000, reason: str | bytes = b"") -> bytes:
    """The payload of a close frame; without a code there is none."""
    reason = reason.encode() if isinstance(reason, str) else reason
    return b"" if code is None else struct.pack("!H", code) + reason


def close(code: int | None = 1000, reason: str | bytes = b"") -> bytes:
    return frame(CLOSE, closing(code, reason))


def fragments(opcode: int, data: bytes, size: int, *, rsv: int = 0) -> list[bytes]:
    """A message in frames of `size` octets, the last one shorter."""
    pieces = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
    return [
        frame(opcode if not at else CONT, piece, fin=at == len(pieces) - 1, rsv=0 if at else rsv)
        for at, piece in enumerate(pieces)
    ]


class Deflater:
    """One direction of permessage-deflate (RFC 7692, 7.2)."""

    def __init__(self, bits: int = 15, *, takeover: bool = True, level: int = 6) -> None:
        self.bits, self.takeover, self.level = bits, takeover, level
        self._compressor = zlib.compressobj(level, zlib.DEFLATED, -bits)
        self._decompressor = zlib.decompressobj(-bits)

    def compress(self, data: bytes) -> bytes:
        if not self.takeover:
            self._compressor = zlib.compressobj(self.level, zlib.DEFLATED, -self.bits)
        out = self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        return out[:-4]  # 00 00 FF FF, which the other side appends

    def decompress(self, data: bytes) -> bytes:
        if not self.takeover:
            self._decompressor = zlib.decompressobj(-self.bits)
        data += b"\x00\x00\xff\xff"
        if self.bits == 15:
            return self._decompressor.decompress(data)
        # In small steps: zlib holds a distance against the window only when the octets are no longer at hand.
        out = []
        while piece := self._decompressor.decompress(data, 64):
            out.append(piece)
            data = self._decompressor.unconsumed_tail
        return b"".join(out)


@dataclass
class Reader:
    """Octets of a server in, frames out; raises `BadFrame` on the first that is wrong."""

    deflate: bool = False
    """Whether RSV1 may be set, on the first frame of a message."""

    _buffer: bytearray = field(default_factory=bytearray)
    _inside: bool = False
    _closed: bool = False

    def feed(self, data: bytes) -> None:
        self._buffer += data

    @property
    def rest(self) -> bytes:
        """What has come of a frame that is not whole."""
        return bytes(self._buffer)

    def next(self) -> Frame | None:
        """The next whole frame, if there is one."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        fin, rsv, opcode = bool(first & 0x80), first >> 4 & 0x7, first & 0xF
        length, at = second & 0x7F, 2
        if length == 126:
            at = 4
        elif length == 127:
            at = 10
        if len(buffer) < at:
            return None
        if at > 2:
            smallest = 126 if at == 4 else 65536
            length = int.from_bytes(buffer[2:at], "big")
            self._must(length >= smallest, f"a length of {length} written in {at - 2} octets")
            self._must(length < 1 << 63, "the first bit of the length is set")
        self._must(not self._closed, f"a frame (opcode {opcode}) after the close frame")
        self._must(not second & 0x80, "a server's frame is masked")
        self._must(opcode in (CONT, TEXT, BINARY, CLOSE, PING, PONG), f"opcode {opcode} is reserved")
        self._must(not rsv & 3, "RSV2 or RSV3 is set")
        if rsv:
            self._must(self.deflate and opcode in (TEXT, BINARY), "RSV1 is set where it has no meaning")
        if opcode & CONTROL:
            self._must(fin, "a control frame is fragmented")
            self._must(length <= 125, f"a control frame carries {length} octets")
        else:
            self._must((opcode == CONT) == self._inside, "a message begins or goes on out of turn")
        if len(buffer) < at + length:
            return None
        data = bytes(buffer[at : at + length])
        del buffer[: at + length]
        if opcode == CLOSE:
            self._must(length != 1, "a close frame carries half a code")
            try:
                data[2:].decode()
            except UnicodeDecodeError:
                raise BadFrame(f"the reason of the close is no UTF-8: {data[2:]!r}") from None
            self._closed = True
        elif not opcode & CONTROL:
            self._inside = not fin
        return Frame(opcode, data, fin, rsv)

    @staticmethod
    def _must(fact: bool, otherwise: str) -> None:
        if not fact:
            raise BadFrame(otherwise)


class Response(NamedTuple):
    """The server's answer to a handshake."""

    status: int
    headers: list[tuple[str, str]]  # names in lower case

    def get(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        return ", ".join(values) if values else None


class Ended(Exception):
    """The TCP connection ended: `end` is "eof", or "reset"."""

    def __init__(self, end: str) -> None:
        super().__init__(end)
        self.end = end


NONCE = base64.b64encode(b"the sample nonce").decode()
ACCEPT = base64.b64encode(
    hashlib.sha1(NONCE.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
).decode()

HANDSHAKE: dict[str, str] = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": NONCE,
    "Sec-WebSocket-Version": "13",
}


def request(
    path: str,
    changes: dict[str, str | None] | None = None,
    *,
    method: str = "GET",
    version: str = "HTTP/1.1",
    more: Iterable[tuple[str, str]] = (),
) -> bytes:
    """An opening handshake (RFC 6455, 4.1): headers changed, left out (`None`) or put behind."""
    headers = {**HANDSHAKE, **(changes or {})}
    lines = [f"{method} {path} {version}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
    lines += [f"{name}: {value}" for name, value in more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Client:
    """One connection over a blocking socket; everything has a time limit."""

    def __init__(self, port: int, *, limit: float = LIMIT) -> None:
        self.limit = limit
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=limit)
        # What is sent in pieces goes out in pieces.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = Reader()
        self.response = Response(0, [])

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    # The handshake

    def ask(self, octets: bytes) -> Response:
        """Send a request, and read the head of the answer; what came behind it is kept for the frames."""
        self.socket.sendall(octets)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._receive()
        head, _, rest = head.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        protocol, status, *_ = first.split(" ", 2)
        if protocol != "HTTP/1.1":
            raise BadFrame(f"the answer begins with {first!r}")
        pairs = [line.partition(":")[::2] for line in lines]
        self.response = Response(int(status), [(name.lower(), value.strip()) for name, value in pairs])
        self.reader.feed(rest)
        return self.response

    def open(self, path: str = "/", changes: dict[str, str | None] | None = None) -> Client:
        """Open a WebSocket connection, and check everything that the RFC wants a client to check (4.1)."""
        response = self.ask(request(path, changes))
        if response.status != 101:
            raise BadFrame(f"the handshake was answered with {response.status}")
        for name, value in (("upgrade", "websocket"), ("connection", "upgrade")):
            if (response.get(name) or "").lower() != value:
                raise BadFrame(f"{name} is {response.get(name)!r}")
        if response.get("sec-websocket-accept") != ACCEPT:
            raise BadFrame("Sec-WebSocket-Accept does not follow from the key")
        extensions = response.get("sec-websocket-extensions")
        offered = (changes or {}).get("Sec-WebSocket-Extensions")
        if extensions is not None:
            if not (offered and extensions.split(";")[0].strip() == "permessage-deflate"):
                raise BadFrame(f"{extensions!r} was not offered")
            self.reader.deflate = True
        return self

    # Frames

    def send(self, *pieces: bytes) -> None:
        """Send octets; each piece is a write of its own. A server that has gone meanwhile is no error."""
        for piece in pieces:
            try:
                self.socket.sendall(piece)
            except (ConnectionError, BrokenPipeError):
                return

    def frame(self) -> Frame:
        """The next frame; raises `Ended` at the end of the TCP connection."""
        while (found := self.reader.next()) is None:
            self.reader.feed(self._receive())
        return found

    def message(self, deflater: Deflater | None = None) -> str | bytes:
        """The next message, whole; a control frame in between is an error."""
        first = self.frame()
        if first.opcode not in (TEXT, BINARY):
            raise BadFrame(f"{first} came instead of a message")
        data, last = first.data, first
        while not last.fin:
            last = self.frame()
            if last.opcode != CONT:
                raise BadFrame(f"{last} came inside a message")
            data += last.data
        if first.rsv:
            if deflater is None:
                raise BadFrame("a compressed message came")
            data = deflater.decompress(data)
        return data.decode() if first.opcode == TEXT else data

    def rest(self) -> tuple[list[Frame], str]:
        """All frames until the TCP connection ends, and how it ended."""
        frames: list[Frame] = []
        try:
            while True:
                frames.append(self.frame())
        except Ended as ended:
            if self.reader.rest:
                raise BadFrame(f"the end came inside a frame: {self.reader.rest[:20]!r}") from None
            return frames, ended.end

    def end(self) -> str:
        """How the TCP connection ends, with nothing more before."""
        frames, end = self.rest()
        if frames:
            raise BadFrame(f"{frames} came before the end")
        return end

    def drain(self) -> bytes:
        """All octets until the TCP connection ends: the body of an answer that opened no WebSocket."""
        octets = self.reader.rest
        try:
            while True:
                octets += self._receive()
        except Ended:
            return octets

    def leave(self, *, reset: bool = False) -> None:
        """End the TCP connection without a word."""
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _receive(self) -> bytes:
        try:
            data = self.socket.recv(1 << 18)
        except ConnectionResetError:
            raise Ended("reset") from None
        except TimeoutError:
            raise AssertionError(f"nothing came within {self.limit:g} s") from None
        if not data:
            raise Ended("eof")
        return data


def merged(frames: Sequence[Frame]) -> list[Frame]:
    """The frames with the fragments of each message put together; control frames keep their places."""
    result: list[Frame] = []
    open_at: int | None = None
    for each in frames:
        if each.opcode == CONT:
            assert open_at is not None
            begun = result[open_at]
            result[open_at] = begun._replace(data=begun.data + each.data, fin=each.fin)
        else:
            result.append(each)
            if not each.opcode & CONTROL:
                open_at = len(result) - 1
    return result


def chopped(frames: Sequence[bytes], size: int | None) -> list[bytes]:
    """The octets of the frames in pieces: of `size`, or each frame (-1), or all at once (`None`)."""
    if size == -1:
        return list(frames)
    octets = b"".join(frames)
    if size is None:
        return [octets]
    return [octets[start : start + size] for start in range(0, len(octets), size)]


def eventually(condition: object, what: str, *, limit: float = LIMIT) -> None:
    """Wait until the condition holds."""
    assert callable(condition)
    until = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < until, f"{what}: not within {limit:g} s"
        time.sleep(0.002)
