"""Channels in a cluster of Redis, and where sentinels name the primary: slots move, servers are killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from unittest.mock import AsyncMock

import anyio
import pytest

from lilya.websockets.channels import BrokerError, Channels, Event, Gap, Member, Publisher

from .redis_cluster import NO_CLUSTER, RedisCluster, SentinelServers, can_cluster
from .redis_server import RedisServer, free_port

pytest.importorskip("redis", reason="the client of Redis is not installed: the extra `redis` brings it")


import redis
import redis.asyncio
from redis.asyncio.connection import SSLConnection
from redis.credentials import CredentialProvider
from redis.exceptions import MovedError, NoScriptError, RedisError, ResponseError

from lilya.websockets.channels import _cluster, _feed, _link, _places, _sentinel
from lilya.websockets.channels._backend import presence_of
from lilya.websockets.channels._feed import Feed
from lilya.websockets.channels._keys import slot_of
from lilya.websockets.channels._listening import Listener
from lilya.websockets.channels._places import Place
from lilya.websockets.channels._redis import RedisBackend
from lilya.websockets.channels._sentinel import Sentinels

from .test_channels_feed import publish_unpushed
from .test_channels_redis import RULES, Reader, connections, reading, started, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not can_cluster(), reason=NO_CLUSTER),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # as the client of Redis


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """Three primaries, each with a third of the slots; tests may move slots and leave them there."""
    with RedisCluster(3) as cluster:
        yield cluster


def slot(backend: RedisBackend, channel: str) -> int:
    return slot_of(backend._keys.of(channel)[0])


def another(cluster: RedisCluster, server: RedisServer) -> RedisServer:
    return next(each for each in cluster.primaries if each is not server)


# Random faults


def never_placed_again(patch: pytest.MonkeyPatch) -> None:
    """A channel that was unsubscribed stays so."""
    patch.setattr(Feed, "settle", lambda feed: None)


class Session:
    """Two processes that publish to some channels and read them, while slots move; and seeded faults.

    What is kept is checked against what came: all of it, once, in order, and no gap.
    """

    CHANNELS = 6

    def __init__(self, cluster: RedisCluster, prefix: str, seed: int) -> None:
        self.cluster = cluster
        self.prefix = prefix
        self.random = random.Random(seed)
        self.kept: dict[str, list[str]] = {f"{n}": [] for n in range(self.CHANNELS)}

    async def run(self, faults: int) -> list[str]:
        async with (
            started(self.cluster.url, prefix=self.prefix, publish_timeout=None) as self.one,
            started(self.cluster.url, prefix=self.prefix, publish_timeout=None) as self.two,
            reading(self.one, *self.kept) as self.reader,
        ):
            for _ in range(faults):
                await self.publish(self.random.randint(1, 12))
                await self.fault()
            await self.publish(12)
            with anyio.move_on_after(5):
                await until(lambda: not self.problems())
            return self.problems()

    async def publish(self, count: int) -> None:
        async def one() -> None:
            backend = self.random.choice((self.one, self.two))
            channel = self.random.choice(list(self.kept))
            self.kept[channel].append(await backend.publish(channel, "x"))

        await asyncio.gather(*(one() for _ in range(count)))

    async def fault(self) -> None:
        kind = self.random.choice(["move", "move", "steps", "steps", "drop", "kill", "rejoin"])
        channel = self.random.choice(list(self.kept))
        if kind in ("move", "steps"):
            number = slot(self.one, channel)
            source = self.cluster.owner(number)
            to = another(self.cluster, source)
            if kind == "move":
                moving = asyncio.create_task(anyio.to_thread.run_sync(self.cluster.move, number, to))
                while not moving.done():
                    await self.publish(3)
                await moving
                return
            self.cluster.begin(number, to)
            publishing = []
            for _ in range(3):  # of the keys of a channel some are there already: TRYAGAIN
                publishing.append(asyncio.create_task(self.publish(6)))
                await anyio.to_thread.run_sync(self.cluster.move_keys, number, source, to, 1)
                await asyncio.wait(publishing, timeout=0.05)
                await anyio.to_thread.run_sync(self.cluster.move_keys, number, source, to)
                await asyncio.wait(publishing, timeout=0.05)
            self.cluster.end(number, source, to)
            await asyncio.gather(*publishing)
        elif kind == "rejoin":
            before = self.reader.positions[channel]
            self.reader.remove(channel)
            await self.reader.add(channel)
            # What came between is in the history, as for everybody who joins.
            history = await self.two.history(channel, since=before)
            assert history.complete, f"{channel}: a gap after {before}"
            at = self.one.order_of(self.reader.positions[channel])
            missed = [event for event in history.events if self.one.order_of(event.id) <= at]
            seen = {item.id for item in self.reader.items}
            self.reader.items += [event for event in missed if event.id not in seen]
        else:
            server = self.random.choice(self.cluster.primaries)
            server.ask("CLIENT", "KILL", "TYPE", "pubsub" if kind == "drop" else "normal")

    def problems(self) -> list[str]:
        found = []
        for channel, kept in self.kept.items():
            items = [item for item in self.reader.items if item.channel == channel]
            came = sorted((item.id for item in items), key=self.one.order_of)
            if came != sorted(kept, key=self.two.order_of):
                found.append(f"{channel}: kept {len(kept)}, came {len(items)}, {len(set(came))} in all")
            found += [f"{item}" for item in items if isinstance(item, Gap)]
        return found


# So many sessions, and so many faults in each: `nox -s cluster` runs more.
SESSIONS, FAULTS = (int(part) for part in os.environ.get("LILYA_CLUSTER_FAULTS", "2x12").split("x"))


@pytest.mark.limit(60 + FAULTS)
@pytest.mark.parametrize("seed", range(SESSIONS))
async def test_nothing_is_lost(
    seed: int, cluster: RedisCluster, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_feed, "_CHECK", 0.3)
    monkeypatch.setattr(_link, "_LAST_DELAY", 0.1)
    assert await Session(cluster, prefix, seed).run(FAULTS) == []


async def test_a_planted_fault(
    cluster: RedisCluster, prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The check above finds it."""
    never_placed_again(monkeypatch)
    monkeypatch.setattr(_feed, "_CHECK", 3600.0)
    assert await Session(cluster, prefix, 0).run(12) != []


