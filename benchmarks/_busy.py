"""What a message in one busy channel costs the server, by how it gets to its readers.

Channels push each event (`PUBLISH`), and read the stream only where an event is missing. In the design before
that, the same script kept the event and did not push it, and each process waited for its channels with `XREAD
BLOCK`. The same few lines on bare sockets drive both here, so the clients cost the same.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.redis import CHANNEL, SIZE, processor_time
from lilya.websockets.channels._backend import NO_WISHES
from lilya.websockets.channels._link import packed
from lilya.websockets.channels._redis import RedisBackend
from lilya.websockets.channels._scripts import SCRIPTS, Script
from tests.lilya_websockets.redis_server import RedisServer

__all__ = ["KINDS", "LOADS", "cost"]

KINDS = ("pushed", "XREAD BLOCK")
# By name: publishes that are sent without waiting for an answer between them.
LOADS = {"16 publishes at a time": 16, "one at a time": 1}

PUSH = "redis.pcall('PUBLISH', events .. push,"
READ = (b"XREAD", b"COUNT", b"256", b"BLOCK", b"5000", b"STREAMS")
LIMIT = 60.0


class Socket:
    """A connection to the server, which waits for each answer."""

    def __init__(self, server: RedisServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._socket.close()

    def send(self, *commands: tuple[bytes, ...]) -> None:
        self._socket.sendall(b"".join(packed(*parts) for parts in commands))

    def answer(self) -> Any:
        line = self._answers.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return self._answers.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        if kind in (b"+", b":"):
            return rest
        raise RuntimeError(f"the server has answered {line!r}")


def script(kind: str) -> Script:
    """What publishes."""
    source = SCRIPTS["publish"].source.decode()
    if kind == KINDS[0]:
        return SCRIPTS["publish"]
    assert source.count(PUSH) == 2, "the script pushes elsewhere, too"
    return Script(source.replace(PUSH, "tostring("))


def pushed(connection: Socket, backend: RedisBackend) -> Callable[[], Iterator[int]]:
    """Receive what is pushed: how many messages, each time."""
    connection.send((b"SUBSCRIBE", backend._keys.pushed(CHANNEL)))
    connection.answer()

    def received() -> Iterator[int]:
        while True:
            connection.answer()
            yield 1

    return received


def awaited(connection: Socket, backend: RedisBackend) -> Callable[[], Iterator[int]]:
    """Wait in the stream."""
    events, _ = backend._keys.of(CHANNEL)

    def received() -> Iterator[int]:
        at = b"0-0"
        while True:
            connection.send((*READ, events, at))
            ((_, entries),) = connection.answer()
            at = entries[-1][0]
            yield len(entries)

    return received


def cost(kind: str, at_a_time: int, count: int) -> float:
    """Seconds of the server's processor for a message, published and received by one process."""
    # All are kept: a reader of the stream may be late on a busy machine, and must not miss any.
    backend = RedisBackend("redis://localhost", history=count)
    publishing = script(kind)
    parts = list(backend.publish_parts(CHANNEL, "." * SIZE, NO_WISHES, b"busy"))
    parts[1] = publishing.sha
    with RedisServer() as server, Socket(server) as publisher, Socket(server) as reader:
        publisher.send((b"SCRIPT", b"LOAD", publishing.source))
        publisher.answer()
        received = (pushed if kind == KINDS[0] else awaited)(reader, backend)
        came = 0

        def receive() -> None:
            nonlocal came
            for number in received():
                came += number
                if came >= count:
                    return

        receiving = threading.Thread(target=receive, daemon=True)
        receiving.start()
        begin = processor_time(server)
        for start in range(0, count, at_a_time):
            publisher.send(*((*parts, b"%d" % (start + n + 1)) for n in range(at_a_time)))
            for _ in range(at_a_time):
                publisher.answer()
        receiving.join(LIMIT)
        assert came == count, f"{came} of {count} messages came"
        return (processor_time(server) - begin) / count
