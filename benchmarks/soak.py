"""Many short connections: whether anything of them stays behind in the server.

    python3 noxfile.py -s bench -- soak                    200,000 cycles, 5 to 20 minutes
    python3 noxfile.py -s bench -- soak --cycles 20000     a look

A cycle is a connection that is opened, echoes one message, and ends: one third by a close with a code, one
third by a close without one, one third by a reset, and every other of these without reading the echo. The
server is uvicorn in a process of its own, with a handler in a block (`benchmarks/_soaked.py`). After a
warm-up, in which caches fill and the allocator finds its size, it must not grow: its own memory (anonymous,
from the system's accounting, after a collection of garbage) by less than 1 MB, the number of its objects by a
few, its tasks and its descriptors not at all, and it must print nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ._client import CLOSE, answered, connected, frame, reply, request, reset
from ._peers import Peer, Server, running, uvicorn

CYCLES = 200_000
WARM_UP = 20_000
WINDOW = 48  # connections at the same time
GROWTH = 1_000_000  # bytes that the server may grow by
OBJECTS = 1000  # by which the number of objects moves to and fro
LIMIT = 20.0  # seconds for what is left to go
MESSAGE = b"x" * 32

SOAKED = "benchmarks._soaked:app"


class Tally(NamedTuple):
    """What a server holds."""

    tasks: int
    descriptors: int
    objects: int
    memory: int
    """Bytes that are its own: anonymous, and in the memory at present."""


class Outcome(NamedTuple):
    """What a run has left behind."""

    cycles: int
    seconds: float
    before: Tally
    after: Tally
    printed: str

    @property
    def grown(self) -> int:
        return self.after.memory - self.before.memory

    def complaints(self) -> list[str]:
        """What is wrong with it; nothing, if all is well."""
        found = []
        if self.grown >= GROWTH:
            found.append(f"the memory grew by {self.grown:,} bytes, and may by {GROWTH:,}")
        for name in ("tasks", "descriptors"):
            before, after = getattr(self.before, name), getattr(self.after, name)
            if after > before:
                found.append(f"there were {before} {name}, and now there are {after}")
        if self.after.objects > self.before.objects + OBJECTS:
            found.append(
                f"there were {self.before.objects} objects of Python, and now there are "
                f"{self.after.objects}; {OBJECTS} more may be"
            )
        if self.printed:
            found.append(f"the server printed:\n{self.printed[:2000]}")
        return found


def tally(server: Server) -> Tally:
    """Ask a server what it holds; no other connection may be open."""
    connection = connected(server.port)
    try:
        connection.sendall(request(server.port, "/tally"))
        answered(connection)
        connection.sendall(frame(b"?"))
        head = _exactly(connection, 2)
        held = json.loads(_exactly(connection, head[1]))
    finally:
        reset(connection)
    status = Path(f"/proc/{server.pid}/status").read_text(encoding="ascii")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:"))
    return Tally(**held, memory=int(kilobytes) * 1024)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the server left")
        data += part
    return data


def settled(server: Server, least: Tally | None) -> Tally:
    """The same when nothing of earlier connections is left, or after some seconds as it is then."""
    deadline = time.monotonic() + LIMIT
    while True:
        held = tally(server)
        if least is None or (held.tasks <= least.tasks and held.descriptors <= least.descriptors):
            return held
        if time.monotonic() > deadline:
            return held
        time.sleep(0.1)


def soak(server: Server, cycles: int, number: int = 0) -> None:
    """Run so many cycles; `number` is that of the first."""
    opening, echo, expected = request(server.port, "/echo"), frame(MESSAGE), reply(MESSAGE)
    goodbyes = [frame(struct.pack("!H", 1000), CLOSE), frame(b"", CLOSE)]
    for first in range(number, number + cycles, WINDOW):
        connections: list[socket.socket] = []
        try:
            for cycle in range(first, min(first + WINDOW, number + cycles)):
                connections.append(connected(server.port, cycle % 28_000))
                connections[-1].sendall(opening)
            for connection in connections:
                answered(connection)
                connection.sendall(echo)
            for cycle, connection in enumerate(connections, first):
                way = cycle % 6
                if way == 5:  # a reset, with the echo under way
                    continue
                if (got := _exactly(connection, len(expected))) != expected:
                    raise ConnectionError(f"{expected!r} was expected, and {got!r} came")
                if way % 3 < 2:
                    connection.sendall(goodbyes[way % 3])
            for cycle, connection in enumerate(connections, first):
                while cycle % 3 < 2 and connection.recv(4096):
                    pass
        finally:
            for connection in connections:
                reset(connection)


def run(peer: Peer, cycles: int, warm_up: int, say: Callable[[str], None] = print) -> Outcome:
    """Soak a server of its own.

    Raises:
        RuntimeError: It does not start.
    """
    failed: dict[str, str] = {}
    with running([peer], max(os.sched_getaffinity(0)), failed) as servers:
        if failed:
            raise RuntimeError(f"the server: {failed[peer.name]}")
        server = servers[peer.name]
        fresh = tally(server)
        soak(server, warm_up)
        before = settled(server, fresh)
        say(f"warm after {warm_up:,} cycles: {before}")
        start, done = time.monotonic(), 0
        step = max(cycles // 20, WINDOW)
        while done < cycles:
            part = min(step, cycles - done)
            soak(server, part, done)
            done += part
            now = tally(server)
            say(
                f"{done:9,} cycles, {done / (time.monotonic() - start):5.0f}/s, "
                f"memory {now.memory / 1e6:.2f} MB ({(now.memory - before.memory) / 1e3:+.0f} kB), "
                f"{now.tasks} tasks, {now.descriptors} descriptors, {now.objects} objects"
            )
        seconds = time.monotonic() - start
        # What the start had, so that the warm-up may not have left anything, either.
        after = settled(server, fresh)
        before = before._replace(tasks=fresh.tasks, descriptors=fresh.descriptors)
        return Outcome(cycles, seconds, before, after, server.printed())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cycles", type=int, default=CYCLES, help=f"how many (default: {CYCLES:,})")
    parser.add_argument(
        "--warm-up", type=int, default=WARM_UP, help=f"how many before them (default: {WARM_UP:,})"
    )
    parser.add_argument("--ws", default="websockets-sansio", help="uvicorn's WebSocket implementation")
    parser.add_argument("--loop", default="auto", help="uvicorn's event loop: auto, asyncio or uvloop")
    arguments = parser.parse_args()
    if arguments.cycles < 1 or arguments.warm_up < 1:
        parser.error("there must be at least one cycle, and one before")
    peer = uvicorn("uvicorn", arguments.ws, SOAKED, ours=True, loop=arguments.loop)
    outcome = run(peer, arguments.cycles, arguments.warm_up, lambda line: print(line, flush=True))
    print(
        f"{outcome.cycles:,} cycles in {outcome.seconds / 60:.1f} minutes. Memory: {outcome.grown:+,} bytes"
    )
    complaints = outcome.complaints()
    for complaint in complaints:
        print(complaint)
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
