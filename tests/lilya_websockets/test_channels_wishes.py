"""What a publisher can ask for, persons with several sockets, and the latest value; over every backend."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from lilya.websockets.channels import BrokerError, Channels, Event, Gap, Presence, Publisher
from lilya.websockets.channels._entries import decoded, event_of, floor_of
from lilya.websockets.channels._memory import MemoryBackend
from lilya.websockets.channels.backends import Backend, Id, Wishes, presence_of

from .redis_server import NO_SERVER, RedisServer, redis_binary
from .server import Server
from .test_channels import data_of, take, until
from .test_channels_sockets import sent

pytestmark = pytest.mark.anyio

Make = Callable[..., Channels]


@pytest.fixture
def make(make_channels: Make) -> Make:
    return make_channels


async def history_of(channels: Channels, name: str = "a", since: str | None = None) -> list[Any]:
    """What somebody gets who comes now."""
    options: Any = {"history": 99} if since is None else {"since": since}
    async with channels.subscribe(name, **options) as subscription:
        return [await anext(subscription) for _ in range(subscription.pending)]


# Excluding


async def test_excluding_one_receiver(make: Make) -> None:
    async with make() as channels, channels.subscribe("a") as one, channels.subscribe("a") as other:
        server, second = Server(), Server()
        async with (
            channels.join("a", await server.accepted()) as member,
            channels.join("a", await second.accepted()) as third,
        ):
            await channels.publish("a", "1", exclude=one)
            await channels.publish("a", b"2", exclude=member)
            await channels.publish_json("a", 3, exclude=third.id)
            await channels.publish("a", "4")
            assert data_of(await take(one, 3)) == [b"2", "3", "4"]
            events = await take(other, 4)
            assert data_of(events) == ["1", b"2", "3", "4"]
            assert [event.exclude for event in events] == [one.id, member.id, third.id, None]
            await until(lambda: len(server.sent) == len(second.sent) == 3)
            assert (sent(server), sent(second)) == (["1", "3", "4"], ["1", b"2", "4"])
            assert one.positions == other.positions


async def test_excluding_a_person_also_from_the_history(make: Make) -> None:
    async with make() as channels, AsyncExitStack() as stack:
        servers = [Server() for _ in range(3)]
        for server, key in zip(servers, ["ada", "ada", "bob"], strict=True):
            await stack.enter_async_context(channels.join("a", await server.accepted(), key=key))
        ids = [await channels.publish("a", data, exclude=who) for data, who in (("1", None), ("2", "ada"))]
        await until(lambda: len(servers[2].sent) == 2)
        await channels.publish("a", "3")
        await until(lambda: all("3" in sent(server) for server in servers))
        assert [sent(server) for server in servers] == [["1", "3"], ["1", "3"], ["1", "2", "3"]]
        # Who comes back with the same key is still excluded.
        for key, expected in (("ada", ["3"]), ("bob", ["2", "3"])):
            again = Server()
            websocket = await again.accepted()
            async with channels.join("a", websocket, key=key, since=ids[0]):
                await until(lambda: len(again.sent) == len(expected))  # noqa: B023
                assert sent(again) == expected


@pytest.mark.parametrize("others", [1, 3, 40])
async def test_the_latest_that_is_for_somebody(make: Make, others: int) -> None:
    """It is what a receiver that was here all the time was given last."""
    async with make() as channels:
        server = Server()
        async with channels.join("a", await server.accepted(), key="ada"):
            first = await channels.publish("a", "for all")
            for number in range(others):
                await channels.publish("a", f"not for ada: {number}", exclude="ada")
            await channels.publish("b", "1", exclude="ada")
            await until(lambda: sent(server) == ["for all"])
        for key, expected in (("ada", "for all"), ("bob", f"not for ada: {others - 1}")):
            again = Server()
            async with channels.join("a", await again.accepted(), key=key, latest=True, presence=True):
                await until(lambda: sent(again))  # noqa: B023
                assert sent(again) == [expected]
        await channels.publish("a", "next")
        # With a position, only what is newer than that.
        again = Server()
        async with channels.join("b", await again.accepted(), key="ada", latest=True):
            await channels.publish("b", "2")  # nothing in it is for ada
            await until(lambda: sent(again) == ["2"])
        again = Server()
        since: Any = {"since": first, "latest": True, "key": "bob"}
        async with channels.join("a", await again.accepted(), **since):
            await until(lambda: sent(again) == ["next"])


async def test_excluding_one_that_is_joining() -> None:
    """What comes while it waits for the history is not for it either."""

    class Slow(MemoryBackend):
        gate: anyio.Event | None = None

        async def history(self, channel: str, *, last: int = 0, since: str | None = None) -> Any:
            found = await super().history(channel, last=last, since=since)
            if self.gate is not None:
                await self.gate.wait()
            return found

    backend = Slow(history=100, max_age=None)
    async with Channels(backend) as channels, channels.subscribe("a") as other:
        late = channels.subscribe("a")
        received: list[Any] = []

        async def enter() -> None:
            async with late:
                received.extend(await take(late, 1))

        async with anyio.create_task_group() as tasks:
            backend.gate = anyio.Event()
            tasks.start_soon(enter)
            await until(lambda: len(channels._hub._outboxes) == 2)
            await channels.publish("a", "not for it", exclude=late)
            await channels.publish("a", "for it")
            await take(other, 2)
            backend.gate.set()
        assert data_of(received) == ["for it"]


# Once


async def test_a_publish_is_kept_once(make: Make) -> None:
    async with make() as channels, channels.subscribe("a", "b") as subscription:
        first = await channels.publish("a", "1", idempotency_key="order 7: ü")
        assert await channels.publish("a", "again", idempotency_key="order 7: ü") == first
        other = await channels.publish("a", "2", idempotency_key="order 8")
        elsewhere = await channels.publish("b", "3", idempotency_key="order 7: ü")
        last = await channels.publish("a", "4")
        events = await take(subscription, 4)
        assert sorted(str(event.data) for event in events) == ["1", "2", "3", "4"]
        assert {event.id for event in events} == {first, other, elsewhere, last}
        assert subscription.pending == 0


async def test_an_event_tells_its_key(make: Make) -> None:
    async with make() as channels, channels.subscribe("a") as subscription:
        await channels.publish("a", "1", idempotency_key="order 7: ü", exclude="nobody")
        await channels.publish("a", b"2", idempotency_key="order 8")
        await channels.publish("a", "3")
        async with channels.subscribe("a", history=3) as later:
            for events in (await take(subscription, 3), await take(later, 3)):
                assert [event.data for event in events] == ["1", b"2", "3"]
                assert [event.idempotency_key for event in events] == ["order 7: ü", "order 8", None]


async def test_a_key_of_another_program_that_is_none() -> None:
    found = event_of("a", b'1-1-00000000 S25 {"idempotency_key":[1,2]}x')
    assert found is not None
    assert found[1] == Event("a", "1-1-00000000", "x")


async def test_many_publish_the_same_at_once(make: Make) -> None:
    async with make() as one, make() as two:
        ids: list[str] = []

        async def publish(channels: Channels) -> None:
            ids.append(await channels.publish("a", "x", idempotency_key="k"))

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(
                    publish, one if number % 2 or one.backend.__class__ is MemoryBackend else two
                )
        assert len(set(ids)) == 1
        assert len(await history_of(one)) == 1


async def test_a_key_is_forgotten_after_a_while(
    make: Make, monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer
) -> None:
    async with make() as channels:
        first = await channels.publish("a", "1", idempotency_key="k")
        if isinstance(channels.backend, MemoryBackend):
            ((name, (id, until)),) = channels.backend._once.items()
            assert 290 < until - anyio.current_time() <= 300
            channels.backend._once[name] = id, anyio.current_time()
        else:
            key = "{lilya:a}:once:k"
            assert 290_000 < int(redis_server.ask("PTTL", key)[1:]) <= 300_000
            redis_server.ask("DEL", key)
        assert await channels.publish("a", "2", idempotency_key="k") != first
        assert data_of(await history_of(channels)) == ["1", "2"]


# How much is kept, and for how long


async def test_length_of_history_by_publish(make: Make) -> None:
    async with make(history=10) as channels, channels.subscribe("a") as subscription:
        ids = [await channels.publish("a", str(number)) for number in range(5)]
        await channels.publish("a", "5", history=3)
        assert data_of(await history_of(channels)) == ["3", "4", "5"]
        await channels.publish("a", "6")
        assert data_of(await history_of(channels)) == ["3", "4", "5", "6"]
        # What is left out is missing, and that is told.
        assert data_of(await history_of(channels, since=ids[2])) == ["3", "4", "5", "6"]
        gap, *rest = await history_of(channels, since=ids[1])
        assert (gap, data_of(rest)) == (Gap("a", ids[1], ids[1]), ["3", "4", "5", "6"])
        # None at all is kept for those who come later; who listens gets everything.
        last = await channels.publish("a", "typing", history=0)
        assert await history_of(channels) == []
        assert await history_of(channels, since=last) == []
        assert await history_of(channels, since=ids[4]) == [Gap("a", ids[4], last)]
        assert data_of(await take(subscription, 8)) == [*map(str, range(7)), "typing"]
        await channels.publish("a", "7", history=1000)  # not more than is kept anyway
        assert data_of(await history_of(channels)) == ["7"]


async def test_expiry_by_publish(make: Make) -> None:
    async with make() as channels, channels.subscribe("a") as subscription:
        first = await channels.publish("a", "1")
        second = await channels.publish("a", "2", max_age=0.3)
        await channels.publish("a", "3", max_age=60)
        assert data_of(await history_of(channels)) == ["1", "2", "3"]
        while len(await history_of(channels)) == 3:  # noqa: ASYNC110 - the time must pass
            await anyio.sleep(0.01)
        # It has taken with it what was before it, so nothing is missing in the middle.
        assert data_of(await history_of(channels)) == ["3"]
        assert data_of(await history_of(channels, since=second)) == ["3"]
        gap, event = await history_of(channels, since=first)
        assert (gap, event.data) == (Gap("a", first, first), "3")
        assert data_of(await take(subscription, 3)) == ["1", "2", "3"]


async def test_one_event_is_kept_for_longer_than_others(make: Make) -> None:
    async with make(max_age=0.3) as channels:
        await channels.publish("short", "1")
        await channels.publish("long", "2", max_age=600)
        while await history_of(channels, "short"):  # noqa: ASYNC110 - the time must pass
            await anyio.sleep(0.01)
        assert data_of(await history_of(channels, "long")) == ["2"]
        await channels.publish("other", "3")  # memory forgets what is silent, when something is published
        assert data_of(await history_of(channels, "long")) == ["2"]
        await channels.publish("long", "4")
        assert data_of(await history_of(channels, "long")) == ["2", "4"]
        while len(await history_of(channels, "long")) == 2:  # noqa: ASYNC110 - the time must pass
            await anyio.sleep(0.01)
        assert await history_of(channels, "long") == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("usual", [1, None])
async def test_redis_keeps_what_is_to_be_kept_for_longer(
    redis_server: RedisServer, usual: float | None
) -> None:
    """Neither a later publish, nor who reads or listens, shortens the life of the stream and of its state."""
    redis_server.ask("FLUSHALL")
    async with Channels(redis_server.url, max_age=usual, publish_timeout=5, expire=70) as channels:
        await channels.publish("a", "1", max_age=1000)
        async with channels.subscribe("a", history=1) as subscription:
            assert data_of(await take(subscription, 1)) == ["1"]
            feed = channels.backend._feed  # type: ignore[attr-defined]
            (watched,) = (each for each in feed._watched.values() if each.name == "a")
            await feed._compare([(watched, channels._hub._positions["a"])])
            for key in ("{lilya:a}", "{lilya:a}:state"):
                assert int(redis_server.ask("PTTL", key)[1:]) > 900_000
            await channels.publish("a", "2")
            for key in ("{lilya:a}", "{lilya:a}:state"):
                assert int(redis_server.ask("PTTL", key)[1:]) > 900_000
    assert redis_server.ask("HGET", "{lilya:a}:state", "age") == b"$7\r\n1000000\r\n"


@pytest.mark.skipif(redis_binary() is None, reason=NO_SERVER)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("usual", [20, None])
async def test_redis_trims_nothing_before_its_time(usual: float | None) -> None:
    """A shorter `max_age` after a longer one ends nothing now. Each is kept until a later one is over."""
    state = "{lilya:a}:state"
    with RedisServer("stream-node-max-entries 1") as server:  # trimmed is a whole node, or nothing
        async with Channels(server.url, max_age=usual, expire=100) as channels:
            first = Id.parse(await channels.publish("a", "1", max_age=600))

            def pass_by(seconds: int) -> None:
                """The clock was ahead when the newest event was published. An event has its time at least."""
                server.ask("HSET", state, "ms", f"{first.ms + seconds * 1000}")

            def ttl(key: str) -> int:
                return int(server.ask("PTTL", key)[1:]) // 1000

            pass_by(100)
            for number, max_age in enumerate((50, 10, 200), 2):
                await channels.publish("a", f"{number}", max_age=max_age)
                assert data_of(await history_of(channels)) == [f"{n}" for n in range(1, number + 1)]
                assert ttl("{lilya:a}") > (600 if usual else 100)
                assert ttl(state) > 600
            pass_by(590)  # the first one is still to be kept, and a time limit of 500 seconds comes after it
            await channels.publish("a", "5", max_age=500)
            assert len(await history_of(channels)) == 5
            pass_by(1080)  # as nothing with 600 seconds is left, the others count again when all are over
            await channels.publish("a", "6")
            assert len(await history_of(channels)) == (6 if usual is None else 2)
            pass_by(1100)
            await channels.publish("a", "7")
            assert server.ask("XLEN", "{lilya:a}") == (b":7\r\n" if usual is None else b":2\r\n")
            assert 100 <= ttl(state) <= 102


async def test_memory_keeps_each_event_until_a_later_one_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_764_106_141_000_000_000
    monkeypatch.setattr("time.time_ns", lambda: now)
    async with Channels(max_age=20) as channels:
        await channels.publish("a", "1", max_age=600)
        now += 100_000_000_000
        await channels.publish("other", "x")  # forgets channels
        await channels.publish("a", "2", max_age=50)
        assert data_of(await history_of(channels)) == ["1", "2"]
        now += 49_000_000_000
        await channels.publish("other", "x")
        assert data_of(await history_of(channels)) == ["1", "2"]
        now += 2_000_000_000  # what was to be kept for longer goes with it
        assert data_of(await history_of(channels)) == []


def test_memory_lets_go_what_was_read() -> None:
    async def run() -> None:
        backend = MemoryBackend(history=100, max_age=None)
        await backend.start()
        for _ in range(5):
            await backend.publish("a", "x", Wishes(history=0))
        assert await backend.history("a") == await backend.history("a", last=9)
        assert not backend._logs["a"].events
        await backend.watch(["a"])
        await backend.publish("a", "unread", Wishes(history=0))
        await backend.history("a")
        assert len(backend._logs["a"].events) == 1  # the reader is still to get it

    anyio.run(run)


async def test_wishes_beyond_all_bounds(make: Make) -> None:
    async with make() as channels:
        for max_age in (float("inf"), 1e308, 10**400, 1e-9):
            await channels.publish("b", "x", max_age=max_age)
        await channels.publish("a", "1", history=10**5000, max_age=float("inf"))
        assert data_of(await history_of(channels)) == ["1"]
    Publisher("redis://localhost", max_age=float("inf")).close()


async def test_what_is_over_is_given_to_nobody_who_comes_back(make: Make) -> None:
    """Not from what those who came back a moment before have been given, either."""
    async with make() as channels:
        first = await channels.publish("a", "0")
        for number in (1, 2):
            await channels.publish("a", str(number))
        assert data_of(await history_of(channels, since=first)) == ["1", "2"]
        await channels.publish("a", "3", history=1)
        gap, *events = await history_of(channels, since=first)
        assert (gap.since, data_of(events)) == (first, ["3"])
        before = await channels.publish("b", "0")
        await channels.publish("b", "1", max_age=0.2)
        assert data_of(await history_of(channels, "b", since=before)) == ["1"]
        await anyio.sleep(0.4)
        (gap,) = await history_of(channels, "b", since=before)
        assert gap.since == before


async def test_an_id_of_another_channel(make: Make) -> None:
    async with make() as channels:
        _, other, _ = [await channels.publish("a", str(n)) for n in range(3)]
        for n in range(3):
            await channels.publish("b", str(n))
        gap, *events = await history_of(channels, "b", since=other)
        assert (gap.since, data_of(events)) == (other, ["0", "1", "2"])


async def test_memory_looks_at_few_channels_that_are_kept_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_764_106_141_000_000_000
    monkeypatch.setattr("time.time_ns", lambda: now)
    async with Channels(max_age=10) as channels:
        for number in range(100):
            await channels.publish(f"{number}", "x", max_age=1000)
        await channels.publish("silent", "x")
        now += 20_000_000_000
        logs = channels.backend._logs  # type: ignore[attr-defined]
        await channels.publish("other", "x")
        assert next(iter(logs)) == "8"  # it has passed over that many
        for _ in range(20):
            await channels.publish("other", "x")
        assert ("silent" in logs, len(logs)) == (False, 101)


# The latest value


async def test_the_latest_value(make: Make) -> None:
    async with make(history=3) as channels:
        async with channels.subscribe("a", latest=True) as empty:
            assert (empty.pending, list(empty.positions)) == (0, ["a"])
        ids = [await channels.publish("a", str(number)) for number in range(8)]
        async with channels.subscribe("a", latest=True) as subscription:
            assert subscription.pending == 1
            await channels.publish("a", "8")
            assert data_of(await take(subscription, 2)) == ["7", "8"]
        # Whoever comes back is told the newest one, whatever was missed.
        for since in (ids[0], ids[6]):
            async with channels.subscribe("a", latest=True, since=since) as subscription:
                assert data_of(await take(subscription, 1)) == ["8"]
                assert subscription.pending == 0
        last = subscription.positions["a"]
        async with channels.subscribe("a", latest=True, since=last) as subscription:
            assert subscription.pending == 0
        # A position of a life that is over: what is known of it may be wrong, so that is told.
        id = Id.parse(last)
        lost = str(id._replace(epoch="00000000" if id.epoch != "00000000" else "11111111"))
        await channels.publish("a", "gone", history=0)
        async with channels.subscribe("a", latest=True, since=lost) as subscription:
            (gap,) = await take(subscription, 1)
            assert (gap.channel, gap.since) == ("a", lost)


async def test_the_latest_value_for_a_socket(make: Make) -> None:
    async with make() as channels:
        for number in range(3):
            await channels.publish("a", str(number))
        server = Server()
        async with channels.join("a", await server.accepted(), latest=True):
            await channels.publish("a", "3")
            await until(lambda: len(server.sent) == 2)
    assert sent(server) == ["2", "3"]


# Persons


async def test_persons_with_several_sockets(make: Make) -> None:
    async with (
        make() as channels,
        channels.subscribe("a", presence=True) as everything,
        channels.subscribe("a", presence="keys") as persons,
        anyio.create_task_group() as tasks,
    ):

        async def live(key: str | None, leaving: anyio.Event, *, task_status: Any) -> None:
            websocket = await Server().accepted()
            async with channels.join("a", websocket, member={"n": key}, key=key) as member:
                task_status.started(member)
                await leaving.wait()

        leaving = {name: anyio.Event() for name in ("ada", "again", "bob", "nobody")}
        ada = await tasks.start(live, "ada: ü %", leaving["ada"])
        again = await tasks.start(live, "ada: ü %", leaving["again"])
        await tasks.start(live, "bob", leaving["bob"])
        nobody = await tasks.start(live, None, leaving["nobody"])
        members = await channels.members("a")
        assert [member.key for member in members] == ["ada: ü %", "ada: ü %", "bob", None]
        assert [member.info for member in members][1:] == ['{"n":"ada: ü %"}', '{"n":"bob"}', '{"n":null}']
        assert members[0] == ada.members[0]
        assert [await channels.count("a"), await channels.count("a", keys=True)] == [4, 3]
        for left, name in enumerate(["ada", "nobody", "again"]):
            leaving[name].set()
            while await channels.count("a") != 3 - left:  # noqa: ASYNC110 - until it is known
                await anyio.sleep(0.001)
        assert await channels.count("a", keys=True) == 1
        told = [(item.type, item.member.key, item.sockets) for item in await take(everything, 7)]
        assert told == [
            ("join", "ada: ü %", 1), ("join", "ada: ü %", 2), ("join", "bob", 1), ("join", None, 1),
            ("leave", "ada: ü %", 1), ("leave", None, 0), ("leave", "ada: ü %", 0),
        ]  # fmt: skip
        items = await take(persons, 5)
        assert [(item.type, item.member) for item in items] == [
            ("join", ada.members[0]), ("join", members[2]), ("join", nobody.members[0]),
            ("leave", nobody.members[0]), ("leave", again.members[0]),
        ]  # fmt: skip
        assert all(item.of_person for item in items)
        assert persons.pending == 0
        leaving["bob"].set()


async def test_sockets_are_told_of_persons_only(make: Make) -> None:
    def encode(item: Any) -> str | None:
        return f"{item.type} {item.member.key}" if isinstance(item, Presence) else item.data

    async with make() as channels:
        server = Server()
        websocket = await server.accepted()
        async with channels.join("a", websocket, presence="keys", encode=encode), AsyncExitStack() as stack:
            for key in ("ada", "ada", "bob"):
                await stack.enter_async_context(
                    channels.join("a", await Server().accepted(), member=1, key=key)
                )
            await until(lambda: len(server.sent) == 2)
            await channels.publish("a", "end")
            await until(lambda: len(server.sent) == 3)
            assert sent(server) == ["join ada", "join bob", "end"]


async def test_a_person_that_is_not_heard_of_any_more_is_gone(make: Make) -> None:
    async with make(presence_ttl=0.3) as channels, channels.subscribe("a", presence=True) as subscription:
        roster = channels._hub.roster
        crashed = [roster.member("a", "1", "ada"), roster.member("a", "2", "ada")]
        alive = roster.member("a", "3", "bob")
        await roster.appear([*crashed, alive])
        roster.forget(crashed)
        items = await take(subscription, 5)
        assert [(item.type, item.member.key, item.sockets) for item in items[3:]] == [
            ("leave", "ada", 1), ("leave", "ada", 0)
        ]  # fmt: skip
        assert await channels.count("a", keys=True) == 1


async def test_a_backend_that_only_lists(make: Make) -> None:
    async with make() as channels:
        roster = channels._hub.roster
        members = [roster.member("a", "1", key) for key in ("ada", "ada", None, None)]
        await roster.appear(members)
        for keys, count in ((False, 4), (True, 3)):
            assert await Backend.count(channels.backend, "a", keys=keys) == count
            assert await channels.count("a", keys=keys) == count
        await roster.vanish(members)


# Arguments


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"exclude": ""}, ValueError, "exclude must not be empty or start with a NUL"),
        ({"exclude": 1}, TypeError, "exclude must be a membership, a subscription or str, got int"),
        ({"idempotency_key": "\0"}, ValueError, "idempotency_key must not be empty or start with a NUL"),
        ({"idempotency_key": "\ud800"}, ValueError, "idempotency_key must encode to UTF-8"),
        ({"history": -1}, ValueError, "history must be at least 0"),
        ({"max_age": 0}, ValueError, "max_age must be above 0"),
    ],
)
async def test_wishes_that_cannot_be_met(options: Any, error: type[Exception], words: str) -> None:
    async with Channels() as channels:
        with pytest.raises(error, match=words):
            await channels.publish("a", "x", **options)
        with pytest.raises(error, match=words):
            await channels.publish_json("a", "x", **options)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"latest": True, "history": 2}, ValueError, "latest is the newest event alone: leave out history"),
        ({"presence": "key"}, ValueError, "presence must be True, False or 'keys', got 'key'"),
        ({"presence": 3}, TypeError, "presence must be bool or 'keys', got int"),
        ({"presence": None}, TypeError, "presence must be bool or 'keys', got NoneType"),
        ({"latest": "no"}, TypeError, "latest must be bool, got str"),
        ({"latest": 1, "history": 2}, TypeError, "latest must be bool, got int"),
    ],
)
async def test_receivers_that_cannot_be_made(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Channels().subscribe("a", **options)
    with pytest.raises(error, match=words):
        Channels().join("a", await Server().accepted(), **options)


async def test_flags_that_are_none() -> None:
    server = Server()
    with pytest.raises(TypeError, match="cancel_on_disconnect must be bool, got str"):
        Channels().join("a", await server.accepted(), cancel_on_disconnect="x")  # type: ignore[arg-type]
    async with Channels() as channels:
        with pytest.raises(TypeError, match="keys must be bool, got str"):
            await channels.count("a", keys="no")  # type: ignore[arg-type]


async def test_a_key_that_is_none() -> None:
    with pytest.raises(ValueError, match="key must not be empty"):
        Channels().join("a", await Server().accepted(), key="")


# On Redis


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_publisher_without_an_event_loop_has_wishes(redis_server: RedisServer) -> None:
    redis_server.ask("FLUSHALL")
    async with Channels(redis_server.url) as channels, channels.subscribe("a") as subscription:

        def publish() -> list[str]:
            redis_server.ask("SCRIPT", "FLUSH")
            with Publisher(redis_server.url) as publisher:
                wishes: Any = {"exclude": subscription.id, "idempotency_key": "k", "max_age": 600}
                ids = [publisher.publish("a", "1", **wishes) for _ in range(2)]
                return [*ids, publisher.publish_json("a", 2, history=1)]

        ids = await anyio.to_thread.run_sync(publish)
        assert ids[0] == ids[1]
        assert data_of(await take(subscription, 1)) == ["2"]
        assert data_of(await history_of(channels)) == ["2"]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (b"S", b"no length"),
        (b"S", b"9 {}"),
        (b"B", b"2 []x"),
        (b"S", b"2 {x}"),
        (b"S", b"99999 " + b"[" * 99_999),
        (b"x", b"x"),
        (b"s", b"\xff"),
    ],
)
def test_payloads_that_are_none(kind: bytes, payload: bytes) -> None:
    assert event_of("a", b"1-1-00000000 " + kind + payload) is None
    assert floor_of(b"1-1", [b"h", b"00000000" + kind, b"d", payload], 9, None) == 0


def test_fields_that_are_none_of_ours() -> None:
    assert decoded("a", b"1-1", [b"h", b"00000000s", b"d", b"x"]) is not None
    assert decoded("a", b"1-1", [b"x", b"00000000s", b"d", b"x"]) is None
    assert decoded("a", b"1-1", [b"h", b"00000000s", b"x", b"x"]) is None


def test_what_is_before_the_data() -> None:
    found = event_of("a", b'1-1-00000000 S17 {"exclude":"ada"}data')
    assert found is not None
    assert found[1] == Event("a", "1-1-00000000", "data", "ada")
    now = time.time_ns() // 1_000_000
    entry = [b"h", b"00000000S", b"d", b'22 {"history":2,"more":0}data']
    assert floor_of(b"%d-9" % now, entry, now, None) == 7
    assert floor_of(b"1-9", entry, now, 1000) == 9


@pytest.mark.parametrize(
    "told",
    [
        b'{"max_age":"1"}',
        b'{"max_age":[]}',
        b'{"history":1e999}',
        b'{"history":NaN}',
        b'{"history":"x"}',
        b'{"exclude":["ada"],"idempotency_key":7}',
    ],
)
def test_wishes_that_are_none_of_ours(told: bytes) -> None:
    """Another program has published them. The event counts, and the wishes do not."""
    payload = b"%d %bdata" % (len(told), told)
    found = event_of("a", b"1-1-00000000 S" + payload)
    assert found is not None
    assert found[1] == Event("a", "1-1-00000000", "data")
    assert floor_of(b"1-9", [b"h", b"00000000S", b"d", payload], 9, None) == 0


async def test_companions_are_not_excluded_from(make: Make) -> None:
    """The events of presence have a data format of their own, and no wishes."""
    async with make() as channels, channels.subscribe("a", presence=True) as subscription:
        member = channels._hub.roster.member("a", "1", "ada")
        await channels._hub.roster.appear([member])
        assert await take(subscription, 1) == [Presence("join", member, 1)]
        found = await channels.backend.history(presence_of("a"), last=1)
        assert [event.exclude for event in found.events] == [None]
        await channels._hub.roster.vanish([member])


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_members_from_before_there_were_keys(redis_server: RedisServer) -> None:
    """They are of a process that is not updated yet: of its joins, its members, and its crash."""
    redis_server.ask("FLUSHALL")
    companion = "{lilya:%00presence:a}"
    leave = '{"type":"leave","id":"old","info":{"name":"ann lee"}}'
    join = leave.replace("leave", "join")
    async with Channels(redis_server.url, presence_ttl=1) as channels:
        roster = channels._hub.roster
        async with channels.subscribe("a", presence=True) as subscription:
            await channels.backend.publish(presence_of("a"), join)
            (presence,) = await take(subscription, 1)
            assert (presence.type, presence.sockets) == ("join", 1)
            assert presence.member.json() == {"name": "ann lee"}
            redis_server.ask("HSET", f"{companion}:members", "old", f"1764106141000-1-9f3c01d2 {leave}")
            redis_server.ask("ZADD", f"{companion}:deadlines", "99999999999999", "old")
            member = roster.member("a", "1", "ann")
            await roster.appear([member])
            assert [it.json() for it in await channels.members("a")] == [{"name": "ann lee"}, 1]
            assert await channels.count("a", keys=True) == 2
            await take(subscription, 1)
            redis_server.ask("ZADD", f"{companion}:deadlines", "1", "old")
            assert await channels.members("a") == [member]
            (presence,) = await take(subscription, 1)
            assert (presence.type, presence.member.id, presence.sockets) == ("leave", "old", 0)
            assert (await channels.count("a", keys=True), await channels.count("a")) == (1, 1)
            await roster.vanish([member])


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_nothing_is_left_beside_a_key_of_somebody_else(redis_server: RedisServer) -> None:
    redis_server.ask("FLUSHALL")
    redis_server.ask("SET", "{lilya:a}", "mine")
    async with Channels(redis_server.url) as channels:
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await channels.publish("a", "x", max_age=5)
    assert redis_server.ask("EXISTS", "{lilya:a}:state") == b":0\r\n"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_person_whom_an_older_process_has_removed(redis_server: RedisServer) -> None:
    redis_server.ask("FLUSHALL")
    companion = "{lilya:%00presence:a}"
    channels = Channels(redis_server.url)
    async with channels, channels.subscribe("a", presence="keys") as subscription:
        roster = channels._hub.roster
        await roster.appear([roster.member("a", "1", "ann")])
        redis_server.ask("DEL", f"{companion}:members", f"{companion}:deadlines")
        again = roster.member("a", "1", "ann")
        await roster.appear([again])
        first, second = await take(subscription, 2)
        assert (first.sockets, second.sockets, second.member) == (1, 1, again)
        assert await channels.count("a", keys=True) == 1
