"""Channels, over every backend: what is published is received, in order, once, by everybody who listens."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import ModuleType
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from lilya.websockets import WebSocketRuntimeError
from lilya.websockets.channels import (
    BrokerError,
    Channels,
    Dropped,
    Event,
    Gap,
    Member,
    OutboxFull,
    Presence,
    Subscription,
    _outbox,
)
from lilya.websockets.channels._backend import in_parts
from lilya.websockets.channels._memory import MemoryBackend
from lilya.websockets.channels._outbox import Entry, Outbox
from lilya.websockets.channels._roster import Roster
from lilya.websockets.channels.backends import Backend, Id, presence_event, presence_of

pytestmark = pytest.mark.anyio

Make = Callable[..., Channels]


@pytest.fixture
def make(make_channels: Make) -> Make:
    """Makes channels; those of one test see each other only if the backend is one for several processes."""
    return make_channels


async def until(condition: Callable[[], object]) -> None:
    """Let the others run until something is so; the time limit of each test ends it."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await anyio.sleep(0.001)


async def take(subscription: Subscription, count: int) -> list[Any]:
    return [await anext(subscription) for _ in range(count)]


def data_of(items: list[Any]) -> list[Any]:
    return [item.data if isinstance(item, Event) else item for item in items]


def is_clean(channels: Channels) -> bool:
    """Whether nobody receives anything, and nothing is kept for somebody who did."""
    return not (
        channels._hub._channels
        or channels._hub._outboxes
        or channels._hub._positions
        or channels._hub.roster.members
    )


# Events


async def test_what_is_published_is_received(make: Make) -> None:
    payloads: list[str | bytes] = ["text", b"data", "", b"", "grüße 🎈", b"\0\xff", "x" * 100_000]
    async with make() as channels, channels.subscribe("room:1") as subscription:
        ids = [await channels.publish("room:1", payload) for payload in payloads]
        events = await take(subscription, len(payloads))
    assert events == [Event("room:1", id, payload) for id, payload in zip(ids, payloads, strict=True)]
    assert [type(event.data) for event in events] == [type(payload) for payload in payloads]
    assert len(set(ids)) == len(ids)
    assert (subscription.sent, subscription.pending, subscription.dropped) == (len(ids), 0, 0)
    assert subscription.positions == {"room:1": ids[-1]}


async def test_other_kinds_of_data(make: Make) -> None:
    async with make() as channels, channels.subscribe("a") as subscription:
        await channels.publish("a", bytearray(b"1"))
        await channels.publish("a", memoryview(b"2"))
        await channels.publish_json("a", {"text": "grüße", "n": [1, None]})
        events = await take(subscription, 3)
    assert data_of(events) == [b"1", b"2", '{"text":"grüße","n":[1,null]}']
    assert events[0].json() == 1
    assert events[2].json() == {"text": "grüße", "n": [1, None]}


async def test_everybody_gets_the_same_order(make: Make) -> None:
    async with make() as channels, AsyncExitStack() as stack:
        subscriptions = [await stack.enter_async_context(channels.subscribe("a", "b", "a")) for _ in range(5)]

        async def publish(channel: str, name: int) -> None:
            for number in range(20):
                await channels.publish(channel, f"{name}:{number}")

        async with anyio.create_task_group() as tasks:
            for name in range(4):
                tasks.start_soon(publish, "ab"[name % 2], name)
        received = [await take(subscription, 80) for subscription in subscriptions]
    for channel in "ab":
        orders = [[event for event in events if event.channel == channel] for events in received]
        assert orders[0] == orders[1] == orders[2] == orders[3] == orders[4]
        assert len(orders[0]) == 40
        for name in range(4):  # a publisher's events are in its own order
            mine = [event.data for event in orders[0] if event.data.startswith(f"{name}:")]
            assert mine == [f"{name}:{number}" for number in range(20)] or mine == []


async def test_nothing_from_before_and_nothing_from_elsewhere(make: Make) -> None:
    async with make() as channels:
        await channels.publish("a", "before")
        async with channels.subscribe("a") as subscription:
            await channels.publish("b", "elsewhere")
            await channels.publish("a", "1")
            assert data_of(await take(subscription, 1)) == ["1"]
            assert subscription.pending == 0
        await channels.publish("a", "after")
        assert is_clean(channels)


NAMES = [
    "a",
    "a:1",
    "a:*",
    "*",
    "[a]",
    "a b",
    "a\r\n",
    "A",
    "ä",
    "🎈",
    "a\0b",
    "presence:a",
    "{a}",
    "a}",
    "{",
    "%61",
]


async def test_names_are_data(make: Make) -> None:
    async with make() as channels, AsyncExitStack() as stack:
        subscriptions = {
            name: await stack.enter_async_context(channels.subscribe(name, presence=True)) for name in NAMES
        }
        for name in NAMES:
            await channels.publish(name, name)
        for name, subscription in subscriptions.items():
            assert data_of(await take(subscription, 1)) == [name]
            assert subscription.pending == 0
        assert [await channels.members(name) for name in NAMES] == [[]] * len(NAMES)


# History


async def test_history(make: Make) -> None:
    async with make(history=4) as channels:
        for number in range(6):
            await channels.publish("a", str(number))
        for asked, expected in [(0, []), (1, ["5"]), (4, ["2", "3", "4", "5"]), (99, ["2", "3", "4", "5"])]:
            async with channels.subscribe("a", history=asked) as subscription:
                assert subscription.pending == len(expected)
                await channels.publish("b", "wakes the reader")
                assert data_of(await take(subscription, len(expected))) == expected
        async with channels.subscribe("new", history=3) as subscription:
            assert subscription.pending == 0


