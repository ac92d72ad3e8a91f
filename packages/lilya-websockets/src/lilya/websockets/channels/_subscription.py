"""A subscription: your own code receives events by iterating."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, Literal

import anyio
import anyio.lowlevel

from ..exceptions import WebSocketRuntimeError
from ._backend import Event, Gap, presence_of
from ._hub import Hub
from ._outbox import Item, Outbox, OutboxFull, Policy

__all__ = ["Subscription"]

# The number of items after which an iteration gives the other tasks on the event loop a turn. The reader
# hands out fewer items between two turns. Otherwise, a receiver that takes each item at once could still fall
# behind.
_TURN: Final = 128


class _Outbox(Outbox):
    """The outbox of a subscription."""

    __slots__ = ("arrival", "ended", "hub")

    def __init__(self, hub: Hub, policy: Policy, max_messages: int, max_bytes: int) -> None:
        super().__init__(policy, max_messages, max_bytes)
        self.hub = hub
        self.arrival: anyio.Event | None = None  # while an iteration waits
        self.ended: Literal["full", "stopped", "left"] | None = None

    def arrived(self) -> None:
        if self.arrival is not None:
            self.arrival.set()

    def full(self) -> None:
        self.dropped += 1  # the event that did not fit
        self.end("full")

    def stopped(self) -> None:
        self.end("stopped")

    def end(self, why: Literal["full", "stopped", "left"]) -> None:
        self.hub.detach(self)
        self.ended = why
        self.arrived()


class Subscription(AsyncIterator[Item]):
    """What `Channels.subscribe` returns: an asynchronous context manager, and in its block an iterator."""

    __slots__ = (
        "_history",
        "_hub",
        "_latest",
        "_outbox",
        "_row",
        "_since",
        "_used",
        "_waiting",
        "_watched",
        "positions",
    )

    positions: dict[str, str]
    """By channel, the id of the last event that you got: pass it as `since` to continue from there. Before
    the first event, the position where the subscription started. A channel that started with events from its
    `history` has no position until you got the first of them."""

    def __init__(
        self,
        hub: Hub,
        names: Sequence[str],
        *,
        presence: bool | Literal["keys"],
        history: int,
        since: Mapping[str, str],
        latest: bool,
        policy: Policy,
        max_messages: int,
        max_bytes: int,
    ) -> None:
        self._hub = hub
        self._outbox = _Outbox(hub, policy, max_messages, max_bytes)
        self._watched = (*names, *map(presence_of, names)) if presence else tuple(names)
        self._history = history
        self._since = since
        self._latest = latest
        self._outbox.by_key = presence == "keys"
        self._used = False
        self._waiting = False
        self._row = 0  # the number of items since the last turn of other tasks
        self.positions = {}

    @property
    def id(self) -> str:
        """A unique id that starts with a NUL. Pass it as `exclude` to `publish`, in any process."""
        return self._outbox.id

    @property
    def pending(self) -> int:
        """The number of items that wait."""
        return self._outbox.pending

    @property
    def sent(self) -> int:
        """The number of items that you got."""
        return self._outbox.sent

    @property
    def dropped(self) -> int:
        """The number of events that were dropped because the outbox was full, or when the block was left."""
        return self._outbox.dropped

    async def __aenter__(self) -> Subscription:
        if self._used:
            raise WebSocketRuntimeError(
                "cannot enter: this subscription was entered before. Make another one"
            )
        self._hub.check("subscribe")
        self._used = True
        self.positions = await self._hub.attach(
            self._outbox, self._watched, history=self._history, since=self._since, latest=self._latest
        )
        self._outbox.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._outbox.end("left")
        self._outbox.clear()

    async def __anext__(self) -> Item:
        """The next item. Cancelling it loses none.

        Raises:
            StopAsyncIteration: The channels were stopped.
            OutboxFull: The outbox was full, and everything that waited in it was given.
            WebSocketRuntimeError: Not in its block, or another task is waiting for an item.
        """
        outbox = self._outbox
        if not self._used or outbox.ended == "left":
            raise WebSocketRuntimeError(
                "cannot iterate: enter the subscription by `async with`, and iterate in that block"
            )
        if self._waiting:
            raise WebSocketRuntimeError("cannot iterate: another task is waiting for the next item")
        if self._row >= _TURN:
            await anyio.lowlevel.checkpoint()
            self._row = 0
        while (entry := outbox.take()) is None:
            if outbox.ended == "full":
                raise OutboxFull(dict(self.positions))
            if outbox.ended is not None:
                raise StopAsyncIteration
            outbox.arrival = anyio.Event()
            self._waiting = True
            try:
                await outbox.arrival.wait()
            finally:
                self._waiting = False
                outbox.arrival = None
            self._row = 0
        item = entry.item
        self._row += 1
        outbox.sent += 1
        if isinstance(item, (Event, Gap)):
            self.positions[item.channel] = item.id
        return item
