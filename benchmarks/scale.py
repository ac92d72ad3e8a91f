"""Channels on one Redis at scale: many channels, a storm of returning clients, slow links, and an outage.

    python3 noxfile.py -s bench -- scale                 everything, seven minutes
    python3 noxfile.py -s bench -- scale --only storm --rounds 1
    python3 noxfile.py -s bench -- scale --only busy --write
    python3 noxfile.py -s bench -- scale --write         the page *Performance of channels*

Each run starts a server of its own on a free port, as `benchmarks.redis` does. Figures of `many` and `storm`
are medians of the rounds.

`many`: one process listens to 10, 1,000, 5,000 and 20,000 channels, each with its own subscription. Another
process publishes 200 messages of 200 bytes per second in all, each to a random channel. Measured are the
processor time of the listening process and of Redis, in percent of a core; the latency, from before `publish`
until the message is received; the processor time for joining and leaving one more channel; and how long it
takes to join all of them. Plain pub/sub of redis-py shows what is the least on this machine: it keeps no
events, and one task receives what comes on all channels.

`storm`: a channel has 1,000 events of 1 kB. 5,000 sockets in memory join it within 5 seconds, each with the
position before these events, so each is sent all of them. Meanwhile the same process publishes 200 messages
per second to another channel. Measured are the time and the failures of these publishes, beside a run without
the storm; when the last socket has everything; and the most memory that the process takes beyond what it had.

`slow`: the link from Redis to the process is limited. In the first run it carries 4 MB per second, and
another process publishes 300 events of 200 kB at once. In the second run it carries 10 MB per second, and one
client comes back with a position before 300 such events, while the process publishes 200 messages per second
to another channel. Measured are how many events arrive, how long that takes, and how many bytes the link
carries, each beside what the events need.

`busy`: one connection publishes messages of 200 bytes to one channel, and another one receives them. Measured
is the processor time of Redis for each message, when it pushes events, as for channels, and when readers wait
in the stream, as in the design before; see `benchmarks._busy`.

`outage`: one process publishes 200 messages per second and another one receives them. Both are cut off from
Redis for a second: all connections break, and new ones fail. This is done with channels, with plain pub/sub
of redis-py, and with what other libraries have for Redis. A message is lost if its publish returned without
an error and it never arrived. If a library raises an error in the receiving process, the benchmark starts the
library again as soon as it can, as an app would have to.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import re
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, MutableMapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import _busy, _channels_report, _report, _system
from benchmarks._channels_report import progress
from benchmarks.redis import LIMIT, LOW, SIZE, Worker, processor_time, say, server_version, told
from tests.lilya_websockets.redis_server import RedisServer

CASES = ("many", "busy", "storm", "slow", "outage")
MANY = (10, 1_000, 5_000, 20_000)
LISTENING = ("ours", "plain")
ONE_MORE = 200  # channels that are joined and left, one after the other
# The storm: sockets, events that each has missed, bytes of each event, seconds within which they come.
STORM = (5_000, 1_000, 1_000, 5.0)
BUSY = (8_000, 5)  # messages, and rounds
# On slow links: events, and bytes of each. By kind: bytes per second.
LARGE = (300, 200_000)
SLOW = {"live": 4_000_000, "history": 10_000_000}
# By kind: the modules that it needs. `_channels_report.PEERS` has their names.
PEERS = {
    "ours": (),
    "plain": (),
    "litestar-pubsub": ("litestar",),
    "litestar-streams": ("litestar",),
    "channels-redis": ("channels_redis",),
    "channels-redis-pubsub": ("channels_redis",),
    "broadcaster": ("broadcaster",),
    "socketio": ("socketio",),
}
# Seconds: before and after the outage, of the outage, and without a message after which all are expected in.
AROUND, OUTAGE, SILENCE = 2.0, 1.0, 4.0
CHANNEL, ELSEWHERE = "room", "elsewhere"
PATIENCE = 40.0  # seconds in which something slow must have arrived


def quantile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0


# The way between Redis and a process


CATCH_UP = 0.05  # seconds


class Link:
    """A proxy in its own thread, with a rate, that can be cut.

    Args:
        port: Of the server.
        rate: Bytes per second to the clients, over all connections; 0 for no limit.
    """

    def __init__(self, port: int, rate: float = 0.0) -> None:
        self._target = port
        self._rate = rate
        self._free_at = 0.0
        self.carried = 0
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Link:
        self._thread.start()
        self.url = self._do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT)
        self._loop.close()

    def _do(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(LIMIT)

    def cut(self, seconds: float) -> None:
        """Break all connections, and end each new one at once, for so many seconds."""

        async def cut(is_cut: bool) -> None:
            self._is_cut = is_cut
            for writer in list(self._writers) if is_cut else ():
                writer.transport.abort()

        self._do(cut(True))
        time.sleep(seconds)
        self._do(cut(False))

    async def _start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _stop(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            if self._is_cut:
                return
            there, onwards = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(onwards)
            try:
                await asyncio.gather(self._pass(reader, onwards, 0), self._pass(there, writer, self._rate))
            finally:
                self._writers.discard(onwards)
                onwards.transport.abort()
        except (asyncio.CancelledError, OSError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, rate: float) -> None:
        while data := await source.read(16_384):
            if rate:
                # All connections share the link: each piece waits for the pieces before it. What a busy
                # machine has kept from it for a moment is made up for.
                now = self._loop.time()
                self._free_at = max(self._free_at, now - CATCH_UP) + len(data) / rate
                await asyncio.sleep(self._free_at - now)
                self.carried += len(data)
            to.write(data)
            await to.drain()
        raise ConnectionResetError("the other side has closed")


# In a process of its own


def stamped(size: int = SIZE) -> str:
    return f"{time.time():020.6f}".ljust(size, ".")


async def at_rate(publish: Callable[[], Awaitable[Any]], until: Callable[[], bool]) -> None:
    """Publish 200 times per second, one after the other. A late publish is not left out."""
    due = time.monotonic()
    while not until():
        await asyncio.sleep(due - time.monotonic())
        await publish()
        due += 1 / LOW


@asynccontextmanager
async def many_of_ours(
    url: str, count: int, came: Callable[[str], None]
) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """Listen to so many channels; what joins and leaves one more."""
    from lilya.websockets.channels import Channels

    async def receive(subscription: Any) -> None:
        async for event in subscription:
            came(event.data)

    async with Channels(url, publish_timeout=None) as channels, AsyncExitStack() as stack:
        gate = asyncio.Semaphore(100)

        async def join(number: int) -> Any:
            async with gate:
                return await stack.enter_async_context(channels.subscribe(f"room:{number}"))

        async def one_more(name: str) -> None:
            async with channels.subscribe(name):
                pass

        subscriptions = await asyncio.gather(*map(join, range(count)))
        receiving = [asyncio.create_task(receive(subscription)) for subscription in subscriptions]
        await asyncio.sleep(0)  # now all of them wait for what comes
        yield one_more
        for task in receiving:
            task.cancel()
        await asyncio.wait(receiving)


@asynccontextmanager
async def many_of_plain(
    url: str, count: int, came: Callable[[str], None]
) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """The same with redis-py's plain pub/sub, which has one iteration for all channels."""
    from redis.asyncio import Redis

    client: Any = Redis.from_url(url, decode_responses=True)
    async with client, client.pubsub() as pubsub:
        changed: asyncio.Queue[str] = asyncio.Queue()

        async def receive() -> None:
            async for message in pubsub.listen():
                if message["type"] == "message":
                    came(message["data"])
                else:
                    changed.put_nowait(message["channel"])

        async def one_more(name: str) -> None:
            await pubsub.subscribe(name)
            await changed.get()
            await pubsub.unsubscribe(name)
            await changed.get()

        names = [f"room:{number}" for number in range(count)]
        receiving = None
        for start in range(0, count, 256):
            await pubsub.subscribe(*names[start : start + 256])
            # `listen` ends at once where there is no subscription.
            receiving = receiving or asyncio.create_task(receive())
        for _ in names:
            await changed.get()
        yield one_more
        assert receiving is not None
        receiving.cancel()
        await asyncio.wait([receiving])


