"""Random sessions in channels against a model.

Some publish, some subscribe, sockets join, are slow, and leave; outboxes and the history are small.
Whatever happens: who receives gets each event once and in order, or is told exactly how many are missing at
this place, and in the end every event was given, dropped and counted, or waits.
"""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilya.websockets.channels import (
    Channels,
    Dropped,
    Event,
    Gap,
    Membership,
    OutboxFull,
    Subscription,
)
from lilya.websockets.channels.backends import Id

from .examples import examples
from .server import Server

HISTORY = 4
POLICIES = ["drop_oldest", "drop_newest", "close"]

receivers = st.tuples(
    st.sampled_from(["subscribe", "join"]),
    st.sampled_from("ab"),
    st.sampled_from(POLICIES),
    st.integers(1, 4),  # messages
    st.integers(1, 12),  # bytes
    st.integers(0, 5),  # history
    st.one_of(st.none(), st.integers(0, 8)),  # since which event of the channel
)
operations = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from("ab"), st.integers(0, 6), st.integers(1, 6)),
    receivers,
    st.tuples(st.just("take"), st.integers(0, 5), st.integers(1, 4)),
    st.tuples(st.just("hold"), st.integers(0, 5)),
    st.tuples(st.just("release"), st.integers(0, 5)),
    st.tuples(st.just("leave"), st.integers(0, 5)),
    st.tuples(st.just("rest"), st.integers(1, 6)),
)


class Receiver:
    """One who receives, and what it was given."""

    def __init__(self, channel: str, policy: str, since: str | None) -> None:
        self.channel = channel
        self.policy = policy
        self.since = since
        self.items: list[Any] = []
        self.leaving = anyio.Event()
        self.left = anyio.Event()
        self.subject: Subscription | Membership
        self.server: Server | None = None
        self.full = False
        self.begins = 0  # the number of the last event before it

    def encode(self, item: Any) -> str:
        self.items.append(item)
        return "x"

    async def take(self, count: int) -> None:
        if not isinstance(self.subject, Subscription) or self.full:
            return
        for _ in range(count):
            with anyio.move_on_after(0 if self.subject.pending else -1):
                try:
                    self.items.append(await anext(self.subject))
                except OutboxFull:
                    self.full = True
                    return

    def check(self, published: int) -> int:
        """See that the items have no hole and no double that is not told; the number of the last event."""
        at = self.begins
        hole = False  # of unknown size: the history did not reach back
        for item in self.items:
            if isinstance(item, Dropped):
                assert item.count > 0
                assert self.policy != "close"
                at += item.count
            elif isinstance(item, Gap):
                assert item is self.items[0]
                assert (item.channel, item.since) == (self.channel, self.since)
                hole = True
            else:
                assert isinstance(item, Event)
                number = Id.parse(item.id).seq
                assert item.channel == self.channel
                assert number > at + 1 if hole else number == at + 1
                at, hole = number, False
        assert at <= published
        return at


async def session(operations: list[tuple[Any, ...]]) -> None:
    ids: dict[str, list[str]] = {"a": [], "b": []}
    there: list[Receiver] = []
    all_of_them: list[Receiver] = []
    async with (
        Channels(history=HISTORY) as channels,
        anyio.create_task_group() as tasks,
    ):

        async def settle() -> None:
            """Until everything that was published is handed out, and sent if it can be."""
            with anyio.fail_after(5):
                while channels._hub.writers.ready or any(
                    ids[name] and ids[name][-1] != position
                    for name, position in channels._hub._positions.items()
                    if name in ids
                ):
                    await anyio.lowlevel.checkpoint()
            for _ in range(5):
                await anyio.lowlevel.checkpoint()

        async def enter(
            kind: str, channel: str, policy: Any, messages: int, size: int, history: int, since: Any
        ) -> None:
            known = ids[channel]
            position = None if since is None or not known else known[min(since, len(known) - 1)]
            receiver = Receiver(channel, policy, position)
            options: dict[str, Any] = {"policy": policy, "max_messages": messages, "max_bytes": size}
            options |= {"history": history, "since": position}
            if kind == "subscribe":
                receiver.subject = channels.subscribe(channel, **options)
            else:
                receiver.server = Server()
                websocket = await receiver.server.accepted()
                receiver.subject = channels.join(channel, websocket, encode=receiver.encode, **options)
            if position is not None:
                receiver.begins = Id.parse(position).seq
            else:
                receiver.begins = max(len(known) - min(history, HISTORY), 0)
            entered = anyio.Event()

            async def live() -> None:
                async with receiver.subject:
                    entered.set()
                    await receiver.leaving.wait()
                receiver.left.set()

            tasks.start_soon(live)
            await entered.wait()
            there.append(receiver)
            all_of_them.append(receiver)

        async def leave(receiver: Receiver) -> None:
            there.remove(receiver)
            receiver.leaving.set()
            await receiver.left.wait()

        for name, *arguments in operations:
            if name == "publish":
                channel, length, count = arguments
                for _ in range(count):
                    ids[channel].append(await channels.publish(channel, "x" * length))
            elif name in ("subscribe", "join"):
                await settle()
                await enter(name, *arguments)
            elif name == "rest":
                for _ in range(arguments[0]):
                    await anyio.lowlevel.checkpoint()
            elif there:
                receiver = there[arguments[0] % len(there)]
                if name == "take":
                    await receiver.take(arguments[1])
                elif name == "leave":
                    await leave(receiver)
                elif receiver.server is not None and name == "hold":
                    receiver.server.held.add("websocket.send")
                elif receiver.server is not None:
                    receiver.server.release()
            for receiver in all_of_them:
                receiver.check(len(ids[receiver.channel]))
        await settle()
        while there:
            receiver = there[0]
            subject = receiver.subject
            if receiver.server is not None:
                receiver.server.release()
            await settle()
            await receiver.take(100)
            given = receiver.check(len(ids[receiver.channel]))
            assert subject.dropped >= sum(item.count for item in receiver.items if isinstance(item, Dropped))
            ended = receiver.full or (isinstance(subject, Membership) and subject.ended == "full")
            if ended:
                # Whoever is full has missed something, and can go on from where it is.
                assert receiver.policy == "close"
                assert given < len(ids[receiver.channel])
            else:
                assert given == len(ids[receiver.channel])
                assert subject.pending == 0
            await leave(receiver)
        assert not channels._hub._channels
        assert not channels._hub._positions


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@examples(40)
@given(st.lists(operations, min_size=1, max_size=25))
def test_random_sessions(backend: str, operations: list[tuple[Any, ...]]) -> None:
    anyio.run(session, operations, backend=backend)
