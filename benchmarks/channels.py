"""Publishing one text to many sockets, side by side with what people write today.

    python3 noxfile.py -s bench -- channels             everything, some minutes
    python3 noxfile.py -s bench -- channels --rounds 2  a look
    python3 noxfile.py -s bench -- channels --only stalled

`fan-out`: a text of 200 bytes to 1,000 sockets in this process. The server is two functions that wait for
nothing, so the figures are the cost of the way to the server: processor time per message and socket, until
every socket has it. Each round runs every implementation once, one after the other; shown are the medians
over the rounds, and the medians of the ratios that were formed within each round.

`uvicorn`: the same over loopback. The sockets are those of one uvicorn, in a process of its own, whose
processor time is counted; the clients are here, and throw away what they get.

`growth`: as `fan-out`, for channels alone, from 10 to 10,000 sockets on one channel, and for 1,000 sockets on
1 to 1,000 channels.

`stalled`: 100 sockets, one of which takes nothing. 500 messages per second are published for some seconds;
the latency is from before `publish` until a socket is sent the message. With and without the stalled one, in
turns.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

from broadcaster import Broadcast
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from starlette.websockets import WebSocket as StarletteWebSocket

from benchmarks import _report
from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels

SOCKETS = 1000
MESSAGES = 50
TEXT = "x" * 200
LIMIT = 60.0  # seconds for anything

Publish = Callable[[int], Coroutine[Any, Any, None]]
Peer = Callable[[int, "Server"], Any]


class Server:
    """Two functions that wait for nothing, for any number of connections."""

    def __init__(self) -> None:
        self.sent = 0
        self.times: list[float] | None = None

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

    async def until(self, sent: int) -> None:
        async with asyncio.timeout(LIMIT):
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
    sockets = await server.connected(StarletteWebSocket, count)

    async def publish(_: int) -> None:
        for each in sockets:
            await each.send_text(TEXT)

    yield publish


@asynccontextmanager
async def gather(count: int, server: Server) -> AsyncIterator[Publish]:
    sockets = await server.connected(StarletteWebSocket, count)

    async def publish(_: int) -> None:
        await asyncio.gather(*(socket.send_text(TEXT) for socket in sockets))

    yield publish


@asynccontextmanager
async def litestar(count: int, server: Server) -> AsyncIterator[Publish]:
    async with AsyncExitStack() as stack:
        plugin = await stack.enter_async_context(ChannelsPlugin(MemoryChannelsBackend(), channels=["room:0"]))
        for socket in await server.connected(StarletteWebSocket, count):
            subscriber = await stack.enter_async_context(plugin.start_subscription("room:0"))

            async def forward(data: bytes, socket: Any = socket) -> None:
                await socket.send_text(data.decode())

            await stack.enter_async_context(subscriber.run_in_background(forward))

        async def publish(_: int) -> None:
            await plugin.wait_published(TEXT, "room:0")

        yield publish


@asynccontextmanager
async def broadcaster(count: int, server: Server) -> AsyncIterator[Publish]:
    async with Broadcast("memory://") as hub:

        async def forward(socket: Any, entered: asyncio.Semaphore) -> None:
            async with hub.subscribe("room:0") as subscriber:
                entered.release()
                async for event in subscriber:
                    await socket.send_text(event.message)

        entered = asyncio.Semaphore(0)
        sockets = await server.connected(StarletteWebSocket, count)
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


def fan_out(rounds: int, messages: int) -> None:
    samples: dict[str, list[float]] = {name: [] for name in PEERS}
    for _ in range(rounds):
        for name, peer in PEERS.items():
            samples[name].append(asyncio.run(cost(peer, SOCKETS, messages)))
    print(f"\nfan-out: {len(TEXT)} bytes to {SOCKETS:,} sockets, processor time per message and socket")
    table(samples)


def growth(rounds: int, messages: int) -> None:
    print("\ngrowth: channels, processor time per message and socket")
    for count in (10, 100, 1000, 10_000):
        runs = [asyncio.run(cost(ours, count, max(messages * 1000 // count // 5, 5))) for _ in range(rounds)]
        print(f"  {count:6,} sockets on 1 channel{statistics.median(runs):13.2f} µs")
    for channels in (1, 10, 100, 1000):
        runs = [
            asyncio.run(cost(ours, SOCKETS, messages * channels // 5, SOCKETS // channels, channels=channels))
            for _ in range(rounds)
        ]
        print(f"  {SOCKETS:6,} sockets on {channels:5,} channels{statistics.median(runs):9.2f} µs")


def table(samples: dict[str, list[float]]) -> None:
    first = next(iter(samples.values()))
    for name, found in samples.items():
        ratio = statistics.median(value / own for value, own in zip(found, first, strict=True))
        print(f"  {name:36}{statistics.median(found):8.2f} µs{ratio:8.2f}")


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
        async with asyncio.timeout(LIMIT):
            while mark not in self.last.rpartition(b"\r\n\r\n")[2]:
                self.arrived.clear()
                await self.arrived.wait()
        return self.last.rpartition(mark)[0].rpartition(b"=")[2]


async def loopback(implementation: str, rounds: int, messages: int) -> dict[str, list[float]]:
    event_loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.channels", "--serve", str(port), implementation]
    process = await asyncio.create_subprocess_exec(*command)
    samples: dict[str, list[float]] = {name: [] for name in PEERS}
    clients: list[Client] = []
    try:
        async with asyncio.timeout(LIMIT):
            while len(clients) < SOCKETS:
                try:
                    _, client = await event_loop.create_connection(lambda: Client("/"), "127.0.0.1", port)
                except OSError:  # not up yet
                    await asyncio.sleep(0.05)
                    continue
                await client.until(b"!")
                clients.append(client)
        for _ in range(rounds):
            for number, name in enumerate(PEERS):
                path = f"/run/{number}/{messages}"
                _, client = await event_loop.create_connection(partial(Client, path), "127.0.0.1", port)
                samples[name].append(float(await client.until(b";")))
                client.transport.close()
    finally:
        process.kill()
        await process.wait()
    return samples


def over_uvicorn(rounds: int, messages: int) -> None:
    ours = ["lilya.websockets.uvicorn:WebSocketProtocol"] if find_spec("lilya.websockets.uvicorn") else []
    for implementation in ("websockets-sansio", "wsproto", *ours):
        samples = asyncio.run(loopback(implementation, rounds, messages))
        print(f"\nuvicorn ({implementation}): the same over loopback, processor time of the server")
        table(samples)


# One stalled client


async def latencies(stalled: bool, seconds: float) -> tuple[list[float], int, str]:
    server = Server()
    times: list[float] = []
    async with Channels("memory://") as hub, AsyncExitStack() as stack:
        for socket in await server.connected(WebSocket, 99):
            await stack.enter_async_context(hub.join("room", socket))
        (slow,) = await server.connected(WebSocket, 1)
        if stalled:

            async def never(message: Any) -> None:
                await asyncio.Event().wait()

            slow._send = never
        # Dropping: with "close" it would be gone after a second.
        member = await stack.enter_async_context(
            hub.join("room", slow, policy="drop_oldest", max_messages=256)
        )
        reach = 99 if stalled else 100
        gc.collect()
        begin = time.perf_counter()
        count = int(seconds * 500)
        held = 0
        for number in range(count):
            await asyncio.sleep(max(begin + number / 500 - time.perf_counter(), 0))
            server.times = []
            before = time.perf_counter()
            await hub.publish("room", TEXT)
            await server.until(reach * (number + 1))
            times += [moment - before for moment in server.times]
            held = max(held, member.held)
        bound = f"{member.pending} messages and {held:,} bytes waited, {member.dropped:,} were dropped"
        return times, server.sent - reach * count, bound


def stalled(rounds: int, seconds: float) -> None:
    print("\nstalled: 100 sockets, 500 messages per second, latency in microseconds")
    for _ in range(rounds):
        for one in (False, True):
            times, odd, bound = asyncio.run(latencies(one, seconds))
            if odd:
                raise RuntimeError(f"{odd} messages more than were published")
            cuts = statistics.quantiles(times, n=100)
            print(
                f"  {'one stalled' if one else 'none stalled':14}p50 {cuts[49] * 1e6:6.0f}  "
                f"p99 {cuts[98] * 1e6:6.0f}  {len(times):,} received"
                + (f"; of the stalled one {bound}" if one else "")
            )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a run with a stalled socket")
    parser.add_argument("--only", choices=["fan-out", "uvicorn", "growth", "stalled"])
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(int(options.serve[0]), options.serve[1])
        return
    about = _report.machine(["lilya-websockets", "starlette", "litestar", "broadcaster"])
    print(f"{about['machine']}; {about['python']}")
    print(", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    if options.only in (None, "fan-out"):
        fan_out(options.rounds, options.messages)
    if options.only in (None, "uvicorn"):
        over_uvicorn(options.rounds, options.messages)
    if options.only in (None, "growth"):
        growth(max(options.rounds // 3, 1), options.messages)
    if options.only in (None, "stalled"):
        stalled(max(options.rounds // 3, 1), options.seconds)


if __name__ == "__main__":
    main()
