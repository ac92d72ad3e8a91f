"""What is pushed and what is read from the streams of Redis, under faults: each rule with the fault it is for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from lilya.websockets.channels import BrokerError, Channels, Event, Gap, Id, presence_of

from .redis_server import NO_SERVER, RedisServer, redis_binary

pytest.importorskip("redis", reason="the client of Redis is not installed: the extra `redis` brings it")

from lilya.websockets.channels import _feed, _link
from lilya.websockets.channels._feed import Feed, _Watched
from lilya.websockets.channels._redis import RedisBackend
from lilya.websockets.channels._scripts import SCRIPTS

from .test_channels_redis import Proxy, Reader, at_rest, reading, redis, started, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.limit(60),
    pytest.mark.skipif(redis_binary() is None, reason=NO_SERVER),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # as the client of Redis


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"{request.node.name}-{random.getrandbits(64):x}"


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

    def take(feed: Feed, watched: _Watched, pushed: bytes, positions: Any, reached: Any) -> Any:
        found = _feed.event_of(watched.name, pushed)
        if found is None or watched.looking:
            return original(feed, watched, pushed, positions, reached)
        reached[watched.name] = found[0]
        return found[1]

    patch.setattr(Feed, "_next", take)


def no_looking_after_an_outage(patch: pytest.MonkeyPatch) -> None:
    original = Feed._confirm

    def confirm(feed: Feed, kind: bytes) -> None:
        feed._commands[0][1][0].known = False
        original(feed, kind)

    patch.setattr(Feed, "_confirm", confirm)


def no_comparing(patch: pytest.MonkeyPatch) -> None:
    async def compare(feed: Feed, those: Any) -> None:
        """Nothing."""

    patch.setattr(Feed, "_compare", compare)


def no_holding(patch: pytest.MonkeyPatch) -> None:
    """What was read and what was pushed meanwhile are taken as they come."""
    original = Feed._take_found

    def take(feed: Feed, positions: Any, reached: Any) -> Any:
        watched = feed._found[0][0]
        items = original(feed, positions, reached)
        items += [found[1] for pushed in watched.held if (found := _feed.event_of(watched.name, pushed))]
        return items

    patch.setattr(Feed, "_take_found", take)


class Session:
    """Two processes, one of them behind a proxy, that publish to some channels, and a seeded fault now and then.

    What is kept is checked against what came: all of it, once, in order, and no gap.
    """

    CHANNELS = 6

    def __init__(self, server: RedisServer, prefix: str, seed: int) -> None:
        self.server = server
        self.prefix = prefix
        self.random = random.Random(seed)
        self.kept: dict[str, list[str]] = {f"{n}": [] for n in range(self.CHANNELS)}
        self.unwatched: dict[str, int] = {}

    async def run(self, faults: int) -> list[str]:
        async with (
            Proxy(self.server.port) as self.proxy,
            started(self.proxy.url, prefix=self.prefix, publish_timeout=None) as self.one,
            started(self.server.url, prefix=self.prefix, publish_timeout=None) as self.two,
            reading(self.one, *self.kept) as self.reader,
        ):
            for _ in range(faults):
                await self.publish(self.random.randint(1, 12))
                await self.fault()
            await self.publish(3)
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
        elif kind == "unpushed":
            self.kept[channel].append(await publish_unpushed(self.two, channel, "x"))
        elif kind == "rejoin":
            await until(lambda: not self.problems(channel))
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
async def test_nothing_is_lost(
    seed: int, redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_feed, "_CHECK", 0.3)
    assert await Session(redis_server, prefix, seed).run(40) == []


@pytest.mark.parametrize("fault", [no_filling, no_looking_after_an_outage, no_comparing, no_holding])
async def test_planted_faults(
    fault: Callable[[pytest.MonkeyPatch], None],
    redis_server: RedisServer,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check above finds each of them, by one of the seeds."""
    if fault is not no_looking_after_an_outage:
        monkeypatch.setattr(_feed, "_CHECK", 0.3)
    fault(monkeypatch)
    for seed in range(4):
        with anyio.move_on_after(6) as scope:
            if await Session(redis_server, f"{prefix}-{seed}", seed).run(40):
                return
        if scope.cancelled_caught:
            return  # it waits for what never comes
    raise AssertionError("nobody has noticed")
