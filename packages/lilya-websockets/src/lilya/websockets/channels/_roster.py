"""Who of this process is in which channels, and how the backend learns of it.

One task says it for the whole process, in batches: what has changed while a batch was under way is the next
one. So joining costs a share of a round trip, however many join at once.

- Who joins waits until it has been said. If that fails, it has not joined.
- Who leaves is said to have left until the backend knows it, whatever fails meanwhile.
- Who is there is said again every third of the time for which it is believed.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection
from typing import Final
from uuid import uuid4

import anyio

from ._backend import Backend, Member

__all__ = ["Roster"]

logger: Final = logging.getLogger("lilya.websockets")

# Seconds that leaving a block waits until it is known.
_PATIENCE: Final = 2.0
# Seconds before a batch is tried again, if no other one comes: the first time, and the most.
_RETRY: Final = (0.1, 5.0)
# Members that are said to be there at once when nothing has changed. Whoever joins waits for no more.
_PART: Final = 2_000


class _Batch:
    """What is said at once."""

    def __init__(self) -> None:
        self.changes: dict[str, tuple[Member, bool]] = {}  # by member; whether it is there
        self.done = anyio.Event()
        self.error: Exception | None = None


class Roster:
    """The members of this process.

    Args:
        backend: Where members are kept.
        ttl: Seconds for which it is believed that a member is there.
        watched: The channels in which others are of interest, too.
    """

    def __init__(self, backend: Backend, ttl: float, watched: Callable[[], set[str]]) -> None:
        self._backend = backend
        self._ttl = ttl
        self._watched = watched
        self.members: dict[str, Member] = {}
        """Who is there, by id."""
        self._next = _Batch()
        self._saying = _Batch()  # what is under way
        self._work = anyio.Event()
        self._failures = 0
        self._is_stopping = False
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()

    def member(self, channel: str, info: str, key: str | None = None) -> Member:
        """A new member of a channel, who is not there yet."""
        return Member(channel, uuid4().hex, info, key)

    async def appear(self, members: Collection[Member]) -> None:
        """Say that somebody is there, until `vanish`.

        Raises:
            Exception: What the backend raises.
        """
        self.members.update((member.id, member) for member in members)
        batch = self._change(members, True)
        await batch.done.wait()
        if batch.error is not None:
            raise batch.error

    def forget(self, members: Collection[Member]) -> None:
        """Do not say any more that somebody is there: after a while nobody believes it."""
        for member in members:
            self.members.pop(member.id, None)

    async def vanish(self, members: Collection[Member]) -> None:
        """Say that somebody is there no longer. Waits for a while until it is known, and never fails."""
        self.forget(members)
        if members and not self._is_stopping:
            batch = self._change(members, False)
            with anyio.move_on_after(_PATIENCE):
                await batch.done.wait()

    async def stop(self) -> None:
        """Say that nobody is there any longer, as long as the backend is there and goes on answering."""
        self._is_stopping = True
        self._scope.cancel()
        await self._ended.wait()
        changes = (*self._saying.changes.values(), *self._next.changes.values())
        everybody = list(({member.id: member for member, _ in changes} | self.members).values())
        self.members.clear()
        if everybody and not self._backend.ready.is_set():
            logger.warning("could not say who has left a channel: the broker is away")
            return
        for start in range(0, len(everybody), _PART):
            try:
                with anyio.fail_after(_PATIENCE):
                    await self._backend.vanish(everybody[start : start + _PART])
            except Exception as error:
                logger.warning("could not say who has left a channel: %s", error or "no answer in time")
                return

    def _change(self, members: Collection[Member], there: bool) -> _Batch:
        for member in members:
            self._next.changes[member.id] = member, there
        self._work.set()
        return self._next

    async def run(self) -> None:
        """Say what there is to be said, until `stop`."""
        try:
            with self._scope:
                await self._run()
        finally:
            self._ended.set()

    async def _run(self) -> None:
        interval = self._ttl / 3
        due = anyio.current_time() + interval
        again: list[Member] = []  # to be said again
        while True:
            if not again and not self._next.changes:
                with anyio.move_on_at(due):
                    await self._work.wait()
            self._work = anyio.Event()
            if self._next.changes:
                self._saying, self._next = self._next, _Batch()
                await self._say()
                self._saying = _Batch()
            is_due = not again and anyio.current_time() >= due
            if is_due:
                due = anyio.current_time() + interval
                again = list(self.members.values())
            if again or is_due:
                await self._repeat(again[:_PART], last=len(again) <= _PART)
                del again[:_PART]

    async def _say(self) -> None:
        batch = self._saying
        leaving = [member for member, there in batch.changes.values() if not there]
        joining = [member for member, there in batch.changes.values() if there]
        try:
            if leaving:
                await self._backend.vanish(leaving)
                leaving = []
            if joining:
                await self._backend.appear(joining, self._ttl)
        except Exception as error:
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
        """Say again who is there, and in the end see who of the others does not."""
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
        """Wait before the next batch, unless somebody else comes."""
        least, most = _RETRY
        delay = min(least * 2 ** min(self._failures, 16), most) * random.uniform(0.5, 1)
        self._failures += 1
        with anyio.move_on_after(delay if self._next.changes else 0):
            await self._work.wait()
