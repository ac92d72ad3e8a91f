"""Publishing one text to many sockets, side by side with what people write today.

    python3 noxfile.py -s bench -- channels             everything, five minutes
    python3 noxfile.py -s bench -- channels --rounds 2  a look
    python3 noxfile.py -s bench -- channels --only stalled
    python3 noxfile.py -s bench -- channels --write     the page *Performance of channels*

`fan-out`: a text of 200 bytes to 1,000 sockets in this process. The server is two functions that wait for
nothing, so the figures are the cost of the way to the server: processor time per message and socket, until
every socket has it. Each round runs every implementation once, one after the other, and begins with another
one; shown are the medians over the rounds, and the medians of the ratios that were formed within each round.

`uvicorn`: the same over loopback. The sockets are those of one uvicorn, in a process and on a core of its
own, whose processor time is counted; the clients are here, and throw away what they get.

`growth`: as `fan-out`, for channels alone, from 10 to 10,000 sockets on one channel, and for 1,000 sockets on
1 to 1,000 channels.

`stalled`: 100 sockets, one of which takes nothing, the first to be sent to. 500 messages per second are
published for some seconds; the latency is from before `publish` until one of the other 99 is sent the
message. With and without the stalled one in pairs, in the order A B, B A, A B, …: so a run is also next to
one of its kind, and how far these two are apart is the noise. What a stalled one holds is measured apart, by
tracemalloc: the memory that comes back when it leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import socket
import statistics
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import anyio

from benchmarks import _channels_report, _report, _system
from benchmarks._channels_report import progress
from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels

SOCKETS = 1000
MESSAGES = 50
TEXT = "x" * 200
RECEIVERS = (10, 100, 1000, 10_000)
CHANNELS = (1, 10, 100, 1000)
STALLED_AMONG = 100
STALLED_RATE = 500  # messages per second
# With the first size what waits for a stalled one is bounded by the number of messages, else by their bytes.
HELD_SIZES = (200, 65_536)
HELD_AFTER = (1000, 4000)
KINDS = (("without", False), ("with", True))
NOTHING = "a server that waits for nothing"
SERVERS = {
    "uvicorn": "websockets-sansio",
    "lilya.websockets.uvicorn": "lilya.websockets.uvicorn:WebSocketProtocol",
}
LIMIT = 60.0  # seconds for anything

Publish = Callable[[int], Coroutine[Any, Any, None]]
Peer = Callable[[int, "Server"], Any]


class Server:
    """Two functions that wait for nothing, for any number of connections."""

    def __init__(self, times: list[float] | None = None) -> None:
        self.sent = 0
        self.times = times

    async def receive(self) -> Any:
        return {"type": "websocket.connect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.send":
            self.sent += 1
            if self.times is not None:
                self.times.append(time.perf_counter())

    async def connected(self, kind: type[Any], count: int) -> list[Any]:
        sockets = []
        for _ in range(count):
            scope = {"type": "websocket", "path": "/", "headers": [], "subprotocols": [], "extensions": {}}
            socket = kind(scope, self.receive, self.send)
            await socket.accept()
            sockets.append(socket)
        return sockets

    async def connected_to_starlette(self, count: int) -> list[Any]:
        from starlette.websockets import WebSocket

        return await self.connected(WebSocket, count)

    async def until(self, sent: int) -> None:
        with anyio.fail_after(LIMIT):
            while self.sent < sent:  # noqa: ASYNC110 - what is measured must not set an event each time
                await asyncio.sleep(0)


# The implementations: each gives a function that publishes to all sockets


@asynccontextmanager
async def ours(count: int, server: Server, channels: int = 1) -> AsyncIterator[Publish]:
    async with Channels("memory://") as hub, AsyncExitStack() as stack:
        for number, each in enumerate(await server.connected(WebSocket, count)):
            await stack.enter_async_context(hub.join(f"room:{number % channels}", each))

        async def publish(number: int) -> None:
            await hub.publish(f"room:{number % channels}", TEXT)

        yield publish


@asynccontextmanager
async def loop(count: int, server: Server) -> AsyncIterator[Publish]:
    """The `ConnectionManager` of FastAPI's documentation."""
    sockets = await server.connected_to_starlette(count)

    async def publish(_: int) -> None:
        for each in sockets:
            await each.send_text(TEXT)

    yield publish


@asynccontextmanager
async def gather(count: int, server: Server) -> AsyncIterator[Publish]:
    sockets = await server.connected_to_starlette(count)

    async def publish(_: int) -> None:
        await asyncio.gather(*(socket.send_text(TEXT) for socket in sockets))

    yield publish


