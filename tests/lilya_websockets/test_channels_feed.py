"""What is pushed and what is read from the streams of Redis, under faults."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from itertools import chain
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from lilya.websockets.channels import BrokerError, Channels, Event, Gap
from lilya.websockets.channels.backends import Id, presence_of

from .redis_server import NO_SERVER, RedisServer, redis_binary

pytest.importorskip("redis", reason="the client of Redis is not installed: the extra `redis` brings it")

from redis._parsers import _AsyncRESP2Parser
from redis.exceptions import ResponseError

from lilya.websockets.channels import _feed, _link, _redis
from lilya.websockets.channels._entries import Standing, event_of
from lilya.websockets.channels._feed import Feed
from lilya.websockets.channels._listening import Listener, Watched
from lilya.websockets.channels._redis import RedisBackend
from lilya.websockets.channels._scripts import SCRIPTS

from .test_channels_redis import Proxy, at_rest, reading, reads_of, redis, started, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(redis_binary() is None, reason=NO_SERVER),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # as the client of Redis


async def publish_unpushed(backend: RedisBackend, channel: str, data: str) -> str:
    """As a publisher of a version that pushes nothing, or a push that was lost."""
    push, backend._keys.push = backend._keys.push, b":nowhere"
    try:
        return await backend.publish(channel, data)
    finally:
        backend._keys.push = push


# Random faults


def no_filling(patch: pytest.MonkeyPatch) -> None:
    """What does not follow the position is taken as if it did."""
    original = Feed._next

    def take(feed: Feed, watched: Watched, pushed: bytes, positions: Any, reached: Any) -> Any:
        found = event_of(watched.name, pushed)
        if found is None or watched.looking:
            return original(feed, watched, pushed, positions, reached)
        reached[watched.name] = found[0]
        return found[1]

    patch.setattr(Feed, "_next", take)


def no_looking_after_an_outage(patch: pytest.MonkeyPatch) -> None:
    original = Listener._confirm

    def confirm(listener: Listener, kind: bytes, name: bytes) -> None:
        listener._commands[0][1][0].known = False
        original(listener, kind, name)

    patch.setattr(Listener, "_confirm", confirm)


def no_comparing(patch: pytest.MonkeyPatch) -> None:
    async def compare(feed: Feed, those: Any) -> None:
        """Nothing."""

    patch.setattr(Feed, "_compare", compare)


class Session:
    """Two processes, one of them behind a proxy, that publish to some channels; and seeded faults.

    What is kept is checked against what came: all of it, once, in order, and no gap.
    """

    CHANNELS = 6

    def __init__(self, server: RedisServer, prefix: str, seed: int, *, all_pushed: bool = False) -> None:
        self.server = server
        self.prefix = prefix
        self.random = random.Random(seed)
        self.all_pushed = all_pushed
        self.kept: dict[str, list[str]] = {f"{n}": [] for n in range(self.CHANNELS)}
        self.is_lost = False

    async def run(self, faults: int) -> list[str]:
        async with (
            Proxy(self.server.port) as self.proxy,
            started(self.proxy.url, prefix=self.prefix, publish_timeout=None) as self.one,
            started(self.server.url, prefix=self.prefix, publish_timeout=None) as self.two,
            reading(self.one, *self.kept) as self.reader,
        ):
            for _ in range(faults):
                if self.is_lost:
                    return ["what was kept did not come"]
                await self.publish(self.random.randint(1, 12))
                await self.fault()
            await self.publish(3)
            for channel, kept in self.kept.items() if not self.all_pushed else ():
                kept.append(await publish_unpushed(self.two, channel, "the last"))
            await self.one.ready.wait()
            with anyio.move_on_after(3):
                await until(lambda: not self.problems())
            return self.problems()

    async def publish(self, count: int) -> None:
        async def one() -> None:
            backend = self.random.choice((self.one, self.two))
            channel = self.random.choice(list(self.kept))
            id = await backend.publish(channel, "x")
            self.kept[channel].append(id)

        await asyncio.gather(*(one() for _ in range(count)))

    async def fault(self) -> None:
        kind = self.random.choice(["cut", "kill", "unpushed", "rejoin", "held", "garbage", "lost"])
        channel = self.random.choice(list(self.kept))
        if kind == "cut":
            self.proxy.cut()
        elif kind == "kill":
            self.server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        elif kind == "unpushed" and not self.all_pushed:
            self.kept[channel].append(await publish_unpushed(self.two, channel, "x"))
        elif kind == "rejoin":
            with anyio.move_on_after(2) as scope:
                await until(lambda: not self.problems(channel))
            self.is_lost = scope.cancelled_caught
            self.reader.remove(channel)
            await self.reader.add(channel)
        elif kind == "held":
            self.proxy.hold(b"SUBSCRIBE")
            self.proxy.cut()
            self.kept[channel].append(await self.two.publish(channel, "x"))
            self.proxy.release()
        elif kind == "garbage":
            pushed = self.two._keys.pushed(channel).decode()
            self.server.ask("PUBLISH", pushed, self.random.choice(["", "x", "1-1-00000000 s", "1-2 x"]))
        else:
            self.proxy.lose = SCRIPTS["publish"].sha
            await self.publish(3)

    def problems(self, only: str | None = None) -> list[str]:
        found = []
        for channel, kept in self.kept.items():
            if only not in (None, channel):
                continue
            items = [item for item in self.reader.items if item.channel == channel]
            if [item.id for item in items] != sorted(kept, key=self.two.order_of):
                found.append(f"{channel}: kept {len(kept)}, came {len(items)}")
            found += [f"{item}" for item in items if isinstance(item, Gap)]
        return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("check", [0.3, 3600.0], ids=["", "never compared"])
async def test_nothing_is_lost(
    check: float, seed: int, redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where everything is pushed, nothing has to be compared for that."""
    monkeypatch.setattr(_feed, "_CHECK", check)
    monkeypatch.setattr(_link, "_LAST_DELAY", 0.1)  # the faults come sooner than all lines are back
    assert await Session(redis_server, prefix, seed, all_pushed=check > 1).run(40) == []