async def test_since_resumes_exactly(make: Make) -> None:
    async with make() as channels:
        ids = [await channels.publish("a", str(number)) for number in range(10)]
        for number, id in enumerate(ids):
            async with channels.subscribe("a", since=id, history=99) as subscription:
                await channels.publish("a", f"live {number}")
                items = await take(subscription, 10 - number + number)
            expected = [str(n) for n in range(number + 1, 10)] + [f"live {n}" for n in range(number + 1)]
            assert data_of(items) == expected


async def test_since_for_some_of_the_channels(make: Make) -> None:
    async with make() as channels:
        first = {name: await channels.publish(name, "1") for name in "abc"}
        for name in "abc":
            await channels.publish(name, "2")
        async with channels.subscribe("a", "b", "c", since={"a": first["a"]}, history=2) as subscription:
            items = await take(subscription, 5)
    assert [(item.channel, item.data) for item in items] == [
        ("a", "2"), ("b", "1"), ("b", "2"), ("c", "1"), ("c", "2"),
    ]  # fmt: skip


async def test_a_subscription_is_continued_by_its_positions(make: Make) -> None:
    async with make() as channels:
        async with channels.subscribe("a", "b") as subscription:
            for number in range(4):
                await channels.publish("ab"[number % 2], str(number))
            seen = data_of(await take(subscription, 3))
            await until(lambda: subscription.pending == 1)
        assert subscription.dropped == 1  # what waited when the block was left
        async with channels.subscribe("a", "b", since=subscription.positions) as again:
            assert sorted(seen + data_of(await take(again, 1))) == list("0123")


async def test_a_gap_is_told(make: Make) -> None:
    async with make(history=3) as channels:
        first = await channels.publish("a", "0")
        for number in range(1, 10):
            last = await channels.publish("a", str(number))
        async with channels.subscribe("a", since=first) as subscription:
            gap, *events = await take(subscription, 4)
            assert isinstance(gap, Gap)
            assert (gap.channel, gap.since) == ("a", first)
            assert data_of(events) == ["7", "8", "9"]
            assert subscription.positions == {"a": last}
        # Who saw no more than the gap gets the same again.
        async with channels.subscribe("a", since=gap.id) as subscription:
            assert data_of((await take(subscription, 4))[1:]) == ["7", "8", "9"]
        async with channels.subscribe("a", since=events[0].id) as subscription:
            assert data_of(await take(subscription, 2)) == ["8", "9"]


async def test_an_id_of_another_life_is_a_gap(make: Make) -> None:
    async with make() as channels:
        id = Id.parse(await channels.publish("a", "1"))
        other = str(id._replace(epoch="00000000" if id.epoch != "00000000" else "11111111"))
        ahead = str(id._replace(seq=id.seq + 5))
        for since in (other, ahead):
            async with channels.subscribe("a", since=since) as subscription:
                assert data_of(await take(subscription, 2)) == [Gap("a", since, since), "1"]


@pytest.mark.parametrize(
    "id", ["", "1", "1-2", "1-2-3", "x-1-00000000", "-1-1-00000000", "1-1-00000000 ", "$", "0-0"]
)
async def test_an_id_that_is_none(make: Make, id: str) -> None:
    async with make() as channels, channels.subscribe("a") as other:
        with pytest.raises(ValueError, match="an event's id looks like"):
            async with channels.subscribe("b", since=id):
                raise AssertionError("it was entered")
        await channels.publish("a", "1")
        assert data_of(await take(other, 1)) == ["1"]
        assert list(channels._hub._channels) == ["a"]


async def test_nothing_is_missed_or_doubled_when_joining_during_traffic(make: Make) -> None:
    """Many subscribe, from the beginning, while others publish."""
    async with make(history=500) as channels:
        first = await channels.publish("a", "0")
        received: list[list[str]] = []

        async def subscribe(delay: int) -> None:
            for _ in range(delay):
                await anyio.lowlevel.checkpoint()
            async with channels.subscribe("a", since=first) as subscription:
                received.append(data_of(await take(subscription, 200)))

        async with anyio.create_task_group() as tasks:
            for delay in range(30):
                tasks.start_soon(subscribe, delay * 7)
            for number in range(1, 201):
                await channels.publish("a", str(number))
        assert received == [[str(number) for number in range(1, 201)]] * 30
        assert is_clean(channels)


# Full outboxes of subscriptions


async def test_drop_oldest(make: Make) -> None:
    async with (
        make() as channels,
        channels.subscribe("a", policy="drop_oldest", max_messages=3) as subscription,
        channels.subscribe("a") as other,
    ):
        for number in range(10):
            await channels.publish("a", str(number))
        await take(other, 10)
        assert data_of(await take(subscription, 4)) == [Dropped(7), "7", "8", "9"]
        await channels.publish("a", "10")
        assert data_of(await take(subscription, 1)) == ["10"]
        assert (subscription.dropped, subscription.pending) == (7, 0)


async def test_drop_newest(make: Make) -> None:
    async with (
        make() as channels,
        channels.subscribe("a", policy="drop_newest", max_messages=3) as subscription,
        channels.subscribe("a") as other,
    ):
        for number in range(10):
            await channels.publish("a", str(number))
        await take(other, 10)
        assert data_of(await take(subscription, 4)) == ["0", "1", "2", Dropped(7)]
        await channels.publish("a", "10")
        assert data_of(await take(subscription, 1)) == ["10"]
        assert (subscription.dropped, subscription.pending) == (7, 0)


@pytest.mark.parametrize("max_messages", [1, 2, 100, 256])
async def test_a_burst_is_no_reason_to_end(make: Make, max_messages: int) -> None:
    """Who takes what comes as fast as it comes is not slow, however much there is."""
    count = 3000

    async with (
        make(history=count) as channels,
        channels.subscribe("a", max_messages=max_messages) as subscription,
        anyio.create_task_group() as tasks,
    ):

        async def publish(part: int) -> None:
            for number in range(part, count, 30):
                await channels.publish("a", str(number))

        for part in range(30):
            tasks.start_soon(publish, part)
        taken = data_of(await take(subscription, count))
        assert sorted(map(int, taken)) == list(range(count))


