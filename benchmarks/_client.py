"""A client that costs little: one loop over epoll, messages framed beforehand, replies counted.

It is never what is measured, so it does nothing per message that it can do before: a message is framed and
masked once, and of a reply only the length is looked at, after the content of the first was compared. What is
left is little more than one `read` and one `write` of the system per message. How much of its core that took
is part of every sample (`_system.py`), and a sample in which it took nearly all is marked.
"""

from __future__ import annotations

import array
import fcntl
import itertools
import os
import select
import socket
import struct
import termios
import time
import zlib
from collections.abc import Sequence
from types import TracebackType

__all__ = [
    "BINARY",
    "CLOSE",
    "TEXT",
    "Crowd",
    "answered",
    "connected",
    "deflated",
    "frame",
    "handshakes",
    "reply",
    "request",
    "reset",
]

LIMIT = 20.0  # seconds for anything to come
WINDOW = 64  # handshakes under way at the same time
NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT: the source address is chosen, the port is left to connect()
PER_SOURCE = 5000  # connections from one address; each has some 28,000 ports

TEXT, BINARY, CLOSE = 1, 2, 8
_CLOSED = b"\x88"  # the first byte of a close frame
_MASK = b"\x37\xfa\x21\x3d"  # of the example in RFC 6455 section 5.7; here every frame has it


