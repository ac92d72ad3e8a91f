"""How events get from a Redis server to this process: pushed, and read from the stream if a push is missing.

The rules of this file:

- To watch a channel is to subscribe to the pub/sub channel on which its events are pushed. `watch` returns
  when the server has confirmed the subscription. The caller reads the history only then. So no event is
  missed between the two.
- The positions belong to the caller, and this file keeps no others: two copies could differ, and then a gap
  would go unnoticed. An event that was pushed is compared with the position of its channel when it is handed
  out. If it is the next event, it is handed out. If not, the events after the position are read from the
  stream, and what is pushed meanwhile is held until they have come.
- What was read for a position is used only if that is still the position. So if everybody leaves a channel
  and somebody joins it while it is read, they get nothing that was meant for those before.
- After a reconnect, every channel is read from its position: what was pushed meanwhile is lost.
- Every half minute the end of each channel is compared with its position. This finds a last event that was
  never pushed, and keeps a channel from expiring while somebody watches it.
- The questions of operators are pushed, too. A question is answered when everything pushed before it was
  handed out, see `_status`.
- In one life of a channel, times and numbers have the same order. If the stream reaches as far as a position
  and does not have its event, the position is of another branch: a replica that was behind has become the
  primary. Then the gap goes back to the newest event that this process has handed out and that still exists.
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

# Seconds in which each channel's end is compared with its position once.
_CHECK: Final = 30.0
# Into how many parts that is spread, and channels that are asked for at once.
_PARTS: Final = 30
_TOGETHER: Final = 64
# Entries of one channel that are read at once, and events that one `read` gives.
_COUNT: Final = 256
_GIVEN: Final = 500
# Messages that are held while their channel is looked at; and messages, and bytes of them, that may wait for
# `read` before the server has to keep them.
_HELD: Final = 256
_WAITING: Final = (10_000, 16_777_216)
# Events that were given lately, of all channels: among them is looked for the place where branches part.
_LATELY: Final = 4096


class Feed:
    """The channels that are watched, and what comes in them.

    Args:
        pipe: For what is read from streams.
        keys: What channels are called at the server.
        place: Who listens to a slot, if anybody can now.
        astray: Is told the slot of a channel that is elsewhere now, and how the server has said so.
        age: Milliseconds that events are kept, `b"0"` without a limit.
        expire: Milliseconds after which a channel that nobody watches is forgotten.
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
        # By slot, the id of the memory that the server has; another one after it has lost its data. The
        # position of an empty channel holds it. So it shows whether the channel can have had events that are
        # lost.
        self._memories: dict[int, str] = {}
        self._lives = 0  # rises when these are forgotten: an answer to an earlier question is of no use then
        self._watched: dict[str, Watched] = {}
        self._arrived: deque[tuple[Watched, bytes]] = deque()
        self._size = 0
        self._room = asyncio.Event()
        self._news = asyncio.Event()
        self._positions: Mapping[str, str] = {}
        # Channels to read. Those in `_noticed` wait for the next `read`: only then has the caller moved the
        # positions past what it was given last, and a position that is behind would have the same events read
        # again.
        self._noticed: dict[Watched, None] = {}
        self._to_look: dict[Watched, None] = {}
        self._look_at = asyncio.Event()
        self._suspects: dict[Watched, None] = {}
        self._found: deque[tuple[Watched, str, list[Event | Gap], Id, bool]] = deque()
        self._lately: deque[tuple[str, str]] = deque(maxlen=_LATELY)
        self._tasks: set[asyncio.Task[None]] = set()
        # Who is given what is pushed on names that are no channels'.
        self._hearers: dict[str, Callable[[bytes], None]] = {QUESTIONS: self._answer}
        # What this process is called in answers. It may have several feeds.
        self._name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(2)}"

    async def stop(self) -> None:
        """End what was started. The listeners belong to their maker."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for watched in self._watched.values():
            for waiter in watched.waiters:
                if not waiter.done():
                    waiter.set_exception(BrokerError("the channels were stopped before Redis answered"))

    # Watching

    async def watch(self, channels: Collection[str]) -> None:
        """See everything that is published from now on; see `Backend.watch`."""
        waiters = []
        for channel in channels:
            watched = self._watch(channel)
            if not watched.confirmed:
                waiter: asyncio.Future[None] = self._loop.create_future()
                watched.waiters.append(waiter)
                waiters.append(waiter)
        self._watch(QUESTIONS)  # nobody waits for that: without it, only operators know less
        if not self._tasks:
            self._spawn(self._look())
            self._spawn(self._check())
        if not waiters:
            return
        attempted = f"listen to {', '.join(map(repr, channels))}"
        done, late = await asyncio.wait(waiters, timeout=self._pipe.timeout)
        for waiter in late:
            waiter.cancel()
        if late:
            raise self._pipe.too_late(attempted)
        for error in [waiter.exception() for waiter in done]:  # of each: asyncio complains about one unseen
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
        """Watch some channels no longer; see `Backend.unwatch`."""
        for channel in channels:
            self._unwatch(channel)
        if self._watched.keys() == {QUESTIONS}:
            self._unwatch(QUESTIONS)

    def _unwatch(self, channel: str) -> None:
        watched = self._watched.pop(channel, None)
        if watched is not None and watched.listener is not None:
            watched.listener.remove(watched)

    def settle(self) -> None:
        """Listen to each channel where its slot is now."""
        for watched in self._watched.values():
            self._settle(watched)

    def _settle(self, watched: Watched) -> None:
        listener = self._place(watched.slot)
        if listener is watched.listener:
            return
        if watched.listener is not None:
            watched.listener.forget(watched)
        if listener is not None:
            listener.add(watched)

    # What a listener hears

    def heard(self, watched: Watched, message: bytes) -> None:
        """Something was pushed."""
        self._arrived.append((watched, message))
        self._size += len(message)
        self._news.set()

    async def room(self) -> None:
        """Wait until there is room for more."""
        # While the listener waits here it reads nothing, so the server keeps what is pushed, up to its own
        # limit.
        most, bytes_at_most = _WAITING
        while len(self._arrived) > most or self._size > bytes_at_most:
            self._room.clear()
            await self._room.wait()

    def confirmed(self, watched: Watched) -> None:
        """A channel is subscribed to again: what was pushed meanwhile is lost."""
        if watched.hear is None:
            self._notice(watched)

    def astray(self, watched: Watched, error: ResponseError | None) -> None:
        """A channel is subscribed to no longer: its slot is elsewhere."""
        self._astray(watched.slot, error)

    # Questions

    async def hear(self, name: str, hear: Callable[[bytes], None]) -> None:
        """Have somebody given what is pushed on a name that is no channel's, until `unhear`.

        Raises:
            BrokerError: The broker refuses, or does not answer within the time limit.
        """
        self._hearers[name] = hear
        await self.watch([name])

    def unhear(self, name: str) -> None:
        """Undo `hear`, also one that has failed."""
        del self._hearers[name]
        self.unwatch([name])

    def _answer(self, question: bytes) -> None:
        """Say how far this process is: it has given everything that was pushed before the question."""
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
        """It is known which memory a slot is in."""
        self._memories[slot] = memory

    def forget(self) -> None:
        """It is not known any more: a connection was lost, or a slot is elsewhere."""
        self._lives += 1
        self._memories.clear()

    def known_memory(self, slot: int) -> str:
        """In which memory a slot is, or nothing."""
        return self._memories.get(slot, "")

    async def memory_of(self, channel: str) -> str:
        """In which memory of the server a channel is."""
        slot = self._keys.slot_of(self._keys.pushed(channel))
        memory = self._memories.get(slot)
        if memory is None:
            # The connection may be lost while this waits. Then the answer is used once, and not kept.
            life = self._lives
            request = self._pipe.request(self._keys.script("memory", [self._keys.memory_of(slot)], epoch()))
            memory = (await request.future).decode()
            if life == self._lives:
                self._memories[slot] = memory
        return memory

    # Reading

    async def read(self, positions: Mapping[str, str]) -> Sequence[Event | Gap]:
        """Wait for what comes after the positions; see `Backend.read`."""
        self._positions = positions
        while True:
            if self._noticed:
                self._to_look.update(self._noticed)
                self._noticed.clear()
                self._look_at.set()
            found = self._take(positions)
            if found:
                return found
            # `_take` may have found only what is nobody's any more, and noticed something while it did.
            if not (self._noticed or self._arrived or self._found):
                self._news.clear()
                await self._news.wait()

    def wake(self, channel: str | None) -> None:
        """Look at a position anew, or at all; see `Backend.wake`."""
        for watched in list(self._watched.values()) if channel is None else [self._watched.get(channel)]:
            if watched is not None and (channel is None or watched.early):
                watched.early = False
                self._notice(watched)
        self._news.set()

    def _notice(self, watched: Watched) -> None:
        """Have a channel looked at, as soon as what was given has its effect on the positions."""
        watched.looking = True
        self._noticed[watched] = None
        self._news.set()

    def _take(self, positions: Mapping[str, str]) -> list[Event | Gap]:
        """Some hundred items that follow the positions, in order."""
        taken: list[Event | Gap] = []
        # Where the channels are after what was taken here. The caller moves the positions only afterwards.
        reached: dict[str, Id] = {}
        while len(taken) < _GIVEN:
            if self._found:
                taken += self._take_found(positions, reached)
            elif self._arrived:
                watched, pushed = self._arrived[0]
                if watched.hear is not None and taken:
                    break  # a question is about what was handed out, so that has to come first
                self._arrived.popleft()
                self._size -= len(pushed)
                if self._watched.get(watched.name) is not watched:
                    continue  # it was left, and perhaps joined again, after this was pushed
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
        """The event that was pushed, if it is the one that comes next."""
        name = watched.name
        if watched.looking:
            if len(watched.held) < _HELD:
                watched.held.append(pushed)
            else:
                watched.again = True
            return None
        at = reached.get(name)
        if at is None:
            position = positions.get(name)
            if position is None:
                watched.early = True
                return None
            text, last = watched.last
            at = last if text == position else Id.parse(position)
        found = event_of(name, pushed)
        if found is None:
            logger.error("what was pushed to channel %r is no event: %r", name, pushed[:80])
            return None
        id, event = found
        # The first event of any life follows the position of an empty channel, if the server has lost nothing
        # since.
        if id.seq == at.seq + 1 and (id.epoch == at.epoch or self._was_empty(watched, at)):
            if id.ms >= at.ms or not at.seq:
                reached[name] = id
                watched.last = event.id, id
                self._lately.append((name, event.id))
                return event
        elif watched.filled is not None and _is_within(id, watched.filled):
            return None  # it was read before it was pushed
        # Whatever it is, it is in the stream, if anywhere.
        self._notice(watched)
        return None

    def _was_empty(self, watched: Watched, at: Id) -> bool:
        """Whether a position is that of a channel that had no event yet, in this memory."""
        return at.seq == 0 and at.epoch == self.known_memory(watched.slot)

    def _take_found(self, positions: Mapping[str, str], reached: dict[str, Id]) -> list[Event | Gap]:
        """What was read for one of the channels, if its position is the same still."""
        watched, position, items, at, more = self._found.popleft()
        if self._watched.get(watched.name) is not watched:
            return []
        watched.looking = False
        if positions.get(watched.name) != position:
            # It was left, and joined again: from where the history has ended.
            self._notice(watched)
            return []
        watched.filled = at
        reached[watched.name] = at
        self._lately.extend((watched.name, item.id) for item in items if isinstance(item, Event))
        if watched.again:
            # Too much was pushed to hold it all. All of it is in the stream, so it is read there.
            watched.again = False
            watched.held.clear()
            more = True
        if more:
            self._notice(watched)
        else:
            # Before what was pushed to other channels since: within the channel, the order is what counts.
            held, watched.held = watched.held, deque()
            self._size += sum(map(len, held))
            self._arrived.extendleft((watched, pushed) for pushed in reversed(held))
        return items

    # Looking

    async def _look(self) -> None:
        """Read what comes after positions. No channel waits for that of another one to be read."""
        while True:
            self._look_at.clear()
            # A task for each channel: a large one must not hold up the others. The pipe limits what is under
            # way.
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
            # As if nothing was wrong: the next push, or the next comparison, has the channel read again.
            watched.held.clear()
            watched.looking = False
            return
        self._found.append((watched, position, items, at, more))
        self._news.set()

    async def _standing_after(self, watched: Watched, position: str) -> Standing:
        """Ask what comes after a position; of an empty channel, with its memory known from before till after.

        In a cluster the memories are forgotten whenever anything is elsewhere. A channel whose memory is not
        known would look as if it had lost something, so both are asked again.
        """
        while True:
            lives = self._lives
            if Id.parse(position).seq == 0:
                await self.memory_of(watched.name)  # what is read then is of this one, or later
            watched.held.clear()  # it is in the answer
            request = self._pipe.request(self._read_after(watched.name, position))
            standing = Standing.of(await request.future)
            if lives == self._lives or Id.parse(position).seq:
                return standing

    def _read_after(self, name: str, position: str) -> tuple[bytes, ...]:
        at = Id.parse(position)
        return self._keys.script(
            "read", self._keys.of(name), at.epoch.encode(), b"%d" % at.ms, b"%d" % at.seq, b"%d" % _COUNT
        )

    async def _after(
        self, watched: Watched, position: str, standing: Standing
    ) -> tuple[list[Event | Gap], Id, bool]:
        """What comes after a position, where it ends, and whether there is more."""
        at, name, end = Id.parse(position), watched.name, standing.end
        was_empty = self._was_empty(watched, at)
        if end is None:
            if was_empty:
                return [], at, False
            # The channel's life is over, and no other one has begun.
            to = Id(standing.now, 0, await self.memory_of(name))
        elif at.epoch != end.epoch and not was_empty:
            # Another life: what is kept of it follows the gap.
            to = standing.begin or end
        elif at.epoch == end.epoch and standing.is_elsewhere(at):
            to = await self._branch(name, end)
        else:
            items, reached, strange = items_after(name, at, standing.entries, begins=was_empty)
            for raw in strange:
                logger.error("entry %s of channel %r is no event", raw.decode("utf-8", "replace"), name)
            if standing.ended and reached.seq < end.seq:
                items.append(Gap(name, str(reached), str(end)))  # the rest is kept no longer
                reached = end
            return items, reached, not standing.ended
        return [Gap(name, position, str(to))], to, True

    async def _branch(self, name: str, end: Id) -> Id:
        """The newest event that was given and is still there; else the end of what there is."""
        # Only the newest entries are compared. A replica is behind by moments, not by hundreds of events.
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
        """Compare each channel's end with its position, a part of the channels at a time."""
        while True:
            # A part each second, so that thousands of channels cause no burst.
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
        """All that are watched, in so many parts, and in each those that are suspected."""
        everything = list(self._watched.values())
        size = math.ceil(len(everything) / _PARTS)
        for number in range(_PARTS):
            suspected, self._suspects = self._suspects, {}
            part = everything[number * size : (number + 1) * size]
            yield list({**suspected, **dict.fromkeys(part)})

    async def _compare(self, those: list[tuple[Watched, str]]) -> None:
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
                watched.listener.again(watched)  # it may be allowed now
            if (
                now != position  # something came meanwhile, so the two cannot be compared
                or end.decode() == position
                or (not end and self._was_empty(watched, Id.parse(position)))
            ):
                watched.suspected = ""
            elif watched.suspected == position:
                self._notice(watched)  # a second later, still nothing was pushed: nothing will be
            else:
                # The push may be on its way. The next part, a second later, has this channel once more.
                watched.suspected = position
                self._suspects[watched] = None


def _is_within(id: Id, end: Id) -> bool:
    return id.epoch == end.epoch and id.seq <= end.seq and id.ms <= end.ms
