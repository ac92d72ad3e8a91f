"""The members of this process, and how their joins and leaves are sent to the backend.

One task sends them for the whole process, in batches. Changes that come while a batch is under way form the
next batch. So a join costs a part of a round trip, however many join at once: with one request after the
other, 2,000 joins would take 2,000 round trips.

- A join waits until the backend has stored it. If that fails, the member has not joined.
- A leave is sent until the backend has stored it, whatever fails meanwhile. Otherwise, others would see a
  member that has left, until it expires.
- All members are renewed after each third of the time in which they expire. So a single failed renewal does
  not remove them.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Collection
from typing import Final
from uuid import uuid4

import anyio

from ._backend import Backend, BrokerError, Member, in_parts

__all__ = ["Roster"]

logger: Final = logging.getLogger("lilya.websockets")

# The seconds that leaving a block waits for the backend. The leave is sent after that, too.
_PATIENCE: Final = 2.0
# The seconds before the next batch after a failure, if there is no new change: the first time, and at most.
_RETRY: Final = (0.1, 5.0)
# The most members that are renewed in one request, and the most bytes in their infos and keys.
# A join that comes meanwhile waits for this request only.
_PART: Final = (2_000, 4_194_304)


class _Batch:
    """The changes that are sent together."""

    def __init__(self) -> None:
        # By the id of the member: the member, and whether it has joined. A later change of a member replaces
        # an earlier one.
        self.changes: dict[str, tuple[Member, bool]] = {}
        self.done = anyio.Event()
        self.error: Exception | None = None


class Roster:
    """The members of this process.

    Args:
        backend: Where members are stored.
        ttl: The seconds after which a member expires if it is not renewed.
        watched: Returns the channels whose joins and leaves are wanted in this process.
    """

    def __init__(self, backend: Backend, ttl: float, watched: Callable[[], set[str]]) -> None:
        self._backend = backend
        self._ttl = ttl
        self._watched = watched
        self.members: dict[str, Member] = {}
        """The members that have joined or are joining, by id."""
        self._next = _Batch()
        self._saying = _Batch()  # the batch under way
        self._work = anyio.Event()
        self._failures = 0
        self._is_stopping = False
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()

    def member(self, channel: str, info: str, key: str | None = None) -> Member:
        """A new member of a channel, which has not joined yet."""
        return Member(channel, uuid4().hex, info, key)

    async def appear(self, members: Collection[Member]) -> None:
        """Let members join, and renew them until `vanish`.

        Raises:
            BrokerError: The channels were stopped. What may have been stored is removed by `stop`.
            Exception: What the backend raises.
        """
        if self._is_stopping:
            raise _stopped()
        self.members.update((member.id, member) for member in members)
        batch = self._change(members, True)
        await batch.done.wait()
        if batch.error is not None:
            raise batch.error

    def forget(self, members: Collection[Member]) -> None:
        """Do not renew members any more, so that they expire. No leave is sent."""
        for member in members:
            self.members.pop(member.id, None)

    async def vanish(self, members: Collection[Member]) -> None:
        """Let members leave. This waits for the backend for a while, and never raises an error."""
        self.forget(members)
        # During `stop`, too, which may not have looked yet.
        batch = self._change(members, False)
        if not self._is_stopping:
            with anyio.move_on_after(_PATIENCE):
                await batch.done.wait()

    async def stop(self) -> None:
        """Let all members leave. This ends with the first request that fails: then the rest expires."""
        self._is_stopping = True
        self._scope.cancel()
        await self._ended.wait()
        try:
            await self._say_who_left()
        finally:
            # Nothing is sent any more, so nobody must wait for it.
            for batch in (self._saying, self._next):
                batch.error = _stopped()
                batch.done.set()

    async def _say_who_left(self) -> None:
        """Let everybody leave who may be stored."""
        # Also the members of the batches that were not confirmed. Some of them may be stored, or may have
        # left without the backend knowing it.
        changes = (*self._saying.changes.values(), *self._next.changes.values())
        everybody = list(({member.id: member for member, _ in changes} | self.members).values())
        self.members.clear()
        if everybody and not self._backend.ready.is_set():
            logger.warning("could not say who has left a channel: the broker is away")
            return
        for part in in_parts(everybody, *_PART):
            try:
                with anyio.fail_after(_PATIENCE):
                    await self._backend.vanish(part)
            except Exception as error:
                logger.warning("could not say who has left a channel: %s", error or "no answer in time")
                return

    def _change(self, members: Collection[Member], there: bool) -> _Batch:
        for member in members:
            self._next.changes[member.id] = member, there
        self._work.set()
        return self._next

    async def run(self) -> None:
        """Send changes and renew members, until `stop`."""
        try:
            with self._scope:
                await self._run()
        finally:
            self._ended.set()

    async def _run(self) -> None:
        interval = self._ttl / 3
        due = anyio.current_time() + interval
        again: deque[list[Member]] = deque()  # the parts of the members that are still to be renewed
        while True:
            # Each turn sends the changes first, and then renews one part of the members. So a join waits for
            # one part at most, even if a process has 100,000 members to renew.
            if not again and not self._next.changes:
                with anyio.move_on_at(due):
                    await self._work.wait()
            self._work = anyio.Event()
            if self._next.changes:
                self._saying, self._next = self._next, _Batch()
                await self._say()
                self._saying = _Batch()
            if not again and anyio.current_time() >= due:
                due = anyio.current_time() + interval
                # At least one part, because expired members are removed with the last one.
                again.extend(in_parts(self.members.values(), *_PART) if self.members else ([],))
            if again:
                await self._repeat(again.popleft(), last=not again)

    async def _say(self) -> None:
        """Send one batch, and wake those who wait for it."""
        batch = self._saying
        leaving = [member for member, there in batch.changes.values() if not there]
        joining = [member for member, there in batch.changes.values() if there]
        try:
            if leaving:
                await self._backend.vanish(leaving)
                leaving = []  # if the joins fail now, the leaves need not be sent again
            if joining:
                await self._backend.appear(joining, self._ttl)
        except Exception as error:
            # Joins fail: their callers get the error, and leave. Leaves go into the next batch, unless it
            # already has a newer change of the member.
            batch.error = error
            for member in leaving:
                self._next.changes.setdefault(member.id, (member, False))
            if leaving and not self._failures:
                logger.warning("could not say who has left a channel; it is tried again: %s", error)
            batch.done.set()
            await self._pause()
        else:
            self._failures = 0
            batch.done.set()

    async def _repeat(self, members: list[Member], *, last: bool) -> None:
        """Renew some members. After the last part of a round, remove expired members of other processes."""
        # Some may have left since the round began. To renew them would make them join again.
        there = [member for member in members if member.id in self.members]
        try:
            if there:
                await self._backend.appear(there, self._ttl)
            watched = self._watched() | {member.channel for member in self.members.values()} if last else None
            if watched:
                await self._backend.reap(watched)
        except Exception as error:
            if not self._failures:
                logger.warning("could not say who is in the channels; it is tried again: %s", error)
            self._failures += 1
        else:
            self._failures = 0

    async def _pause(self) -> None:
        """Wait before the next batch if there is something to send again. A new change ends the wait."""
        least, most = _RETRY
        delay = min(least * 2 ** min(self._failures, 16), most) * random.uniform(0.5, 1)
        self._failures += 1
        with anyio.move_on_after(delay if self._next.changes else 0):
            await self._work.wait()


def _stopped() -> BrokerError:
    return BrokerError("cannot join: the channels were stopped")
