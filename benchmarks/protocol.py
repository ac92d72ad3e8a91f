"""What the protocol for uvicorn costs in instructions: to open and close a connection, and for an echo.

    python3 noxfile.py -s bench -- protocol                 everything
    python -m benchmarks.protocol open echo                 some cases only
    python -m benchmarks.protocol open --package ../x       beside the protocol of another checkout

valgrind counts, so nothing else that the machine does changes the figures; two runs differ by less than 1 %.
It needs nothing but valgrind and this package with the extra `uvicorn`, httptools and uvloop.

There are no sockets, and so no system calls. A real event loop calls uvicorn's protocol with prepared bytes,
each in a turn of its own, as it would when they arrive; what the protocol writes is looked at and dropped.
Opening and closing is everything from `connection_made` to `connection_lost`: the request, the 101, the
client's close frame, the answer to it. The app is raw ASGI.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import platform
import socket
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from benchmarks import _instructions
from benchmarks._client import BINARY, CLOSE, TEXT, deflated, frame, request
from benchmarks._ours import load_ours
from benchmarks._report import ROOT
from benchmarks.servers.raw import app

WINDOW = 32  # connections at the same time
GOODBYE = struct.pack("!H", 1000)
# What a server writes in every answer. uvicorn makes the list anew every second.
DEFAULT_HEADERS = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT"), (b"server", b"uvicorn")]

DOCUMENT = "".join(
    f'{{"id":{7919 * i % 100003},"room":"blue","from":"user{i * 31 % 97}","text":"message {i}"}},'
    for i in range(20)
)[:1024].encode()


class Case(NamedTuple):
    """What is done on a connection."""

    title: str
    few: int
    many: int
    deflate: bool = False
    message: bytes = b""
    """What the server is to echo, framed; empty if it is the connections that are counted."""
    first: int = 0
    """The first byte of the echo."""


CASES = {
    "open": Case("open and close", 100, 500),
    "open-deflate": Case("open and close, deflate", 100, 500, deflate=True),
    "echo": Case("echo of 32 bytes", 1000, 5000, message=frame(b"x" * 32), first=0x80 | TEXT),
    "echo-64k": Case("echo of 64 KiB", 100, 400, message=frame(b"x" * 65536, BINARY), first=0x80 | BINARY),
    "echo-deflate": Case(
        "echo of 1 KiB, deflate",
        500,
        2000,
        deflate=True,
        message=frame(deflated(DOCUMENT), compressed=True),
        first=0xC0 | TEXT,
    ),
}

DEFAULT, OURS, WITH_HTTP = "uvicorn", "ours", "ours, with HTTPProtocol"
OTHER = " of the other checkout"
ROWS = (DEFAULT, OURS, WITH_HTTP)


def configured(row: str, package: Path) -> Config:
    """uvicorn's settings for a row of the table."""
    ws: Any = "websockets-sansio"
    http: Any = "httptools"
    if row != DEFAULT:
        load_ours(package if row.endswith(OTHER) else ROOT)
        ours = importlib.import_module("lilya_websockets.uvicorn")
        ws = ours.WebSocketProtocol
        if row.startswith(WITH_HTTP):
            http = ours.HTTPProtocol
        if "lilya.websockets" in sys.modules:
            raise ImportError("the package imports itself by its name: what is counted may be another one")
    config = Config(
        app, ws=ws, http=http, lifespan="off", access_log=False, log_level="error", ws_ping_interval=3600
    )
    config.load()
    return config


class Client(asyncio.Transport):
    """The transport of one connection, with a prepared client at its other end.

    Args:
        load: Of which it is a part.
    """

    def __init__(self, load: Load) -> None:
        super().__init__(load.addresses)
        self._load = load
        self._call_soon = load.loop.call_soon
        self._open = False
        self._leaving = False
        self._closing = False
        self._said = bytearray()  # by the server at the end
        self.protocol: Any = load.made()
        self.protocol.connection_made(self)
        self._call_soon(self._send, load.request)

    def _send(self, data: bytes) -> None:
        self.protocol.data_received(data)

    def _next(self) -> None:
        load = self._load
        if load.left > 0 and load.case.message:
            load.left -= 1
            self._call_soon(self._send, load.case.message)
        else:
            self._leaving = True
            self._call_soon(self._send, load.goodbye)

    # What the server does

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        load = self._load
        if self._open and data[0] == load.case.first:
            load.echoed += 1
            self._next()
        elif self._leaving:
            self._said += data
        elif self._open:
            load.fail(f"no echo came, but {bytes(data)!r}")
        elif data[:13] == b"HTTP/1.1 101 " and (b"permessage-deflate" in bytes(data)) == load.case.deflate:
            self._open = True
            self._next()
        else:
            load.fail(f"the handshake was answered with {bytes(data)!r}")

    def writelines(self, pieces: Iterable[Any]) -> None:
        first, *rest = pieces
        if self._open and first[0] == self._load.case.first:
            self.write(first)
        else:
            self.write(b"".join((first, *rest)))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._call_soon(self._lost)

    def abort(self) -> None:
        self.close()

    def _lost(self) -> None:
        if self._said != self._load.farewell:
            self._load.fail(f"the close was answered with {bytes(self._said)!r}")
        self.protocol.connection_lost(None)
        self._load.end()

    def is_closing(self) -> bool:
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast(asyncio.BaseProtocol, self.protocol)

    def pause_reading(self) -> None:
        pass  # uvicorn's own pauses for every message; there is one under way at a time anyhow

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True