# One rule at a time


@pytest.mark.limit(20)
async def test_where_a_slot_is_is_found_again(
    cluster: RedisCluster, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked is sent on to the new node, and what was heard at the old one is heard there."""
    monkeypatch.setattr(_feed, "_CHECK", 3600.0)  # the old node says that the slot is elsewhere
    async with (
        started(cluster.url, prefix=prefix) as one,
        started(cluster.url, prefix=prefix) as two,
        reading(one, "room") as reader,
    ):
        ids = [await two.publish("room", "before")]
        number = slot(one, "room")
        await anyio.to_thread.run_sync(cluster.move, number, another(cluster, cluster.owner(number)))
        ids += [await two.publish("room", f"{n}") for n in range(3)]
        assert [item.id for item in await reader.until(4)] == ids
        assert [event.id for event in (await one.history("room", last=9)).events] == ids
        assert await one.names() == {"room"}


async def test_while_a_slot_is_on_its_way(cluster: RedisCluster, prefix: str) -> None:
    """ASK for a channel that is there already, TRYAGAIN while only a part of its keys is."""
    async with started(cluster.url, prefix=prefix) as backend:
        ids = [await backend.publish("room", "before")]
        number = slot(backend, "room")
        to = another(cluster, cluster.owner(number))
        source = cluster.begin(number, to)
        cluster.move_keys(number, source, to, 1)
        publishing = [asyncio.create_task(backend.publish("room", f"{n}")) for n in range(5)]
        await asyncio.wait(publishing, timeout=0.1)
        assert not any(task.done() for task in publishing)
        cluster.move_keys(number, source, to)
        ids += await asyncio.gather(*publishing)
        assert [event.id for event in (await backend.history("room", last=9)).events] == ids
        # Cancelled on the way, and nobody is in the lane any more.
        cluster.end(number, source, to)
        source, to = to, source
        cluster.begin(number, to)
        cluster.move_keys(number, source, to, 1)
        late = asyncio.create_task(backend.publish("room", "cancelled"))
        lanes: Any = backend._publishing
        await until(lambda: any(lane.timer for lane in lanes._lanes.values()))
        late.cancel()
        await until(lambda: not lanes._lanes)
        cluster.move_keys(number, source, to)
        cluster.end(number, source, to)
        assert (await backend.history("room", last=1)).events[0].data == "4"


async def test_listing_members_while_their_slot_is_on_its_way(
    cluster: RedisCluster, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new node answers before it has the slot, and the old node's cursor is of no use to it."""
    info = json.dumps("x" * 500)
    # With keys, all five keys of Redis exist. Otherwise, the new node answers `TRYAGAIN` until it has all.
    members = [Member("room", f"{n}", info, f"{n}") for n in range(2_000)]
    async with started(cluster.url, prefix=prefix) as backend:
        await backend.appear(members, 600)
        about, pages = backend._about_members, 0
        number = slot(backend, presence_of("room"))
        to = another(cluster, cluster.owner(number))
        source = cluster.begin(number, to)

        async def moved(*arguments: Any, **options: Any) -> Any:
            nonlocal pages
            pages += 1
            if pages == 2:
                await anyio.to_thread.run_sync(cluster.move_keys, number, source, to)
            return await about(*arguments, **options)

        monkeypatch.setattr(backend, "_about_members", moved)
        assert await backend.members("room") == members
        assert pages > 3
        cluster.end(number, source, to)


async def test_how_many_connections_there_are(prefix: str) -> None:
    """As many to each primary as there are to a server that is alone."""
    with RedisCluster(3) as cluster:

        def there() -> list[int]:
            return [connections(server) for server in cluster.primaries]

        async with Channels(cluster.url, prefix=prefix) as channels:
            # One more for a moment, on which a node is asked where the slots are.
            await until(lambda: there() == [1, 1, 1])
            for number in range(30):
                await channels.publish(f"{number}", "x")
            assert there() == [1, 1, 1]
            async with channels.subscribe(*map(str, range(30))):
                assert there() == [3, 3, 3]
        await until(lambda: there() == [0, 0, 0])


async def test_members_and_channels(cluster: RedisCluster, prefix: str) -> None:
    async with Channels(cluster.url, prefix=prefix) as channels:
        async with channels.subscribe("a", "b", "c", presence=True) as subscription:
            for name in "abc":
                await channels.publish(name, name)
            assert sorted([(await anext(subscription)).data for _ in "abc"]) == ["a", "b", "c"]  # type: ignore[union-attr]
            await channels.backend.appear([Member(name, "1", "{}") for name in "abc"], 60)
            assert {(await anext(subscription)).type for _ in "abc"} == {"join"}  # type: ignore[union-attr]
        assert [await channels.count(name) for name in "abcd"] == [1, 1, 1, 0]
        assert await channels.backend.names() == {"a", "b", "c"}


async def test_a_node_that_has_lost_its_memory(prefix: str) -> None:
    """Its channels have gaps, also those that were empty; the channels of other nodes have none."""
    with RedisCluster(3) as cluster:
        async with started(cluster.url, prefix=prefix) as backend:
            names = [f"{n}" for n in range(12)]
            positions = {name: (await backend.history(name)).position for name in names}
            async with reading(backend, *names) as reader:
                server = cluster.primaries[0]
                for name in names:
                    await backend.publish(name, "lost, if it was there")
                await reader.until(len(names))
                there = [name for name in names if cluster.owner(slot(backend, name)) is server]
                assert 0 < len(there) < len(names)
                server.kill()
                await until(lambda: not backend.ready.is_set())
                await anyio.to_thread.run_sync(server.start)
                await backend.ready.wait()
                for name in names:
                    await backend.publish(name, "new")
                    assert (await backend.history(name, since=positions[name])).complete == (
                        name not in there
                    )
                items = await reader.until(2 * len(names) + len(there))
                assert sorted(item.channel for item in items if isinstance(item, Gap)) == sorted(there)


class Load:
    """Publishes to some channels all the time, as fast as one of each is answered."""

    def __init__(self, backend: RedisBackend, *channels: str) -> None:
        self.backend = backend
        self.kept: dict[str, list[str]] = {channel: [] for channel in channels}
        self._ends = asyncio.Event()

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._publish(channel)) for channel in self.kept]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ends.set()
        await asyncio.gather(*self._tasks)

    async def _publish(self, channel: str) -> None:
        while not self._ends.is_set():
            self.kept[channel].append(await self.backend.publish(channel, "x"))
            await asyncio.sleep(0.01)

    async def so_many_more(self, count: int) -> None:
        aims = {channel: len(kept) + count for channel, kept in self.kept.items()}
        await until(lambda: all(len(self.kept[channel]) >= aim for channel, aim in aims.items()))

    def problems(self, reader: Reader) -> list[str]:
        """What was kept and did not come, nor a gap in its place; what came twice, or out of order."""
        found = []
        order = self.backend.order_of
        for channel, kept in self.kept.items():
            items = [item for item in reader.items if item.channel == channel]
            came = [item.id for item in items if isinstance(item, Event)]
            gaps = [(item.since, item.id) for item in items if isinstance(item, Gap)]
            if len(set(came)) != len(came):
                found.append(f"{channel}: twice")
            if not gaps and came != sorted(came, key=order):
                found.append(f"{channel}: out of order")
            lost = [id for id in kept if id not in set(came)]
            found += [f"{channel}: lost {id}" for id in lost if not gaps]
        return found


