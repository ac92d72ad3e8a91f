"""A line that receives pushes: its subscriptions, and the commands that the server has still to confirm.

The rules of this file:

- A server answers commands in order. So each confirmation belongs to the oldest command that has none yet.
  An error belongs to that command, too. So each `PING` is noted like the other commands.
- In a cluster, the channels in one command are all of one slot. A node that gives a slot away, or that is
  demoted to a replica, reports each channel of it as unsubscribed, and keeps the connection. Such a channel
  has gone astray: the hearer is told, and adds it to the listener of another node.
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

# The most names in one command.
_NAMES: Final = 256
# The number of messages after which the other tasks on the event loop get a turn.
_TURN: Final = 64
# Errors that say that the node does not have the channel any more, or not yet.
_ELSEWHERE: Final = (AskError, ClusterDownError, TryAgainError)
_PING: Final = b"PING"


class Words(NamedTuple):
    """The names of the commands and messages. A cluster has others, for sharded pub/sub."""

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
        self.hear = hear  # gets the pushes, if they are not events
        self.pushed = pushed  # the name of the pub/sub channel
        self.slot = slot
        # For the listener. The subscription is confirmed on the current connection; and it was confirmed on
        # this or an earlier one. When the latter is confirmed again, pushes may have been lost in between.
        self.listener: Listener | None = None
        self.confirmed = False
        self.known = False
        self.refused: ResponseError | None = None
        self.waiters: set[asyncio.Future[None]] = set()
        # For the feed.
        self.early = False  # something was pushed before the channel had a position
        self.looking = False  # a read is wanted or under way, and pushes are held
        self.again = False  # more was pushed meanwhile than could be held
        self.held: deque[bytes] = deque()
        # The id of the last pushed event that was handed out, as text and parsed. The channel's position is
        # usually this id. To parse it again for each event would cost more than to compare the text.
        self.last: tuple[str, Id] = ("", Id(0, 0, ""))
        self.filled: Id | None = None  # where the last read of the stream has ended
        self.suspected = ""  # the position, if it was behind the channel's end in the last comparison
        self.unreadable = False  # the last read has failed, and this is logged

    @property
    def is_heard(self) -> bool:
        """Whether it has a listener that is not in an outage."""
        return self.listener is not None and self.listener.is_up

    def tell(self, error: Exception | None) -> None:
        """End the wait of those who have called `watch`."""
        for waiter in self.waiters:
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
        self.waiters.clear()


class Hearer(Protocol):
    """The interface by which a listener passes on what it receives."""

    def heard(self, watched: Watched, message: bytes) -> None:
        """Take a push."""

    async def room(self) -> None:
        """Wait until there is room for more pushes."""

    def confirmed(self, watched: Watched) -> None:
        """React to a subscription that was confirmed before, and now again."""

    def astray(self, watched: Watched, error: ResponseError | None) -> None:
        """React to a subscription that has ended because its slot has moved."""


class Listener:
    """A line that receives pushes.

    Args:
        link: The link to the server.
        hearer: Gets what is received.
        words: The names of the commands.
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
        # The commands that were sent, each with the channels that the server has still to confirm.
        self._commands: deque[tuple[bytes, deque[Watched]]] = deque()
        self._limit = Limit(self._quiet)
        self._is_tried = False  # a `PING` is to be sent, or under way

    @property
    def is_up(self) -> bool:
        """Whether the line is not in an outage."""
        return self.line.name not in self._link.down

    def stop(self) -> None:
        """Stop the time limit. The link stops the line."""
        self._limit.stop()

    def add(self, watched: Watched) -> None:
        """Subscribe to a channel."""
        watched.listener = self
        watched.confirmed = False
        self._watched[watched.pushed] = watched
        self._change(self._words.subscribe, watched)
        self.line.start()

    def again(self, watched: Watched) -> None:
        """Subscribe again to a channel that was refused."""
        watched.refused = None
        self._change(self._words.subscribe, watched)

    def remove(self, watched: Watched) -> None:
        """Unsubscribe from a channel."""
        self.forget(watched)
        self._change(self._words.unsubscribe, watched)

    def forget(self, watched: Watched) -> None:
        """Forget a channel without a command to the server."""
        del self._watched[watched.pushed]
        watched.listener = None
        watched.confirmed = False
        watched.refused = None

    def _change(self, command: bytes, watched: Watched) -> None:
        # Without a connection, there is nothing to note: the next one subscribes to all that is watched then.
        # In a long outage, the channels that were joined in vain would fill the memory.
        if self.line.connection is None:
            return
        self._changes.append((command, watched))
        self._changed.set()

    def _came(self) -> None:
        """Note that data has arrived from the server."""
        self._is_tried = False
        self._limit.set(_link.IDLE)

    def _quiet(self) -> None:
        """React to silence: send a `PING` first, and give up the connection if there is still no answer."""
        if self._is_tried:
            self.line.use.late()
        else:
            self._is_tried = True
            self._limit.set(_link.PATIENCE)
            self._changed.set()

    async def _serve(self, connection: Connection) -> None:
        """Subscribe to all watched channels on a new connection, send changes, and receive."""
        self._commands.clear()
        # A new connection has no subscriptions. So earlier changes are of no use: subscribe to everything.
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
                    self._commands.append((_PING, deque()))
                    await connection.send_packed_command([packed(_PING)], False)
                await self._changed.wait()
        finally:
            self._limit.lift()
            receiving.cancel()
            await asyncio.wait([receiving])

    def _next_command(self) -> tuple[bytes, list[Watched]]:
        """The next command, for as many changes in a row as are of the same kind and of the same slot.

        Only changes in a row, because their order matters: a channel may be subscribed to, unsubscribed from
        and subscribed to again.
        """
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
            else:
                self._answered()
            row += 1
            if row % _TURN == 0:
                await asyncio.sleep(0)
                # Wait until the hearer has room. Meanwhile the server buffers the pushes, and ends the
                # connection if there are too many. Nothing is read here, so silence says nothing about the
                # server.
                self._limit.lift()
                await self._hearer.room()
                self._came()

    def _confirm(self, kind: bytes, name: bytes) -> None:
        """Take a confirmation, or the news that the server has ended a subscription by itself.

        Both look alike: a confirmation is what the oldest open command expects next. If an ended subscription
        is not known here any more, there is nothing to do.
        """
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
            if watched.known:  # after a reconnect, or at another node: pushes may have been lost
                self._hearer.confirmed(watched)
            watched.known = True
            watched.tell(None)
        self._see_whether_all_is_done()

    def _answered(self) -> None:
        """Take the answer to a `PING`. On a connection without subscriptions, it has another form."""
        if self._commands and self._commands[0][0] == _PING:
            self._commands.popleft()
            self._see_whether_all_is_done()

    def _see_whether_all_is_done(self) -> None:
        if not self._commands and not self._changes:
            self._link.found(self.line.name)

    def _lose(self, watched: Watched, error: ResponseError | None) -> None:
        if watched.listener is self:
            self.forget(watched)
            self._hearer.astray(watched, error)

    def _refuse(self, error: ResponseError) -> None:
        """React to a refused command. The error stands for all channels in it.

        A refused `PING` is an answer, too: the server is there.
        """
        command, those = self._commands[0] if self._commands else (b"", deque())
        if isinstance(error, AskError) and (not those or those[0].slot != error.slot_id):
            # The server has ended a subscription by itself, just before it was asked to. `_confirm` took that
            # for the answer, and this is the answer.
            return
        if not self._commands:
            raise error  # not an answer, so the server is about to close the connection
        self._commands.popleft()
        is_elsewhere = isinstance(error, _ELSEWHERE)
        if command == self._words.unsubscribe and not is_elsewhere:
            raise error  # the channel would go on being pushed: only a new connection helps
        for watched in those if command == self._words.subscribe else ():
            if is_elsewhere:
                self._lose(watched, error)
                continue
            watched.refused = error
            if not watched.waiters:
                logger.error("channel %r cannot be listened to: %s", watched.name, reason(error))
            watched.tell(error)
        self._see_whether_all_is_done()
