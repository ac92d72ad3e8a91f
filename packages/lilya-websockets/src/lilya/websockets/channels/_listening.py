"""A line on which pushes come: what is subscribed to on it, and what it has still to confirm.

The rules of this file:

- A server answers commands in their order, so each confirmation is of the oldest command that has none.
- In a cluster, a command names channels of one slot. A node that gives a slot away, or that is no primary any
  more, says of each channel of it that it is unsubscribed, and keeps the connection. Such a channel has gone
  astray: whoever places channels is told, and places it anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from redis.asyncio.connection import Connection
from redis.exceptions import AskError, ClusterDownError, ResponseError, TryAgainError

from . import _link
from ._backend import Id
from ._link import Limit, Line, Link, packed, reason

__all__ = ["Listener", "Watched", "Words"]

logger: Final = logging.getLogger("lilya.websockets")

# Names in one command.
_NAMES: Final = 256
# Messages in a row after which everybody else on the event loop has a turn.
_TURN: Final = 64
# The server has the channel no longer, or not yet.
_ELSEWHERE: Final = (AskError, ClusterDownError, TryAgainError)


class Words(NamedTuple):
    """What the commands and messages are called."""

    subscribe: bytes = b"SUBSCRIBE"
    unsubscribe: bytes = b"UNSUBSCRIBE"
    message: bytes = b"message"


class Watched:
    """A channel that is watched, from `watch` to `unwatch`."""

    __slots__ = (
        "again",
        "confirmed",
        "early",
        "filled",
        "hear",
        "held",
        "known",
        "last",
        "listener",
        "looking",
        "name",
        "pushed",
        "refused",
        "slot",
        "suspected",
        "unreadable",
        "waiters",
    )

    def __init__(
        self, name: str, pushed: bytes, slot: int, hear: Callable[[bytes], None] | None = None
    ) -> None:
        self.name = name
        self.hear = hear  # is given what is pushed, where that is no event
        self.pushed = pushed  # what its events are pushed on
        self.slot = slot
        self.listener: Listener | None = None
        self.confirmed = False  # the subscription, on the connection that there is
        self.known = False  # it was confirmed before, on this connection or another
        self.refused: ResponseError | None = None
        self.waiters: list[asyncio.Future[None]] = []
        self.early = False  # something was pushed while there was no position
        self.looking = False
        self.again = False  # more than could be held was pushed meanwhile
        self.held: deque[bytes] = deque()
        # The last event that was given as it was pushed. Its id is usually the position, parsed already.
        self.last: tuple[str, Id] = ("", Id(0, 0, ""))
        self.filled: Id | None = None  # what was read from the stream goes so far
        self.suspected = ""  # the position that was behind the channel's end when that was compared
        self.unreadable = False

    @property
    def is_heard(self) -> bool:
        """Whether its listener is not in an outage."""
        return self.listener is not None and self.listener.is_up

    def tell(self, error: ResponseError | None) -> None:
        """Tell those who wait for the channel to be watched."""
        for waiter in self.waiters:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
        self.waiters.clear()


class Hearer(Protocol):
    """Who is told what a listener hears."""

    def heard(self, watched: Watched, message: bytes) -> None:
        """Something was pushed."""

    async def room(self) -> None:
        """Wait until there is room for more."""

    def confirmed(self, watched: Watched) -> None:
        """A channel is subscribed to."""

    def astray(self, watched: Watched, error: ResponseError | None) -> None:
        """A channel is subscribed to no longer: its slot is elsewhere."""


class Listener:
    """A line on which pushes come.

    Args:
        link: The link to the server.
        hearer: Is told what comes.
        words: What the commands are called.
    """

    def __init__(self, link: Link, hearer: Hearer, words: Words) -> None:
        self._link = link
        self._hearer = hearer
        self._words = words
        self.line = Line(link, "reading", self._serve, self._came)
        link.add(self.line)
        self._watched: dict[bytes, Watched] = {}
        self._changes: deque[tuple[bytes, Watched]] = deque()
        self._changed = asyncio.Event()
        # The commands that were sent, with those of whom each has still to be confirmed.
        self._commands: deque[tuple[bytes, deque[Watched]]] = deque()
        self._limit = Limit(self._quiet)
        self._is_tried = False  # a ping is under way

    @property
    def is_up(self) -> bool:
        """Whether there is no outage."""
        return self.line.name not in self._link.down

    def stop(self) -> None:
        """Nothing more comes. The line is the link's."""
        self._limit.stop()

    def add(self, watched: Watched) -> None:
        """Subscribe to a channel."""
        watched.listener = self
        watched.confirmed = False
        self._watched[watched.pushed] = watched
        self._change(self._words.subscribe, watched)
        self.line.start()

    def again(self, watched: Watched) -> None:
        """Subscribe to one that was refused."""
        watched.refused = None
        self._change(self._words.subscribe, watched)

    def remove(self, watched: Watched) -> None:
        """Unsubscribe from a channel."""
        self.forget(watched)
        self._change(self._words.unsubscribe, watched)

    def forget(self, watched: Watched) -> None:
        """Have no more to do with a channel."""
        del self._watched[watched.pushed]
        watched.listener = None
        watched.confirmed = False
        watched.refused = None

    def _change(self, command: bytes, watched: Watched) -> None:
        self._changes.append((command, watched))
        self._changed.set()

    def _came(self) -> None:
        """Something has come from the server, so it is there."""
        self._is_tried = False
        self._limit.set(_link.IDLE)

    def _quiet(self) -> None:
        """Nothing has come for a while."""
        if self._is_tried:
            self.line.use.late()
        else:
            self._is_tried = True
            self._limit.set(_link.PATIENCE)
            self._changed.set()

    async def _serve(self, connection: Connection) -> None:
        """Subscribe to what is watched, and take what comes."""
        self._commands.clear()
        self._changes = deque((self._words.subscribe, watched) for watched in self._watched.values())
        for watched in self._watched.values():
            watched.confirmed = False
        self._came()
        receiving = asyncio.create_task(self._receive(connection))
        receiving.add_done_callback(lambda _: self._changed.set())
        try:
            if not self._changes:
                self._link.found(self.line.name)
            while True:
                self._changed.clear()
                if receiving.done():
                    receiving.result()
                while self._changes:
                    command, those = self._next_command()
                    self._commands.append((command, deque(those)))
                    await connection.send_packed_command(
                        [packed(command, *(watched.pushed for watched in those))], False
                    )
                if self._is_tried:
                    await connection.send_packed_command([packed(b"PING")], False)
                await self._changed.wait()
        finally:
            self._limit.lift()
            receiving.cancel()
            await asyncio.wait([receiving])

    def _next_command(self) -> tuple[bytes, list[Watched]]:
        """What is to be sent next, for as many channels of a slot as follow each other."""
        command, watched = self._changes.popleft()
        those = [watched]
        while self._changes and len(those) < _NAMES:
            following, another = self._changes[0]
            if following != command or another.slot != watched.slot:
                break
            those.append(another)
            self._changes.popleft()
        return command, those

    async def _receive(self, connection: Connection) -> None:
        message_is = self._words.message
        row = 0
        while True:
            try:
                message = await connection.read_response()
            except ResponseError as error:
                self._refuse(error)
                continue
            if type(message) is list and len(message) == 3:
                kind, name, what = message
                if kind == message_is:
                    watched = self._watched.get(name)
                    if watched is not None:
                        self._hearer.heard(watched, what)
                else:
                    self._confirm(kind, name)
            row += 1
            if row % _TURN == 0:
                await asyncio.sleep(0)
                # The server keeps the rest, and when that is too much, it ends the connection.
                self._limit.lift()
                await self._hearer.room()
                self._came()

    def _confirm(self, kind: bytes, name: bytes) -> None:
        """The server has done the oldest part of what it was sent; or it has given a channel away."""
        command, those = self._commands[0] if self._commands else (b"", deque())
        if kind != command.lower() or those[0].pushed != name:
            watched = self._watched.get(name)
            if watched is not None and kind == self._words.unsubscribe.lower():
                self._lose(watched, None)
            return
        watched = those.popleft()
        if not those:
            self._commands.popleft()
        if command == self._words.subscribe:
            watched.confirmed = True
            if watched.known:
                self._hearer.confirmed(watched)
            watched.known = True
            watched.tell(None)
        self._see_whether_all_is_done()

    def _see_whether_all_is_done(self) -> None:
        if not self._commands and not self._changes:
            self._link.found(self.line.name)

    def _lose(self, watched: Watched, error: ResponseError | None) -> None:
        if watched.listener is self:
            self.forget(watched)
            self._hearer.astray(watched, error)

    def _refuse(self, error: ResponseError) -> None:
        """The server refuses a command, for all channels in it."""
        command, those = self._commands.popleft()
        is_elsewhere = isinstance(error, _ELSEWHERE)
        if command == self._words.unsubscribe and not is_elsewhere:
            raise error
        for watched in those if command == self._words.subscribe else ():
            if is_elsewhere:
                self._lose(watched, error)
                continue
            watched.refused = error
            if not watched.waiters:
                logger.error("channel %r cannot be listened to: %s", watched.name, reason(error))
            watched.tell(error)
        self._see_whether_all_is_done()