class Load:
    """Prepared clients, some at a time, until there were enough.

    Args:
        case: What they do.
        config: Of the server.
        operations: How many: echoes, or connections.
        pair: A connection of TCP, for its addresses.
    """

    farewell = b"\x88\x02" + GOODBYE

    def __init__(self, case: Case, config: Config, operations: int, pair: socket.socket) -> None:
        self.case = case
        self.loop = asyncio.get_running_loop()
        self.request = request(8000, "/echo", deflate=case.deflate)
        self.goodbye = frame(GOODBYE, CLOSE)
        self.left = operations
        self.echoed = 0
        self.closed = 0
        self.addresses = {
            "socket": pair,
            "peername": pair.getpeername(),
            "sockname": pair.getsockname(),
        }
        self._state = ServerState()
        self._state.default_headers = DEFAULT_HEADERS
        self._config = config
        self._unopened = WINDOW if case.message else operations
        self._alive = 0
        self._end: asyncio.Future[None] = self.loop.create_future()

    def made(self) -> asyncio.Protocol:
        """A protocol for a new connection, as uvicorn's server makes it."""
        cls = cast(Any, self._config.http_protocol_class)
        return cast(asyncio.Protocol, cls(config=self._config, server_state=self._state, app_state={}))

    async def run(self) -> None:
        """Let the clients do what they do.

        Raises:
            AssertionError: The server did not do what it should.
        """
        self.loop.set_exception_handler(self._failed)
        for _ in range(min(WINDOW, self._unopened)):
            self._connect()
        await self._end
        while self._state.tasks:
            await asyncio.wait(self._state.tasks)
        if self._state.connections:
            raise AssertionError(f"the server has not forgotten {len(self._state.connections)} connections")

    def end(self) -> None:
        """A connection is gone: open the next one."""
        self.closed += 1
        self._alive -= 1
        if self._unopened:
            self.loop.call_soon(self._connect)
        elif not self._alive and not self._end.done():
            self._end.set_result(None)

    def _connect(self) -> None:
        if self._unopened:
            self._unopened -= 1
            self._alive += 1
            Client(self)

    def fail(self, why: str) -> None:
        """End the run: what was counted is not what was asked for."""
        if not self._end.done():
            self._end.set_exception(AssertionError(why))

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.fail(f"{context['message']}: {context.get('exception')!r}")


async def perform(case: Case, config: Config, operations: int) -> None:
    """Do a number of operations, in this process.

    Raises:
        AssertionError: The server did not do what it should.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        await Load(case, config, operations, accepted).run()


def count(cases: Iterable[str], rows: Iterable[str], package: Path, loop: str) -> None:
    """Print the instructions per operation, and their ratios to those of the first row."""
    print(f"{platform.python_implementation()} {platform.python_version()}, {loop}\n")
    print(f"{'':26}{'':46}{'instructions':>12}  ratio", flush=True)
    for name in cases:
        case, first = CASES[name], 0.0
        for row in rows:
            if case.message and row.startswith(WITH_HTTP):
                continue  # it has handed its connection over, and takes no part in an echo

            def command(operations: int, name: str = name, row: str = row) -> list[str]:
                options = ["--operations", str(operations), "--row", row, "--loop", loop]
                return ["-m", "benchmarks.protocol", name, *options, "--package", str(package.resolve())]

            each = _instructions.per_operation(command, case.few, case.many)
            title = "" if first else case.title
            first = first or each
            print(f"{title:26}{row:46}{each:12,.0f}{each / first:7.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"any of {', '.join(CASES)} (default: all)")
    parser.add_argument("--ours", action="store_true", help="without uvicorn's default")
    parser.add_argument("--package", type=Path, help="another checkout, to compare with it")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop", help="(default: uvloop)")
    # For the processes that it starts.
    parser.add_argument("--operations", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    package = arguments.package or ROOT
    if arguments.row:
        config = configured(arguments.row, package)
        if arguments.loop == "uvloop":
            import uvloop

            uvloop.install()
        gc.collect()
        gc.freeze()
        asyncio.run(perform(CASES[arguments.cases[0]], config, arguments.operations))
        return
    rows = list(ROWS[1:] if arguments.ours else ROWS)
    if arguments.package:
        rows += [row + OTHER for row in ROWS[1:]]
    count(arguments.cases or CASES, rows, package, arguments.loop)


if __name__ == "__main__":
    main()
