"""The hub: one reader for all channels of this process, and the outboxes that it fills.

The rules of this file:

- An event goes from `publish` to the backend, to the reader here, and into the outboxes; the writers see to
  those of sockets. The reader never waits for a receiver. It only waits until each had a turn, so whoever
  has a full outbox after that is slow itself.
- An outbox is attached before the history is asked for. What comes meanwhile waits in it, and what the
  history has, too, is taken out again. So there is neither a hole nor a double.
- `_positions` is what the reader reads, and where it is. A channel without outboxes is not in it.
- Whatever the broker does, the tasks here go on: they log, and try again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from ..exceptions import WebSocketRuntimeError
from ._backend import CONTROL, Backend, Event, Gap, channel_of, is_presence
from ._outbox import Entry, Item, Outbox, Presence
from ._recent import Recent
from ._roster import Roster
from ._writers import SocketOutbox, Writers

__all__ = ["Hub"]

logger: Final = logging.getLogger("lilya.websockets")

# Events, and bytes of them, that the reader hands out at most before everybody has a turn.
_MOST: Final = (64, 262_144)
# Seconds that stopping may wait for the broker.
_PATIENCE: Final = 2.0
# Seconds before the reader tries again after a backend failed that never should.
_RETRY: Final = (0.1, 5.0)


class _Channel:
    """Who receives a channel in this process."""

    __slots__ = ("joining", "outboxes", "since", "sockets")

    def __init__(self) -> None:
        self.outboxes: dict[Outbox, None] = {}  # a set that is in order
        self.sockets: dict[SocketOutbox, None] = {}  # the writers put into these
        # Those that do not get everything yet, and what they have already; `None` while they wait for the
        # history.
        self.joining: dict[Outbox, tuple[int, int] | None] = {}
        self.since = -1  # the number of the read in which its position was set

    def settled(self, outbox: Outbox) -> None:
        """It gets from now on what everybody gets."""
        del self.joining[outbox]
        if isinstance(outbox, SocketOutbox):
            self.sockets[outbox] = None
        else:
            self.outboxes[outbox] = None

    def remove(self, outbox: Outbox) -> bool:
        """It gets nothing any more; whether there is nobody left."""
        for those in (self.outboxes, self.sockets, self.joining):
            those.pop(outbox, None)  # type: ignore[call-overload]  # one that is not there
        return not (self.outboxes or self.sockets or self.joining)


class Hub:
    """The reader of a backend, who receives what, and who is present.

    Args:
        backend: Where events and members are kept.
        ttl: Seconds for which it is believed that a member is there.
    """

    def __init__(self, backend: Backend, ttl: float) -> None:
        self.backend = backend
        self._ttl = ttl
        self.state = "new"
        self._clear()

    def _clear(self) -> None:
        self._channels: dict[str, _Channel] = {}
        self._positions: dict[str, str] = {}
        self._outboxes: dict[Outbox, Sequence[str]] = {}  # and the channels of each
        self._reads = 0
        # What is handed out before everybody has a turn: no more than fits into the smallest outbox.
        self._most_events, self._most_bytes = _MOST
        self._tight = False  # whether somebody has an outbox that two such portions would fill

    # Starting and stopping

    async def start(self, obey: Callable[[Event | Gap], None]) -> None:
        """Begin to read.

        Args:
            obey: Called with what all processes are told to do.
        """
        if self.state in ("starting", "running", "stopping"):
            raise WebSocketRuntimeError("cannot start: these channels are running already. Start them once")
        self.state = "starting"
        try:
            await self.backend.start()
        except BaseException:
            self.state = "new"
            raise
        self._clear()
        self._obey = obey
        self.roster = Roster(self.backend, self._ttl, self._with_presence)
        self.recent = Recent(self.backend)
        self._loop = _running()
        self._outside = anyio.CancelScope()  # between what is around the block and its tasks
        self._outside.__enter__()
        self._group: TaskGroup = anyio.create_task_group()
        await self._group.__aenter__()
        self.writers = Writers(self.run)
        self.run(self.recent.run)
        self.run(self._read)
        self.run(self.roster.run)
        self.state = "running"

    async def stop(self, before: Callable[[], Awaitable[None]]) -> None:
        """Stop, and let nobody wait any longer. It cannot be interrupted, but each part has its limit.

        Args:
            before: Awaited while everything is still running.
        """
        self.state = "stopping"
        self._outside.shield = True
        try:
            await before()
            for outbox in list(self._outboxes):
                outbox.stopped()
            await self.roster.stop()
        finally:
            self.state = "stopped"
            self._group.cancel_scope.cancel()
            try:
                await self._group.__aexit__(None, None, None)
            except anyio.get_cancelled_exc_class():
                pass  # the group's own; one from outside is what left the body, and goes on
            try:
                with anyio.move_on_after(_PATIENCE):
                    await self.backend.stop()
            except Exception as error:
                logger.warning("the backend of the channels did not stop as it should", exc_info=error)
            finally:
                self._outside.__exit__(None, None, None)
                self._clear()

    def abandon(self) -> None:
        """Stop where there is no `await` any more."""
        self.state = "stopped"
        self._group.cancel_scope.cancel()
        self._group.cancel_scope.__exit__(None, None, None)
        self._outside.__exit__(None, None, None)

    def check(self, attempted: str) -> None:
        """See that this is the time and the event loop to do something.

        Raises:
            WebSocketRuntimeError: It is not.
        """
        if self.state != "running":
            raise WebSocketRuntimeError(
                f"cannot {attempted} yet: the channels are not started. Do it in `async with channels:`, "
                "which as a rule is the app's lifespan"
                if self.state in ("new", "starting")
                else f"cannot {attempted} any longer: the channels were stopped"
            )
        if _running() != self._loop:
            raise WebSocketRuntimeError(
                f"cannot {attempted} here: the channels were started on another event loop. Use them in the "
                "thread and on the loop of `async with channels:`"
            )

    def run(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a task until it ends, or until the hub is stopped."""
        self._group.start_soon(task)

    # The reader

    async def _read(self) -> None:
        """Hand out what comes, for ever."""
        failures = 0
        while True:
            self._reads += 1
            try:
                found = await self.backend.read(self._positions)
            except Exception as error:
                # A backend waits for its broker itself. Whatever this is, nobody would notice a dead reader.
                if not failures:
                    logger.error("reading the channels failed; it is tried again", exc_info=error)
                least, most = _RETRY
                await anyio.sleep(min(least * 2**failures, most) * random.uniform(0.5, 1))
                failures = min(failures + 1, 16)
                self.backend.wake()  # what it had found then is to be found again
                continue
            failures = 0
            count = size = 0
            for item in found:
                item, entry = self._entry(item)
                count += 1
                size += entry.size
                if count > self._most_events or size > self._most_bytes:
                    await self._turn()
                    count, size = 1, entry.size
                self._deliver(item, entry)
            await self._turn()

    async def _turn(self) -> None:
        """Let every receiver take what was handed out: only slow receivers fill their outboxes."""
        if self.writers.ready:
            await self.writers.turn()
        await anyio.lowlevel.checkpoint()
        if self._tight:
            await anyio.lowlevel.checkpoint()  # on trio this task may be the first of both times

    def _deliver(self, item: Event | Gap, entry: Entry) -> None:
        """Put an item in the outbox of each who receives its channel."""
        name = item.channel
        channel = self._channels.get(name)
        if channel is None or name not in self._positions:
            return  # they have left meanwhile
        if name == CONTROL:
            self._positions[name] = item.id
            self._obey(item)
            return
        position = self._positions[name]
        back = isinstance(item, Gap) and self._is_before(item.id, position)
        if channel.since == self._reads and (
            item.since != position if isinstance(item, Gap) else self._is_before(item.id, position)
        ):
            return  # everybody has left and somebody has come, during this very read
        if back:
            # The broker has lost the end of the channel. What follows has its numbers, and is new to all.
            channel.since = -1
            for outbox, floor in list(channel.joining.items()):
                if floor is not None:
                    channel.settled(outbox)
        self._positions[name] = item.id
        # Copies, because a full outbox may be taken away.
        outboxes, sockets = list(channel.outboxes), list(channel.sockets)
        if not _is_for_all(entry.item):
            outboxes = [outbox for outbox in outboxes if outbox.takes(entry.item)]
            sockets = [outbox for outbox in sockets if outbox.takes(entry.item)]
        for outbox in outboxes:
            outbox.put(entry)
        if sockets:
            self.writers.ready.append((entry, iter(sockets)))
        if channel.joining:
            order = self.backend.order_of(item.id)
            for outbox, floor in list(channel.joining.items()):
                if (floor is None or order > floor) and outbox.takes(entry.item):
                    outbox.put(entry)
                # Whoever is at the floor, or above it, has the same before it as everybody else. It may also
                # have ended just now.
                if floor is not None and order >= floor and outbox in channel.joining:
                    channel.settled(outbox)
        self.writers.wake()

    def _is_before(self, id: str, position: str) -> bool:
        return self.backend.order_of(id) <= self.backend.order_of(position)

    def _entry(self, item: Event | Gap) -> tuple[Event | Gap, Entry]:
        """What is handed out of an item; a gap, if it can't be told what it is."""
        if isinstance(item, Event) and not is_presence(item.channel):
            return item, Entry.of(item)
        if isinstance(item, Event):
            try:
                return item, Entry(Presence.of(item), len(item.data), item)
            except (KeyError, TypeError, ValueError) as error:
                logger.error("an event about who is in a channel is none of ours: %r", error)
                item = Gap(item.channel, self._positions.get(item.channel, item.id), item.id)
        return item, Entry(item, 0, item)

    # Outboxes

    async def attach(
        self,
        outbox: Outbox,
        names: Sequence[str],
        *,
        history: int,
        since: Mapping[str, str],
        latest: bool,
    ) -> dict[str, str]:
        """Put into an outbox what is published from now on, behind what the history has.

        Args:
            outbox: A new one.
            names: The channels, and the companions of those whose joins and leaves are wanted.
            history: Events of the history to begin with.
            since: By name, the position to go on from instead.
            latest: Of what the history has after that, only the newest event is wanted, without a gap.

        Returns:
            By name, the position at which the outbox begins. A channel that begins with events of `history`
            has none.

        Raises:
            BrokerError: The broker is away, or refuses.
            ValueError: A position is no id.
        """
        self._add(outbox, names)
        positions: dict[str, str] = {}
        try:
            await self.backend.watch(names)
            for name in names:
                if name == CONTROL and name in self._positions:
                    self._settle(outbox, name, self._positions[name])
                    continue
                at = since.get(name)
                # The companion of a channel has events, too, but nobody asked for those of the past.
                last = 0 if name.startswith("\0") else history
                found = await self.recent.history(name, last=last, since=at)
                entries = [entry for entry in found.entries if outbox.takes(entry.item)]
                while latest and at is None and not entries and 0 < last == len(found.entries):
                    # The newest ones are not for this receiver. It gets what it would have got last.
                    last *= 16
                    found = await self.recent.history(name, last=last, since=None)
                    entries = [entry for entry in found.entries if outbox.takes(entry.item)]
                if latest:
                    del entries[:-1]
                self._take_out(outbox, name, found.position)
                if not name.startswith("\0") and (at is not None or not entries):
                    positions[name] = at or found.position
                if at is not None and not found.complete and not (latest and entries):
                    # If there is nothing left, there is nothing more to be missed either.
                    outbox.backlog.append(Entry(Gap(name, at, at if found.entries else found.position)))
                outbox.backlog.extend(entries)
                outbox.more = True
                self._settle(outbox, name, found.position)
        except BaseException:
            self.detach(outbox)
            raise
        return positions

    def _add(self, outbox: Outbox, names: Sequence[str]) -> None:
        """Put what comes from now on in an outbox that waits for its history."""
        self._outboxes[outbox] = names
        self._most_events = min(self._most_events, outbox.max_messages)
        self._most_bytes = min(self._most_bytes, outbox.max_bytes)
        if outbox.max_messages < 2 * _MOST[0] or outbox.max_bytes < 2 * _MOST[1]:
            self._tight = True
        for name in names:
            self._channels.setdefault(name, _Channel()).joining[outbox] = None

    def _take_out(self, outbox: Outbox, name: str, position: str) -> None:
        """Leave out of what came to an outbox meanwhile what the history has, too."""
        if not outbox.entries:
            return
        end = self.backend.order_of(position)
        later: deque[Entry] = deque()
        for entry in outbox.entries:
            source = entry.source
            if source is not None and source.channel == name and self.backend.order_of(source.id) <= end:
                outbox.held -= entry.size
            else:
                later.append(entry)
        outbox.entries = later

    def _settle(self, outbox: Outbox, name: str, position: str) -> None:
        """An outbox has the history of a channel up to a position."""
        if outbox.over:
            return
        channel = self._channels[name]
        if name not in self._positions:
            self._positions[name] = position
            channel.since = self._reads
            self.backend.wake(name)
        if self._is_before(position, self._positions[name]):
            channel.settled(outbox)
        else:
            channel.joining[outbox] = self.backend.order_of(position)  # the reader is not there yet

    def detach(self, outbox: Outbox) -> None:
        """Put nothing into an outbox any more."""
        outbox.over = True
        names = self._outboxes.pop(outbox, None)
        if names is None:
            return
        if not self._outboxes:
            self._most_events, self._most_bytes = _MOST
            self._tight = False
        for name in names:
            if self._channels[name].remove(outbox):
                del self._channels[name]
                self._positions.pop(name, None)
                self.backend.unwatch((name,))

    def _with_presence(self) -> set[str]:
        """The channels of which somebody here wants to know who comes and goes."""
        return {channel_of(name) for name in self._channels if is_presence(name)}


def _running() -> object:
    """The event loop that is running."""
    # Every publish asks. AnyIO takes ten times as long, because it first finds out which library is running.
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return anyio.lowlevel.current_token()


def _is_for_all(item: Item) -> bool:
    """Whether an item is for everybody who receives its channel: nearly all are."""
    kind = type(item)
    return (kind is not Event or item.exclude is None) and (kind is not Presence or item.of_person)  # type: ignore[union-attr]  # just looked at
