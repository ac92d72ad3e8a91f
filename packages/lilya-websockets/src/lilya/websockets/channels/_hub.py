"""The hub: one reader for all channels of this process, and the outboxes that it fills.

The rules of this file:

- An event goes from `publish` to the backend, from there to the reader in this file, and into the outboxes.
  For sockets, the writers put it there, or send it at once. The reader never waits for a receiver. It only
  waits until each had a turn. So an outbox that is full after that belongs to a slow receiver.
- An outbox is attached before the history is read. Events that arrive meanwhile wait in it. Those that are
  also in the history are removed again. So no event is missing, and none comes twice.
- `_positions` has the channels that the reader reads, and how far it has read each. A channel without
  outboxes is not in it.
- Whatever the broker does, the tasks here go on: they log the error, and try again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from ..exceptions import WebSocketRuntimeError
from ._backend import CONTROL, Backend, Event, Gap, channel_of, is_presence
from ._outbox import Entry, Item, Outbox, Presence, presence_in
from ._recent import Recent
from ._roster import Roster
from ._writers import SocketOutbox, Writers

__all__ = ["Hub"]

logger: Final = logging.getLogger("lilya.websockets")

State: TypeAlias = Literal["new", "starting", "running", "stopping", "stopped"]

# The most events, and the most bytes in them, that the reader hands out before every receiver gets a turn.
_MOST: Final = (64, 262_144)
# The seconds that stopping may wait for the broker.
_PATIENCE: Final = 2.0
# The seconds before the reader tries again after the backend has raised an error: at first, and at most. A
# backend should not raise one.
_RETRY: Final = (0.1, 5.0)


class _Channel:
    """The receivers of a channel in this process."""

    __slots__ = ("joining", "outboxes", "since", "sockets")

    def __init__(self) -> None:
        self.outboxes: dict[Outbox, None] = {}  # an ordered set
        self.sockets: dict[SocketOutbox, None] = {}  # the writers fill these
        # The outboxes that are still joining. `None` while an outbox waits for its history. After that its
        # floor: the key of the position at which its history ended, which is ahead of the reader. The outbox
        # has everything up to the floor already.
        self.joining: dict[Outbox, tuple[int, int] | None] = {}
        self.since = -1  # the number of the read during which the channel's position was set

    def settled(self, outbox: Outbox) -> None:
        """Let an outbox get everything from now on. It no longer needs a floor."""
        del self.joining[outbox]
        if isinstance(outbox, SocketOutbox):
            self.sockets[outbox] = None
        else:
            self.outboxes[outbox] = None

    def remove(self, outbox: Outbox) -> bool:
        """Remove an outbox. Returns whether it was the last one."""
        for those in (self.outboxes, self.sockets, self.joining):
            those.pop(outbox, None)  # type: ignore[call-overload]  # it is in one of the three
        return not (self.outboxes or self.sockets or self.joining)


class Hub:
    """Reads from the backend, passes events on to the receivers, and keeps the members of this process.

    Args:
        backend: Where events and members are stored.
        ttl: The seconds after which a member expires if this process does not renew it.
    """

    def __init__(self, backend: Backend, ttl: float) -> None:
        self.backend = backend
        self._ttl = ttl
        self.state: State = "new"
        self._clear()

    def _clear(self) -> None:
        self._channels: dict[str, _Channel] = {}
        self._positions: dict[str, str] = {}
        self._outboxes: dict[Outbox, Sequence[str]] = {}  # with the channels of each
        self._reads = 0  # the number of the current read
        # How much is handed out before every receiver gets a turn: no more than fits into the smallest
        # outbox. Otherwise, a receiver that had no chance to take an event could be closed for being slow.
        self._most_events, self._most_bytes = _MOST
        self._tight = False  # whether there is an outbox that two such portions could fill

    # Starting and stopping

    async def start(self, obey: Callable[[Event | Gap], None]) -> None:
        """Start the backend and the tasks.

        Args:
            obey: Called with the events of `CONTROL`, which tell all processes to do something.
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
        # Around the task group. `stop` shields it, so that a cancellation from outside does not interrupt it.
        self._outside = anyio.CancelScope()
        self._outside.__enter__()
        self._group: TaskGroup = anyio.create_task_group()
        await self._group.__aenter__()
        self.writers = Writers(self.run)
        self.run(self.recent.run)
        self.run(self._read)
        self.run(self.roster.run)
        self.state = "running"

    async def stop(self, before: Callable[[], Awaitable[None]]) -> None:
        """Stop everything, and end all receivers. Cancelling has no effect, but each part has a time limit.

        Args:
            before: Awaited first, while everything is still running.
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
                pass  # the group's own. If one from outside has ended the body, that one is still raised
            try:
                with anyio.move_on_after(_PATIENCE):
                    await self.backend.stop()
            except Exception as error:
                logger.warning("the backend of the channels did not stop as it should", exc_info=error)
            finally:
                self._outside.__exit__(None, None, None)
                self._clear()

    def abandon(self) -> None:
        """Stop without awaiting anything, when an unfinished block is garbage-collected."""
        self.state = "stopped"
        self._group.cancel_scope.cancel()
        self._group.cancel_scope.__exit__(None, None, None)
        self._outside.__exit__(None, None, None)

    def check(self, attempted: str) -> None:
        """Check that the hub is running, and that this is its event loop.

        Raises:
            WebSocketRuntimeError: One of the two is not so.
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

    async def begin(self, task: Callable[..., Coroutine[Any, Any, None]]) -> None:
        """Run a task as `run` does, and wait until it says that it has started."""
        await self._group.start(task)

    # The reader

    async def _read(self) -> None:
        """Read from the backend and hand out the items, for ever."""
        failures = 0
        while True:
            self._reads += 1
            try:
                found = await self.backend.read(self._positions)
            except Exception as error:
                # A backend should wait for its broker, and raise nothing. Go on all the same: if the reader
                # ended here, all receivers would wait for ever without an error.
                if not failures:
                    logger.error("reading the channels failed; it is tried again", exc_info=error)
                least, most = _RETRY
                await anyio.sleep(min(least * 2**failures, most) * random.uniform(0.5, 1))
                failures = min(failures + 1, 16)
                # The failed read may have taken events from the backend and not returned them. Have it check
                # all positions again.
                self.backend.wake()
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
        """Let every receiver take what was handed out, so that only slow receivers fill their outboxes."""
        if self.writers.ready:
            await self.writers.turn()
        await anyio.lowlevel.checkpoint()
        if self._tight:
            # trio runs tasks in random order. With one checkpoint, this task may be the last of one round and
            # the first of the next, and a receiver would get two portions without a turn in between.
            await anyio.lowlevel.checkpoint()

    def _deliver(self, item: Event | Gap, entry: Entry) -> None:
        """Put an item in the outbox of each receiver of its channel.

        The receivers that are still joining make this hard. The reader has one position for each channel, and
        the history of a new receiver may end ahead of it. For example, the reader is at event 3, the events 4
        and 5 are on their way, and the history ends with 5. Then the floor of the new receiver is 5: the
        reader delivers 4 and 5 only to the others, and from 6 on to the new one, too.
        """
        name = item.channel
        channel = self._channels.get(name)
        if channel is None or name not in self._positions:
            return  # all receivers have left during the read
        if name == CONTROL:
            self._positions[name] = item.id
            self._obey(item)
            return
        position = self._positions[name]
        in_time = self.backend.order_in_time
        back = isinstance(item, Gap) and in_time(item.id) <= in_time(position)
        if channel.since == self._reads and (
            item.since != position if isinstance(item, Gap) else self._is_before(item.id, position)
        ):
            # During this read, all receivers left and a new one came, which set a new position. The item is
            # for the old one. The new receiver has it in its history, or starts after it.
            return
        if back:
            # After a failover, the broker has lost the newest events. The next events have their numbers
            # again, and are new to all receivers. So they must not be held back: neither by the check above,
            # nor by the floors, which are positions of the lost branch.
            channel.since = -1
            for outbox, floor in list(channel.joining.items()):
                if floor is not None:
                    channel.settled(outbox)
        self._positions[name] = item.id
        # Use copies, because `put` on a full outbox may detach it.
        outboxes, sockets = list(channel.outboxes), list(channel.sockets)
        if not _is_for_all(entry.item):
            outboxes = [outbox for outbox in outboxes if outbox.takes(entry.item)]
            sockets = [outbox for outbox in sockets if outbox.takes(entry.item)]
        for outbox in outboxes:
            outbox.put(entry)
        if sockets:
            self.writers.ready.append((entry, iter(sockets)))
        if channel.joining:
            # A receiver whose history is of after a loss gets neither the gap of that loss nor what it has.
            order = in_time(item.id)
            for outbox, floor in list(channel.joining.items()):
                # Without a floor, the history is still being read: put everything, and `_take_out` removes
                # what is in the history.
                if (floor is None or order > floor) and outbox.takes(entry.item):
                    outbox.put(entry)
                # The reader has reached the floor, so from now on this outbox gets the same as the others.
                # `put` may have detached it because it is full.
                if floor is not None and order >= floor and outbox in channel.joining:
                    channel.settled(outbox)
        self.writers.wake()

    def _is_before(self, id: str, position: str) -> bool:
        return self.backend.order_of(id) <= self.backend.order_of(position)

    def _entry(self, item: Event | Gap) -> tuple[Event | Gap, Entry]:
        """The entry for an item. A presence event that cannot be read becomes a gap."""
        if isinstance(item, Event) and not is_presence(item.channel):
            return item, Entry.of(item)
        if isinstance(item, Event):
            try:
                return item, Entry(presence_in(item), len(item.data), item)
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
        """Fill an outbox with the history of channels, and with everything published from now on.

        The order of the steps ensures that no event is missing and that none comes twice:

        1. Add the outbox as joining. If the channel has a position, the reader puts each event into it.
        2. Watch the channels. From here on, the backend receives every event.
        3. Read the history. It has every event from before step 2.
        4. Remove from the outbox what is also in the history, see `_take_out`.
        5. Set the channel's position if it has none, or the outbox's floor if the reader is behind.

        Args:
            outbox: A new outbox.
            names: The channels, and the companions of those whose joins and leaves are wanted.
            history: The number of events of each channel's history to begin with.
            since: By name, the position to continue from instead.
            latest: Whether only the newest of these events is wanted, without a gap before it.

        Returns:
            By name, the position at which the outbox begins. A channel that begins with events of `history`
            has none.

        Raises:
            BrokerError: The broker is unavailable, or refuses.
            ValueError: A position is not a valid id.
        """
        self._add(outbox, names)
        positions: dict[str, str] = {}
        try:
            await self.backend.watch(names)
            for name in names:
                if name == CONTROL and name in self._positions:
                    # Nobody needs its history, so there is no need to ask the broker for each socket.
                    self._settle(outbox, name, self._positions[name])
                    continue
                at = since.get(name)
                # `history` is for the channels only. Past joins and leaves are not wanted.
                last = 0 if name.startswith("\0") else history
                found = await self.recent.history(name, last=last, since=at)
                entries = [entry for entry in found.entries if outbox.takes(entry.item)]
                while latest and at is None and not entries and 0 < last == len(found.entries):
                    # The newest events exclude this receiver. Look further back for the newest one that does
                    # not: that is the event that it would have received last.
                    last *= 16
                    found = await self.recent.history(name, last=last, since=None)
                    entries = [entry for entry in found.entries if outbox.takes(entry.item)]
                if latest:
                    del entries[:-1]
                self._take_out(outbox, name, found.position)
                if not name.startswith("\0") and (at is not None or not entries):
                    positions[name] = at or found.position
                if at is not None and not found.complete and not (latest and entries):
                    # The gap ends where it begins, so that the entries after it are still after the position.
                    # If it ended later, a client that is cut off right after the gap would not get them when
                    # it comes back. Without entries, nothing more can be missed: it ends at the newest event.
                    outbox.backlog.append(Entry(Gap(name, at, at if found.entries else found.position)))
                outbox.backlog.extend(entries)
                outbox.more = True
                self._settle(outbox, name, found.position)
        except BaseException:
            self.detach(outbox)
            raise
        return positions

    def _add(self, outbox: Outbox, names: Sequence[str]) -> None:
        """Add an outbox that waits for its history. Its owner calls `begin` when it can take items."""
        outbox.joining = True
        self._outboxes[outbox] = names
        self._most_events = min(self._most_events, outbox.max_messages)
        self._most_bytes = min(self._most_bytes, outbox.max_bytes)
        if outbox.max_messages < 2 * _MOST[0] or outbox.max_bytes < 2 * _MOST[1]:
            self._tight = True
        for name in names:
            self._channels.setdefault(name, _Channel()).joining[outbox] = None

    def _take_out(self, outbox: Outbox, name: str, position: str) -> None:
        """Remove from an outbox the events up to a position, because the history has them, too."""
        if not outbox.entries:
            return
        end = self.backend.order_of(position)
        later: deque[Entry] = deque()
        for entry in outbox.entries:
            source = entry.source
            if source is not None and source.channel == name and self.backend.order_in_time(source.id) <= end:
                outbox.held -= entry.size
            else:
                later.append(entry)
        outbox.entries = later

    def _settle(self, outbox: Outbox, name: str, position: str) -> None:
        """Note that an outbox has the history of a channel up to a position."""
        if outbox.over:
            return
        channel = self._channels[name]
        if name not in self._positions:
            # The first receiver of the channel: the reader starts where its history ends.
            self._positions[name] = position
            channel.since = self._reads
            self.backend.wake(name)
        if self._is_before(position, self._positions[name]):
            channel.settled(outbox)
        else:
            # The reader is behind this history. Until it has caught up, the outbox must not get what the
            # reader delivers.
            channel.joining[outbox] = self.backend.order_of(position)

    def detach(self, outbox: Outbox) -> None:
        """Put nothing more into an outbox. The last one of a channel ends the watching of it."""
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
        """The channels whose joins and leaves are wanted in this process."""
        return {channel_of(name) for name in self._channels if is_presence(name)}


def _running() -> object:
    """The event loop that is running."""
    # Every publish needs this. To ask AnyIO takes ten times as long, because it first finds out which library
    # is running.
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return anyio.lowlevel.current_token()


def _is_for_all(item: Item) -> bool:
    """Whether an item is for all receivers of its channel, as nearly all items are."""
    kind = type(item)
    return (kind is not Event or item.exclude is None) and (kind is not Presence or item.of_person)  # type: ignore[union-attr]  # just looked at
