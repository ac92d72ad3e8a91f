"""What the core costs, as ratios against a raw ASGI app and the WebSocket classes of peers.

    python3 noxfile.py -s bench -- core                 40 rounds of everything
    python3 noxfile.py -s bench -- core --rounds 5      a quick look
    python3 noxfile.py -s bench -- core --instructions  counted by valgrind, not timed
    python3 noxfile.py -s bench -- core --block         a block beside a connection by hand, on an event loop
    python3 noxfile.py -s bench -- core --ours          without the peers
    python3 noxfile.py -s bench -- core --package ../x  the package of another checkout
    python3 noxfile.py -s bench -- core --write         what the page *Performance* shows

Every round runs every implementation once, one after the other, so that a disturbance of the machine hits
them alike. Shown are the median over the rounds of the time per operation, and the median of the ratios that
were formed within each round. No event loop takes part: the coroutines are driven by hand, and the server is
two functions that wait for nothing, so the figures are the cost of the layer itself.

With `--block` an event loop takes part, because the reader of a block is a task: a server hands each message
over from the loop, when the echo of the one before has been sent, to both alike.

An operation is: for echoes, one message received and one sent; for accept-and-close, a whole connection, the
making of its scope included, which no server is spared; for the others, the first access on a new connection.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any, cast

from litestar.connection import WebSocket as LitestarWebSocket
from starlette.websockets import WebSocket as StarletteWebSocket

from benchmarks import _instructions, _report, _system
from benchmarks._ours import load_ours
from benchmarks._report import ROOT
from lilya.websockets import WebSocket as LilyaWebSocket

MESSAGES = 5000
CONNECTIONS = 5000

Scope = dict[str, Any]
App = Callable[[Scope, Any, Any], Coroutine[Any, Any, None]]

if LilyaWebSocket.__module__ != "lilya.websockets" or not hasattr(LilyaWebSocket, "raise_for_disconnect"):
    sys.exit("lilya.websockets is not upstream's here: run this with `python3 noxfile.py -s bench`")

SCOPE: Scope = {
    "type": "websocket",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "scheme": "ws",
    "server": ("127.0.0.1", 8000),
    "client": ("127.0.0.1", 50000),
    "root_path": "",
    "path": "/chat/blue",
    "raw_path": b"/chat/blue",
    "query_string": b"room=blue&token=abc123",
    "subprotocols": [],
    "state": {},
    "extensions": {"websocket.http.response": {}},
    "app": None,
    "litestar_app": None,
    "headers": [
        (b"host", b"127.0.0.1:8000"),
        (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"),
        (b"accept", b"*/*"),
        (b"accept-language", b"en-US,en;q=0.5"),
        (b"accept-encoding", b"gzip, deflate, br, zstd"),
        (b"sec-websocket-version", b"13"),
        (b"origin", b"http://127.0.0.1:8000"),
        (b"sec-websocket-extensions", b"permessage-deflate"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"connection", b"keep-alive, Upgrade"),
        (b"cookie", b"session=0123456789abcdef; theme=dark"),
        (b"upgrade", b"websocket"),
    ],
}


def new_scope() -> Scope:
    # `state` too: Litestar keeps there what it has parsed, and would find it again on the next connection.
    return {**SCOPE, "state": {}}


# The server's side


def step(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("the app waited for something")


async def send(message: Any) -> None:
    pass


def session(payload: Scope) -> Callable[[], Coroutine[Any, Any, Any]]:
    """A client that sends the same message many times, and leaves."""
    sent = -1
    message = {"type": "websocket.receive", **payload}

    async def receive() -> Any:
        nonlocal sent
        sent += 1
        if sent == 0:
            return {"type": "websocket.connect"}
        if sent <= MESSAGES:
            return message
        return {"type": "websocket.disconnect", "code": 1000}

    return receive


async def connect() -> Any:
    return {"type": "websocket.connect"}


# The apps


async def raw_echo(scope: Scope, receive: Any, send: Any, key: str) -> None:
    await receive()
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            break
        await send({"type": "websocket.send", key: message[key]})


async def raw_text(scope: Scope, receive: Any, send: Any) -> None:
    await raw_echo(scope, receive, send, "text")


async def raw_bytes(scope: Scope, receive: Any, send: Any) -> None:
    await raw_echo(scope, receive, send, "bytes")


async def raw_json(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            break
        await send({"type": "websocket.send", "text": json.dumps(json.loads(message["text"]))})


async def raw_accept_close(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    await send({"type": "websocket.close", "code": 1000, "reason": ""})


def own(app: App) -> App:
    """The same function with a code object of its own.

    The interpreter specialises a code object for the types it meets. Shared by all implementations it would
    be specialised for none, which no app that uses one of them would suffer from.
    """
    function = cast("FunctionType", app)
    return FunctionType(function.__code__.replace(), function.__globals__, closure=function.__closure__)


def echo(cls: Any, kind: str) -> App:
    # Each written out, as an app is: a method that was looked up before the loop, and kept, is called in
    # another way than one that is called where it is named.
    async def text(scope: Scope, receive: Any, send: Any) -> None:
        websocket = cls(scope, receive, send)
        await websocket.accept()
        async for message in websocket.iter_text():
            await websocket.send_text(message)

    async def binary(scope: Scope, receive: Any, send: Any) -> None:
        websocket = cls(scope, receive, send)
        await websocket.accept()
        async for message in websocket.iter_bytes():
            await websocket.send_bytes(message)

    async def decoded(scope: Scope, receive: Any, send: Any) -> None:
        websocket = cls(scope, receive, send)
        await websocket.accept()
        async for message in websocket.iter_json():
            await websocket.send_json(message)

    return own({"text": text, "bytes": binary, "json": decoded}[kind])


def litestar_echo(kind: str) -> App:
    async def text(scope: Scope, receive: Any, send: Any) -> None:
        websocket: Any = LitestarWebSocket(scope, receive, send)  # type: ignore[arg-type]  # it names the keys of a scope
        await websocket.accept()
        async for message in websocket.iter_data("text"):
            await websocket.send_text(message)

    async def binary(scope: Scope, receive: Any, send: Any) -> None:
        websocket: Any = LitestarWebSocket(scope, receive, send)  # type: ignore[arg-type]
        await websocket.accept()
        async for message in websocket.iter_data("binary"):
            await websocket.send_bytes(message)

    return own({"text": text, "bytes": binary}[kind])


def accept_close(cls: Any) -> App:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        websocket = cls(scope, receive, send)
        await websocket.accept()
        await websocket.close()

    return own(app)


def block_echo(cls: Any, kind: str) -> App:
    async def text(scope: Scope, receive: Any, send: Any) -> None:
        async with cls(scope, receive, send) as websocket:
            async for message in websocket.iter_text():
                await websocket.send_text(message)

    async def binary(scope: Scope, receive: Any, send: Any) -> None:
        async with cls(scope, receive, send) as websocket:
            async for message in websocket.iter_bytes():
                await websocket.send_bytes(message)

    return own({"text": text, "bytes": binary}[kind])


def block_only(cls: Any) -> App:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        async with cls(scope, receive, send):
            pass

    return own(app)


# The measurements: each returns nanoseconds per operation


def per_message(app: App, payload: Scope) -> float:
    coroutine = app(new_scope(), session(payload), send)
    start = time.perf_counter_ns()
    step(coroutine)
    return (time.perf_counter_ns() - start) / MESSAGES


class Counts:
    """What a server counts for a block."""

    __slots__ = ("bytes_received", "bytes_sent", "messages_received", "messages_sent")

    def __init__(self) -> None:
        self.messages_received = self.bytes_received = self.messages_sent = self.bytes_sent = 0


class Peer:
    """The server of one connection, on an event loop.

    Args:
        tells: Whether it tells the end, and counts what comes.
        payload: What the client sends when it has seen the accept and after each echo. Default: nothing.
    """

    is_ready = True

    def __init__(self, *, tells: bool, payload: Scope | None = None) -> None:
        self._message = None if payload is None else {"type": "websocket.receive", **payload}
        self._left = MESSAGES
        self._counts: Any = None
        self._call_soon = asyncio.get_running_loop().call_soon
        self.watchers: list[Callable[[Any], object]] = []
        self.scope = new_scope()
        if tells:
            self.scope["extensions"] = {
                **self.scope["extensions"],
                "lilya.websocket.end": {"watch": self.watch, "connection": self},
            }
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()
        self.put = self._arrived.put_nowait
        self.put({"type": "websocket.connect"})

    def watch(self, callback: Callable[[Any], object]) -> None:
        self.watchers.append(callback)

    def count(self) -> Any:
        self._counts = Counts()
        return self._counts

    async def receive(self) -> Any:
        return await self._arrived.get()

    async def send(self, message: Any) -> None:
        if self._message is not None and message["type"] != "websocket.close":
            self._left -= 1
            self._call_soon(self.speak if self._left >= 0 else self.leave)

    def speak(self) -> None:
        if self._counts is not None:
            self._counts.messages_received += 1
            self._counts.bytes_received += 32
        self.put(self._message)

    def leave(self) -> None:
        end = {"type": "websocket.disconnect"}
        self.put(end)
        for watcher in self.watchers:
            watcher(end)


def per_message_on_a_loop(app: App, payload: Scope, *, tells: bool = False) -> float:
    async def serve() -> float:
        peer = Peer(tells=tells, payload=payload)
        start = time.perf_counter_ns()
        await app(peer.scope, peer.receive, peer.send)
        return (time.perf_counter_ns() - start) / MESSAGES

    return asyncio.run(serve())


def per_connection_on_a_loop(app: App, *, tells: bool = False) -> float:
    async def serve() -> float:
        start = time.perf_counter_ns()
        for _ in range(CONNECTIONS):
            peer = Peer(tells=tells)
            await app(peer.scope, peer.receive, peer.send)
        return (time.perf_counter_ns() - start) / CONNECTIONS

    return asyncio.run(serve())


def per_connection(app: App) -> float:
    start = time.perf_counter_ns()
    for _ in range(CONNECTIONS):
        step(app(new_scope(), connect, send))
    return (time.perf_counter_ns() - start) / CONNECTIONS


def first_access(cls: Any, read: Callable[[Any], Any]) -> float:
    websockets = [cls(new_scope(), connect, send) for _ in range(CONNECTIONS)]
    start = time.perf_counter_ns()
    for websocket in websockets:
        read(websocket)
    return (time.perf_counter_ns() - start) / CONNECTIONS


Cases = dict[str, dict[str, Callable[[], float]]]

PEERS = {"Starlette": StarletteWebSocket, "Litestar": LitestarWebSocket, "Lilya": LilyaWebSocket}
OURS = "lilya-websockets"
BY_HAND, DIRECT, WITH_READER = "by hand", "block, told the end", "block with a reader"


def cases(choice: argparse.Namespace) -> Cases:
    """What is measured, by implementation; the first implementation of each is the base of its ratios."""
    ours = load_ours(choice.package).WebSocket
    found = block_cases(ours) if choice.block else class_cases(ours)
    if choice.ours:
        found = {
            case: {name: run for name, run in implementations.items() if name not in PEERS}
            for case, implementations in found.items()
        }
    return found


def block_cases(ours: Any) -> Cases:
    found: Cases = {
        f"echo {kind}": {
            BY_HAND: partial(per_message_on_a_loop, echo(ours, kind), payload),
            DIRECT: partial(per_message_on_a_loop, block_echo(ours, kind), payload, tells=True),
            WITH_READER: partial(per_message_on_a_loop, block_echo(ours, kind), payload),
        }
        for kind, payload in (("text", {"text": "x" * 32}), ("bytes", {"bytes": b"x" * 32}))
    }
    found["accept and close"] = {
        BY_HAND: partial(per_connection_on_a_loop, accept_close(ours)),
        DIRECT: partial(per_connection_on_a_loop, block_only(ours), tells=True),
        WITH_READER: partial(per_connection_on_a_loop, block_only(ours)),
    }
    return found


def class_cases(ours: Any) -> Cases:
    document = '{"type":"message","room":"blue","text":"hello, world","id":1234}'
    found: Cases = {}
    for kind, raw, payload in (
        ("text", raw_text, {"text": "x" * 32}),
        ("bytes", raw_bytes, {"bytes": b"x" * 32}),
        ("json", raw_json, {"text": document}),
    ):
        apps = {"raw ASGI": raw, OURS: echo(ours, kind), "Starlette": echo(StarletteWebSocket, kind)}
        if kind != "json":  # Litestar decodes JSON through its route handlers, which there are none of here
            apps["Litestar"] = litestar_echo(kind)
        apps["Lilya"] = echo(LilyaWebSocket, kind)
        found[f"echo {kind}"] = {name: partial(per_message, app, payload) for name, app in apps.items()}
    apps = {"raw ASGI": raw_accept_close, OURS: accept_close(ours)}
    apps |= {name: accept_close(cls) for name, cls in PEERS.items()}
    found["accept and close"] = {name: partial(per_connection, app) for name, app in apps.items()}
    reads: dict[str, Callable[[Any], Any]] = {
        "first header": lambda websocket: websocket.headers["origin"],
        "first query parameter": lambda websocket: websocket.query_params["token"],
        "first str(url)": lambda websocket: str(websocket.url),
        "first cookie": lambda websocket: websocket.cookies["theme"],
    }
    readers = {"Starlette": StarletteWebSocket, OURS: ours, **PEERS}
    for case, read in reads.items():
        found[case] = {name: partial(first_access, cls, read) for name, cls in readers.items()}
    return found


def measure(rounds: int, found: Cases) -> dict[str, dict[str, list[float]]]:
    times: dict[str, dict[str, list[float]]] = {
        case: {name: [] for name in implementations} for case, implementations in found.items()
    }
    for number in range(-1, rounds):  # the first round warms up
        print(f"\rround {max(number, 0) + 1} of {rounds} …", end="", file=sys.stderr, flush=True)
        for case, implementations in found.items():
            for name, run in implementations.items():
                gc.collect()
                gc.disable()
                elapsed = run()
                gc.enable()
                if number >= 0:
                    times[case][name].append(elapsed)
    print(file=sys.stderr)
    return times


def results(times: dict[str, dict[str, list[float]]], rounds: int, waited: float) -> _report.Results:
    """The figures, as the page has them; `waited` is the share of the time in which others had the core."""
    cases: _report.Results = {}
    for case, implementations in times.items():
        base = next(iter(implementations.values()))
        cases[case] = {
            name: {
                "value": _report.rounded(statistics.median(values)),
                "ratio": _report.rounded(
                    statistics.median(value / other for value, other in zip(values, base, strict=True))
                ),
            }
            for name, values in implementations.items()
        }
    return {
        **_report.machine(("starlette", "litestar", "lilya", "multidict")),
        "rounds": rounds,
        "disturbed": waited > _system.WAITED,
        "cases": cases,
    }


def as_text(found: _report.Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [f"{found['python']}, {versions}, {found['rounds']} rounds", ""]
    lines.append(f"{'':24}{'implementation':20}{'ns':>8}  ratio")
    for case, rows in found["cases"].items():
        for position, (name, row) in enumerate(rows.items()):
            lines.append(
                f"{'' if position else case:24}{name:20}{row['value']:8.0f}{row['ratio']:7.2f}"
                + ("" if position else f"  of {name}")
            )
    if found["disturbed"]:
        lines.append("\nOther load had the core for more than a moment: the times are too long.")
    return "\n".join(lines)


# Instructions: what a noisy machine cannot disturb

FEW, MANY = 2_000, 22_000  # with fewer, what happens now and then (a collection of garbage) moves the result


def count_instructions(found: Cases, options: list[str]) -> None:
    """Print the instructions per operation, as ratios; each is the difference of two runs under valgrind."""
    print(f"{platform.python_implementation()} {platform.python_version()}\n")
    print(f"{'':24}{'implementation':20}{'instructions':>12}  ratio", flush=True)
    for case, implementations in found.items():
        first = 0.0
        for name in implementations:

            def command(operations: int, case: str = case, name: str = name) -> list[str]:
                arguments = ["--operations", str(operations), "--only", case, name, *options]
                return ["-m", "benchmarks.core", *arguments]

            each = _instructions.per_operation(command, FEW, MANY)
            first = first or each
            print(
                f"{case if each is first else '':24}{name:20}{each:12.0f}{each / first:7.2f}"
                + (f"  of {name}" if each is first else ""),
                flush=True,
            )


def main() -> None:
    global MESSAGES, CONNECTIONS
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=40, help="how often everything is measured (default: 40)"
    )
    parser.add_argument("--instructions", action="store_true", help="count instead of timing (slow)")
    parser.add_argument("--write", action="store_true", help="write the figures into the page Performance")
    parser.add_argument("--block", action="store_true", help="a block beside a connection by hand")
    parser.add_argument("--ours", action="store_true", help="this project and raw ASGI only")
    parser.add_argument("--package", type=Path, default=ROOT, help="another checkout, to compare with it")
    # For the processes that --instructions starts.
    parser.add_argument("--operations", type=int, default=MESSAGES, help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {arguments.rounds}")
    if arguments.write and (arguments.block or arguments.ours or arguments.package != ROOT):
        parser.error("--write is for all that is on the page, of this checkout")
    MESSAGES = CONNECTIONS = arguments.operations
    chosen = cases(arguments)
    if arguments.only:
        case, name = arguments.only
        chosen[case][name]()
        return
    if arguments.instructions:
        options = ["--package", str(arguments.package.resolve()), *(["--block"] if arguments.block else [])]
        count_instructions(chosen, options)
        return
    start, before = time.perf_counter(), _system.waited(os.getpid())
    times = measure(arguments.rounds, chosen)
    share = (_system.waited(os.getpid()) - before) / (time.perf_counter() - start)
    found = results(times, arguments.rounds, share)
    print(as_text(found))
    if arguments.write:
        _report.write(core=found)


if __name__ == "__main__":
    main()