async def test_a_primary_is_killed_and_another_one_demoted(prefix: str) -> None:
    """A replica takes over. A demoted primary keeps the connection, and says that nobody is subscribed."""
    with RedisCluster(3, replicas=True) as cluster:
        async with (
            started(cluster.url, prefix=prefix, publish_timeout=None) as one,
            started(cluster.url, prefix=prefix, publish_timeout=None) as two,
            reading(one, *"abcdef") as reader,
        ):
            async with Load(two, *"abcdef") as load:
                await load.so_many_more(10)
                cluster.replicas[1].ask("CLUSTER", "FAILOVER")
                await load.so_many_more(30)
                await until(lambda: cluster.owners(8000) == [cluster.replicas[1]])
                await load.so_many_more(30)
                cluster.primaries[0].kill()
                await load.so_many_more(50)
            with anyio.move_on_after(5):
                await until(lambda: not load.problems(reader))
            assert load.problems(reader) == []
            await until(lambda: one.ready.is_set() and two.ready.is_set())
            # Who has no slots any more is left alone.
            servers: Any = one._servers
            await until(lambda: len(servers.nodes) == 3)


@pytest.mark.parametrize("joining", [False, True], ids=["", "another one begins"])
async def test_a_subscription_that_both_sides_end(
    joining: bool,
    cluster: RedisCluster,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The node says that it has ended it, and then that this cannot be done there. No other is concerned."""
    lost = []
    astray = Feed.astray

    def recorded(feed: Feed, watched: Any, error: Any) -> None:
        lost.append(watched.name)
        astray(feed, watched, error)

    monkeypatch.setattr(Feed, "astray", recorded)
    async with started(cluster.url, prefix=prefix) as backend:
        names = [f"{n}" for n in range(200)]
        node = cluster.owner(slot(backend, "0"))
        first, second, third = [name for name in names if cluster.owner(slot(backend, name)) is node][:3]
        async with reading(backend, first, second) as reader:
            reader.remove(first)
            # The command is not sent yet, because this task does not wait.
            cluster.move(slot(backend, first), another(cluster, node))
            if joining:
                await reader.add(third)
            for count in (1, 2):
                id = await backend.publish(second, f"{count}")
                assert (await reader.until(count))[-1].id == id
    assert lost == []
    assert "is away" not in caplog.text


async def test_sentinels_name_another_primary(prefix: str) -> None:
    with SentinelServers() as servers:
        async with (
            started(servers.url, prefix=prefix, publish_timeout=None) as one,
            started(servers.url, prefix=prefix, publish_timeout=None) as two,
            reading(one, "a", "b") as reader,
        ):
            async with Load(two, "a", "b") as load:
                await load.so_many_more(10)
                servers.primary.kill()
                await load.so_many_more(50)
            with anyio.move_on_after(5):
                await until(lambda: not load.problems(reader))
            assert load.problems(reader) == []
            assert servers.named() == servers.replica.port
        publisher = Publisher(servers.url, prefix=prefix)
        with publisher:
            id = await anyio.to_thread.run_sync(publisher.publish, "a", "by a thread")
        await cannot_start(servers.url.replace("the-primary", "other"), "it knows no service 'other'", prefix)
        # A sentinel that does not answer is passed over. And only one line asks, so that all lines end at the
        # same server.
        async with started(servers.url.replace("://", f"://127.0.0.1:{free_port()},"), prefix=prefix) as one:
            assert [event.id for event in (await one.history("a", last=1)).events] == [id]
            link: Any = one._servers
            find = link._find = AsyncMock()
            await (await link.connect("asking")).disconnect()
            find.assert_not_called()


def named(port: int, epoch: int | None) -> tuple[bytes, bytes]:
    """What a sentinel answers: the address of the primary; and its fields, which a user may not see."""
    address = b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%d\r\n" % (len(str(port)), port)
    if epoch is None:
        return address, b"-NOPERM this user may not run the command\r\n"
    fields = b"*4\r\n$5\r\nflags\r\n$6\r\nmaster\r\n$12\r\nconfig-epoch\r\n$%d\r\n%d\r\n"
    return address, fields % (len(str(epoch)), epoch)


@contextlib.asynccontextmanager
async def sentinels_that_say(said: list[tuple[bytes, bytes]]) -> AsyncIterator[str]:
    """The URL of a primary that these sentinels name. An empty answer is none."""
    serving: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    def listener(number: int) -> Callable[..., Awaitable[None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving[asyncio.current_task()] = writer
            with contextlib.suppress(ConnectionError):  # whoever asks may leave before the answer
                while data := await reader.read(65536):
                    if b"GET-MASTER-ADDR-BY-NAME" in data:
                        writer.write(said[number][0])
                    elif b"SENTINEL" in data:
                        writer.write(said[number][1])
                    else:
                        writer.write(b"+OK\r\n" * data.count(b"SETINFO"))
            writer.close()

        return serve

    async with contextlib.AsyncExitStack() as stack:
        hosts = []
        for number in range(len(said)):
            server = await stack.enter_async_context(
                await asyncio.start_server(listener(number), "127.0.0.1", 0)
            )
            hosts.append(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        try:
            yield f"redis+sentinel://{','.join(hosts)}/the-primary"
        finally:
            # Whoever asks may have been cancelled in the middle. No connection must outlive the event loop.
            for writer in serving.values():
                writer.transport.abort()
            await asyncio.wait([task for task in serving if task is not None])


@pytest.mark.parametrize(
    ("said", "found"),
    [
        pytest.param([(1, 3), (2, 4), (1, 3)], {2}, id="the last failover counts"),
        pytest.param([(1, None), (2, 4), (1, None)], {2}, id="some may not say which it was"),
        pytest.param([(1, 3), (2, 3), (2, 3)], {2}, id="otherwise, most of them"),
        pytest.param([(1, None), (2, None)], {1, 2}, id="otherwise, each has its turn"),
    ],
)
async def test_sentinels_that_disagree(said: list[tuple[int, int | None]], found: set[int]) -> None:
    """One that is cut off from the others names the old primary for ever."""
    async with sentinels_that_say([named(*each) for each in said]) as url:
        sentinels = Sentinels(Place.of(url))
        assert {(await sentinels.find())[1] for _ in range(40)} == found


async def test_sentinels_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are passed over, and the error says what each has answered."""
    monkeypatch.setattr(_sentinel, "PATIENCE", 0.2)
    answers = b"+OK\r\n", b":1\r\n", b"*1\r\n$1\r\na\r\n", b"nothing\r\n", b""
    wrong = [(answer, named(1, 1)[1]) for answer in answers]
    async with sentinels_that_say([*wrong, (named(1, 1)[0], b":1\r\n"), named(2, 2)]) as url:
        assert await Sentinels(Place.of(url)).find() == ("127.0.0.1", 2)
    async with sentinels_that_say(wrong) as url:
        with pytest.raises(RedisError, match="no sentinel names a primary") as caught:
            await Sentinels(Place.of(url)).find()
    said = str(caught.value)
    assert said.count("its answer cannot be read") == 3
    assert said.count("no answer within 0.2 s") == 1
    assert said.count("127.0.0.1:") == len(wrong)


async def test_a_primary_that_still_answers_after_a_failover(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left, because what is published there is lost. Only a newer answer is a reason to leave it."""
    monkeypatch.setattr(_sentinel, "AGAIN", 0.01)
    old, said = redis_server, [named(redis_server.port, 1), named(redis_server.port, 1)]
    with RedisServer() as new:
        async with (
            sentinels_that_say(said) as url,
            started(url, prefix=prefix) as backend,
            reading(backend, "room") as reader,
        ):
            answered: deque[Any] = deque(maxlen=4)
            answer = Sentinels._answer

            async def recorded(*arguments: Any) -> Any:
                answered.append(await answer(*arguments))
                return answered[-1]

            monkeypatch.setattr(Sentinels, "_answer", recorded)
            ready = backend.ready
            # One that is cut off and names somebody else; then a failover that was taken back; then nothing.
            for each in (named(new.port, 1), named(old.port, 2), (b"*-1\r\n", b"")):
                said[1] = each
                answered.clear()
                await until(lambda: len(answered) == 4)
                assert backend.ready is ready
                assert ready.is_set()
            await backend.publish("room", "old")
            said[0] = named(new.port, 3)
            await until(lambda: backend.ready is not ready)
            await backend.ready.wait()
            await backend.publish("room", "new")
            assert b"\r\nnew\r\n" in new.ask("XRANGE", f"{{{prefix}:room}}", "-", "+")
            assert await reader.data(3) == [
                "old",
                None,
                "new",
            ]  # the new one has not got what the old one had


async def test_a_node_that_is_now_of_another_cluster(
    cluster: RedisCluster, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not followed, although its cluster has had more failovers, unless no other node answers."""
    with RedisCluster(1) as other:
        stranger = "127.0.0.1", other.primaries[0].port
        monkeypatch.setattr("random.shuffle", lambda those: those.sort(key=lambda each: each == stranger))
        async with started(f"{cluster.url},127.0.0.1:{stranger[1]}", prefix=prefix) as backend:
            servers: Any = backend._servers
            before = servers.primaries()
            assert stranger not in servers.nodes
            monkeypatch.setattr("random.shuffle", lambda those: those.sort(key=lambda each: each != stranger))
            asked, ask, answering = [], servers._ask, True

            async def recorded(address: Any) -> Any:
                asked.append(address)
                if not answering and address != stranger:
                    raise RedisError("planted")
                return await ask(address)

            monkeypatch.setattr(servers, "_ask", recorded)
            for _ in range(3):
                asked.clear()
                servers._epoch = 0
                servers.want()
                await until(lambda: len(asked) > 1 and servers.ready.is_set())
                assert asked[0] == stranger
                assert servers.primaries() == before
            answering = False
            servers.want()
            await until(lambda: list(servers.nodes) == [stranger])
            answering = True


async def test_a_channel_that_is_left_before_it_is_found_at_the_wrong_node(
    cluster: RedisCluster, prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Then it is not looked for anywhere else."""
    async with started(cluster.url, prefix=prefix) as backend:
        servers: Any = backend._servers
        number = slot(backend, "room")
        right = servers.owner(number)
        servers._owners[number] = next(node for node in servers.primaries() if node is not right)
        refuse, astray = Listener._refuse, AsyncMock()

        def left(listener: Listener, error: ResponseError) -> None:
            backend.unwatch(["room"])
            refuse(listener, error)

        monkeypatch.setattr(Listener, "_refuse", left)
        monkeypatch.setattr(Feed, "astray", astray)
        with pytest.raises(BrokerError, match="channel 'room' was left"):
            await backend.watch(["room"])
        for _ in range(3):
            await backend.publish("room", "one")
        astray.assert_not_called()
    assert "is away" not in caplog.text


async def test_a_failover_is_told_until_its_primary_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first time, the process may have been connecting to the old primary, with nothing to leave yet."""
    monkeypatch.setattr(_sentinel, "AGAIN", 0.01)
    said = [named(1, 1)]
    async with sentinels_that_say(said) as url:
        sentinels = Sentinels(Place.of(url))
        assert await sentinels.find() == ("127.0.0.1", 1)
        said[0] = named(2, 2)
        assert [await sentinels.failover() for _ in range(2)] == [("127.0.0.1", 2)] * 2
        assert await sentinels.find() == ("127.0.0.1", 2)
        said[0] = named(2, 3)  # another failover, after which it is the primary again
        with anyio.move_on_after(0.1):
            await sentinels.failover()
            pytest.fail("nothing has changed")


async def test_a_publisher_without_an_event_loop(cluster: RedisCluster, prefix: str) -> None:
    async with started(cluster.url, prefix=prefix) as backend:
        with Publisher(cluster.url, prefix=prefix) as publisher:
            for name in "abc":
                id = await anyio.to_thread.run_sync(publisher.publish, name, "by a thread")
                assert [event.id for event in (await backend.history(name, last=1)).events] == [id]


async def test_what_waits_for_a_node(
    cluster: RedisCluster, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot without a node is waited for: by who publishes, and by who listens."""

    count = 0

    async def nothing_new() -> None:
        nonlocal count
        count += 1
        if count == 1:
            raise RedisError("planted")

    async with started(cluster.url, prefix=prefix) as backend:
        servers: Any = backend._servers
        number = slot(backend, "room")
        await backend.watch(["room"])
        ready = backend.ready
        with monkeypatch.context() as patch:
            patch.setattr(servers, "_refresh", nothing_new)
            servers._owners[number] = None
            servers.want()
            await until(lambda: not backend._feed._watched["room"].confirmed)
            publishing = asyncio.create_task(backend.publish("room", "one"))
            watching = asyncio.create_task(backend.watch(["room"]))
            await until(lambda: count > 2)
            assert backend.ready is not ready
            assert not backend.ready.is_set()
            assert not publishing.done()
            assert not watching.done()
        # Everybody is asked, though nobody knows anything as new as what is known here.
        servers._epoch = 1 << 40
        servers.want()
        id = await publishing
        await watching
        await backend.ready.wait()
        assert (await backend.history("room")).position == id
        servers._epoch = 0
        # And stopped, while somebody waits.
        monkeypatch.setattr(servers, "_refresh", nothing_new)
        servers._owners[number] = None
        publishing = asyncio.create_task(backend.publish("room", "two"))
        await until(lambda: backend._publishing._lanes)  # type: ignore[attr-defined]
    with pytest.raises(BrokerError, match="stopped before Redis answered"):
        await publishing


@pytest.mark.limit(20)
async def test_events_are_pushed_by_each_node(
    cluster: RedisCluster, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come without being looked for."""
    monkeypatch.setattr(_feed, "_CHECK", 3600.0)
    names = [f"{n}" for n in range(12)]
    async with started(cluster.url, prefix=prefix) as backend, reading(backend, *names) as reader:
        assert len({cluster.owner(slot(backend, name)).port for name in names}) == 3
        ids = [await backend.publish(name, "x") for name in names]
        assert sorted(item.id for item in await reader.until(12)) == sorted(ids)


@pytest.mark.parametrize("name", ["asking", "publishing"])
async def test_limits_are_for_progress(name: str, cluster: RedisCluster, prefix: str) -> None:
    """A large answer is waited for as long as something comes, from any node. The one to a publish is not."""
    async with started(cluster.url, prefix=prefix, publish_timeout=60) as backend:
        route: Any = getattr(backend, f"_{name}")
        unanswered = _link.Request((b"GET", b"{a}"), asyncio.get_running_loop().create_future(), None)
        route.request = lambda parts, *, numbered: unanswered
        answer = asyncio.create_task(route.answer("ask", unanswered.parts))
        await until(lambda: unanswered in route._awaited)
        unanswered.until = 0.0  # its time is over
        route.came()
        route._give_up()
        assert unanswered.future.done() == (name == "publishing")
        route._came_at = -math.inf
        route._give_up()
        with pytest.raises(BrokerError, match="no answer from Redis"):
            await answer


async def test_a_slot_that_loses_its_data_on_the_way(cluster: RedisCluster, prefix: str) -> None:
    """A channel that was empty may have had events meanwhile, so it has a gap."""
    async with started(cluster.url, prefix=prefix) as backend, reading(backend, "room") as reader:
        number, position = slot(backend, "room"), reader.positions["room"]
        to = another(cluster, cluster.owner(number))
        source = cluster.begin(number, to)
        source.ask("DEL", backend._keys.memory_of(number))
        cluster.end(number, source, to)
        (gap,) = await reader.until(1)
        assert isinstance(gap, Gap)
        assert gap.since == position


async def test_last_events_that_were_never_pushed(
    cluster: RedisCluster, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channels of each slot are compared for themselves."""
    monkeypatch.setattr(_feed, "_CHECK", 0.3)
    names = [f"{n}" for n in range(90)]
    async with started(cluster.url, prefix=prefix) as backend, reading(backend, *names) as reader:
        ids = [await publish_unpushed(backend, name, name) for name in names]
        assert sorted(item.id for item in await reader.until(90)) == sorted(ids)


async def test_a_node_that_was_cut_off_has_an_old_view(
    cluster: RedisCluster, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(cluster.url, prefix=prefix) as backend:
        servers: Any = backend._servers
        owners, ask = list(servers._owners), servers._ask
        old, *_ = servers.nodes

        async def asked(address: Any) -> Any:
            old_view = _cluster.View(0, [(0, 16_383, [old])], servers._ids)
            return old_view if address == old else await ask(address)

        monkeypatch.setattr(servers, "_ask", asked)
        servers._first = old
        await servers._refresh()
        assert servers._owners == owners


async def test_a_channel_that_is_looked_for_at_the_wrong_node(cluster: RedisCluster, prefix: str) -> None:
    async with started(cluster.url, prefix=prefix) as backend:
        servers: Any = backend._servers
        number = slot(backend, "room")
        right = servers._owners[number]
        servers._owners[number] = next(node for node in servers.primaries() if node is not right)
        async with reading(backend, "room") as reader:
            await backend.publish("room", "one")
            assert await reader.data(1) == ["one"]
            assert servers._owners[number] is right
            # The node says of some channel, of which nobody knows any more, that it is unsubscribed.
            right.listener._confirm(b"sunsubscribe", b"unknown")
            # One was left, and its slot goes.
            watched = backend._feed._watched["room"]
            reader.remove("room")
            right.listener._commands.appendleft((b"SUNSUBSCRIBE", deque([watched])))
            right.listener._refuse(MovedError("1 127.0.0.1:1"))
            right.listener._commands.appendleft((b"SSUBSCRIBE", deque([watched])))
            right.listener._refuse(MovedError("1 127.0.0.1:1"))
            assert backend._feed._watched == {}


async def test_refused_in_a_cluster(cluster: RedisCluster, prefix: str) -> None:
    async with started(cluster.url, prefix=prefix) as backend:
        _, state = backend._keys.of("room")
        cluster.owner(slot(backend, "room")).ask("SET", state, "another's")
        with pytest.raises(BrokerError, match="Redis refuses: WRONGTYPE"):
            await backend.publish("room", "one")
        backend._lose(BrokerError("planted"))
        await backend.publish("other", "one")


async def test_a_node_that_does_not_answer(
    cluster: RedisCluster, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for it is told so. The channels of others are published to, and looked at."""
    async with started(cluster.url, prefix=prefix) as backend:
        names = [f"{n}" for n in range(9)]
        async with reading(backend, *names) as reader:
            # Short times, because after a second without an answer the cluster takes the node for dead.
            monkeypatch.setattr(_link, "PATIENCE", 0.2)
            monkeypatch.setattr(backend._publishing, "timeout", 0.25)
            server = cluster.owner(slot(backend, "0"))
            others = [name for name in names if cluster.owner(slot(backend, name)) is not server]
            server.pause()
            try:
                with pytest.raises(BrokerError, match=r"no answer from Redis at .* within 0\.25 seconds"):
                    await backend.publish("0", "late")
                with pytest.raises(BrokerError, match=r"no answer .*: no answer"):
                    await backend.publish("0", "late")
                monkeypatch.setattr(backend._publishing, "timeout", 10)
                for name in others:
                    await backend.publish(name, "one")
                backend.wake()
                assert sorted(item.channel for item in await reader.until(len(others))) == sorted(others)
            finally:
                server.go_on()
            await backend.ready.wait()


# One step at a time


def routed(backend: RedisBackend, number: int) -> tuple[Any, Any]:
    """A lane that nobody else uses, and a request that was sent in it."""
    route: Any = backend._publishing
    lane = _cluster._Lane(route, backend._keys.of("apart")[0])
    future = asyncio.get_running_loop().create_future()
    return lane, _cluster._Routed((b"PING",), future, number, lane, 0)


async def test_steps_of_a_lane(cluster: RedisCluster, prefix: str) -> None:
    async with started(cluster.url, prefix=prefix) as backend:
        # A number that is behind tells nothing, and another one could have it kept twice.
        lane, request = routed(backend, 3)
        request.doubtful = True
        lane.accepted = 5
        lane.waiting.append(request)
        lane.go_on()
        with pytest.raises(BrokerError, match="It may have been kept"):
            await request.future
        lane.back(request)  # it is in no pipe
        assert lane.waiting == []
        # What was done keeps its number as long as that may matter; what was sent on has none.
        for doubtful in (False, True):
            lane, request = routed(backend, 3)
            request.doubtful, request.is_put, lane.under_way = doubtful, True, 2
            lane.back(request)
            assert request.number == (3 if doubtful else 0)
            assert lane.waiting == [request]
        # While something is under way elsewhere, what comes later waits.
        lane, request = routed(backend, 0)
        lane.under_way = 1
        lane.add(request)
        assert lane.waiting == [request]
        # Only what has a way of its own is taken back.
        node = backend._servers.primaries()[0]  # type: ignore[union-attr]
        ping = node.publishing.request((b"PING",))
        lane.route.take_back(node, all=True)
        assert await ping.future == b"PONG"


class Answers:
    """A connection that answers as it was told to."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.sent: list[bytes] = []

    async def send_packed_command(self, pieces: list[bytes], check_health: bool) -> None:
        self.sent += pieces

    async def read_response(self) -> Any:
        answer = self.answers.pop(0) if self.answers else b"OK"
        if isinstance(answer, Exception):
            raise answer
        return answer


def a_pipe() -> tuple[_link.Pipe, Callable[..., _link.Request]]:
    """One that has no server, and how something is asked on it."""

    async def prepare(connection: Any, line: str) -> None:
        """Nothing."""

    link = _link.Link({}, "nowhere", prepare, ())
    pipe = _link.Pipe(link, "publishing", most=10, timeout=1, patient=False)

    def put(*, number: int = 0, doubtful: bool = False, asks: bool = False) -> _link.Request:
        request: Any = Asks if asks else _link.Request
        made: _link.Request = request((b"X",), asyncio.get_running_loop().create_future(), number)
        made.doubtful = doubtful
        pipe._queue.append(made)
        return made

    return pipe, put


class Asks(_link.Request):
    asks = True


async def test_scripts_that_are_lost_while_it_is_not_known_what_was_done() -> None:
    """The number of before is kept as long as it means something."""
    pipe, put = a_pipe()
    first, second = put(number=1, doubtful=True), put()
    await pipe._exchange(Answers(NoScriptError(), NoScriptError()))  # type: ignore[arg-type]
    assert (first.number, second.number) == (1, 0)
    await pipe._exchange(Answers(NoScriptError(), b"kept"))  # type: ignore[arg-type]
    assert await second.future == b"kept"
    with pytest.raises(ResponseError, match="its scripts were lost"):
        await first.future


async def test_an_answer_to_asking_tells_nothing() -> None:
    pipe, put = a_pipe()
    connection = Answers(ResponseError("who asks?"), b"kept", b"OK", b"too")
    for request, answer in ((put(asks=True), b"kept"), (put(asks=True), b"too")):
        await pipe._exchange(connection) if not request.future.done() else None  # type: ignore[arg-type]
        assert await request.future == answer
    assert all(piece.startswith(_link.packed(b"ASKING")) for piece in connection.sent)


# Starting


async def test_wrong_servers(cluster: RedisCluster, redis_server: RedisServer, prefix: str) -> None:
    node = cluster.primaries[0]
    for url, words in [
        (node.url, "it is a node of a cluster: use a URL that starts with redis\\+cluster://"),
        (
            redis_server.url.replace("redis://", "redis+cluster://"),
            "it does not say which node has which slot",
        ),
        (
            redis_server.url.replace("redis://", "redis+sentinel://").replace("/0", "/name"),
            "no sentinel names",
        ),
    ]:
        await cannot_start(url, words, prefix)
    with RedisServer("cluster-enabled yes", f"cluster-port {free_port()}") as alone:
        await cannot_start(alone.url.replace("redis://", "redis+cluster://"), "it knows no slots", prefix)


async def test_users_with_few_rights(cluster: RedisCluster, prefix: str) -> None:
    """Those that the page on channels names are enough, and what is missing is found out at the start."""
    in_cluster = "+spublish +ssubscribe +sunsubscribe +cluster|slots +cluster|info +asking"
    few = f"on >word ~{{{prefix}:* &{{{prefix}:* {RULES} {in_cluster}"
    for server in cluster.primaries:
        server.ask("ACL", "SETUSER", f"few-{prefix}", "resetchannels", *few.split())
        server.ask("ACL", "SETUSER", f"mute-{prefix}", "resetchannels", "on", ">word", "~*", "+@all")
    url = cluster.url.replace("://", f"://few-{prefix}:word@")
    async with started(url, prefix=prefix) as backend, reading(backend, "room") as reader:
        number = slot(backend, "room")
        to = another(cluster, cluster.owner(number))
        await backend.publish("room", "one")
        await anyio.to_thread.run_sync(cluster.move, number, to)
        await backend.publish("room", "two")
        assert await reader.data(2) == ["one", "two"]
    words = r"may not push events: .*Allow it `\+spublish`, `\+ssubscribe` and `\+sunsubscribe`"
    await cannot_start(cluster.url.replace("://", f"://mute-{prefix}:word@"), words, prefix)


@pytest.mark.parametrize("name", ["", "?", None, b"", b"?"])
def test_a_node_that_does_not_know_its_name(name: Any) -> None:
    assert _cluster._host(name, "asked") == "asked"
    assert _cluster._host(b"other", "asked") == "other"


async def cannot_start(url: str, words: str, prefix: str) -> None:
    backend = RedisBackend(url, prefix=prefix)
    with pytest.raises(BrokerError, match=words):
        await backend.start()
    await backend.stop()


@pytest.mark.parametrize(
    ("url", "kind", "where", "first", "database"),
    [
        ("valkey://host", "server", "host:6379", ("host", 6379), 0),
        ("valkeys://host:1/2", "server", "host:1", ("host", 1), 2),
        ("redis+cluster://a,b:2", "cluster", "a:6379,b:2", ("a", 6379), 0),
        ("valkeys+cluster://user:secret@[::1]:7,b", "cluster", "::1:7,b:6379", ("::1", 7), 0),
        ("redis+sentinel://a,b:2/the%20one/3", "sentinel", "a:26379,b:2/the one", ("a", 26379), 3),
    ],
)
def test_urls(url: str, kind: str, where: str, first: tuple[str, int], database: int) -> None:
    place = Place.of(url)
    assert (place.kind, place.where, place.addresses[0], place.database) == (kind, where, first, database)
    assert (place.arguments.get("connection_class") is SSLConnection) == ("valkeys" in url)


@pytest.mark.parametrize(
    ("version", "is_new"),
    [("5.0.1", False), ("5.2.0", False), ("5.2.1", True), ("8.1.0b2", True)],
)
def test_a_client_that_is_too_old_for_a_cluster(
    version: str, is_new: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis.__version__", version)
    assert Place.of("redis://host").kind == "server"
    if is_new:
        assert Place.of("redis+cluster://host").kind == "cluster"
        return
    words = f"a cluster of Redis needs redis-py 5.2.1 or newer, and {version} is installed"
    with pytest.raises(ImportError, match=re.escape(words)):
        Place.of("redis+cluster://host")


@pytest.mark.parametrize("version", ["5.2.1", "6.0.0", redis.__version__])
def test_a_publish_is_sent_again_by_the_publisher_only(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sent it again would hide that an answer was lost, and multiply the time limit."""
    made: dict[str, Any] = {}
    monkeypatch.setattr("redis.__version__", version)
    monkeypatch.setattr(_places, "RedisCluster", lambda **arguments: made.update(arguments))
    Place.of("redis+cluster://host").synchronous_client(1.0)
    assert made["retry"]._retries == 0
    # Version 6 has its number from `retry`, and warns of the old argument.
    assert made.get("cluster_error_retry_attempts") == (0 if version == "5.2.1" else None)


@pytest.mark.parametrize(
    ("url", "options", "error", "words"),
    [
        ("redis+cluster://host/1", {}, ValueError, "a cluster of Redis has one database, 0: the URL names 1"),
        ("redis+sentinel://:secret@host", {}, ValueError, "the URL names no service"),
        ("redis+ring://:secret@host", {}, ValueError, "not a URL of Redis"),
        ("redis+cluster://:secret@host:port", {}, ValueError, "not a URL of Redis"),
        ("redis://:secret@host", {"credentials": 1}, ValueError, "in the URL or by `credentials`, not both"),
        ("redis://", {"client": 1}, TypeError, "client must be a redis.asyncio.Redis of one server, got int"),
        ("redis://host", {"client": 1}, ValueError, "with `client`, the URL is 'redis://'"),
    ],
)
def test_wrong_places(url: Any, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        RedisBackend(url, **options)
    assert "secret" not in str(caught.value)


class Credentials(CredentialProvider):
    def __init__(self, password: str) -> None:
        self.password = password

    def get_credentials(self) -> tuple[str]:
        return (self.password,)


@pytest.mark.parametrize("way", ["the URL", "credentials", "a client"])
async def test_passwords(way: str, prefix: str) -> None:
    """Also one that changes: each connection asks for it."""
    with RedisServer("requirepass secret") as server:
        credentials = Credentials("secret")
        place: Any = server.url.replace("://", "://:secret@")
        options: dict[str, Any] = {}
        if way == "credentials":
            place, options = server.url, {"credentials": credentials}
        elif way == "a client":
            client = redis.asyncio.Redis(port=server.port, credential_provider=credentials)
            place, options = "redis://", {"client": client}
        async with started(place, prefix=prefix, **options) as backend, reading(backend, "room") as reader:
            await backend.publish("room", "one")
            assert await reader.data(1) == ["one"]
            if way != "the URL":
                admin = redis.Redis(port=server.port, password="secret")
                await anyio.to_thread.run_sync(admin.config_set, "requirepass", "another")
                credentials.password = "another"
                await anyio.to_thread.run_sync(admin.execute_command, "CLIENT KILL TYPE normal SKIPME yes")
                admin.close()
                await backend.publish("room", "by a new connection")
                assert await reader.data(2) == ["one", "by a new connection"]
        if way == "a client":
            await client.aclose()
            return
        with Publisher(place, prefix=prefix, **options) as publisher:
            await anyio.to_thread.run_sync(publisher.publish, "room", "two")


async def test_passwords_of_sentinels(prefix: str) -> None:
    """They have passwords of their own."""
    with SentinelServers(1, password="secret") as servers:
        servers.sentinels[0].ask("ACL", "SETUSER", "default", "resetpass", ">other")
        url = servers.url.replace("://", "://:secret@") + "?sentinel_password=other"
        async with started(url, prefix=prefix) as backend:
            id = await backend.publish("room", "one")
            with Publisher(url, prefix=prefix) as publisher:
                await anyio.to_thread.run_sync(publisher.publish, "room", "two")
            assert (await backend.history("room", last=2)).events[0].id == id