@asynccontextmanager
async def litestar(count: int, server: Server) -> AsyncIterator[Publish]:
    from litestar.channels import ChannelsPlugin
    from litestar.channels.backends.memory import MemoryChannelsBackend

    async with AsyncExitStack() as stack:
        plugin = await stack.enter_async_context(ChannelsPlugin(MemoryChannelsBackend(), channels=["room:0"]))
        for socket in await server.connected_to_starlette(count):
            subscriber = await stack.enter_async_context(plugin.start_subscription("room:0"))

            async def forward(data: bytes, socket: Any = socket) -> None:
                await socket.send_text(data.decode())

            await stack.enter_async_context(subscriber.run_in_background(forward))

        async def publish(_: int) -> None:
            await plugin.wait_published(TEXT, "room:0")

        yield publish


@asynccontextmanager
async def broadcaster(count: int, server: Server) -> AsyncIterator[Publish]:
    from broadcaster import Broadcast

    async with Broadcast("memory://") as hub:

        async def forward(socket: Any, entered: asyncio.Semaphore) -> None:
            async with hub.subscribe("room:0") as subscriber:
                entered.release()
                async for event in subscriber:
                    await socket.send_text(event.message)

        entered = asyncio.Semaphore(0)
        sockets = await server.connected_to_starlette(count)
        tasks = [asyncio.create_task(forward(socket, entered)) for socket in sockets]
        for _ in tasks:
            await entered.acquire()

        async def publish(_: int) -> None:
            await hub.publish("room:0", TEXT)

        yield publish
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


PEERS: dict[str, Peer] = {
    "channels": ours,
    "a loop of send_text (Starlette)": loop,
    "asyncio.gather (Starlette)": gather,
    "Litestar's channels": litestar,
    "broadcaster": broadcaster,
}


async def cost(peer: Peer, count: int, messages: int, reach: int | None = None, **options: Any) -> float:
    """Microseconds of processor time for one message to one socket."""
    server = Server()
    reach = count if reach is None else reach  # sockets that one message goes to
    async with peer(count, server, **options) as publish:
        await publish(0)
        await server.until(reach)
        gc.collect()
        began = time.process_time()
        for number in range(messages):
            await publish(number)
            await server.until(reach * (number + 2))
        return (time.process_time() - began) / (reach * messages) * 1e6


Samples = dict[str, list[float]]


def rows(samples: Samples) -> dict[str, _report.Row]:
    """The figures, and their ratios to the first of them."""
    first = next(iter(samples.values()))
    return {
        name: {
            **_report.spread(found),
            "ratio": _report.rounded(
                statistics.median(value / own for value, own in zip(found, first, strict=True))
            ),
        }
        for name, found in samples.items()
    }


def turns(rounds: int) -> Iterator[tuple[int, str, Peer]]:
    """Everybody in each round; another one begins it, because what comes first or last may have it better."""
    peers = [(number, name, peer) for number, (name, peer) in enumerate(PEERS.items())]
    for number in range(rounds):
        turn = number % len(peers)
        yield from peers[turn:] + peers[:turn]


def fan_out(rounds: int, messages: int) -> Samples:
    samples: Samples = {name: [] for name in PEERS}
    for _, name, peer in turns(rounds):
        progress(f"fan-out: {name}")
        samples[name].append(asyncio.run(cost(peer, SOCKETS, messages)))
    return samples