async def listen_to_many(kind: str, url: str, count: int) -> None:
    """Listen to so many channels, and measure what that costs."""
    latencies: list[float] = []

    def came(text: str) -> None:
        latencies.append(time.time() - float(text[:20]))

    began = time.monotonic()
    async with {"ours": many_of_ours, "plain": many_of_plain}[kind](url, count, came) as one_more:
        joined = time.monotonic() - began
        say("ready")
        await told()
        begin, processor = time.monotonic(), time.process_time()
        expected = int(await told())
        used = (time.process_time() - processor) / (time.monotonic() - begin)
        for _ in range(500):
            if len(latencies) >= expected:
                break
            await asyncio.sleep(0.01)
        missing = expected - len(latencies)
        processor = time.process_time()
        for number in range(ONE_MORE):
            await one_more(f"another:{number}")
        more = (time.process_time() - processor) / ONE_MORE
        say(
            {
                "processor": 100 * used,
                "p50": 1000 * quantile(latencies, 0.5),
                "p99": 1000 * quantile(latencies, 0.99),
                "one more": 1e6 * more,
                "joined": joined,
                "missing": missing,
            }
        )


async def publish_to_many(kind: str, url: str, count: int, seconds: float, begin: Callable[[], None]) -> int:
    """Publish at the low rate, each message to a random channel, after a call of `begin`; how many."""
    from redis.asyncio import Redis

    from lilya.websockets.channels import Channels

    published = 0
    client: Any = Channels(url) if kind == "ours" else Redis.from_url(url)
    async with client:
        await client.publish(ELSEWHERE, stamped())  # by now it is connected

        async def publish() -> None:
            nonlocal published
            await client.publish(f"room:{random.randrange(count)}", stamped())
            published += 1

        begin()
        end = time.monotonic() + seconds
        await at_rate(publish, lambda: time.monotonic() >= end)
    return published