async def test_closing_a_subscription_that_is_full(make: Make) -> None:
    """What waited is given, then comes the error, and with its positions nothing is lost."""
    async with make() as channels, channels.subscribe("a") as other:
        async with channels.subscribe("a", max_messages=3) as subscription:
            for number in range(10):
                await channels.publish("a", str(number))
            await take(other, 10)
            assert data_of(await take(subscription, 3)) == ["0", "1", "2"]
            with pytest.raises(OutboxFull, match=r"Subscribe again with `since=error.positions`") as caught:
                await anext(subscription)
            with pytest.raises(OutboxFull):
                await anext(subscription)
            assert subscription.dropped == 1
        async with channels.subscribe("a", since=caught.value.positions) as again:
            assert data_of(await take(again, 7)) == [str(number) for number in range(3, 10)]


async def test_bytes_are_bounded_too(make: Make) -> None:
    async with (
        make() as channels,
        channels.subscribe("a", policy="drop_oldest", max_bytes=10) as subscription,
        channels.subscribe("a") as other,
    ):
        for data in ("x" * 4, "ü" * 2, b"x" * 3, "x" * 50, "y"):
            await channels.publish("a", data)
        await take(other, 5)
        # One alone may be larger. The next one puts it out.
        assert data_of(await take(subscription, 2)) == [Dropped(4), "y"]
        for data in ("x" * 4, "ü" * 3):
            await channels.publish("a", data)
        await take(other, 2)
        assert data_of(await take(subscription, 2)) == ["x" * 4, "ü" * 3]


async def test_the_history_that_was_asked_for_has_no_part_in_the_bounds(make: Make) -> None:
    async with make() as channels:
        for number in range(20):
            await channels.publish("a", str(number))
        async with channels.subscribe("a", history=20, max_messages=2) as subscription:
            await channels.publish("a", "20")
            await channels.publish("a", "21")
            assert data_of(await take(subscription, 22)) == [str(number) for number in range(22)]


# Presence


async def test_who_is_there(make: Make) -> None:
    async with make() as channels, channels.subscribe("a", "b", presence=True) as subscription:
        ada, bob = channels._hub.roster.member("a", '{"name":"ada"}'), channels._hub.roster.member("a", "1")
        await channels._hub.roster.appear([ada, bob])
        assert await channels.members("a") == [ada, bob]
        assert [member.json() for member in await channels.members("a")] == [{"name": "ada"}, 1]
        assert await channels.members("b") == []
        await channels._hub.roster.appear([ada])  # again: it is there already
        await channels._hub.roster.vanish([ada])
        await channels._hub.roster.vanish([ada])
        assert await channels.members("a") == [bob]
        await channels._hub.roster.vanish([bob])
        items = await take(subscription, 4)
        assert items == [
            Presence("join", ada, 1),
            Presence("join", bob, 1),
            Presence("leave", ada, 0),
            Presence("leave", bob, 0),
        ]
        assert items[0].channel == "a"
        assert subscription.pending == 0
        assert list(subscription.positions) == ["a", "b"]


async def test_a_member_that_is_not_heard_of_any_more_is_gone(make: Make) -> None:
    async with make(presence_ttl=0.3) as channels, channels.subscribe("a", presence=True) as subscription:
        crashed, alive = channels._hub.roster.member("a", "1"), channels._hub.roster.member("a", "2")
        await channels._hub.roster.appear([crashed, alive])
        channels._hub.roster.forget([crashed])
        assert await take(subscription, 3) == [
            Presence("join", crashed, 1), Presence("join", alive, 1), Presence("leave", crashed, 0)
        ]  # fmt: skip
        assert await channels.members("a") == [alive]
        await channels.backend.reap(["a"])
        assert subscription.pending == 0


async def test_a_channel_with_many_members_of_one_process(make: Make) -> None:
    channels = make(presence_ttl=60)
    async with channels:
        members = [channels._hub.roster.member("a", str(number)) for number in range(3_000)]
        await channels._hub.roster.appear(members)
        assert len(await channels.members("a")) == 3_000
        # The heartbeat says it again, of all of them in one call.
        await channels.backend.appear(members, 60)
        assert await channels.members("a") == members
    async with channels:
        assert await channels.members("a") == []


async def test_stopping_takes_the_members_away(make: Make) -> None:
    channels = make()
    async with channels:
        await channels._hub.roster.appear([channels._hub.roster.member("a", "1")])
    async with channels:
        assert await channels.members("a") == []


# Out of turn


async def test_before_the_start_and_after_the_stop(make: Make) -> None:
    channels = make()
    uses: list[Callable[[], Any]] = [
        lambda: channels.publish("a", "1"),
        lambda: channels.publish_json("a", 1),
        lambda: channels.subscribe("a").__aenter__(),
        lambda: channels.members("a"),
        lambda: channels.drain(),
    ]
    for use in uses:
        with pytest.raises(WebSocketRuntimeError, match=r"cannot .* yet: the channels are not started"):
            await use()
    with pytest.raises(WebSocketRuntimeError, match="yet"):
        _ = channels.ready
    async with channels:
        assert channels.ready.is_set()
        with pytest.raises(WebSocketRuntimeError, match="running already"):
            await channels.__aenter__()
        await channels.publish("a", "1")
    for use in uses:
        with pytest.raises(WebSocketRuntimeError, match=r"cannot .* any longer: the channels were stopped"):
            await use()


async def test_starting_again(make: Make) -> None:
    channels = make()
    for _ in range(3):
        async with channels, channels.subscribe("a") as subscription:
            await channels.publish("a", "1")
            assert data_of(await take(subscription, 1)) == ["1"]


