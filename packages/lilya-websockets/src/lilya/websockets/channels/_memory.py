"""`memory://`: events and members in the memory of this process."""

from __future__ import annotations

import secrets
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Final, Literal
from zlib import crc32

import anyio
import anyio.lowlevel

from ._backend import (
    NO_WISHES,
    WINDOW,
    Backend,
    Event,
    Gap,
    History,
    Id,
    Member,
    Status,
    Wishes,
    presence_event,
    presence_of,
)

__all__ = ["MemoryBackend"]

# The number of events that the reader may be behind before publishers wait for it. It is limited to
# `history`, so that no event is trimmed before the reader has it.
_AHEAD: Final = 64
# The most channels with a `max_age` of their own that one publish skips while it looks for channels to
# forget. They are moved to the end, so another publish gets further.
_PASSED: Final = 8


class _Log:
    """The events of one channel."""

    __slots__ = ("ages", "epoch", "events", "floor", "limited", "max_age", "ms", "seq")

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.seq = 0  # the number of the newest event, even if it is no longer kept
        self.ms = 0
        self.events: deque[Event] = deque()
        # The number of the newest event that `history` does not return any more. The event may still be in
        # `events`, for a reader that is behind.
        self.floor = 0
        self.limited = 0  # the number of the newest event that was published with `history` or `max_age`
        # By the number of an event with a `max_age`, the time until which it is kept; and the last `max_age`,
        # for which the channel must not be forgotten.
        self.ages: dict[int, float] = {}
        self.max_age: float | None = None

    @property
    def position(self) -> Id:
        return Id(self.ms, self.seq, self.epoch)

    def after(self, seq: int) -> tuple[list[Event], bool]:
        """The events after a number that are kept, and whether these are all."""
        wanted = max(self.seq - seq, 0)
        kept = len(self.events)
        # Take them from the right. A reader is at most a few events behind, and to get to the middle of a
        # deque takes longer.
        newest = list(islice(reversed(self.events), min(wanted, kept)))
        newest.reverse()
        return newest, wanted <= kept