class Elsewhere:
    """Publishes to another channel, and records how long that takes and how often it fails."""

    def __init__(self, channels: Any) -> None:
        self._channels = channels
        self.took: list[float] = []
        self.errors = 0
        self._is_over = False
        self._task = asyncio.create_task(at_rate(self._publish, lambda: self._is_over))

    async def _publish(self) -> None:
        from lilya.websockets.channels import BrokerError

        began = time.perf_counter()
        try:
            await self._channels.publish(ELSEWHERE, stamped())
        except BrokerError:
            self.errors += 1
        self.took.append(time.perf_counter() - began)

    async def end(self) -> dict[str, Any]:
        self._is_over = True
        await self._task
        return {
            "p50": 1000 * quantile(self.took, 0.5),
            "p99": 1000 * quantile(self.took, 0.99),
            "errors": self.errors,
        }


class Client:
    """A socket in memory, which counts what it is sent."""

    def __init__(self) -> None:
        self.got = 0
        self.last = asyncio.Event()
        self._connected = False

    async def receive(self) -> dict[str, Any]:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        await asyncio.Event().wait()
        raise AssertionError("never set")

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "websocket.send":
            self.got += 1
            self.last.set()

    async def catch_up(self, channels: Any, since: str, count: int) -> None:
        """Come back, and stay until everything is there that was missed."""
        from lilya.websockets import WebSocket

        scope = {"type": "websocket", "path": "/", "headers": []}
        websocket = WebSocket(scope, self.receive, self.send)
        await websocket.accept()
        async with channels.join(CHANNEL, websocket, since=since):
            while self.got < count:
                self.last.clear()
                await self.last.wait()