@pytest.mark.parametrize("fault", [no_filling, no_looking_after_an_outage, no_comparing])
async def test_planted_faults(
    fault: Callable[[pytest.MonkeyPatch], None],
    redis_server: RedisServer,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check above finds each of them, by one of the seeds."""
    healed = fault is no_looking_after_an_outage  # by comparing, in half a minute
    monkeypatch.setattr(_feed, "_CHECK", 3600.0 if healed else 0.3)
    monkeypatch.setattr(_link, "_LAST_DELAY", 0.1)
    fault(monkeypatch)
    for seed in range(4):
        if await Session(redis_server, f"{prefix}-{seed}", seed, all_pushed=healed).run(40):
            return
    raise AssertionError("nobody has noticed")


# One rule at a time


async def enter(
    channels: Channels, entered: asyncio.Event, came: list[Any], count: int, name: str = "room"
) -> None:
    async with channels.subscribe(name) as subscription:
        entered.set()
        while len(came) < count:
            came.append(await anext(subscription))


@pytest.mark.parametrize("planted", [False, True], ids=["as it is", "planted fault"])
async def test_the_subscription_is_confirmed_before_the_history_is_read(
    planted: bool, redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is published between the two would come half a minute later, if it is the last."""
    if planted:
        original = asyncio.wait

        async def wait(those: Any, **options: Any) -> Any:
            if "timeout" not in options:
                return await original(those, **options)
            for waiter in those:
                waiter.set_result(None)
            return those, set()

        monkeypatch.setattr(_feed.asyncio, "wait", wait)  # type: ignore[attr-defined]
    came: list[Any] = []
    entered = asyncio.Event()
    async with (
        Proxy(redis_server.port) as proxy,
        Channels(proxy.url, prefix=prefix) as channels,
        started(redis_server.url, prefix=prefix) as other,
    ):
        proxy.hold(b"SUBSCRIBE")
        async with anyio.create_task_group() as group:
            group.start_soon(enter, channels, entered, came, 1)
            await proxy.held.wait()
            await channels.publish("elsewhere", "it is only that line which waits")
            await channels.backend.history("elsewhere")
            await channels.backend.history("elsewhere")
            assert entered.is_set() == planted
            if planted:
                await other.publish("room", "one")
                await other.history("room")
            proxy.release()
            await entered.wait()
            if planted:
                await channels.backend.watch(["elsewhere"])  # the line is there now
                assert came == []
                group.cancel_scope.cancel()
            else:
                await other.publish("room", "one")
    assert [item.data for item in came] == ([] if planted else ["one"])


async def test_a_last_event_that_was_never_pushed(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a publisher of an older version, say. All channels are compared, and one of them is behind."""
    monkeypatch.setattr(_feed, "_CHECK", 0.3)
    monkeypatch.setattr(_feed, "_TOGETHER", 3)
    names = [f"{n}" for n in range(50)]
    async with (
        started(redis_server.url, prefix=prefix) as backend,
        reading(backend, *names) as reader,
    ):
        ids = [await publish_unpushed(backend, name, name) for name in names[::7]]
        await reader.until(len(ids))
        assert sorted(item.id for item in reader.items) == sorted(ids)
        # Who is not behind is not looked at, however often it is compared.
        asked = reads_of(backend, monkeypatch)
        for _ in range(3):
            id = await backend.publish("0", "pushed")
            await until(lambda id=id: reader.items[-1].id == id)  # type: ignore[misc]
            await anyio.sleep(0.15)
        assert asked == []


async def test_comparing_is_spread(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each channel once in half a minute, and a few at a time."""
    waits: list[float] = []
    parts: list[list[str]] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        parts.append([])
        await asyncio.sleep(0.001)

    monkeypatch.setattr(_feed, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    names = [f"{n}" for n in range(89)]
    async with started(redis_server.url, prefix=prefix) as backend:
        compare = backend._feed._compare

        def compared(those: Any) -> Any:
            parts[-1] += [watched.name for watched, _ in those]
            return compare(those)

        monkeypatch.setattr(backend._feed, "_compare", compared)
        async with reading(backend, *names):
            begun = len(parts)
            await until(lambda: len(parts) > begun + 61)
    assert sum(waits[:30]) == pytest.approx(30.0)
    # A whole round: the one before may have begun when not all were there.
    whole = parts[begun + 30 : begun + 60]
    assert sorted(chain(*whole)) == sorted(names)
    assert max(map(len, whole)) == 3


async def test_comparing_goes_on_when_it_fails(
    redis_server: RedisServer,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(_feed, "_CHECK", 0.1)
    async with started(redis_server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
        original = backend._keys.script
        monkeypatch.setattr(
            backend._keys,
            "script",
            lambda name, *rest: (b"NOSUCH",) if name == "standings" else original(name, *rest),
        )
        await until(lambda: len(caplog.records) > 2)
        monkeypatch.setattr(backend._keys, "script", original)
        id = await publish_unpushed(backend, "room", "one")
        await reader.until(1)
        assert reader.items[0].id == id


@pytest.mark.parametrize(
    "count", [1, 5, 8], ids=["before new events", "after as many new events", "after more new events"]
)
@pytest.mark.parametrize("clock", ["the same", "the new one's is behind", "both are behind"])
async def test_a_failover_to_a_replica_that_lags(
    clock: str, count: int, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gap goes to where the branches part, and what comes after that is given, whatever its time.

    Also if both servers are behind their newest event, and would give the same time to each event.
    """
    key = f"{{{prefix}:room}}"
    epochs = itertools.count(1)
    monkeypatch.setattr(_redis, "epoch", lambda: b"%08x" % next(epochs))  # no two of a thousand are the same
    with redis() as server:
        async with (
            Proxy(server.port) as proxy,
            started(proxy.url, prefix=prefix, publish_timeout=None) as one,
            started(server.url, prefix=prefix, publish_timeout=None) as two,
            reading(one, "room", "other") as reader,
        ):
            kept = [await two.publish("room", f"{n}") for n in range(9)]
            ahead = f"{Id.parse(kept[-1]).ms + 60_000}"
            if clock == "both are behind":
                server.ask("HSET", key + ":state", "ms", ahead)
            kept.append(await two.publish("room", "9"))
            server.ask("SAVE")
            if clock == "the new one's is behind":
                server.ask("HSET", key + ":state", "ms", ahead)
            lost = [await two.publish("room", f"lost {n}") for n in range(5)]
            await reader.until(15)
            assert [item.id for item in reader.items] == kept + lost
            if count > 1:
                proxy.hold(b"ROLE")
            server.kill()
            await anyio.to_thread.run_sync(server.start)
            await two.ready.wait()
            new = [await two.publish("room", f"new {n}") for n in range(count)]
            proxy.release()
            await reader.until(16 + count)
            gap, *events = reader.items[15:]
            assert gap == Gap("room", lost[-1], kept[-1])
            assert [event.id for event in events] == new
            new.append(await two.publish("room", "and on"))
            assert (await reader.until(17 + count))[-1].id == new[-1]
            for backend in (one, two):
                history = await backend.history("room", since=lost[-1])
                assert not history.complete
                assert [event.id for event in history.events] == kept + new
                assert (await backend.history("room", since=kept[-1])).complete


async def test_a_channel_that_is_left_before_it_is_listened_to(prefix: str) -> None:
    """Who waits for it is told at once, also without a connection and without a time limit."""
    with redis() as server:
        async with started(server.url, prefix=prefix, publish_timeout=None) as backend:
            server.kill()
            await until(lambda: not backend.ready.is_set())
            waiting = asyncio.create_task(backend.watch(["room"]))
            await asyncio.sleep(0)
            backend.unwatch(["room"])
            with pytest.raises(BrokerError, match="channel 'room' was left before Redis answered"):
                await waiting


async def test_numbers_that_another_program_has_set_back(redis_server: RedisServer, prefix: str) -> None:
    """One gap, although the last event is still there, and not one after the other for ever."""
    async with started(redis_server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
        kept = [await backend.publish("room", f"{n}") for n in range(4)]
        await reader.until(4)
        redis_server.ask("HSET", f"{{{prefix}:room}}:state", "seq", "1")
        # In the same millisecond, Redis would refuse the lower number.
        while Id.parse(await backend.publish("another", "")).ms == Id.parse(kept[-1]).ms:
            pass
        kept += [await backend.publish("room", f"{n}") for n in (4, 5)]
        backend.wake()
        kept.append(await backend.publish("room", "6"))
        while kept[-1] not in [item.id for item in reader.items]:
            await reader.until(len(reader.items) + 1)
        gap = reader.items.pop(4)
        assert gap == Gap("room", kept[3], str(Id.parse(kept[4])._replace(seq=1)))
        assert [item.id for item in reader.items] == kept


async def test_a_failover_under_a_subscription(prefix: str) -> None:
    """Also for who has joined, but is ahead of the reader; and for a client that comes back."""
    with redis() as server:
        async with Channels(server.url, prefix=prefix) as channels:
            async with channels.subscribe("room") as subscription:
                first = await channels.publish("room", "one")
                await anext(subscription)
                server.ask("SAVE")
                lost = await channels.publish("room", "lost")
                await anext(subscription)
                server.kill()
                await anyio.to_thread.run_sync(server.start)
                await until(lambda: not channels.ready.is_set())
                await channels.ready.wait()
                gap = await anext(subscription)
                assert gap == Gap("room", lost, first)
                await channels.publish("room", "new")
                assert (await anext(subscription)).data == "new"  # type: ignore[union-attr]
            async with channels.subscribe("room", since=lost) as subscription:
                assert isinstance(await anext(subscription), Gap)
                assert [(await anext(subscription)).data for _ in "12"] == ["one", "new"]  # type: ignore[union-attr]


async def test_a_reader_that_is_too_slow_for_the_broker(
    prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis cuts it off. It connects again, and reads what it has missed."""
    monkeypatch.setattr(_feed, "_WAITING", (10, 100_000))
    with redis("client-output-buffer-limit pubsub 1000000 0 0") as server:
        async with (
            started(server.url, prefix=prefix, history=5000) as slow,
            started(server.url, prefix=prefix, history=5000) as other,
        ):
            await slow.watch(["room"])
            positions = {"room": (await slow.history("room")).position}
            slow.wake("room")
            # More than the sockets hold. It does not notice before it reads on. Of larger ones Valkey 9 would
            # count only its references to them.
            ids = await asyncio.gather(*(other.publish("room", "x" * 15_000) for _ in range(3000)))
            got: list[str] = []
            while len(got) < len(ids):
                for item in await slow.read(positions):
                    assert isinstance(item, Event)
                    got.append(item.id)
                    positions["room"] = item.id
            assert got == ids
    assert any("is away" in record.getMessage() for record in caplog.records)


class SlowProxy(Proxy):
    """A link on which so many bytes go in a second, each way."""

    def __init__(self, port: int, rate: float) -> None:
        super().__init__(port)
        self._rate = rate

    async def _answers(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await there.read(8192):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(len(data) / self._rate)
        except OSError:
            pass
        writer.transport.abort()


async def test_limits_are_for_progress(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not for all of an answer: what is slow, but comes, is no outage."""
    monkeypatch.setattr(_link, "PATIENCE", 1.0)
    monkeypatch.setattr(_link, "IDLE", 1.0)
    async with (
        SlowProxy(redis_server.port, 1_000_000) as proxy,
        started(proxy.url, prefix=prefix, publish_timeout=1.5) as slow,
        started(redis_server.url, prefix=prefix) as other,
        reading(slow, "room") as reader,
    ):
        begin = (await other.history("room")).position
        ids = [await other.publish("room", "x" * 200_000) for _ in range(15)]
        history = await slow.history("room", since=begin)  # three megabytes, three seconds
        assert history.complete
        assert [event.id for event in history.events] == ids
        assert [item.id for item in await reader.until(15)] == ids
    assert not caplog.records


async def test_large_answers_come_in_pages(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of some 256 kB: neither a script nor an answer holds up what is behind it."""
    pages: list[int] = []
    of = Standing.of

    def paged(answer: Any) -> Standing:
        standing = of(answer)
        pages.append(len(standing.entries))
        return standing

    async with started(redis_server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
        begin = reader.positions["room"]
        ids = [await publish_unpushed(backend, "room", "x" * 30_000) for _ in range(60)]
        monkeypatch.setattr(Standing, "of", paged)
        history = await backend.history("room", since=begin)
        assert [event.id for event in history.events] == ids
        backend.wake()
        assert [item.id for item in await reader.until(60)] == ids
    assert sum(pages) == 120
    assert max(pages) <= 16


async def test_much_to_send(redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent together is no more than a megabyte or one event, and goes in pieces."""
    async with started(redis_server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
        pipe: Any = backend._publishing
        sizes: list[int] = []
        pieces: list[int] = []
        moved = 0
        send, came, write = pipe._send, pipe._came, pipe.line.connection.send_packed_command

        def progress() -> None:
            nonlocal moved
            moved += 1
            came()

        async def written(those: list[bytes], check: bool) -> None:
            pieces.append(sum(map(len, those)))
            await write(those, check)

        async def seen(connection: Any, those: list[bytes], size: int) -> None:
            sizes.append(size)
            await send(connection, those, size)

        monkeypatch.setattr(pipe, "_send", seen)
        monkeypatch.setattr(pipe, "_came", progress)
        monkeypatch.setattr(pipe.line.connection, "send_packed_command", written)
        await asyncio.gather(*(backend.publish("room", f"{n}" * 300_000) for n in range(8)))
        assert await reader.data(8) == [f"{n}" * 300_000 for n in range(8)]
        assert max(sizes) < 1_500_000
        assert max(pieces) <= 65_536
        assert moved >= 8 * 300_000 // 65_536  # each piece is progress


async def test_a_memory_that_is_forgotten_while_an_empty_channel_is_read(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a cluster, when some other slot is elsewhere: nothing is lost, and no gap says so."""
    monkeypatch.setattr(_feed, "_CHECK", 0.1)
    async with started(redis_server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
        feed = backend._feed
        asked: list[str] = []

        def read_after(name: str, position: str) -> tuple[bytes, ...]:
            asked.append(position)
            if len(asked) < 3:
                feed.forget()  # it was known, and what is read now has not come yet
            return original(name, position)

        original = feed._read_after
        monkeypatch.setattr(feed, "_read_after", read_after)
        await publish_unpushed(backend, "room", "one")
        assert await reader.data(1) == ["one"]
        assert len(asked) >= 3
        assert set(asked[:3]) == {asked[0]}


@pytest.mark.parametrize("asker", ["the feed", "the history"])
async def test_an_id_of_the_memory_that_comes_too_late(
    asker: str, redis_server: RedisServer, prefix: str
) -> None:
    """A connection was lost meanwhile, or a slot has moved: it may be the id of another server's memory."""
    async with Proxy(redis_server.port) as proxy, started(proxy.url, prefix=prefix) as backend:
        feed = backend._feed
        known = await feed.memory_of("room")
        feed.forget()
        answers: list[str] = []

        async def ask() -> None:
            answers.append(
                await (feed.memory_of("room") if asker == "the feed" else backend._memory_now("ask", 0))
            )

        proxy.hold(SCRIPTS["memory"].sha)
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await proxy.held.wait()
            feed.forget()
            proxy.release()
        assert (answers, feed.known_memory(0)) == ([known], "")
        await ask()
        assert (answers, feed.known_memory(0)) == ([known, known], known)


async def test_a_channel_is_behind_at_the_second_look(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first look, its newest event may just be on its way."""
    monkeypatch.setattr(_feed, "_CHECK", 3600.0)
    async with started(redis_server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
        feed, asked = backend._feed, reads_of(backend, monkeypatch)
        watched, position = feed._watched["room"], reader.positions["room"]
        id = await publish_unpushed(backend, "room", "one")
        await feed._compare([(watched, position)])
        assert (watched.suspected, list(feed._suspects)) == (position, [watched])
        await until(lambda: at_rest(backend))
        assert asked == []
        await feed._compare([(watched, position)])
        assert [item.id for item in await reader.until(1)] == [id]
        assert asked == ["room"]
        # When the push of one event has arrived late, the next difference is a first one again.
        id = await publish_unpushed(backend, "room", "two")
        await feed._compare([(watched, reader.positions["room"])])
        redis_server.ask("PUBLISH", backend._keys.pushed("room"), f"{id} stwo")
        await reader.until(2)
        await publish_unpushed(backend, "room", "three")
        await feed._compare([(watched, id)])
        await until(lambda: at_rest(backend))
        assert (watched.suspected, asked) == (id, ["room"])


# What comes and is none of ours


async def test_what_is_pushed_and_is_no_event(
    redis_server: RedisServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with started(redis_server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
        await backend.publish("room", "one")
        pushed = backend._keys.pushed("room")
        for what in (
            b"",
            b"x",
            b"1-1-00000000",
            b"1-1-00000000 x",
            b"1-1-0000000g sx",
            b"\xff s",
            b"1-1-0a0a0a0a s\xff",
        ):
            redis_server.ask("PUBLISH", pushed, what)
        # One that only claims to be: nothing says so in the stream.
        redis_server.ask("PUBLISH", pushed, "1-7-00000000 sforged")
        await backend.publish("room", "two")
        assert await reader.data(2) == ["one", "two"]
        assert backend.ready.is_set()
    assert len([record for record in caplog.records if "is no event" in record.getMessage()]) == 7


@pytest.fixture(params=["as installed", "without hiredis"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have connections use each parser of the client. Which one is used depends on what is installed."""
    if request.param == "without hiredis":
        monkeypatch.setattr("redis.asyncio.connection.DefaultParser", _AsyncRESP2Parser)
        spec = find_spec(_link.__name__)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(_link, "_Parser", module._Parser)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("bytes_of_it", [b"!nothing that Redis says\r\n", b":x\r\n", b"*x\r\n"])
async def test_garbage_is_an_outage(
    bytes_of_it: bytes, redis_server: RedisServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And not the end of a task, after which nothing would be answered any more."""
    async with (
        Proxy(redis_server.port) as proxy,
        started(proxy.url, prefix=prefix) as backend,
        reading(backend, "room") as reader,
    ):
        for number in range(3):
            for writer in proxy.writers_to_clients():
                writer.write(bytes_of_it)
            await backend.publish("room", f"{number}")
            await backend.ready.wait()
            assert await reader.data(number + 1) == [f"{n}" for n in range(number + 1)]


@pytest.mark.parametrize("answer", [None, 1, [], [b"x"], {}, b"\xff", b"no id", [b"1", b"2", b"3"]])
async def test_answers_of_another_kind(
    answer: Any, redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(redis_server.url, prefix=prefix) as backend:

        async def answered(*_: Any, **__: Any) -> Any:
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(_link.Pipe, "answer", answered)
            for call in (
                lambda: backend.publish("room", "one"),
                lambda: backend.history("room", last=1),
                lambda: backend.history("room", since="0-0-00000000"),
                lambda: backend.members("room"),
                lambda: backend.reap(["room"]),
            ):
                with pytest.raises(BrokerError, match="Redis has answered"):
                    await call()
        # It may have been the answer to something else, so nothing of the connections is used any more.
        assert not backend.ready.is_set()
        await backend.publish("room", "one")


async def test_answers_of_another_kind_to_who_reads(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_feed, "_CHECK", 0.1)
    async with started(redis_server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
        original = backend._keys.script
        with monkeypatch.context() as patch:
            patch.setattr(backend._keys, "script", lambda *_: (b"TIME",))
            backend.wake()
            await until(lambda: any("cannot be read" in record.getMessage() for record in caplog.records))
        assert backend._keys.script == original
        await publish_unpushed(backend, "room", "one")
        assert await reader.data(1) == ["one"]


@pytest.mark.parametrize(
    "data",
    [
        "",
        "x",
        "[]",
        "1",
        '{"type":"join"}',
        '{"type":"x","id":"1","info":1}',
        '{"type":"join","id":1,"info":1}',
        '{"type":"join","id":"1","info":1,"key":1,"sockets":1}',
        '{"type":"join","id":"1","info":1,"key":null,"sockets":"1"}',
        b"\xff",
    ],
)
async def test_what_is_told_of_members_and_is_not_ours(
    data: str | bytes, redis_server: RedisServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        Channels(redis_server.url, prefix=prefix) as channels,
        channels.subscribe("room", presence=True) as subscription,
    ):
        await channels.backend.publish(presence_of("room"), data)
        gap = await anext(subscription)
        assert isinstance(gap, Gap)
        assert gap.channel == presence_of("room")
        await channels.publish("room", "one")
        assert (await anext(subscription)).data == "one"  # type: ignore[union-attr]
    assert "is none of ours" in caplog.text


# Out of turn


async def test_waiting_for_a_subscription(redis_server: RedisServer, prefix: str) -> None:
    async with (
        Proxy(redis_server.port) as proxy,
        started(proxy.url, prefix=prefix, publish_timeout=0.2) as backend,
    ):
        proxy.hold(b"SUBSCRIBE")
        with pytest.raises(BrokerError, match=r"cannot listen to 'a', 'b': no answer .* within 0\.2 seconds"):
            await backend.watch(["a", "b"])
        backend.unwatch(["a", "b", "never"])
        proxy.release()
        await backend.watch(["a"])
        # One that is still watched when everything stops.
        proxy.hold(b"SUBSCRIBE")
        with pytest.raises(BrokerError, match="cannot listen to 'late'"):
            await backend.watch(["late"])


async def test_a_stream_that_tells_of_its_pieces() -> None:
    """Also the parser of the client that reads lines and so many bytes, where hiredis is not installed."""
    came: list[int] = []
    stream = asyncio.StreamReader()
    counted = _link._Counted(stream, lambda: came.append(1))
    stream.feed_data(b"$10\r\n01234")
    assert await counted.readline() == b"$10\r\n"

    async def rest() -> None:
        stream.feed_data(b"56789tail")

    async with anyio.create_task_group() as group:
        group.start_soon(rest)
        assert await counted.readexactly(10) == b"0123456789"
    assert await counted.read(100) == b"tail"
    assert len(came) == 4
    stream.feed_data(b"half")
    stream.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError):
        await counted.readexactly(5)


@pytest.mark.usefixtures("parser")
async def test_an_answer_without_a_value(redis_server: RedisServer, prefix: str) -> None:
    """With each parser of the client: one of them is for a protocol that writes it in another way."""
    async with started(redis_server.url, prefix=prefix) as backend:
        question = (b"HMGET", backend._keys.of("a")[0], b"one", b"two")
        assert await backend._asking.answer("ask", question) == [None, None]
        assert await backend._asking.answer("ask", (b"PING",)) == b"PONG"


async def test_stopping_while_somebody_waits_for_a_subscription(
    redis_server: RedisServer, prefix: str
) -> None:
    async with Proxy(redis_server.port) as proxy:
        backend = RedisBackend(proxy.url, prefix=prefix)
        await backend.start()
        proxy.hold(b"SUBSCRIBE")

        async def watch() -> None:
            with pytest.raises(BrokerError, match="stopped before Redis answered"):
                await backend.watch(["a"])

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await proxy.held.wait()
            await backend.stop()
        with pytest.raises(BrokerError, match="cannot listen: the channels were stopped"):
            await backend.watch(["a"])
        backend._lose(BrokerError("nobody minds"))


async def test_a_line_that_is_silent(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_link, "IDLE", 0.02)
    async with started(redis_server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
        listener = backend._listener
        assert listener is not None
        line: Any = listener.line.connection
        await anyio.sleep(0.1)  # it is tried, and answers
        assert listener.line.connection is line
        reader.remove("room")
        await anyio.sleep(0.1)  # also when it is subscribed to nothing
        assert listener.line.connection is line
        await reader.add("room")
        send = line.send_packed_command

        async def unasked(pieces: list[bytes], check: bool) -> None:
            if b"PING" not in pieces[0]:
                await send(pieces, check)

        monkeypatch.setattr(line, "send_packed_command", unasked)  # so nothing comes any more
        monkeypatch.setattr(_link, "PATIENCE", 1.0)
        await until(lambda: listener.line.connection not in (line, None))
        await backend.publish("room", "one")
        assert await reader.data(1) == ["one"]


async def test_a_user_who_may_not_ping(
    prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal is an answer, too: the server is there. It is not taken for the answer to another command."""
    monkeypatch.setattr(_link, "IDLE", 0.02)
    with redis("user app on >word ~* &* +@all -ping") as server:
        url = f"redis://app:word@127.0.0.1:{server.port}"
        async with started(url, prefix=prefix) as backend, reading(backend, "room") as reader:
            listener = backend._listener
            assert listener is not None
            line, refuse, refused = listener.line.connection, listener._refuse, 0

            def count(error: ResponseError) -> None:
                nonlocal refused
                refused += 1
                refuse(error)

            monkeypatch.setattr(listener, "_refuse", count)
            await until(lambda: refused >= 3)
            for number in range(20):
                listener._is_tried = True  # the next command goes out with a `PING`
                await reader.add(f"{number}")
                await backend.publish(f"{number}", f"{number}")
            assert await reader.data(20) == [f"{number}" for number in range(20)]
            assert listener.line.connection is line
            await until(lambda: not listener._commands)
            listener._answered()  # without a question, this does nothing
            with pytest.raises(ResponseError, match="at its limit"):  # said by the server before it hangs up
                refuse(ResponseError("at its limit"))
    assert not caplog.records


async def test_an_outage_without_a_channel(redis_server: RedisServer, prefix: str) -> None:
    async with Proxy(redis_server.port) as proxy, started(proxy.url, prefix=prefix) as backend:
        await backend.watch(["room"])
        backend.unwatch(["room"])
        before = backend.ready
        proxy.cut()
        await until(lambda: backend.ready is not before)
        await backend.ready.wait()


async def test_rights_that_are_taken_away(
    prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_feed, "_CHECK", 0.3)
    with redis("user app on >word ~* &* +@all") as server:
        url = f"redis://app:word@127.0.0.1:{server.port}"
        async with started(url, prefix=prefix) as backend, reading(backend, "room", "other") as reader:
            server.ask("ACL", "SETUSER", "app", "-subscribe", "-unsubscribe")
            server.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await until(
                lambda: any("cannot be listened to" in record.getMessage() for record in caplog.records)
            )
            await backend.ready.wait()
            # What is not pushed is found all the same.
            await backend.publish("room", "one")
            assert await reader.data(1) == ["one"]
            server.ask("ACL", "SETUSER", "app", "+subscribe")
            await backend.watch(["room", "other"])
            await until(lambda: at_rest(backend))
            await backend.publish("room", "two")
            assert await reader.data(2) == ["one", "two"]
            # An unsubscription that is refused: a new connection is subscribed to nothing.
            before = backend.ready
            reader.remove("other")
            await until(lambda: backend.ready is not before)
            await backend.ready.wait()
            await backend.publish("room", "three")
            assert await reader.data(3) == ["one", "two", "three"]


async def test_a_channel_that_is_left_while_it_is_compared(redis_server: RedisServer, prefix: str) -> None:
    async with started(redis_server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
        watched, position = backend._feed._watched["room"], reader.positions["room"]
        await publish_unpushed(backend, "room", "one")
        reader.remove("room")
        await backend._feed._compare([(watched, position)])
        assert watched.suspected == ""  # though it is behind


async def test_more_than_is_held(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_feed, "_HELD", 3)
    async with (
        Proxy(redis_server.port) as proxy,
        started(proxy.url, prefix=prefix) as backend,
        started(redis_server.url, prefix=prefix) as other,
        reading(backend, "room") as reader,
    ):
        proxy.hold(SCRIPTS["read"].sha)
        ids = [await publish_unpushed(other, "room", "x"), await other.publish("room", "x")]
        await proxy.held.wait()
        ids += [await other.publish("room", "x") for _ in range(10)]
        await until(lambda: backend._feed._watched["room"].again)
        proxy.release()
        await reader.until(12)
        ids.append(await other.publish("room", "last"))
        assert [item.id for item in await reader.until(13)] == ids


async def test_a_channel_is_read_once_for_what_was_pushed_early(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pushed before the caller knew its position. Without such a push, nothing is read."""
    async with started(redis_server.url, prefix=prefix) as backend, reading(backend, "other") as reader:
        asked = reads_of(backend, monkeypatch)
        await backend.watch(["early", "quiet"])
        begin = {name: (await backend.history(name)).position for name in ("early", "quiet")}
        id = await backend.publish("early", "one")
        await until(lambda: backend._feed._watched["early"].early)
        reader.positions.update(begin)
        for _ in range(2):
            backend.wake("quiet")
            backend.wake("early")
            await until(lambda: reader.items and at_rest(backend))
        await backend.publish("other", "last")
        await reader.until(2)
        assert (reader.items[0].id, asked) == (id, ["early"])


@pytest.mark.parametrize("fails", [False, True])
async def test_what_is_held_during_a_read(
    fails: bool, redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for its turn, and its bytes count. After a read that has failed, it is in the next one."""
    async with started(redis_server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
        feed = backend._feed
        watched = feed._watched["room"]
        answered, go_on = asyncio.Event(), asyncio.Event()
        original = feed._standing_after

        async def standing_after(*arguments: Any) -> Any:
            found = await original(*arguments)
            answered.set()
            await go_on.wait()
            if fails:
                raise BrokerError("planted")
            return found

        monkeypatch.setattr(feed, "_standing_after", standing_after)
        ids = [await publish_unpushed(backend, "room", "1"), await backend.publish("room", "2")]
        await answered.wait()
        ids += [await backend.publish("room", f"{n}") for n in range(3, 6)]
        await until(lambda: len(watched.held) == 3)
        go_on.set()
        await until(lambda: at_rest(backend))
        assert (len(watched.held), feed._size) == (0, 0)
        monkeypatch.setattr(feed, "_standing_after", original)
        ids.append(await backend.publish("room", "6"))
        assert [item.id for item in await reader.until(6)] == ids
        assert feed._size == 0


@pytest.mark.parametrize("first", ["left", "moved"])
async def test_leaving_while_a_channel_is_looked_at(
    first: str, redis_server: RedisServer, prefix: str
) -> None:
    async with (
        Proxy(redis_server.port) as proxy,
        started(proxy.url, prefix=prefix) as backend,
        started(redis_server.url, prefix=prefix) as other,
        reading(backend, *dict.fromkeys([first, "room", "left", "moved"])) as reader,
    ):
        feed = backend._feed
        proxy.hold(SCRIPTS["read"].sha)
        for name in reader.positions:
            await publish_unpushed(other, name, "missed")
            await other.publish(name, "pushed")
        await proxy.held.wait()
        await until(lambda: all(feed._watched[name].looking for name in reader.positions))
        reader.remove("left")
        # Joined again, as far as the backend can see: from another position.
        reader.positions["moved"] = (await other.history("moved")).position
        proxy.release()
        await reader.until(2)
        for name in ("room", "left", "moved"):
            await other.publish(name, f"last in {name}")
        await reader.until(4)
        assert [item.data for item in reader.items if isinstance(item, Event) and item.channel == "room"] == [
            *("missed", "pushed", "last in room"),
        ]
        assert [
            item.data for item in reader.items if isinstance(item, Event) and item.channel == "moved"
        ] == ["last in moved"]
        # One that is to be looked at, and has no position, or is left before its turn.
        await backend.watch(["early"])
        backend.wake()
        backend.unwatch(["room"])
        del reader.positions["room"]
        await until(lambda: at_rest(backend))
        reader.positions["early"] = (await other.history("early")).position
        await other.publish("early", "one")
        backend.wake("early")
        assert (await reader.data(5))[-1] == "one"


async def test_what_is_kept_no_longer(redis_server: RedisServer, prefix: str) -> None:
    async with started(redis_server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
        first = await backend.publish("room", "one")
        await reader.until(1)
        second = await publish_unpushed(backend, "room", "two")
        redis_server.ask("XTRIM", f"{{{prefix}:room}}", "MAXLEN", "0")
        backend.wake()
        assert (await reader.until(2))[1] == Gap("room", first, second)


async def test_an_event_that_claims_to_be_the_next(
    redis_server: RedisServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is from before the one that it follows, or of no life that there is: it is in no stream."""
    async with started(redis_server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
        first = Id.parse(await backend.publish("room", "one"))
        await reader.until(1)
        for forged in (first._replace(ms=first.ms - 5, seq=2), first._replace(epoch="00000000", seq=9)):
            redis_server.ask("PUBLISH", backend._keys.pushed("room"), f"{forged} sforged")
        await until(lambda: at_rest(backend))
        asked = backend._feed._lately.copy()
        await backend.publish("room", "two")
        assert await reader.data(2) == ["one", "two"]
        assert [id for _, id in asked] == [str(first)]


async def test_what_was_read_is_known_by_its_time_too(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is pushed after it was read is passed over, and not what only has the number of such an event."""
    async with started(redis_server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
        ids = [Id.parse(await publish_unpushed(backend, "room", f"{n}")) for n in range(2)]
        backend.wake()
        await reader.until(2)
        await until(lambda: at_rest(backend))
        asked = reads_of(backend, monkeypatch)
        pushed = backend._keys.pushed("room")
        redis_server.ask("PUBLISH", pushed, f"{ids[0]} s0")
        await backend.publish("room", "2")
        assert await reader.data(3) == ["0", "1", "2"]
        assert asked == []
        redis_server.ask("PUBLISH", pushed, f"{ids[0]._replace(ms=ids[1].ms + 60_000)} sother")
        await until(lambda: asked)
        await backend.publish("room", "3")
        assert await reader.data(4) == ["0", "1", "2", "3"]


async def test_leaving_while_the_channels_are_compared(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_feed, "_CHECK", 0.1)
    async with (
        Proxy(redis_server.port) as proxy,
        started(proxy.url, prefix=prefix) as backend,
        reading(backend, "room", "left") as reader,
    ):
        proxy.hold(SCRIPTS["standings"].sha)
        await proxy.held.wait()
        reader.remove("left")
        proxy.release()
        await backend.publish("room", "one")
        assert await reader.data(1) == ["one"]


async def test_a_gap_back_reaches_who_has_just_joined() -> None:
    """A broker that has lost its end gives numbers again that a new subscription believes to have."""
    from .test_channels import Odd

    backend = Odd()
    async with Channels(backend) as channels, channels.subscribe("a") as other:
        backend.reading = anyio.Event()
        ids = [await channels.publish("a", f"{n}") for n in range(3)]
        async with channels.subscribe("a") as ahead, anyio.create_task_group() as group:
            backend.slow = anyio.Event()
            entered = asyncio.Event()
            group.start_soon(enter, channels, entered, [], 1, "a")  # and one that waits for its history
            await until(lambda: len(channels._hub._outboxes) == 3)
            gap = Gap("a", channels._hub._positions["a"], "0-0-00000000")
            follows = Event("a", str(Id.parse(ids[0])._replace(epoch="00000000")), "new")
            backend.given = [gap, follows]
            backend._fresh.clear()
            backend.reading.set()
            backend.wake("a")
            assert [await anext(other), await anext(other)] == [gap, follows]
            assert [await anext(ahead), await anext(ahead)] == [gap, follows]
            backend.slow.set()
            await entered.wait()
            group.cancel_scope.cancel()


async def test_a_channel_without_a_node_is_left(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster, no node may have its slot at the moment. Who waits for it is told."""
    async with started(redis_server.url, prefix=prefix) as backend:
        monkeypatch.setattr(backend._feed, "_place", lambda slot: None)
        watching = asyncio.create_task(backend.watch(["room"]))
        await until(lambda: "room" in backend._feed._watched)
        assert backend._feed._watched["room"].listener is None
        backend.unwatch(["room"])
        with pytest.raises(BrokerError, match="channel 'room' was left before Redis answered"):
            await watching


async def test_the_id_of_a_memory_that_was_forgotten_meanwhile_is_not_kept(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer may be of before a slot has moved: it is of use once."""
    async with started(redis_server.url, prefix=prefix) as backend:
        feed = backend._feed
        asked = feed._pipe.request

        def forgetting(parts: Any) -> Any:
            feed.forget()
            return asked(parts)

        memory = await feed.memory_of("a")  # this opens the connection, on which the id is asked for, too
        assert feed.known_memory(0) == memory
        feed.forget()
        monkeypatch.setattr(feed._pipe, "request", forgetting)
        assert (await feed.memory_of("a"), feed.known_memory(0)) == (memory, "")
        monkeypatch.setattr(feed._pipe, "request", asked)
        assert (await feed.memory_of("a"), feed.known_memory(0)) == (memory, memory)