async def test_on_another_event_loop(make: Make, anyio_backend: str) -> None:
    async with make() as channels, channels.subscribe("a") as subscription:
        failures: list[BaseException] = []

        async def elsewhere() -> None:
            for use in (lambda: channels.publish("a", "1"), lambda: channels.subscribe("a").__aenter__()):
                try:
                    await use()
                except WebSocketRuntimeError as error:
                    failures.append(error)

        thread = threading.Thread(target=lambda: anyio.run(elsewhere, backend=anyio_backend))
        thread.start()
        await until(lambda: not thread.is_alive())
        thread.join()
        assert ["on another event loop" in str(failure) for failure in failures] == [True, True]
        await channels.publish("a", "2")
        assert data_of(await take(subscription, 1)) == ["2"]


async def test_a_subscription_out_of_turn(make: Make) -> None:
    async with make() as channels:
        subscription = channels.subscribe("a")
        with pytest.raises(WebSocketRuntimeError, match="enter the subscription"):
            await anext(subscription)
        async with subscription:
            with pytest.raises(WebSocketRuntimeError, match="entered before"):
                await subscription.__aenter__()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anext, subscription)
                await until(lambda: subscription._waiting)
                with pytest.raises(WebSocketRuntimeError, match="another task is waiting"):
                    await anext(subscription)
                await channels.publish("a", "1")
        with pytest.raises(WebSocketRuntimeError, match="in that block"):
            await anext(subscription)
        with pytest.raises(WebSocketRuntimeError, match="entered before"):
            await subscription.__aenter__()


async def test_stopping_ends_the_iterations(make: Make) -> None:
    ended = []

    async def iterate(channels: Channels, entered: anyio.Event) -> None:
        async with channels.subscribe("a") as subscription:
            entered.set()
            async for event in subscription:
                ended.extend(data_of([event]))
            ended.append("end")

    async with anyio.create_task_group() as tasks, make() as channels:
        entered = anyio.Event()
        tasks.start_soon(iterate, channels, entered)
        await entered.wait()
        await channels.publish("a", "1")
        await until(lambda: ended)
    assert ended == ["1", "end"]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda it: it.publish("", "1"), ValueError, "must not be empty or start with a NUL"),
        (lambda it: it.publish("\0presence:a", "1"), ValueError, "must not be empty or start with a NUL"),
        (lambda it: it.publish("\ud800", "1"), ValueError, "must encode to UTF-8"),
        (lambda it: it.publish(b"a", "1"), TypeError, "a channel's name must be str, got bytes"),
        (lambda it: it.publish("a", "\ud800"), ValueError, "lone surrogate"),
        (lambda it: it.publish("a", 1), TypeError, "binary data must be bytes-like, got int"),
        (lambda it: it.publish_json("a", {1}), TypeError, "set"),
        (
            lambda it: it.publish_json("a", float("nan")),
            ValueError,
            "NaN or an infinity, which JSON does not have",
        ),
        (lambda it: it.members(""), ValueError, "must not be empty"),
    ],
)
async def test_wrong_arguments(make: Make, call: Any, error: type[Exception], words: str) -> None:
    async with make() as channels, channels.subscribe("a") as subscription:
        with pytest.raises(error, match=words):
            await call(channels)
        await channels.publish("a", "1")
        assert data_of(await take(subscription, 1)) == ["1"]


# Cancelling


class Boom(Exception):
    """Of a body."""


async def test_cancelling_the_iteration_loses_nothing(make: Make) -> None:
    async with make() as channels, channels.subscribe("a") as subscription:
        received: list[str] = []
        for number in range(30):
            with anyio.move_on_after(0):
                received += data_of(await take(subscription, 1))
            await channels.publish("a", str(number))
        received += data_of(await take(subscription, 30 - len(received)))
        assert received == [str(number) for number in range(30)]


@pytest.mark.parametrize("what", ["subscribe", "publish", "members", "appear"])
async def test_cancelling_anywhere_leaves_nothing(make: Make, what: str) -> None:
    async def use(channels: Channels, done: list[str]) -> None:
        if what == "subscribe":
            async with channels.subscribe("a", "b", presence=True, history=1):
                done.append(what)
        elif what == "appear":
            member = channels._hub.roster.member("a", "1")
            try:
                await channels._hub.roster.appear([member])
            finally:
                await channels._hub.roster.vanish([member])
            done.append(what)
        else:
            await (channels.publish("a", "1") if what == "publish" else channels.members("a"))
            done.append(what)

    async with make() as channels, channels.subscribe("c", presence=True) as other:
        done: list[str] = []
        turns = 0
        while not done:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(use, channels, done)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            turns += 1
            assert list(channels._hub._channels) == ["c", presence_of("c")]
            assert list(channels._hub._outboxes) == [other._outbox]
            assert not channels._hub.roster.members
        assert turns > 1
        await channels.publish("c", "1")
        assert data_of(await take(other, 1)) == ["1"]


async def test_an_exception_leaves_nothing(make: Make) -> None:
    async with make() as channels:
        with pytest.raises(Boom):
            async with channels.subscribe("a"):
                raise Boom
        assert is_clean(channels)
    with pytest.raises(Boom):
        async with make():
            raise Boom


async def test_cancelling_what_is_around_the_channels(make: Make) -> None:
    before = len(anyio.get_running_tasks())
    for turns in range(12):
        async with anyio.create_task_group() as tasks:

            async def live() -> None:
                async with make() as channels, channels.subscribe("a"):
                    await anyio.sleep_forever()

            tasks.start_soon(live)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert len(anyio.get_running_tasks()) == before


# Backends of one's own


class Faulty(MemoryBackend):
    """Fails where it never should."""

    def __init__(self) -> None:
        super().__init__(history=100, max_age=None)
        self.faults: list[str] = []

    async def read(self, positions: Any) -> Any:
        found = await super().read(positions)
        if "read" in self.faults:
            self.faults.remove("read")
            raise Boom("reading")
        return found

    async def appear(self, members: Any, ttl: float) -> None:
        if "appear" in self.faults:
            self.faults.remove("appear")
            raise Boom("appearing")
        await super().appear(members, ttl)

    async def vanish(self, members: Any) -> None:
        if "vanish" in self.faults:
            raise Boom("vanishing")
        await super().vanish(members)

    async def stop(self) -> None:
        if "stop" in self.faults:
            raise Boom("stopping")
        await super().stop()