class MemoryBackend(Backend):
    """Keeps everything in this process: for one worker, for development, and for tests. asyncio and trio.

    Args:
        history: The number of events kept in each channel, at least 1.
        max_age: The seconds that an event is kept. With `None`, it is kept until newer events replace it.
            Then a channel that once had an event is never forgotten.
    """

    def __init__(self, *, history: int, max_age: float | None) -> None:
        self._history = history
        self._max_age = max_age
        self._ahead = min(_AHEAD, history)
        self._clear()

    def _clear(self) -> None:
        # The base of the epochs of channels without events. A new one is chosen whenever a channel is
        # forgotten.
        self._epoch = secrets.token_hex(4)
        self._logs: OrderedDict[str, _Log] = OrderedDict()  # the one that was published to last is the last
        self._members: dict[str, dict[str, tuple[Member, float]]] = {}
        self._keys: dict[str, Counter[str]] = {}  # by channel and key, the number of members
        # By channel and idempotency key, the id of the event, and the time until which the key is known. The
        # oldest is the first.
        self._once: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()
        self._watched: set[str] = set()
        self._positions: Mapping[str, str] = {}
        # The watched channels with events that were not read yet. A channel may have no position yet: then
        # its events stay here until it has one.
        self._fresh: dict[str, None] = {}
        self._unread = 0
        self._woken = False
        self._arrival: anyio.Event | None = None  # while the reader waits
        self._room: anyio.Event | None = None  # while publishers wait for the reader

    async def start(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._clear()
        self.ready = anyio.Event()
        self.ready.set()

    async def stop(self) -> None:
        self._clear()

    # Events

    async def publish(self, channel: str, data: str | bytes, wishes: Wishes = NO_WISHES) -> str:
        await anyio.lowlevel.checkpoint()
        while self._unread >= self._ahead and channel in self._positions:
            if self._room is None:
                self._room = anyio.Event()
            await self._room.wait()
        if wishes.idempotency_key is None:
            return self._append(channel, data, wishes)
        now = anyio.current_time()
        while self._once and next(iter(self._once.values()))[1] <= now:
            self._once.popitem(last=False)
        known = self._once.get((channel, wishes.idempotency_key))
        if known is not None:
            return known[0]
        id = self._append(channel, data, wishes)
        self._once[channel, wishes.idempotency_key] = id, now + WINDOW
        return id

    def _append(self, channel: str, data: str | bytes, wishes: Wishes = NO_WISHES) -> str:
        now = time.time_ns() // 1_000_000
        log = self._logs.get(channel)
        if log is None:
            log = self._logs[channel] = _Log(self._epoch_of(channel))
        else:
            self._logs.move_to_end(channel)
        log.seq += 1
        log.ms = max(log.ms, now)
        event = Event(
            channel, f"{log.ms}-{log.seq}-{log.epoch}", data, wishes.exclude, wishes.idempotency_key
        )
        log.events.append(event)
        if len(log.events) > self._history:
            log.events.popleft()
        if wishes.history is not None or wishes.max_age is not None:
            log.limited = log.seq
        if wishes.history is not None:
            log.floor = max(log.floor, log.seq - wishes.history)
        if wishes.max_age is not None:
            log.max_age = wishes.max_age
            log.ages[log.seq] = log.ms + wishes.max_age * 1000
        self._forget(now)
        if channel in self._watched:
            self._fresh[channel] = None
        if channel in self._positions:
            self._unread += 1
            if self._arrival is not None:
                self._arrival.set()
        return event.id

    def _epoch_of(self, channel: str) -> str:
        """The epoch of a channel without events. It depends on the name, so ids of other channels differ."""
        return f"{crc32(channel.encode(), int(self._epoch, 16)):08x}"

    def _forget(self, now: int) -> None:
        """Forget channels whose newest event is older than `max_age`."""
        if self._max_age is None:
            return
        oldest = now - self._max_age * 1000
        passed = 0
        while passed < _PASSED:  # there is always a channel: the caller has just published to one
            channel, log = next(iter(self._logs.items()))
            if log.ms >= oldest:
                return
            if log.max_age is not None and log.ms >= now - log.max_age * 1000:
                self._logs.move_to_end(channel)  # its own `max_age` is longer
                passed += 1
                continue
            if channel in self._positions:
                # It has receivers, so it must keep its epoch and its numbers. Only drop the events.
                log.events.clear()
                log.ms = now
                self._logs.move_to_end(channel)
                continue
            del self._logs[channel]
            # If the channel begins again, its epoch must be another one. Otherwise, event 1 would have a
            # known epoch and number, and an old position would seem to be after it.
            self._epoch = secrets.token_hex(4)

    def _trim(self, channel: str, log: _Log) -> None:
        """Drop expired events. When an event expires, all events before it expire, too."""
        now = time.time_ns() // 1_000_000
        floor = max((seq for seq, until in log.ages.items() if until < now), default=0)
        oldest = 0 if self._max_age is None else now - self._max_age * 1000
        for seq, event in enumerate(log.events, log.seq - len(log.events) + 1):
            if seq not in log.ages:
                if Id.parse(event.id).ms >= oldest:
                    break
                floor = max(floor, seq)
        log.floor = max(log.floor, floor)
        for seq in [seq for seq in log.ages if seq <= log.floor]:
            del log.ages[seq]
        if channel not in self._fresh:  # otherwise, the reader has still to get them
            while log.events and log.seq - len(log.events) < log.floor:
                log.events.popleft()

    async def history(self, channel: str, *, last: int = 0, since: str | None = None) -> History:
        position = None if since is None else Id.parse(since)
        await anyio.lowlevel.checkpoint()
        log = self._logs.get(channel)
        if log is None:
            log = _Log(self._epoch_of(channel))
        self._trim(channel, log)
        if position is None:
            events, _ = log.after(max(log.seq - last, log.floor))
            return History(events, True, str(log.position), log.limited == 0)
        # A position that is ahead of the channel is not one of this channel, either.
        known = position.epoch == log.epoch and position.seq <= log.seq
        seq = position.seq if known else 0
        events, complete = log.after(max(seq, log.floor))
        complete = complete and known and seq >= log.floor
        return History(events, complete, str(log.position), log.limited <= seq)

    async def read(self, positions: Mapping[str, str]) -> Sequence[Event | Gap]:
        await anyio.lowlevel.checkpoint()
        self._positions = positions
        while not self._woken and not any(channel in positions for channel in self._fresh):
            self._arrival = anyio.Event()
            try:
                await self._arrival.wait()
            finally:
                self._arrival = None
        # There is no `await` from here to the end, so a cancellation cannot lose events.
        fresh = [channel for channel in self._fresh if channel in positions]
        for channel in fresh:
            del self._fresh[channel]
        self._woken = False
        self._unread = 0
        if self._room is not None:
            self._room.set()
            self._room = None
        found: list[Event | Gap] = []
        for channel in fresh:
            log = self._logs.get(channel)
            if log is not None:
                self._collect(channel, log, positions[channel], found)
        return found

    def _collect(self, channel: str, log: _Log, since: str, found: list[Event | Gap]) -> None:
        """Add what comes after a position to `found`."""
        position = Id.parse(since)
        # The position of an empty channel is valid in any epoch: the channel was watched before its first
        # event.
        same = position.epoch == log.epoch or position.seq == 0
        events, complete = log.after(position.seq if same else 0)
        if not (same and complete):
            first = Id.parse(events[0].id) if events else log.position
            before = str(first._replace(seq=first.seq - 1)) if events else str(first)
            found.append(Gap(channel, since, before))
        found += events

    async def watch(self, channels: Collection[str]) -> None:
        self._watched.update(channels)
        await anyio.lowlevel.checkpoint()

    def unwatch(self, channels: Collection[str]) -> None:
        for channel in channels:
            self._watched.discard(channel)
            self._fresh.pop(channel, None)

    def wake(self, channel: str | None = None) -> None:
        if channel is None:
            self._fresh.update(dict.fromkeys(self._watched))
        self._woken = True
        if self._arrival is not None:
            self._arrival.set()

    # Presence

    async def appear(self, members: Collection[Member], ttl: float) -> None:
        await anyio.lowlevel.checkpoint()
        deadline = anyio.current_time() + ttl
        for member in members:
            present = self._members.setdefault(member.channel, {})
            if member.id not in present:
                self._tell("join", member, self._counted(member, 1))
            present[member.id] = (member, deadline)

    async def vanish(self, members: Collection[Member]) -> None:
        await anyio.lowlevel.checkpoint()
        for member in members:
            self._remove(member)

    async def members(self, channel: str) -> Sequence[Member]:
        await anyio.lowlevel.checkpoint()
        self._reap(channel)
        return [member for member, _ in self._members.get(channel, {}).values()]

    async def count(self, channel: str, *, keys: bool = False) -> int:
        await anyio.lowlevel.checkpoint()
        self._reap(channel)
        count = len(self._members.get(channel, ()))
        if keys and channel in self._keys:
            by_key = self._keys[channel]
            count += len(by_key) - by_key.total()
        return count

    async def names(self) -> Collection[str]:
        await anyio.lowlevel.checkpoint()
        return {name for name in self._logs if not name.startswith("\0")} | self._members.keys()

    async def status(self, channels: Collection[str], within: float) -> Sequence[Status]:
        await anyio.lowlevel.checkpoint()
        now = time.time_ns() // 1_000_000
        found = []
        for channel in channels:
            self._reap(channel)
            log = self._logs.get(channel) or _Log("00000000")
            self._trim(channel, log)
            size = sum(len(e.data if isinstance(e.data, bytes) else e.data.encode()) for e in log.events)
            at = self._positions.get(channel)
            found.append(
                Status(
                    channel,
                    len(self._members.get(channel, ())),
                    len(log.events),
                    str(log.position) if log.seq else None,
                    max(now - log.ms, 0) / 1000 if log.seq else None,
                    size,
                    1 if channel in self._watched else 0,
                    {"this process": 0.0} if channel in self._watched else {},
                    0 if at is None else max(log.seq - Id.parse(at).seq, 0),
                )
            )
        return found

    async def reap(self, channels: Collection[str]) -> None:
        await anyio.lowlevel.checkpoint()
        for channel in channels:
            self._reap(channel)

    def _reap(self, channel: str) -> None:
        now = anyio.current_time()
        for member, deadline in list(self._members.get(channel, {}).values()):
            if deadline <= now:
                self._remove(member)

    def _remove(self, member: Member) -> None:
        present = self._members.get(member.channel, {})
        if present.pop(member.id, None) is None:
            return
        if not present:
            del self._members[member.channel]
        self._tell("leave", member, self._counted(member, -1))

    def _counted(self, member: Member, more: int) -> int:
        """The number of members with the key of one that has joined (1) or left (-1)."""
        if member.key is None:
            return max(more, 0)
        by_key = self._keys.setdefault(member.channel, Counter())
        by_key[member.key] += more
        sockets = by_key[member.key]
        if not sockets:
            del by_key[member.key]
            if not by_key:
                del self._keys[member.channel]
        return sockets

    def _tell(self, kind: Literal["join", "leave"], member: Member, sockets: int) -> None:
        self._append(presence_of(member.channel), presence_event(kind, member, sockets))