def peak() -> int:
    """The most memory that this process has had so far, in bytes."""
    # getrusage would also count what the process had that started this one.
    (line,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return 1024 * int(line)


async def storm(url: str, since: str, sockets: int, missed: int, window: float) -> None:
    """Let so many clients come back; none, for the run to compare with."""
    from lilya.websockets.channels import Channels

    async with Channels(url, history=missed) as channels:
        await channels.publish(ELSEWHERE, stamped())
        clients = [Client() for _ in range(sockets)]
        before = peak()
        elsewhere = Elsewhere(channels)
        began = time.monotonic()

        async def come(client: Client) -> None:
            await asyncio.sleep(random.uniform(0, window))
            await client.catch_up(channels, since, missed)

        failed = 0
        try:
            returned = asyncio.gather(*map(come, clients), return_exceptions=True)
            failed = sum(error is not None for error in await asyncio.wait_for(returned, PATIENCE))
        except asyncio.TimeoutError:
            pass  # `received` shows it
        caught_up = time.monotonic() - began
        await asyncio.sleep(max(0.0, window - caught_up))
        say(
            {
                **await elsewhere.end(),
                "caught up": caught_up,
                "received": sum(client.got for client in clients),
                "clients failed": failed,
                "memory": (peak() - before) / 1e6,
            }
        )


class Outages(logging.Handler):
    """Counts the outages that are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        logging.getLogger("lilya.websockets").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "is away" in record.getMessage()


async def slow_live(url: str, count: int) -> None:
    """Receive over a slow link what another process publishes."""
    from lilya.websockets.channels import Channels, Event

    outages = Outages()
    got = gaps = 0

    async def receive(subscription: Any) -> None:
        nonlocal got, gaps
        async for item in subscription:
            got += isinstance(item, Event)
            gaps += not isinstance(item, Event)
            if got == count:
                break

    async with (
        Channels(url) as channels,
        channels.subscribe(CHANNEL, max_messages=10**6, max_bytes=10**10) as subscription,
    ):
        say("ready")
        await told()
        began = time.monotonic()
        try:
            await asyncio.wait_for(receive(subscription), PATIENCE)
        except asyncio.TimeoutError:
            pass  # `received` shows it
        say({"received": got, "gaps": gaps, "seconds": time.monotonic() - began, "outages": outages.count})


async def slow_history(url: str, count: int, since: str) -> None:
    """Come back with a position, over a slow link."""
    from lilya.websockets.channels import Channels

    outages = Outages()
    async with Channels(url) as channels:
        say("ready")
        await told()
        elsewhere = Elsewhere(channels)
        began = time.monotonic()
        client = Client()
        error = ""
        try:
            await asyncio.wait_for(client.catch_up(channels, since, count), PATIENCE)
        except Exception as failed:
            error = type(failed).__name__
        say(
            {
                "received": client.got,
                "seconds": time.monotonic() - began,
                "outages": outages.count,
                "error": error,
                "elsewhere": await elsewhere.end(),
            }
        )


# Peers: how each publishes, and how it receives. Each says "ready" when it is subscribed.

Publish = Callable[[str], Awaitable[Any]]
Peer = tuple[Publish, Callable[[], AsyncIterator[str]]]


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Peer]:
    from lilya.websockets.channels import Channels, Event

    async with Channels(url) as channels:

        async def received() -> AsyncIterator[str]:
            async with channels.subscribe(CHANNEL, max_messages=10**6, max_bytes=10**9) as subscription:
                say("ready")
                async for item in subscription:
                    yield str(item.data) if isinstance(item, Event) else "gap"

        yield lambda text: channels.publish(CHANNEL, text), received


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[Peer]:
    from redis.asyncio import Redis

    client: Any = Redis.from_url(url, decode_responses=True)

    async def received() -> AsyncIterator[str]:
        async with client.pubsub() as pubsub:
            await pubsub.subscribe(CHANNEL)
            say("ready")
            async for message in pubsub.listen():
                if message["type"] == "message":
                    yield message["data"]

    yield lambda text: client.publish(CHANNEL, text), received
    await client.aclose()


@asynccontextmanager
async def litestar(url: str, name: str) -> AsyncIterator[Peer]:
    from litestar.channels import ChannelsPlugin
    from litestar.channels.backends import redis as backends
    from redis.asyncio import Redis

    client = Redis.from_url(url)
    backend: Any = (
        backends.RedisChannelsStreamBackend(history=1000, redis=client)
        if name == "streams"
        else backends.RedisChannelsPubSubBackend(redis=client)
    )
    async with ChannelsPlugin(backend, channels=[CHANNEL]) as plugin:

        async def received() -> AsyncIterator[str]:
            async with plugin.start_subscription(CHANNEL) as subscriber:
                say("ready")
                async for data in subscriber.iter_events():
                    yield str(data.decode())

        yield lambda text: plugin.wait_published(text, CHANNEL), received
    await client.aclose()


@asynccontextmanager
async def channels_redis(url: str, name: str) -> AsyncIterator[Peer]:
    from channels_redis.core import RedisChannelLayer
    from channels_redis.pubsub import RedisPubSubChannelLayer

    layer: Any = {"core": RedisChannelLayer, "pubsub": RedisPubSubChannelLayer}[name](hosts=[url])

    async def received() -> AsyncIterator[str]:
        channel = await layer.new_channel()
        await layer.group_add(CHANNEL, channel)
        say("ready")
        while True:
            yield (await layer.receive(channel))["text"]

    yield lambda text: layer.group_send(CHANNEL, {"type": "message", "text": text}), received


@asynccontextmanager
async def broadcaster(url: str) -> AsyncIterator[Peer]:
    from broadcaster import Broadcast

    broadcast: Any = Broadcast(url)
    async with broadcast:

        async def received() -> AsyncIterator[str]:
            async with broadcast.subscribe(CHANNEL) as subscriber:
                say("ready")
                async for event in subscriber:
                    yield event.message

        yield lambda text: broadcast.publish(CHANNEL, text), received


@asynccontextmanager
async def socketio(url: str) -> AsyncIterator[Peer]:
    from socketio import AsyncRedisManager, AsyncServer

    came: asyncio.Queue[str] = asyncio.Queue()

    class Manager(AsyncRedisManager):  # type: ignore[misc]  # it has no types
        """Keeps what comes from other processes, where it would be sent to clients."""

        async def _handle_emit(self, message: Any) -> None:
            (text,) = message["data"]
            came.put_nowait(text)

    async def received() -> AsyncIterator[str]:
        manager = Manager(url)
        manager.set_server(AsyncServer(client_manager=manager))
        manager.initialize()
        say("ready")
        while True:
            yield await came.get()

    publishing = AsyncRedisManager(url, write_only=True)
    yield lambda text: publishing.emit("message", text, room=CHANNEL), received


def connect(kind: str, url: str) -> Any:
    """A peer, connected."""
    return {
        "ours": lambda: ours(url),
        "plain": lambda: plain(url),
        "litestar-pubsub": lambda: litestar(url, "pubsub"),
        "litestar-streams": lambda: litestar(url, "streams"),
        "channels-redis": lambda: channels_redis(url, "core"),
        "channels-redis-pubsub": lambda: channels_redis(url, "pubsub"),
        "broadcaster": lambda: broadcaster(url),
        "socketio": lambda: socketio(url),
    }[kind]()


async def receive_as(kind: str, url: str, silence: float) -> None:
    """Receive until told to end, and tell what has come."""
    came: list[tuple[str, float]] = []
    raised = False

    async def receive() -> None:
        nonlocal raised
        while True:
            try:
                async with connect(kind, url) as (_, received):
                    async for text in received():
                        came.append((text, time.time()))  # noqa: PERF401  # read while it runs
                    raise ConnectionError("the iteration has ended")
            except Exception:
                raised = True
                await asyncio.sleep(0.05)

    receiving = asyncio.create_task(receive())
    while (asked := await told()) != "end":
        if asked == "any?":
            say(bool(came))
            continue
        # Asked whether all is in: it is when nothing comes for a while.
        before = len(came)
        await asyncio.sleep(silence)
        say(len(came) == before)
    messages = [(text.split(), at) for text, at in came if text != "gap" and not text.startswith("0 ")]
    say(
        {
            "came": [(int(number), at - float(sent)) for (number, sent, *_), at in messages],
            "gaps": sum(text == "gap" for text, _ in came),
            "raised": raised,
        }
    )
    leave(kind)
    receiving.cancel()
    await asyncio.wait([receiving])


async def publish_as(kind: str, url: str, seconds: float) -> None:
    """Publish for so long, and tell what was acknowledged, and what failed."""
    acknowledged: list[int] = []
    failed = number = 0
    async with connect(kind, url) as (publish, _):

        async def publish_one() -> None:
            nonlocal failed, number
            number += 1
            try:
                await asyncio.wait_for(publish(f"{number} {time.time():.6f} ".ljust(SIZE, ".")), 10.0)
            except Exception:
                failed += 1
            else:
                acknowledged.append(number)

        say("ready")
        while await told() != "go":
            await publish(f"0 {time.time():.6f} ".ljust(SIZE, "."))  # is anybody there?
            say("published")
        end = time.monotonic() + seconds
        await at_rate(publish_one, lambda: time.monotonic() >= end)
        say({"acknowledged": acknowledged, "failed": failed})
        await told()
        leave(kind)


def leave(kind: str) -> None:
    """End this process at once: after an outage some peers raise or wait forever when they are left."""
    if kind != "ours":
        os._exit(0)


async def work(what: str, kind: str, url: str, *rest: str) -> None:
    if kind != "ours":
        logging.disable()  # what peers log about the outage is not the benchmark's
    if what == "many":
        await listen_to_many(kind, url, int(rest[0]))
    elif what == "storm":
        since, sockets, missed, window = rest
        await storm(url, since, int(sockets), int(missed), float(window))
    elif what == "live":
        await slow_live(url, int(rest[0]))
    elif what == "history":
        await slow_history(url, int(rest[0]), rest[1])
    elif what == "receive":
        await receive_as(kind, url, float(rest[0]))
    else:
        await publish_as(kind, url, float(rest[0]))


# The process that starts the others


@contextmanager
def working(what: str, kind: str, url: str, *rest: Any, limit: float = 1.5 * LIMIT) -> Iterator[Worker]:
    """A process that does one of the above, and is killed if that takes too long."""
    with ExitStack() as stack:
        yield Worker(stack, what, kind, url, *rest, module="benchmarks.scale", limit=limit)


def measure_many(kind: str, count: int, seconds: float) -> dict[str, float]:
    """With so many channels, while messages are published for so long."""
    with RedisServer() as server, working("many", kind, server.url, count) as worker:
        worker.hear()
        began = broker = 0.0

        def begin() -> None:
            nonlocal began, broker
            began, broker = time.monotonic(), processor_time(server)
            worker.tell("go")

        published = asyncio.run(publish_to_many(kind, server.url, count, seconds, begin))
        share = (processor_time(server) - broker) / (time.monotonic() - began)
        worker.tell(published)
        return {**worker.hear(), "broker": 100 * share}


def measure_storm(sockets: int, missed: int, size: int, window: float) -> dict[str, float]:
    """With so many sockets, missed events, bytes of each, and seconds."""
    with RedisServer() as server:
        since = publish_large(server.url, missed, size)
        with working("storm", "ours", server.url, since, sockets, missed, window) as worker:
            found: dict[str, float] = worker.hear()
            return found


def publish_large(url: str, count: int, size: int) -> str:
    """Publish so many events at once, after a small one; the small one's id."""
    from lilya.websockets.channels import Publisher

    with Publisher(url, history=count + 1) as publisher:
        before: str = publisher.publish(CHANNEL, "before")
        for _ in range(count):
            publisher.publish(CHANNEL, "x" * size)
    return before


def measure_slow(what: str, rate: float, count: int, size: int) -> dict[str, Any]:
    """Receive over a slow link: `live` what is published now, `history` what was published before."""
    with RedisServer() as server, Link(server.port, rate) as link:
        # Live, the small event counts, too.
        rest = (count + 1,) if what == "live" else (count, publish_large(server.url, count, size))
        with working(what, "ours", link.url, *rest) as worker:
            worker.hear()
            carried = link.carried
            worker.tell("go")
            if what == "live":
                publish_large(server.url, count, size)
            found: dict[str, Any] = worker.hear()
        carried = link.carried - carried
    if what == "live":
        found["received"] = max(0, found["received"] - 1)
    bytes_needed = count * size
    return {
        **found,
        "expected": count,
        "size": size,
        "rate": rate,
        "seconds": _report.rounded(found["seconds"]),
        "needed": _report.rounded(bytes_needed / rate),
        "carried": _report.rounded(carried / bytes_needed),
    }


def measure_outage(kind: str, around: float, outage: float, silence: float) -> dict[str, Any]:
    """Cut a publishing and a receiving process off for a moment, and see what is lost."""
    with (
        RedisServer() as server,
        Link(server.port) as link,
        working("receive", kind, link.url, silence, limit=LIMIT) as receiver,
        working("publish", kind, link.url, 2 * around + outage, limit=LIMIT) as publisher,
    ):
        for worker in (receiver, publisher):
            worker.hear()
        # A few are subscribed a little after they say so.
        while True:
            publisher.tell("try")
            publisher.hear()
            receiver.tell("any?")
            if answered(receiver):
                break
            time.sleep(0.05)
        begin = processor_time(server)
        publisher.tell("go")
        time.sleep(around)
        broker = (processor_time(server) - begin) / (LOW * around)
        link.cut(outage)
        said = publisher.hear()
        while True:
            receiver.tell("quiet?")
            if answered(receiver):
                break
        receiver.tell("end")
        found = answered(receiver)
        publisher.tell("end")
    calm = [seconds for number, seconds in found["came"] if number < LOW * around / 2]
    return {
        **judged([number for number, _ in found["came"]], said["acknowledged"]),
        "failed": said["failed"],
        "gaps": found["gaps"],
        "raised": found["raised"],
        "p50": _report.rounded(1000 * quantile(calm, 0.5)),
        "p99": _report.rounded(1000 * quantile(calm, 0.99)),
        "broker": _report.rounded(1e6 * broker),
    }


def answered(worker: Worker) -> Any:
    """The answer of a process that may also have said that it is subscribed again."""
    while (answer := worker.hear()) == "ready":
        pass
    return answer


def judged(came: list[int], acknowledged: list[int]) -> dict[str, int]:
    """What is to be said of numbers in the order in which they came, when these were acknowledged."""
    return {
        "acknowledged": len(acknowledged),
        "lost": len(set(acknowledged) - set(came)),
        "doubled": len(came) - len(set(came)),
        "out of order": sum(after < before for before, after in pairwise(came)),
    }


def peer_in_outage(kind: str, *seconds: float) -> dict[str, Any]:
    """The same, or why it could not be measured, by `missing`."""
    missing = next((name for name in PEERS[kind] if find_spec(name) is None), "")
    if missing:
        return {"missing": f"{missing} is not installed"}
    try:
        return measure_outage(kind, *seconds)
    except RuntimeError as error:
        if kind == "ours":
            raise
        return {"missing": str(error)}


def measure_busy(count: int, rounds: int) -> dict[str, Any]:
    """By load and by how a message gets to its reader: µs of the server's processor for each."""
    found: dict[str, dict[str, list[float]]] = {}
    for number in range(rounds):
        # Who comes first changes, because what comes later may have it better.
        for kind in _busy.KINDS[:: 1 if number % 2 else -1]:
            for load, at_a_time in _busy.LOADS.items():
                progress(f"round {number + 1} of {rounds}: one busy channel, {kind}, {load}")
                costs = found.setdefault(load, {}).setdefault(kind, [])
                costs.append(1e6 * _busy.cost(kind, at_a_time, count))
    return {
        load: {kind: _report.spread(costs) for kind, costs in kinds.items()} for load, kinds in found.items()
    }


def in_rounds(rounds: int, measured: Mapping[str, Callable[[], dict[str, float]]]) -> dict[str, Any]:
    """The medians of all figures, by name."""
    found: dict[str, dict[str, list[float]]] = {}
    for number in range(rounds):
        for name, measure in measured.items():
            progress(f"round {number + 1} of {rounds}: {name}")
            for figure, value in measure().items():
                found.setdefault(name, {}).setdefault(figure, []).append(value)
    return {
        name: {figure: _report.spread(values) for figure, values in figures.items()}
        for name, figures in found.items()
    }


def run(cases: Collection[str], rounds: int, seconds: float) -> dict[str, Any]:
    """What was measured, by case."""
    found: dict[str, Any] = {}
    if "many" in cases:
        runs = [(kind, count) for count in MANY for kind in LISTENING]
        rows = in_rounds(
            rounds, {f"{kind} {count}": partial(measure_many, kind, count, seconds) for kind, count in runs}
        )
        found["many"] = {kind: {str(count): rows[f"{kind} {count}"] for count in MANY} for kind in LISTENING}
    if "busy" in cases:
        found["busy"] = {"loads": measure_busy(*BUSY)}
    if "storm" in cases:
        sockets, missed, size, window = STORM
        found["storm"] = {
            **dict(zip(("sockets", "missed", "size", "window"), STORM, strict=True)),
            "runs": in_rounds(
                rounds,
                {
                    "without": partial(measure_storm, 0, missed, size, window),
                    "with": partial(measure_storm, sockets, missed, size, window),
                },
            ),
        }
    if "slow" in cases:
        found["slow"] = {}
        for what, rate in SLOW.items():
            progress(f"a slow link: {what}")
            found["slow"][what] = measure_slow(what, rate, *LARGE)
    if "outage" in cases:
        found["outage"] = {"seconds": OUTAGE, "peers": {}}
        for kind in PEERS:
            progress(f"an outage: {kind}")
            found["outage"]["peers"][kind] = peer_in_outage(kind, AROUND, OUTAGE, SILENCE)
    progress()
    return found


def faults(found: dict[str, Any]) -> list[str]:
    """What must not happen to channels, and has."""
    wrong = []
    if any(row["missing"]["most"] for row in found.get("many", {}).get("ours", {}).values()):
        wrong.append("many: messages never came")
    for load, kinds in found.get("busy", {"loads": {}})["loads"].items():
        if kinds["pushed"]["value"] > 1.1 * kinds["XREAD BLOCK"]["value"]:
            wrong.append(f"busy, {load}: to push costs the server over 10 % more than to wait in the stream")
    if "storm" in found:
        storm_, runs = found["storm"], found["storm"]["runs"]
        if runs["with"]["errors"]["most"] or runs["without"]["errors"]["most"]:
            wrong.append("storm: publishes to another channel failed")
        if runs["with"]["received"]["least"] < storm_["sockets"] * storm_["missed"]:
            wrong.append("storm: not every client was sent all that it missed")
    for what, row in found.get("slow", {}).items():
        if row["received"] < row["expected"] or row.get("error") or row.get("gaps"):
            wrong.append(f"slow, {what}: not every event came")
    us = found.get("outage", {}).get("peers", {}).get("ours", {})
    if any(us.get(figure) for figure in ("lost", "doubled", "out of order", "gaps")):
        wrong.append("outage: channels lost, doubled or reordered messages")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a run with many channels (default: 5)")
    parser.add_argument(
        "--write", action="store_true", help="write the figures into the page Channels performance"
    )
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        asyncio.run(work(*options.work))
        return
    if options.write and options.only not in (None, "busy"):
        parser.error("--write takes the whole: the page shows one run. Leave --only out, or name `busy`")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started, too
    began = time.monotonic()
    found = _report.machine(
        ["redis", "hiredis", "litestar", "channels_redis", "broadcaster", "python-socketio"]
    )
    found["server"] = server_version()
    with _system.Others() as others:
        found |= run([options.only] if options.only else CASES, options.rounds, options.seconds)
    found |= {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "disturbed": others.disturbed,
    }
    if "busy" in found:
        found["busy"]["disturbed"] = others.disturbed
    print(_channels_report.as_text(_channels_report.blocks_of_scale(found)))
    if options.write and options.only:
        # Processor time, which other programs hardly change: it may be of another run than the rest.
        found = _channels_report.figures()["scale"] | {"busy": found["busy"]}
    if options.write:
        _channels_report.write(scale=found)
    if wrong := faults(found):
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