async def test_the_reader_never_dies(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lilya.websockets.channels._hub._RETRY", (0.001, 0.002))
    backend = Faulty()
    async with Channels(backend) as channels, channels.subscribe("a") as subscription:
        backend.faults += ["read", "read", "read"]
        for number in range(5):
            await channels.publish("a", str(number))
        assert data_of(await take(subscription, 5)) == list("01234")
    # Once for each outage, however often it was tried.
    assert [record.message for record in caplog.records] == ["reading the channels failed; it is tried again"]


async def test_presence_fails(caplog: pytest.LogCaptureFixture) -> None:
    backend = Faulty()
    async with Channels(backend, presence_ttl=0.03) as channels, channels.subscribe("a", presence=True):
        member = channels._hub.roster.member("a", "1")
        await channels._hub.roster.appear([member])
        backend.faults += ["appear", "appear", "vanish", "stop"]
        await until(lambda: "appear" not in backend.faults)
        await channels._hub.roster.vanish([member])
        assert not channels._hub.roster.members
    messages = [record.message for record in caplog.records]
    assert messages == [
        "could not say who is in the channels; it is tried again: appearing",
        "could not say who has left a channel: vanishing",
        "the backend of the channels did not stop as it should",
    ]


async def test_a_join_that_fails_and_a_leave_that_is_said_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lilya.websockets.channels._roster._RETRY", (0.001, 0.002))
    monkeypatch.setattr("lilya.websockets.channels._roster._PATIENCE", 0.01)
    backend = Faulty()
    async with Channels(backend) as channels:
        roster = channels._hub.roster
        first, second = roster.member("a", "1"), roster.member("a", "2")
        await roster.appear([first])
        backend.faults += ["vanish", "appear"]
        await roster.vanish([first])  # nobody is told, and it is said again and again
        assert [member.id for member in await channels.members("a")] == [first.id]
        with pytest.raises(Boom, match="vanishing"):
            await roster.appear([second])
        backend.faults.remove("vanish")
        with pytest.raises(Boom, match="appearing"):
            while True:
                await roster.appear([second])
        await roster.vanish([second])
        while await channels.members("a"):
            await anyio.lowlevel.checkpoint()
        assert [record.message for record in caplog.records] == [
            "could not say who has left a channel; it is tried again: vanishing"
        ]


async def test_joins_and_leaves_while_the_channels_stop() -> None:
    """Nobody stays, and nobody waits for what is not sent any more."""
    appearing, vanishing, go_on = anyio.Event(), anyio.Event(), anyio.Event()
    stuck = False

    class Slow(MemoryBackend):
        async def appear(self, members: Any, ttl: float) -> None:
            await super().appear(members, ttl)
            if stuck:
                appearing.set()
                await anyio.sleep_forever()

        async def vanish(self, members: Any) -> None:
            vanishing.set()
            await go_on.wait()
            await super().vanish(members)

    backend = Slow(history=100, max_age=None)
    refused: list[str] = []

    async def join(roster: Roster, *members: Member) -> None:
        try:
            await roster.appear(members)
        except BrokerError as error:
            refused.append(str(error))

    await backend.start()
    async with anyio.create_task_group() as group:
        roster = Roster(backend, 30, set)
        group.start_soon(roster.run)
        early, sent, waiting, late = (roster.member("a", name) for name in ("1", "2", "3", "4"))
        await roster.appear([early])
        stuck = True
        group.start_soon(join, roster, sent)
        await appearing.wait()
        group.start_soon(join, roster, waiting)
        while len(roster.members) < 3:
            await anyio.lowlevel.checkpoint()
        # It leaves when the stop has begun, and has not looked yet who is there.
        roster._is_stopping = True
        await roster.vanish([early])
        group.start_soon(roster.stop)
        await vanishing.wait()
        await join(roster, late)
        assert refused == ["cannot join: the channels were stopped"]
        go_on.set()
        await until(lambda: len(refused) == 3)
        assert await backend.members("a") == []
    await backend.stop()


@pytest.mark.parametrize("part", [(2, 1000), (1000, 2)], ids=["members", "bytes"])
async def test_who_has_joined_while_a_part_was_said_again(
    part: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part has so many members at most, and so many bytes."""
    monkeypatch.setattr("lilya.websockets.channels._roster._PART", part)
    calls: list[int] = []
    left: list[int] = []

    class Counting(MemoryBackend):
        async def appear(self, members: Any, ttl: float) -> None:
            calls.append(len(members))
            await super().appear(members, ttl)

        async def vanish(self, members: Any) -> None:
            left.append(len(members))
            await super().vanish(members)

    async with Channels(Counting(history=100, max_age=None), presence_ttl=0.06) as channels:
        members = [channels._hub.roster.member("a", "1") for _ in range(5)]
        await channels._hub.roster.appear(members)
        await until(lambda: len(calls) >= 7)
        assert calls[:7] == [5, 2, 2, 1, 2, 2, 1]
        while len(await channels.members("a")) != 5:  # on a busy machine their time may be over in between
            await anyio.lowlevel.checkpoint()
    assert left == [2, 2, 1]


async def test_who_leaves_while_others_are_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not renewed in a later part: that would make them join again."""
    monkeypatch.setattr("lilya.websockets.channels._roster._PART", (2, 1000))
    renewing, left = anyio.Event(), anyio.Event()
    calls: list[list[str]] = []

    class Held(MemoryBackend):
        async def appear(self, members: Any, ttl: float) -> None:
            calls.append([member.info for member in members])
            if len(calls) == 2:
                renewing.set()
                await left.wait()
            await super().appear(members, ttl)

    async with Channels(Held(history=100, max_age=None), presence_ttl=0.06) as channels:
        roster = channels._hub.roster
        members = [roster.member("a", f"{n}") for n in range(3)]
        await roster.appear(members)
        await renewing.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(roster.vanish, members[2:])
            await until(lambda: members[2].id not in roster.members)
            left.set()
        await until(lambda: len(calls) >= 3)
        assert calls[:3] == [["0", "1", "2"], ["0", "1"], ["0", "1"]]


async def test_who_is_leaving_when_the_channels_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request that was to say it has not ended: it is said again."""
    monkeypatch.setattr("lilya.websockets.channels._roster._PATIENCE", 0.01)
    calls: list[list[str]] = []

    class Hanging(MemoryBackend):
        async def vanish(self, members: Any) -> None:
            calls.append([member.id for member in members])
            if len(calls) == 1:
                await anyio.sleep_forever()
            await super().vanish(members)

    async with Channels(Hanging(history=100, max_age=None)) as channels:
        roster = channels._hub.roster
        member = roster.member("a", "1")
        await roster.appear([member])
        await roster.vanish([member])
    assert calls == [[member.id], [member.id]]


async def test_a_process_with_members_removes_those_of_others() -> None:
    """When they have expired, also from a channel whose joins and leaves nobody in this process wants."""
    backend = MemoryBackend(history=100, max_age=None)
    async with Channels(backend, presence_ttl=0.03) as channels:
        roster = channels._hub.roster
        await roster.appear([roster.member("a", "1")])
        await backend.appear([Member("a", "of a process that is gone", "1")], 0.001)
        await until(lambda: "of a process that is gone" not in backend._members.get("a", ()))


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([], []),
        ([1, 1, 1, 1, 1, 1, 1], [3, 3, 1]),  # three at most
        ([4, 4, 4], [2, 1]),  # ten bytes at most
        ([5, 5, 1], [2, 1]),
        ([50, 1, 1], [1, 2]),  # one may have more
        ([1, 50, 1], [1, 1, 1]),
    ],
)
def test_parts_of_members(sizes: list[int], parts: list[int]) -> None:
    members = [Member("a", f"{n}", "1" * size) for n, size in enumerate(sizes)]
    found = list(in_parts(members, 3, 10))
    assert [len(part) for part in found] == parts
    assert [member for part in found for member in part] == members


def test_parts_are_measured_in_bytes() -> None:
    wide = [Member("a", "1", '"ä"', "ö"), Member("a", "2", '"ä"', "ö")]  # 4 and 2 bytes each
    assert list(in_parts(wide, 3, 12)) == [wide]
    assert list(in_parts(wide, 3, 11)) == [wide[:1], wide[1:]]


async def test_a_backend_that_does_not_start() -> None:
    class Away(MemoryBackend):
        away = True

        async def start(self) -> None:
            if self.away:
                raise Boom("nobody there")
            await super().start()

    backend = Away(history=1, max_age=None)
    channels = Channels(backend)
    for _ in range(2):
        with pytest.raises(Boom):
            await channels.__aenter__()
    backend.away = False
    async with channels:
        assert repr(channels) == "<Channels, running, Away>"


def test_the_interface_is_complete() -> None:
    assert Backend.__abstractmethods__ == {
        "appear", "history", "members", "publish", "read", "reap", "start", "stop", "unwatch", "vanish",
        "wake", "watch",
    }  # fmt: skip


# Making them


@pytest.mark.parametrize(
    ("url", "options", "error", "words"),
    [
        ("http://localhost", {}, ValueError, "starts with one of memory://, redis://.*got the scheme 'http'"),
        ("memory", {}, ValueError, "got none of them"),
        ("nonsense://ada:secret@host", {}, ValueError, r"got the scheme 'nonsense'$"),
        ("memory://x", {}, ValueError, "'memory://', without anything after it"),
        (1, {}, TypeError, "url must be str or a Backend, got int"),
        ("memory://", {"timeout": 1}, TypeError, "no option 'timeout'"),
        ("memory://", {"history": 0}, ValueError, "history must be at least 1, got 0"),
        ("memory://", {"history": True}, TypeError, "history must be int, got bool"),
        ("memory://", {"max_age": 0}, ValueError, "max_age must be above 0"),
        ("memory://", {"presence_ttl": "1"}, TypeError, "presence_ttl must be a number"),
        ("memory://", {"prefix": ""}, ValueError, "prefix must not be empty"),
        ("memory://", {"prefix": 1}, TypeError, "prefix must be str, got int"),
        (
            MemoryBackend(history=1, max_age=None),
            {"timeout": 1},
            TypeError,
            "takes its options itself, got timeout",
        ),
    ],
)
def test_channels_that_cannot_be_made(url: Any, options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Channels(url, **options)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
def test_a_missing_extra(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lilya.websockets.channels._redis", None)
    with pytest.raises(ImportError, match=r"need the extra 'redis': install lilya-websockets\[redis\]"):
        Channels(f"{scheme}://localhost")


@pytest.mark.parametrize(
    ("names", "options", "error", "words"),
    [
        ((), {}, ValueError, "there must be the name of a channel"),
        ((1,), {}, TypeError, "must be str, got int"),
        (("a",), {"history": -1}, ValueError, "history must be at least 0"),
        (("a",), {"policy": "drop"}, ValueError, "'close', 'drop_oldest', 'drop_newest', got 'drop'"),
        (("a",), {"max_messages": 0}, ValueError, "max_messages must be at least 1"),
        (("a",), {"max_bytes": 0}, ValueError, "max_bytes must be at least 1"),
        (("a", "b"), {"since": "1-1-00000000"}, ValueError, "an id is of one channel, and these are 2"),
        (("a",), {"since": 1}, TypeError, "since must be str or a mapping of str, got int"),
        (("a",), {"since": {"a": 1}}, TypeError, "an event's id must be str, got int"),
        (("a",), {"since": {"b": "1-1-00000000"}}, ValueError, "the channel 'b', which is not among"),
    ],
)
def test_a_subscription_that_cannot_be_made(
    names: Any, options: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Channels().subscribe(*names, **options)


def test_an_id_has_parts() -> None:
    id = Id(1764106141000, 42, "9f3c01d2")
    assert str(id) == "1764106141000-42-9f3c01d2"
    assert Id.parse(str(id)) == id
    with pytest.raises(TypeError, match="must be str, got int"):
        Id.parse(1)


def test_what_is_told_of_a_member_is_json() -> None:
    member = Member("a", 'x"y', '{"name":"ä"}')
    assert json.loads(presence_event("join", member, 2)) == {
        "type": "join", "id": 'x"y', "info": {"name": "ä"}, "key": None, "sockets": 2,
    }  # fmt: skip


# Seldom


class Odd(MemoryBackend):
    """Does at a time of the test's choice what other backends may do at any."""

    def __init__(self) -> None:
        super().__init__(history=100, max_age=None)
        self.given: list[Event | Gap] = []
        self.slow: anyio.Event | None = None
        self.reading: anyio.Event | None = None

    async def history(self, channel: str, *, last: int = 0, since: str | None = None) -> Any:
        found = await super().history(channel, last=last, since=since)
        if self.slow is not None:
            await self.slow.wait()
        return found

    async def read(self, positions: Any) -> Any:
        found = await super().read(positions)
        if self.reading is not None:
            await self.reading.wait()
        given, self.given = self.given, []
        return [*given, *found]


async def test_a_gap_while_reading() -> None:
    backend = Odd()
    async with Channels(backend) as channels, channels.subscribe("a") as subscription:
        first = await channels.publish("a", "1")
        assert data_of(await take(subscription, 1)) == ["1"]
        gap = Gap("a", first, str(Id.parse(first)._replace(seq=9)))
        backend.given = [gap]
        backend.wake()
        assert await anext(subscription) == gap
        assert subscription.positions == {"a": gap.id}
        assert channels._hub._positions == {"a": gap.id}


async def test_a_history_that_is_behind_the_reader() -> None:
    """What comes while somebody waits for the history is not given twice, and not lost."""
    backend = Odd()
    async with Channels(backend) as channels, channels.subscribe("a") as other:
        await channels.publish("a", "before")
        backend.slow = anyio.Event()
        received: list[Any] = []

        async def late() -> None:
            async with channels.subscribe("a", history=9) as subscription:
                received.extend(await take(subscription, 3))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(late)
            await until(lambda: len(channels._hub._outboxes) == 2)
            await channels.publish("a", "meanwhile")
            assert data_of(await take(other, 2)) == ["before", "meanwhile"]
            backend.slow.set()
            await anyio.wait_all_tasks_blocked()
            await channels.publish("a", "after")
        assert data_of(received) == ["before", "meanwhile", "after"]


async def test_a_reader_that_is_behind_the_history() -> None:
    backend = Odd()
    async with Channels(backend) as channels, channels.subscribe("a") as other:
        backend.reading = anyio.Event()
        for number in range(3):
            await channels.publish("a", str(number))
        async with channels.subscribe("a", history=1) as exact, channels.subscribe("a") as none:
            await channels.publish("a", "3")
            async with channels.subscribe("a", history=1) as later:
                backend.reading.set()
                await channels.publish("a", "4")
                assert data_of(await take(other, 5)) == list("01234")
                assert data_of(await take(exact, 3)) == list("234")
                assert data_of(await take(none, 2)) == list("34")
                assert data_of(await take(later, 2)) == list("34")
        assert channels._hub._channels["a"].joining == {}


async def test_leaving_and_coming_during_one_read() -> None:
    """What is under way to those who have left is not given to those who came."""
    backend = Odd()
    async with Channels(backend) as channels:
        async with channels.subscribe("a"):
            await anyio.wait_all_tasks_blocked()
            backend.reading = anyio.Event()
            await channels.publish("a", "1")
            await anyio.wait_all_tasks_blocked()
        async with channels.subscribe("a") as subscription:
            backend.reading.set()
            await channels.publish("a", "2")
            assert data_of(await take(subscription, 1)) == ["2"]
        backend.reading = anyio.Event()
        async with channels.subscribe("a"):
            await channels.publish("a", "3")
            await anyio.wait_all_tasks_blocked()
        backend.reading.set()  # nobody is there any more
        async with channels.subscribe("b") as subscription:
            await channels.publish("b", "4")
            assert data_of(await take(subscription, 1)) == ["4"]


@pytest.mark.parametrize("limits", [(1, 1_000), (1_000, 1)])
async def test_full_before_the_history_has_come(
    limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not slow, but what waits for it has limits, too."""
    monkeypatch.setattr(_outbox, "_JOINING", limits)
    backend = Odd()
    async with Channels(backend) as channels, channels.subscribe("a") as other:
        backend.slow = anyio.Event()

        async def late() -> None:
            async with channels.subscribe("a", "b", max_messages=1) as subscription:
                assert data_of(await take(subscription, 1)) == ["0"]
                with pytest.raises(OutboxFull):
                    await anext(subscription)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(late)
            await until(lambda: len(channels._hub._outboxes) == 2)
            await anyio.wait_all_tasks_blocked()  # until both histories were read, without what follows
            for number in range(3):
                await channels.publish("a", str(number))
            await take(other, 3)
            backend.slow.set()
        assert list(channels._hub._outboxes) == [other._outbox]


async def test_memory_forgets_what_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_764_106_141_000_000_000
    monkeypatch.setattr("time.time_ns", lambda: now)
    async with Channels(max_age=10) as channels, channels.subscribe("read") as subscription:
        old = {name: await channels.publish(name, "1") for name in ("read", "unread", "silent")}
        now += 6_000_000_000
        await channels.publish("unread", "2")
        now += 5_000_000_000
        async with channels.subscribe("unread", history=9) as late:
            assert data_of(await take(late, 1)) == ["2"]
        await channels.publish("other", "1")  # and the channels that are silent for too long are gone
        assert sorted(channels.backend._logs) == ["other", "read", "unread"]  # type: ignore[attr-defined]
        # A subscription over a channel goes on as if nothing had been.
        await channels.publish("read", "2")
        assert data_of(await take(subscription, 2)) == ["1", "2"]
        # Who comes back is told that nobody knows.
        await channels.publish("silent", "2")
        async with channels.subscribe("silent", since=old["silent"]) as late:
            assert data_of(await take(late, 2)) == [Gap("silent", old["silent"], old["silent"]), "2"]
        async with channels.subscribe("gone", since=old["silent"]) as late:
            (gap,) = await take(late, 1)
            assert gap.id.startswith("0-0-")


async def test_the_clock_goes_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_764_106_141_000_000_000
    monkeypatch.setattr("time.time_ns", lambda: now)
    async with Channels() as channels, channels.subscribe("a") as subscription:
        first = Id.parse(await channels.publish("a", "1"))
        now -= 5_000_000_000
        second = Id.parse(await channels.publish("a", "2"))
        assert (second.ms, second.seq) == (first.ms, first.seq + 1)
        assert data_of(await take(subscription, 2)) == ["1", "2"]


async def test_memory_tells_its_reader_of_a_gap() -> None:
    """A backend may be used without `Channels`, by a reader that is slow."""
    backend = MemoryBackend(history=2, max_age=None)
    await backend.start()
    await backend.watch(["a", "b"])
    first = await backend.publish("a", "0")
    for number in range(1, 5):
        await backend.publish("a", str(number))
    id = Id.parse(first)
    gap, *events = await backend.read({"a": first, "b": first})
    assert gap == Gap("a", first, str(Id.parse(events[0].id)._replace(seq=id.seq + 2)))
    assert [event.data for event in events if isinstance(event, Event)] == ["3", "4"]
    other = str(id._replace(epoch="00000000"))
    backend.wake()
    assert data_of(list(await backend.read({"a": other}))[1:]) == ["3", "4"]
    backend._logs["a"].events.clear()
    backend.wake()
    (gap,) = await backend.read({"a": first, "b": first})
    assert gap == Gap("a", first, events[1].id)
    await backend.stop()


async def test_a_publisher_waits_for_the_reader() -> None:
    """So what is trimmed was read, however small the history is."""
    async with Channels(history=1) as channels, channels.subscribe("a") as subscription:
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(channels.publish, "a", str(number))
        assert sorted(data_of(await take(subscription, 50)), key=int) == [str(n) for n in range(50)]
        assert subscription.dropped == 0


def test_redis_is_made_by_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class RedisBackend(MemoryBackend):
        def __init__(self, url: str, **options: Any) -> None:
            super().__init__(history=1, max_age=None)
            made.append((url, options))

    module = ModuleType("lilya.websockets.channels._redis")
    module.RedisBackend = RedisBackend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    channels = Channels("redis://h", history=5, max_age=None, prefix="p", retry=1)
    assert isinstance(channels.backend, RedisBackend)
    assert made == [("redis://h", {"history": 5, "max_age": None, "prefix": "p", "retry": 1})]


async def test_nobody_is_there() -> None:
    async with Channels(presence_ttl=0.003):
        await anyio.sleep(0.02)  # nothing to be said, and nothing said


async def test_what_the_history_has_is_taken_out() -> None:
    """And its bytes with it, as they no longer wait."""
    async with Channels() as channels:
        outbox = Outbox("close", 9, 99)
        events = [Event("a", f"{n}-{n}-00000000", "x" * n) for n in range(1, 4)]
        events.append(Event("b", "1-1-00000000", "x" * 9))
        for event in events:
            outbox.put(Entry.of(event))
        channels._hub._take_out(outbox, "a", events[1].id)
        assert [entry.item for entry in outbox.entries] == events[2:]
        assert outbox.held == 3 + 9


def test_an_outbox_alone() -> None:
    """What is lost is counted where it is lost."""
    outbox = Outbox("drop_oldest", 2, 10)
    assert outbox.take() is None
    for number in range(4):
        outbox.put(Entry.of(Event("a", str(number), "x" * 4)))
    items = [entry.item for entry in iter(outbox.take, None)]
    assert items[0] == Dropped(2)
    assert [item.id for item in items[1:] if isinstance(item, Event)] == ["2", "3"]
    outbox.put(Entry.of(Event("a", "5", b"x" * 50)))  # alone, it may be larger
    assert (outbox.pending, outbox.held, outbox.dropped) == (1, 50, 2)
    outbox.clear()
    assert (outbox.pending, outbox.held, outbox.dropped) == (0, 0, 3)
    for number in range(3):
        outbox.put(Entry.of(Event("a", str(number), "x")))
    outbox.max_messages = 3  # what says that something is missing takes no place
    outbox.put(Entry.of(Event("a", "3", "x")))
    assert outbox.entries[0].item == Dropped(1)
    assert (outbox.pending, outbox.dropped) == (4, 4)
    # What has come while it was joining takes no place, either.
    outbox.clear()
    outbox.joining = True
    outbox.max_messages = 1
    for number in range(3):
        outbox.put(Entry.of(Event("a", str(number), "x" * 5)))
    outbox.begin()
    outbox.put(Entry.of(Event("a", "3", "x" * 10)))
    assert (outbox.pending, outbox.held, outbox.dropped) == (4, 10, 8)
    closing = Outbox("close", 1, 10)
    for _ in range(2):
        closing.put(Entry.of(Event("a", "1", "")))
    assert closing.pending == 1