def frame(payload: bytes, opcode: int = TEXT, *, compressed: bool = False) -> bytes:
    """A message of a client in one frame (RFC 6455 section 5.2)."""
    size = len(payload)
    mask = int.from_bytes((_MASK * (size // 4 + 1))[:size], "big")
    masked = (int.from_bytes(payload, "big") ^ mask).to_bytes(size, "big")
    return _head(size, opcode, compressed=compressed, masked=True) + _MASK + masked


def reply(payload: bytes, opcode: int = TEXT) -> bytes:
    """The same message from a server."""
    return _head(len(payload), opcode) + payload


def _head(size: int, opcode: int, *, compressed: bool = False, masked: bool = False) -> bytes:
    first, flag = 0x80 | (0x40 if compressed else 0) | opcode, 0x80 if masked else 0
    if size < 126:
        return bytes([first, flag | size])
    if size < 65536:
        return struct.pack("!BBH", first, flag | 126, size)
    return struct.pack("!BBQ", first, flag | 127, size)


def _length(data: bytes) -> int | None:
    """The bytes of the whole frame that starts here, or `None` if its head is not there yet."""
    if len(data) < 2:
        return None
    size = data[1]
    if size < 126:
        return 2 + size
    if size == 126:
        return 4 + int.from_bytes(data[2:4], "big") if len(data) >= 4 else None
    return 10 + int.from_bytes(data[2:10], "big") if len(data) >= 10 else None


def deflated(payload: bytes) -> bytes:
    """A payload compressed on its own (RFC 7692 section 7.2.1): it may be sent at any time, and again."""
    compress = zlib.compressobj(wbits=-15)
    return (compress.compress(payload) + compress.flush(zlib.Z_SYNC_FLUSH))[:-4]


def request(port: int, path: str, *, deflate: bool = False) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\n"
        f"Origin: http://127.0.0.1:{port}\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0\r\n"
        "Connection: Upgrade\r\n"
        "Upgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        + ("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" if deflate else "")
        + "\r\n"
    ).encode()


def connected(port: int, number: int = 0) -> socket.socket:
    connection = socket.socket()
    connection.settimeout(LIMIT)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_IP, NO_PORT, 1)
        connection.bind((f"127.0.0.{2 + number // PER_SOURCE}", 0))
        connection.connect(("127.0.0.1", port))
    except BaseException:
        connection.close()
        raise
    return connection


def answered(connection: socket.socket, *, deflate: bool = False) -> None:
    """Read the answer to the handshake, and nothing of what may follow it."""
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        part = connection.recv(65536, socket.MSG_PEEK)
        if not part:
            raise ConnectionError(f"the handshake was not answered, but with {answer!r}")
        end = (answer + part).find(b"\r\n\r\n")
        answer += connection.recv(len(part) if end < 0 else end + 4 - len(answer))
    if not answer.startswith(b"HTTP/1.1 101"):
        raise ConnectionError(f"the handshake was refused: {answer[:200]!r}")
    if deflate != (b"permessage-deflate" in answer):
        raise ConnectionError(
            f"permessage-deflate was {'' if deflate else 'not '}offered, and answered with {answer!r}"
        )


def reset(connection: socket.socket) -> None:
    """Leave without a goodbye, so that neither side keeps the port."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def handshakes(port: int, seconds: float, *, deflate: bool = False) -> int:
    """Open and close connections for a time, by the handshakes of RFC 6455 sections 4 and 7; how many.

    Raises:
        ConnectionError: The server refused, did not answer the close, or did not take compression that was
            offered.
    """
    opening, goodbye = request(port, "/echo", deflate=deflate), frame(struct.pack("!H", 1000), CLOSE)
    done = 0
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        connections: list[socket.socket] = []
        try:
            for _ in range(WINDOW):
                connections.append(connected(port, done))
                connections[-1].sendall(opening)
            for connection in connections:
                answered(connection, deflate=deflate)
                connection.sendall(goodbye)
            for connection in connections:
                farewell = connection.recv(4096)
                if farewell[:1] != _CLOSED:
                    raise ConnectionError(f"the close was answered with {farewell!r}")
                while connection.recv(4096):
                    pass
        finally:
            for connection in connections:
                reset(connection)
        done += WINDOW
    return done


class Crowd:
    """Connections to one server, past their handshake.

    Args:
        port: Of the server, on 127.0.0.1.
        path: What is asked for.
        count: How many connections.
        deflate: Whether permessage-deflate is offered; the server must take it then.

    Raises:
        ConnectionError: The server refused, or answered with something else than was asked for.
    """

    def __init__(self, port: int, path: str = "/echo", count: int = 1, *, deflate: bool = False) -> None:
        self.port = port
        self.connections: list[socket.socket] = []
        self._request = request(port, path, deflate=deflate)
        self._deflate = deflate
        self._poll = select.epoll()
        try:
            self.grow(count)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Reset all connections."""
        for connection in self.connections:
            reset(connection)
        self.connections.clear()
        self._poll.close()

    def grow(self, count: int) -> None:
        """Open connections until there are so many."""
        while (have := len(self.connections)) < count:
            for number in range(have, min(have + WINDOW, count)):
                self.connections.append(connected(self.port, number))
                self.connections[-1].sendall(self._request)
            for connection in self.connections[have:]:
                answered(connection, deflate=self._deflate)
                connection.setblocking(False)
                self._poll.register(connection, select.EPOLLIN)

    def check(self, payload: bytes, opcode: int = TEXT) -> None:
        """Have every connection echo a message, and compare."""
        sent = frame(deflated(payload), opcode, compressed=True) if self._deflate else frame(payload, opcode)
        for connection in self.connections:
            connection.settimeout(LIMIT)
            connection.sendall(sent)
            got = b""
            while (size := _length(got)) is None or len(got) < size:
                part = connection.recv(1 << 18)
                if not part:
                    raise ConnectionError(f"the server left instead of an echo, after {got[:80]!r}")
                got += part
            connection.setblocking(False)
            if self._deflate:
                if got[0] != 0xC0 | opcode:
                    raise ConnectionError(f"a compressed echo was expected, and {got[:80]!r} came")
                body = got[2 if got[1] < 126 else 4 :] + b"\x00\x00\xff\xff"
                got = reply(zlib.decompressobj(wbits=-15).decompress(body), opcode)
            if got != reply(payload, opcode):
                raise ConnectionError(f"an echo of {payload[:40]!r} was expected, and {got[:80]!r} came")

    def ask(self, payload: bytes) -> bytes:
        """Send a text on every connection; return the text that comes back, on each the same.

        Raises:
            ConnectionError: Something else than one text came, or not the same on each connection.
        """
        answers = set()
        for connection in self.connections:
            connection.settimeout(LIMIT)
            connection.sendall(frame(payload))
            got = b""
            while (size := _length(got)) is None or len(got) < size:
                part = connection.recv(1 << 18)
                if not part:
                    raise ConnectionError(f"the server left instead of an answer, after {got[:80]!r}")
                got += part
            connection.setblocking(False)
            answers.add(got)
        if len(answers) != 1:
            raise ConnectionError(f"{len(answers)} answers came to one message")
        answer = answers.pop()
        text = answer[2:] if answer[1] < 126 else answer[4:] if answer[1] == 126 else answer[10:]
        if answer != reply(text):
            raise ConnectionError(f"one text was expected, and {answer[:80]!r} came")
        return text

    def echo(self, messages: Sequence[bytes], size: int, seconds: float) -> int:
        """Keep one message in flight on every connection for a time, and wait for the last replies.

        Args:
            messages: Frames, sent in turn.
            size: The bytes of a reply if all have the same; 0 if not: the length in each is read then.
            seconds: After which no more is sent.

        Returns:
            How many replies came.
        """
        read, write, poll, clock = os.read, os.write, self._poll.poll, time.perf_counter
        sockets = {connection.fileno(): connection for connection in self.connections}
        unsent: dict[int, memoryview] = {}
        missing: dict[int, int] = {}  # bytes of a reply of which a part has come
        heads: dict[int, bytes] = {}  # of a reply of which not even the length has come
        following = itertools.cycle(messages)
        done, flying, running = 0, len(sockets), seconds > 0
        # Of a large reply nothing is copied: it is counted, and dropped in the kernel.
        nothing, large = bytearray(1 << 18), size > 4096
        deadline = clock() + seconds
        for fd in sockets:
            message = next(following)
            if (written := write(fd, message)) != len(message):
                self._wait_to_write(fd, memoryview(message)[written:], unsent)
        while flying:
            events = poll(LIMIT, 1024)
            if not events:
                raise TimeoutError(f"{flying} replies did not come within {LIMIT:g} s")
            for fd, event in events:
                if event & select.EPOLLOUT:
                    rest = unsent.pop(fd)
                    self._wait_to_write(fd, rest[write(fd, rest) :], unsent)
                if not event & ~select.EPOLLOUT:
                    continue
                if large:
                    got = sockets[fd].recv_into(nothing, 0, socket.MSG_TRUNC)
                else:
                    data = read(fd, 4096)
                    got = len(data)
                if got != size or missing:  # the common reply comes whole
                    if not got:
                        raise ConnectionError("the server left")
                    left = missing.pop(fd, size)
                    if not left:
                        data = heads.pop(fd, b"") + data
                        length = _length(data)
                        if length is None:
                            heads[fd] = data
                            continue
                        left, got = length, len(data)
                    left -= got
                    if left < 0:
                        raise ConnectionError(f"{-left} bytes came more than a reply has")
                    if left:
                        missing[fd] = left
                        continue
                done += 1
                if running:
                    message = next(following)
                    if (written := write(fd, message)) != len(message):
                        self._wait_to_write(fd, memoryview(message)[written:], unsent)
                else:
                    flying -= 1
            running = clock() < deadline
        return done

    def _wait_to_write(self, fd: int, rest: memoryview, unsent: dict[int, memoryview]) -> None:
        if rest:
            unsent[fd] = rest
        self._poll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if rest else 0))

    def send(self, message: bytes) -> None:
        """Send a frame on every connection; small enough to go at once."""
        for connection in self.connections:
            connection.sendall(message)

    def take(self, count: int) -> None:
        """Wait until so many bytes have come, on all connections together."""
        while count > 0:
            events = self._poll.poll(LIMIT, 1024)
            if not events:
                raise TimeoutError(f"{count} bytes did not come within {LIMIT:g} s")
            for fd, _ in events:
                got = len(os.read(fd, 65536))
                if not got:
                    raise ConnectionError("the server left")
                count -= got
        if count:
            raise ConnectionError(f"{-count} bytes came more than were expected")

    def waiting(self) -> int:
        """The bytes that have come and were not read."""
        number = array.array("i", [0])
        total = 0
        for connection in self.connections:
            fcntl.ioctl(connection, termios.FIONREAD, number)
            total += number[0]
        return total

    def round_trips(self, message: bytes, size: int, seconds: float, pause: float) -> list[float]:
        """The seconds from sending to the reply, on the first connection, with a pause before each."""
        connection = self.connections[0]
        connection.settimeout(LIMIT)
        clock = time.perf_counter
        taken = []
        deadline = clock() + seconds
        while clock() < deadline:
            time.sleep(pause)
            start = clock()
            connection.send(message)
            got = len(connection.recv(4096))
            taken.append(clock() - start)
            if got != size:
                raise ConnectionError(f"a reply of {size} bytes was expected, and {got} came")
        connection.setblocking(False)
        return taken
