"""How events get from a Redis server to this process: pushed, and read from the stream if a push is missing.

The rules of this file:

- To watch a channel is to subscribe to the pub/sub channel on which its events are pushed. `watch` returns
  when the server has confirmed the subscription. The caller reads the history only then. So no event is
  missed between the two.
- The positions belong to the caller, and this file keeps no others. Two copies could differ, and then a gap
  would go unnoticed. A pushed event is compared with the position of its channel when it is handed out. If it
  is the next event, it is handed out. If not, the events after the position are read from the stream, and
  pushes are held until then.
- The result of a read is used only if the position has not changed meanwhile. If all receivers leave a
  channel and others join it during the read, these start at another position, and must not get the old
  result.
- After a reconnect, every channel is read from its position: pushes during the outage are lost.
- Every half minute, the end of each channel is compared with its position. This finds a last event that was
  never pushed, and keeps a channel from expiring while somebody watches it.
- The questions of operators are pushed, too. A question is answered when everything that was pushed before it
  has been handed out, see `_status`.
- In one epoch of a channel, times and numbers have the same order. If the stream reaches as far as a position
  and does not have its event, the position is of another branch: a replica that lagged has become the
  primary. Then the gap goes back to the newest event that this process has handed out and that still exists.
  The events after that one are new, although some have numbers that were handed out before.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
import socket
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from ._backend import BrokerError, Event, Gap, Id
from ._entries import Standing, event_of, items_after
from ._keys import Keys, epoch
from ._link import Asking, reason
from ._listening import Listener, Watched
from ._status import ANSWERS, QUESTIONS, answer_to

__all__ = ["Feed"]

logger: Final = logging.getLogger("lilya.websockets")

# The seconds in which the end of each channel is compared with its position once.
_CHECK: Final = 30.0
# The number of parts over which these comparisons are spread, and the most channels in one request.
_PARTS: Final = 30
_TOGETHER: Final = 64
# The most entries of one channel in one request, and the most items that one `read` returns.
_COUNT: Final = 256
_GIVEN: Final = 500
# The most pushes to a channel that are held while the channel is read. Then the most pushes, and the most
# bytes in them, that may wait for `read`. Beyond that, this process receives no more, and the server buffers
# them.
_HELD: Final = 256
_WAITING: Final = (10_000, 16_777_216)
# The number of events of all channels, handed out last, among which `_branch` looks for one that still
# exists.
_LATELY: Final = 4096


class Feed:
    """The watched channels, and the events that arrive in them.

    Args:
        pipe: Sends the requests that read streams.
        keys: The names of channels on the server.
        place: Returns the listener for a slot, or `None` if no node has the slot at the moment.
        astray: Called with the slot of a channel that has moved, and the server's error, if there is one.
        age: The milliseconds to keep events, `b"0"` without a limit.
        expire: The milliseconds after which a channel that nobody watches expires.
    """

    def __init__(
        self,
        pipe: Asking,
        keys: Keys,
        *,
        place: Callable[[int], Listener | None],
        astray: Callable[[int, ResponseError | None], None] = lambda slot, error: None,
        age: bytes,
        expire: bytes,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pipe = pipe
        self._keys = keys
        self._place = place
        self._astray = astray
        self._age = age
        self._expire = expire
        # By slot, the id of the server's memory. It changes when the server loses its data. The position of
        # an empty channel has this id in place of an epoch. If the id is still the same when the first event
        # comes, that is the event after the position. If not, the channel may have had events that are lost:
        # a gap.
        self._memories: dict[int, str] = {}
        self.lives = 0  # rises when the ids are forgotten, because answers that are under way are old then
        self._watched: dict[str, Watched] = {}
        self._arrived: deque[tuple[Watched, bytes]] = deque()
        self._size = 0
        self._room = asyncio.Event()
        self._news = asyncio.Event()
        self._positions: Mapping[str, str] = {}
        # The channels to read, in two steps. A channel is noticed first, and read from when the caller calls
        # `read` the next time. Only then has the caller moved the positions past the items that it got last.
        # For example, `read` returns event 5, and the position is still 4. A request sent now would ask for
        # what comes after 4, and event 5 would be handed out twice.
        self._noticed: dict[Watched, None] = {}
        self._to_look: dict[Watched, None] = {}
        self._look_at = asyncio.Event()
        self._suspects: dict[Watched, None] = {}
        # The results of reads: the channel, the position that was read from, the items, the position after
        # them, and whether there is more to read.
        self._found: deque[tuple[Watched, str, list[Event | Gap], Id, bool]] = deque()
        self._lately: deque[tuple[str, str]] = deque(maxlen=_LATELY)
        self._tasks: set[asyncio.Task[None]] = set()
        # By name, the functions that get what is pushed on names that are not channels.
        self._hearers: dict[str, Callable[[bytes], None]] = {QUESTIONS: self._answer}
        # The name of this process in its answers. The last part is there because a process may have several
        # feeds.
        self._name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(2)}"

    async def stop(self) -> None:
        """End the tasks, and fail those who wait. The listeners are stopped by their owner."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for watched in self._watched.values():
            watched.tell(BrokerError("the channels were stopped before Redis answered"))

    # Watching

    async def watch(self, channels: Collection[str]) -> None:
        """Receive everything that is published from now on; see `Backend.watch`."""
        waiters: dict[asyncio.Future[None], Watched] = {}
        for channel in channels:
            watched = self._watch(channel)
            if not watched.confirmed:
                waiter: asyncio.Future[None] = self._loop.create_future()
                watched.waiters.add(waiter)
                waiters[waiter] = watched
        self._watch(QUESTIONS)  # no need to wait: without it, only `status` shows less
        if not self._tasks:
            self._spawn(self._look())
            self._spawn(self._check())
        if not waiters:
            return
        attempted = f"listen to {', '.join(map(repr, channels))}"
        try:
            done, late = await asyncio.wait(waiters, timeout=self._pipe.timeout)
        finally:
            # Also if this was cancelled. Otherwise, waiters would pile up in an outage, and asyncio would log
            # an error that one of them gets later.
            for waiter, watched in waiters.items():
                if not waiter.cancel():
                    waiter.exception()
                watched.waiters.discard(waiter)
        if late:
            raise self._pipe.too_late(attempted)
        # Take the exception of each waiter before raising one: asyncio logs exceptions that nobody has taken.
        for error in [waiter.exception() for waiter in done]:
            if isinstance(error, ResponseError):
                raise BrokerError(f"cannot {attempted}: Redis refuses: {reason(error)}") from error
            if error is not None:
                raise error

    def _watch(self, channel: str) -> Watched:
        watched = self._watched.get(channel)
        if watched is None:
            pushed, hear = self._keys.pushed(channel), self._hearers.get(channel)
            watched = self._watched[channel] = Watched(channel, pushed, self._keys.slot_of(pushed), hear)
            self._settle(watched)
        elif watched.refused is not None and watched.listener is not None:
            watched.listener.again(watched)
        return watched

    def unwatch(self, channels: Collection[str]) -> None:
        """Stop watching channels; see `Backend.unwatch`."""
        for channel in channels:
            self._unwatch(channel)
        if self._watched.keys() == {QUESTIONS}:
            self._unwatch(QUESTIONS)

    def _unwatch(self, channel: str) -> None:
        watched = self._watched.pop(channel, None)
        if watched is None:
            return
        if watched.listener is not None:
            watched.listener.remove(watched)
        # A receiver may be told to end while it still waits in `watch`. Without a connection, nothing else
        # would end that wait.
        watched.tell(BrokerError(f"channel {channel!r} was left before Redis answered"))

    def settle(self) -> None:
        """Listen to each channel at the node that has its slot now."""
        for watched in self._watched.values():
            self._settle(watched)

    def _settle(self, watched: Watched) -> None:
        listener = self._place(watched.slot)
        if listener is watched.listener:
            return
        if watched.listener is not None:
            # No need to unsubscribe: a node that gives a slot away ends the subscriptions to it.
            watched.listener.forget(watched)
        if listener is not None:
            listener.add(watched)

    # Called by listeners

    def heard(self, watched: Watched, message: bytes) -> None:
        """Take a push."""
        self._arrived.append((watched, message))
        self._size += len(message)
        self._news.set()

    async def room(self) -> None:
        """Wait until there is room for more pushes."""
        # While the listener waits here, it does not read from the connection, and the server buffers the
        # pushes. At its own limit, the server ends the connection, and the channels are read after the
        # reconnect. So a slow process delays itself, and its memory stays bounded.
        most, bytes_at_most = _WAITING
        while len(self._arrived) > most or self._size > bytes_at_most:
            self._room.clear()
            await self._room.wait()

    def confirmed(self, watched: Watched) -> None:
        """Read a channel that is subscribed to again, because pushes were lost meanwhile."""
        if watched.hear is None:  # a channel, not a name for questions or answers
            self._notice(watched)

    def astray(self, watched: Watched, error: ResponseError | None) -> None:
        """Pass on that a subscription has ended because its slot has moved."""
        self._astray(watched.slot, error)

    # Questions

    async def hear(self, name: str, hear: Callable[[bytes], None]) -> None:
        """Call a function with each push on a name that is not a channel, until `unhear`.

        Call `unhear` also if this fails.

        Raises:
            BrokerError: The broker refuses, or does not answer within the time limit.
        """
        self._hearers[name] = hear
        await self.watch([name])

    def unhear(self, name: str) -> None:
        """Stop what `hear` has started. This also cleans up after a `hear` that raised an error."""
        del self._hearers[name]
        self.unwatch([name])

    def _answer(self, question: bytes) -> None:
        """Answer how far this process is: it has handed out all that was pushed before the question."""
        answer = answer_to(question, self._name, self._positions)
        if answer is not None:
            word, said = answer
            self._spawn(self._say(self._keys.pushed(ANSWERS + word), said))

    async def _say(self, to: bytes, said: bytes) -> None:
        try:
            await self._pipe.request((self._keys.publish, to, said)).future
        except Exception as error:
            logger.warning("could not say how far this process is: %s", reason(error))

    # Memories

    def remember(self, memory: str, slot: int = 0) -> None:
        """Store the id of the memory that a slot is in."""
        self._memories[slot] = memory

    def forget(self) -> None:
        """Forget the ids of memories, because a connection was lost or a slot has moved."""
        self.lives += 1
        self._memories.clear()

    def known_memory(self, slot: int) -> str:
        """The id of the memory that a slot is in, or `""` if it is not known."""
        return self._memories.get(slot, "")

    async def memory_of(self, channel: str) -> str:
        """The id of the memory that a channel is in. The server is asked if it is not known."""
        slot = self._keys.slot_of(self._keys.pushed(channel))
        memory = self._memories.get(slot)
        if memory is None:
            # If the ids are forgotten while this waits, the answer may be out of date. Use it once, and do
            # not store it.
            life = self.lives
            request = self._pipe.request(self._keys.script("memory", [self._keys.memory_of(slot)], epoch()))
            memory = (await request.future).decode()
            if life == self.lives:
                self._memories[slot] = memory
        return memory

    # Reading

    async def read(self, positions: Mapping[str, str]) -> Sequence[Event | Gap]:
        """Wait for events after the positions; see `Backend.read`."""
        self._positions = positions
        while True:
            if self._noticed:
                # The caller has moved the positions past the items of the last call, so they can be read
                # from.
                self._to_look.update(self._noticed)
                self._noticed.clear()
                self._look_at.set()
            found = self._take(positions)
            if found:
                return found
            # `_take` may have returned nothing and still left work: pushes that it dropped may have made it
            # notice a channel. To wait for news then would be to wait for ever.
            if not (self._noticed or self._arrived or self._found):
                self._news.clear()
                await self._news.wait()

    def wake(self, channel: str | None) -> None:
        """Check the position of a channel, or all positions; see `Backend.wake`."""
        for watched in list(self._watched.values()) if channel is None else [self._watched.get(channel)]:
            # A channel that has just got its position needs a read only if an event was pushed before that.
            if watched is not None and (channel is None or watched.early):
                watched.early = False
                self._notice(watched)
        self._news.set()

    def _notice(self, watched: Watched) -> None:
        """Have a channel read when `read` is called again. Until the result is there, pushes are held."""
        watched.looking = True
        self._noticed[watched] = None
        self._news.set()

    def _take(self, positions: Mapping[str, str]) -> list[Event | Gap]:
        """Some hundred items that follow the positions, in order."""
        taken: list[Event | Gap] = []
        # The positions after the items that were taken here. The caller moves its positions only after this
        # has returned.
        reached: dict[str, Id] = {}
        while len(taken) < _GIVEN:
            if self._found:
                taken += self._take_found(positions, reached)
            elif self._arrived:
                watched, pushed = self._arrived[0]
                if watched.hear is not None and taken:
                    # The answer to a question has the caller's positions. Hand out the events before the
                    # question first, so that the positions include them.
                    break
                self._arrived.popleft()
                self._size -= len(pushed)
                if self._watched.get(watched.name) is not watched:
                    # The channel was unwatched after this push, and perhaps watched again. Then its new
                    # position is after this event.
                    continue
                if watched.hear is not None:
                    watched.hear(pushed)
                    continue
                event = self._next(watched, pushed, positions, reached)
                if event is not None:
                    taken.append(event)
            else:
                break
        self._room.set()
        return taken

    def _next(
        self, watched: Watched, pushed: bytes, positions: Mapping[str, str], reached: dict[str, Id]
    ) -> Event | None:
        """The event that was pushed, if it is the next event of its channel.

        If it is not, it is either known already, or there is a hole before it. Events are never taken from
        pushes out of order: a hole is filled by a read of the stream.
        """
        name = watched.name
        if watched.looking:
            # A read is under way. The push may be in its result, or after it: see `_take_found`.
            if len(watched.held) < _HELD:
                watched.held.append(pushed)
            else:
                watched.again = True  # one more read costs less than to hold an unlimited number
            return None
        at = reached.get(name)
        if at is None:
            position = positions.get(name)
            if position is None:
                # Pushed after `watch`, and before the caller has set the position. The event may be in the
                # history that the caller is reading, or after it. `wake` has the channel read.
                watched.early = True
                return None
            text, last = watched.last
            at = last if text == position else Id.parse(position)
        found = event_of(name, pushed)
        if found is None:
            logger.error("what was pushed to channel %r is no event: %r", name, pushed[:80])
            return None
        id, event = found
        # The next number of the same epoch; or the first event of any epoch after the position of an empty
        # channel, if the server has not lost its data since. After an event, the time must not go backwards,
        # either. Suppose that event 7 of time 200 was handed out, and a replica takes over that had only
        # event 6. It gives out 7 and 8 at the times 150 and 160. That 8 is the next number, but the new 7 is
        # missing before it.
        if id.seq == at.seq + 1 and (id.epoch == at.epoch or self._was_empty(watched, at)):
            if id.ms >= at.ms or not at.seq:
                reached[name] = id
                watched.last = event.id, id
                self._lately.append((name, event.id))
                return event
        elif watched.filled is not None and _is_within(id, watched.filled):
            # A read has returned this event before its push arrived. This is normal after each read, and must
            # not cause another one.
            return None
        # A hole, a new epoch or another branch: the stream shows which.
        self._notice(watched)
        return None

    def _was_empty(self, watched: Watched, at: Id) -> bool:
        """Whether a position is that of an empty channel, in the memory that the server has now."""
        return at.seq == 0 and at.epoch == self.known_memory(watched.slot)

    def _take_found(self, positions: Mapping[str, str], reached: dict[str, Id]) -> list[Event | Gap]:
        """The result of one read, if it is for the position that the channel still has."""
        watched, position, items, at, more = self._found.popleft()
        if self._watched.get(watched.name) is not watched:
            return []
        watched.looking = False
        if positions.get(watched.name) != position:
            # All receivers left and others joined during the read. They start where their history ends, and
            # the result is for the old position. Read again, from the new one.
            self._notice(watched)
            return []
        watched.filled = at
        reached[watched.name] = at
        self._lately.extend((watched.name, item.id) for item in items if isinstance(item, Event))
        if watched.again:
            # Not all pushes could be held. All events are in the stream, so read them there.
            watched.again = False
            watched.held.clear()
            more = True
        if more:
            self._notice(watched)
        else:
            # Put the held pushes back, in front. Pushes to this channel that arrived later may wait behind
            # them, and must not overtake them. `_next` drops those that are in the result.
            held, watched.held = watched.held, deque()
            self._size += sum(map(len, held))
            self._arrived.extendleft((watched, pushed) for pushed in reversed(held))
        return items

    # Reading streams

    async def _look(self) -> None:
        """Read the channels that are to be read, each in a task of its own."""
        while True:
            self._look_at.clear()
            # So a channel with many large events does not delay the others. The pipe limits how many requests
            # are under way.
            for watched in self._to_look:
                self._spawn(self._look_into(watched))
            self._to_look.clear()
            await self._look_at.wait()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_into(self, watched: Watched) -> None:
        """Read what comes after the position of a channel."""
        position = self._positions.get(watched.name)
        if self._watched.get(watched.name) is not watched:
            return
        if position is None:
            # All receivers have left, or the caller is still reading the history. `wake` will be called with
            # the position.
            watched.looking = False
            watched.early = True
            return
        watched.suspected = ""
        try:
            standing = await self._standing_after(watched, position)
            items, at, more = await self._after(watched, position, standing)
            watched.unreadable = False
        except Exception as error:
            if not watched.unreadable:
                watched.unreadable = True
                logger.error("channel %r cannot be read: %s", watched.name, reason(error))
            # Go on as if no read had been wanted. The position has not moved, so the next push or the next
            # comparison finds the same hole, and has the channel read again. Until then, nothing is retried,
            # and the error is logged once.
            watched.held.clear()
            watched.looking = False
            return
        self._found.append((watched, position, items, at, more))
        self._news.set()

    async def _standing_after(self, watched: Watched, position: str) -> Standing:
        """Ask what comes after a position. For an empty channel, the id of its memory is known throughout.

        In a cluster, all these ids are forgotten whenever any slot moves. Without the id, `_after` would take
        an empty channel for one that has lost its events, and report a gap where nothing is missing. So if
        the ids were forgotten meanwhile, this asks for both again.
        """
        while True:
            lives = self.lives
            if Id.parse(position).seq == 0:
                # First the id, then the events. The events are then of this memory, or of a later one.
                await self.memory_of(watched.name)
            # An event is stored before it is pushed. So what was pushed until now is in the answer.
            watched.held.clear()
            request = self._pipe.request(self._read_after(watched.name, position))
            standing = Standing.of(await request.future)
            if lives == self.lives or Id.parse(position).seq:
                return standing

    def _read_after(self, name: str, position: str) -> tuple[bytes, ...]:
        at = Id.parse(position)
        return self._keys.script(
            "read", self._keys.of(name), at.epoch.encode(), b"%d" % at.ms, b"%d" % at.seq, b"%d" % _COUNT
        )

    async def _after(
        self, watched: Watched, position: str, standing: Standing
    ) -> tuple[list[Event | Gap], Id, bool]:
        """The items after a position, the position after them, and whether there is more to read.

        If the position is of no use any more, the result is a gap to a position that is. The next read
        continues from there.
        """
        at, name, end = Id.parse(position), watched.name, standing.end
        was_empty = self._was_empty(watched, at)
        if end is None:
            if was_empty:
                return [], at, False
            # The channel had events, and the server knows nothing of it now: it has expired, or is lost. The
            # gap ends at the position of an empty channel.
            to = Id(standing.now, 0, await self.memory_of(name))
        elif at.epoch != end.epoch and not was_empty:
            # A new epoch. The gap ends before the oldest event that is kept, so that all of these follow it.
            to = standing.begin or end
        elif at.epoch == end.epoch and standing.is_elsewhere(at):
            # The epoch is the same, but the event at the position is gone: a failover.
            to = await self._branch(name, end)
        else:
            items, reached, strange = items_after(name, at, standing.entries, begins=was_empty)
            for raw in strange:
                logger.error("entry %s of channel %r is no event", raw.decode("utf-8", "replace"), name)
            if standing.ended and reached.seq < end.seq:
                # The stream ends before the channel does: its newest events were trimmed.
                items.append(Gap(name, str(reached), str(end)))
                reached = end
            return items, reached, not standing.ended
        return [Gap(name, position, str(to))], to, True

    async def _branch(self, name: str, end: Id) -> Id:
        """The position to continue from after a failover: the newest event handed out that still exists.

        For example, this process has handed out 5, 6 and 7, and the replica that took over had only 5. Since
        then it has given out a new 6 and a new 7. The branches part after 5. The gap goes back to 5, and the
        new events follow. If the gap went to the end instead, they would be skipped.
        """
        # Only the newest entries are compared. A replica lags by moments, not by hundreds of events. If none
        # of them was handed out, continue at the end.
        given = {id for channel, id in self._lately if channel == name}
        newest = (b"XREVRANGE", self._keys.of(name)[0], b"+", b"-", b"COUNT", b"%d" % _COUNT)
        for raw, fields in await self._pipe.request(newest).future:
            epoch = fields[1][:8].decode("utf-8", "replace") if len(fields) > 1 else ""
            text = f"{raw.decode()}-{epoch}"
            if text in given:
                return Id.parse(text)
        return end

    # Comparing

    async def _check(self) -> None:
        """Compare the end of each channel with its position, for ever."""
        while True:
            # One part of the channels each second. All at once, thousands of channels would be a burst.
            for part in self._parts():
                await asyncio.sleep(_CHECK / _PARTS)
                for start in range(0, len(part), _TOGETHER):
                    those = [
                        (watched, self._positions[watched.name])
                        for watched in part[start : start + _TOGETHER]
                        if watched.name in self._positions and not watched.looking and watched.is_heard
                    ]
                    for some in self._keys.together(those, lambda pair: pair[0].slot):
                        self._spawn(self._compare(some))

    def _parts(self) -> Iterator[list[Watched]]:
        """The watched channels, in `_PARTS` parts. Each part also has the suspects of the one before."""
        everything = list(self._watched.values())
        size = math.ceil(len(everything) / _PARTS)
        for number in range(_PARTS):
            suspected, self._suspects = self._suspects, {}
            part = everything[number * size : (number + 1) * size]
            yield list({**suspected, **dict.fromkeys(part)})

    async def _compare(self, those: list[tuple[Watched, str]]) -> None:
        """Compare the ends of some channels with their positions, and read a channel that is behind twice.

        A single difference means nothing: events that were published just now are on their way. A read then
        would fetch them a second time, for every busy channel, every half minute.
        """
        states = [self._keys.of(watched.name)[1] for watched, _ in those]
        try:
            ends = await self._pipe.request(
                self._keys.script("standings", states, self._age, self._expire)
            ).future
        except Exception as error:
            logger.warning("could not compare the channels with what is kept: %s", reason(error))
            return
        for (watched, position), end in zip(those, ends, strict=False):
            now = self._positions.get(watched.name)
            if self._watched.get(watched.name) is not watched or now is None:
                continue
            if watched.refused is not None and watched.listener is not None:
                watched.listener.again(watched)  # the rights of the user may have changed
            if (
                now != position  # the position has moved since the request, so pushes do arrive
                or end.decode() == position
                or (not end and self._was_empty(watched, Id.parse(position)))
            ):
                watched.suspected = ""
            elif watched.suspected == position:
                self._notice(watched)  # a second later, the push has still not arrived: it never will
            else:
                # The push may be on its way. Compare this channel again with the next part, a second later.
                watched.suspected = position
                self._suspects[watched] = None


def _is_within(id: Id, end: Id) -> bool:
    """Whether an event is part of what was read up to a position, by number and by time."""
    return id.epoch == end.epoch and id.seq <= end.seq and id.ms <= end.ms
