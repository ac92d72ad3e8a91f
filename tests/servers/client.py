"""A WebSocket client that is no library: it sends what it is told, and keeps every byte that it gets."""

from __future__ import annotations

import socket
import struct
import time
from typing import NamedTuple

LIMIT = 30.0  # seconds to wait for anything; a test needs a fraction of one

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(payload: bytes = b"", opcode: int = TEXT, *, fin: bool = True) -> bytes:
    """A client's frame, RFC 6455 section 5.2, masked with zeros."""
    head = (0x80 if fin else 0) | opcode
    if len(payload) < 126:
        start = struct.pack("!BB", head, 0x80 | len(payload))
    elif len(payload) < 65536:
        start = struct.pack("!BBH", head, 0x80 | 126, len(payload))
    else:
        start = struct.pack("!BBQ", head, 0x80 | 127, len(payload))
    return start + bytes(4) + payload


def close_frame(code: int | None = None, reason: str = "") -> bytes:
    return frame(b"" if code is None else struct.pack("!H", code) + reason.encode(), CLOSE)


class Frame(NamedTuple):
    opcode: int
    payload: bytes


class Client:
    """A connection after its handshake.

    Args:
        port: On 127.0.0.1.
        path: With its query.
        offer: Subprotocols to offer.
    """

    def __init__(self, port: int, path: str, offer: str = "") -> None:
        self.received = bytearray()
        self.figures: dict[str, float] = {}
        self.patience = LIMIT
        """Seconds in which a close frame must come, or the end of the connection."""
        self._start = 0  # of what was not looked at yet
        self.socket = socket.create_connection(("127.0.0.1", port), LIMIT)
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            *([f"Sec-WebSocket-Protocol: {offer}"] if offer else []),
        ]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def more(self, limit: float | None = None) -> bool:
        """Receive something more; false at the end of the connection.

        Raises:
            TimeoutError: Nothing comes.
        """
        self.socket.settimeout(LIMIT if limit is None else limit)
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionError:
            return False
        self.received += data
        return bool(data)

    def send(self, data: bytes) -> None:
        """Send, as far as the server has not left meanwhile."""
        self.socket.settimeout(LIMIT)
        try:
            self.socket.sendall(data)
        except ConnectionError:
            pass

    def response(self) -> tuple[int, dict[str, str]]:
        """The status and the headers of the handshake's response; 0 if the connection ended instead."""
        while (end := self.received.find(b"\r\n\r\n")) < 0:
            if not self.more():
                return 0, {}
        head = self.received[:end].decode("latin-1").split("\r\n")
        self._start = end + 4
        headers = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
        return int(head[0].split()[1]), {name.lower(): value for name, value in headers.items()}

    def body(self, headers: dict[str, str]) -> str:
        """The body of a response that denies."""
        length = int(headers.get("content-length", "-1"))
        while len(self.received) - self._start != length and self.more():
            pass
        body = bytes(self.received[self._start :])
        if headers.get("transfer-encoding") == "chunked":
            data = b""
            while body:
                size, _, rest = body.partition(b"\r\n")
                data, body = data + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
            body = data
        return body.decode()

    def frame(self, limit: float | None = None) -> Frame | None:
        """The next frame, `None` at the end of the connection."""
        while (found := self._parsed()) is None:
            if not self.more(limit):
                return None
        return found

    def _parsed(self) -> Frame | None:
        data = self.received
        if len(data) < self._start + 2:
            return None
        length, start = data[self._start + 1], self._start + 2
        for marker, size in ((126, 2), (127, 8)):
            if length == marker:
                length, start = int.from_bytes(data[start : start + size], "big"), start + size
                break
        if len(data) < start + length:
            return None
        opcode = data[self._start] & 15
        self._start = start + length
        return Frame(opcode, bytes(data[start : start + length]))

    def end(self) -> str:
        """Read, and answer a close frame, until the server has left; how it did."""
        closed = "no close frame"
        deadline = time.monotonic() + self.patience
        try:
            while (found := self.frame(max(deadline - time.monotonic(), 0.001))) is not None:
                if found.opcode == PING:  # no sign of life for us: the deadline stays
                    self.send(frame(found.payload, PONG))
                elif found.opcode == CLOSE:
                    closed = described(found.payload)
                    deadline = time.monotonic() + LIMIT
                    self.send(frame(found.payload, CLOSE))
                    self.socket.shutdown(socket.SHUT_WR)
        except TimeoutError:
            closed += ", connection left open"
        except OSError:
            pass  # reset before it was answered
        return closed

    def answer(self) -> str:
        """Read until the close frame that answers one's own, and leave, as clients do."""
        try:
            while (found := self.frame()) is not None and found.opcode != CLOSE:
                pass
            self.socket.shutdown(socket.SHUT_WR)
        except TimeoutError:
            return "no answer"
        except OSError:
            pass  # the server was faster
        return "no close frame" if found is None else described(found.payload)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def described(payload: bytes) -> str:
    """What a close frame says."""
    if not payload:
        return "close without a code"
    code, reason = int.from_bytes(payload[:2], "big"), payload[2:].decode()
    return f"close {code} {reason}".rstrip()