def growth(rounds: int, messages: int) -> dict[str, dict[str, _report.Row]]:
    """By the number of sockets on one channel, and by the number of channels that they are spread over."""
    sockets: Samples = {}
    channels: Samples = {}
    for _ in range(rounds):
        for count in RECEIVERS:
            progress(f"growth: {count:,} sockets")
            found = asyncio.run(cost(ours, count, max(messages * 1000 // count // 5, 5)))
            sockets.setdefault(str(count), []).append(found)
        for count in CHANNELS:
            progress(f"growth: {count:,} channels")
            found = asyncio.run(cost(ours, SOCKETS, messages * count // 5, SOCKETS // count, channels=count))
            channels.setdefault(str(count), []).append(found)
    return {
        "sockets": {count: _report.spread(found) for count, found in sockets.items()},
        "channels": {count: _report.spread(found) for count, found in channels.items()},
    }


# Over loopback


class Sockets(Server):
    """The sockets of the uvicorn that this module runs in, as if it were a server that waits for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.connections: list[tuple[Any, Any]] = []
        self.done = asyncio.Event()

    async def connected(self, kind: type[Any], count: int) -> list[Any]:
        sockets = []
        for scope, send in self.connections:
            made = kind(dict(scope), self.receive, partial(self.forward, send))
            await made.accept()
            sockets.append(made)
        return sockets

    async def forward(self, send: Any, message: Any) -> None:
        if message["type"] == "websocket.send":
            await send(message)
            self.sent += 1

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Holds a connection; one to `/run/PEER/MESSAGES` publishes to all of them, and says what it took."""
        await receive()
        await send({"type": "websocket.accept"})
        if not scope["path"].startswith("/run/"):
            self.connections.append((scope, send))
            await send({"type": "websocket.send", "text": "!"})
            await self.done.wait()
            return
        _, _, name, messages = scope["path"].split("/")
        self.sent = 0
        count = len(self.connections)
        async with list(PEERS.values())[int(name)](count, self) as publish:
            await publish(0)
            await self.until(count)
            gc.collect()
            began = time.process_time()
            for number in range(int(messages)):
                await publish(number)
                await self.until(count * (number + 2))
            took = (time.process_time() - began) / (count * int(messages)) * 1e6
        await send({"type": "websocket.send", "text": f"={took};"})


def serve(port: int, implementation: str) -> None:
    import uvicorn

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    async def main() -> None:
        config = uvicorn.Config(
            Sockets().app,
            port=port,
            ws=implementation,
            log_level="error",
            lifespan="off",
            interface="asgi3",
            ws_ping_interval=None,
            ws_per_message_deflate=False,
            backlog=4096,
        )
        await uvicorn.Server(config).serve()

    asyncio.run(main())


class Client(asyncio.Protocol):
    """One that throws away what it gets, but the last bit of it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.last = b""
        self.arrived = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(
            f"GET {self.path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self.last = (self.last + data)[-60:]
        self.arrived.set()

    async def until(self, mark: bytes) -> bytes:
        """What comes before a mark of the app's, and behind an equals sign."""
        with anyio.fail_after(LIMIT):
            while mark not in self.last.rpartition(b"\r\n\r\n")[2]:
                self.arrived.clear()
                await self.arrived.wait()
        return self.last.rpartition(mark)[0].rpartition(b"=")[2]


async def loopback(implementation: str, rounds: int, messages: int) -> Samples:
    event_loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.channels", "--serve", str(port), implementation]
    process = await asyncio.create_subprocess_exec(*command)
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(affinity)})
    samples: Samples = {name: [] for name in PEERS}
    clients: list[Client] = []
    try:
        with anyio.fail_after(LIMIT):
            while len(clients) < SOCKETS:
                try:
                    _, client = await event_loop.create_connection(lambda: Client("/"), "127.0.0.1", port)
                except OSError:  # not up yet
                    await asyncio.sleep(0.05)
                    continue
                await client.until(b"!")
                clients.append(client)
        for number, name, _ in turns(rounds):
            progress(f"over loopback, {implementation}: {name}")
            path = f"/run/{number}/{messages}"
            _, client = await event_loop.create_connection(partial(Client, path), "127.0.0.1", port)
            samples[name].append(float(await client.until(b";")))
            client.transport.close()
    finally:
        os.sched_setaffinity(0, affinity)
        process.kill()
        await process.wait()
    return samples


# One stalled client


class Watched(NamedTuple):
    """What the 99 had in one run."""

    received: int
    p50: float  # microseconds, as the next
    p99: float


async def watched(stalled: bool, seconds: float) -> Watched:
    times: list[float] = []
    latencies: list[float] = []
    servers = [Server(times) for _ in range(STALLED_AMONG - 1)]
    async with Channels("memory://") as hub, AsyncExitStack() as stack:
        # The first one: it is in the way of all others. Its policy drops: with "close" it would be gone soon.
        (slow,) = await Server().connected(WebSocket, 1)
        if stalled:
            slow._send = never
        await stack.enter_async_context(hub.join("room", slow, policy="drop_oldest"))
        for server in servers:
            (each,) = await server.connected(WebSocket, 1)
            await stack.enter_async_context(hub.join("room", each))
        gc.collect()
        begin = time.perf_counter()
        count = int(seconds * STALLED_RATE)
        for number in range(count):
            await asyncio.sleep(max(begin + number / STALLED_RATE - time.perf_counter(), 0))
            times.clear()
            before = time.perf_counter()
            await hub.publish("room", TEXT)
            with anyio.fail_after(LIMIT):
                while len(times) < len(servers):  # noqa: ASYNC110 - see `until`
                    await asyncio.sleep(0)
            latencies += [moment - before for moment in times]
    if any(server.sent != count for server in servers):
        raise RuntimeError(f"one has {min(server.sent for server in servers)} of {count} messages")
    cuts = statistics.quantiles(latencies, n=100)
    return Watched(len(latencies), cuts[49] * 1e6, cuts[98] * 1e6)


async def never(message: Any) -> None:
    await asyncio.Event().wait()


async def held(size: int, messages: int) -> tuple[int, int]:
    """How many messages wait for a stalled socket, and the bytes of memory that come back when it leaves."""
    server = Server()
    async with Channels("memory://", history=1) as hub, AsyncExitStack() as stack:
        (quick,) = await server.connected(WebSocket, 1)
        await stack.enter_async_context(hub.join("room", quick))
        (slow,) = await Server().connected(WebSocket, 1)
        slow._send = never
        tracemalloc.start()
        try:
            async with hub.join("room", slow, policy="drop_oldest") as member:
                for number in range(messages):
                    await hub.publish("room", f"{number:{size}}")
                    await server.until(number + 1)
                pending = member.pending
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
            gc.collect()
            return pending, before - tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()


def stalled(pairs: int, seconds: float) -> _report.Results:
    order = [one for number in range(pairs) for one in ((False, True) if number % 2 == 0 else (True, False))]
    runs: list[tuple[bool, Watched]] = []
    for number, one in enumerate(order):
        progress(f"stalled: run {number + 1} of {len(order)}")
        runs.append((one, asyncio.run(watched(one, seconds))))
    p99 = [(one, run.p99) for one, run in runs]
    memory = {}
    for size in HELD_SIZES:
        counted = {}
        for messages in HELD_AFTER:
            progress(f"stalled: what {messages:,} messages of {size:,} bytes leave with it")
            waited, took = asyncio.run(held(size, messages))
            counted[str(messages)] = {"messages": waited, "bytes": took}
        memory[str(size)] = counted
    count = int(seconds * STALLED_RATE)
    return {
        "sockets": STALLED_AMONG,
        "rate": STALLED_RATE,
        "pairs": pairs,
        "seconds": seconds,
        "published": count * pairs,
        "expected": (STALLED_AMONG - 1) * count * pairs,
        "received": sum(run.received for one, run in runs if one),
        "p50": {key: _report.spread([run.p50 for one, run in runs if one is is_it]) for key, is_it in KINDS},
        "p99": {key: _report.spread([run.p99 for one, run in runs if one is is_it]) for key, is_it in KINDS},
        # With it, less without it.
        "difference": _report.spread([_difference(p99[2 * pair : 2 * pair + 2]) for pair in range(pairs)]),
        "noise": _report.spread(
            [abs(after - before) for (one, before), (other, after) in pairwise(p99) if one is other]
        ),
        "memory": memory,
    }


def _difference(pair: Sequence[tuple[bool, float]]) -> float:
    found = dict(pair)
    return found[True] - found[False]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a run with a stalled socket")
    parser.add_argument("--only", choices=["fan-out", "uvicorn", "growth", "stalled"])
    parser.add_argument(
        "--write", action="store_true", help="write the figures into the page Channels performance"
    )
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(int(options.serve[0]), options.serve[1])
        return
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {options.rounds}: one run has no noise")
    if options.write and options.only:
        parser.error("--write takes the whole: the page shows one run. Leave --only out")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("server and clients need a core each, and this process may use one")
    began = time.monotonic()
    found: _report.Results = _report.machine(
        ["starlette", "litestar", "broadcaster", "uvicorn", "uvloop", "websockets"]
    )
    with _system.Others() as others:
        if options.only in (None, "fan-out"):
            found["fan-out"] = {NOTHING: rows(fan_out(options.rounds, options.messages))}
        if options.only in (None, "uvicorn"):
            for name, implementation in SERVERS.items():
                samples = asyncio.run(loopback(implementation, options.rounds, options.messages))
                found.setdefault("fan-out", {})[name] = rows(samples)
        if options.only in (None, "growth"):
            found["growth"] = growth(max(options.rounds // 3, 1), options.messages)
        if options.only in (None, "stalled"):
            found["stalled"] = stalled(options.rounds, options.seconds)
    progress()
    found |= {
        "rounds": options.rounds,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "disturbed": others.disturbed,
    }
    print(_channels_report.as_text(_channels_report.blocks_of_channels(found)))
    if options.write:
        _channels_report.write(channels=found)


if __name__ == "__main__":
    main()
