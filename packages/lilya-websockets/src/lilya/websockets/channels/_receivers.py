"""Those who receive: a subscription, which is iterated over, and a membership, which feeds a socket."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import anyio
import anyio.lowlevel

from .._state import CONNECTING, DISCONNECTED, RESPONSE
from .._websocket import WebSocket
from ..exceptions import WebSocketClosed, WebSocketDisconnect, WebSocketRuntimeError
from ..observing import explain, report_dropped, report_slow
from ._backend import CONTROL, Event, Gap, Member, presence_of
from ._outbox import Dropped, Encode, Entry, Form, Item, Outbox, OutboxFull, Policy

if TYPE_CHECKING:
    from ._channels import Channels
    from ._recent import Recalled

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["Membership", "Receiver", "Subscription", "data_of"]

logger: Final = logging.getLogger("lilya.websockets")

# Items in a row after which an iteration lets everybody else on the event loop have a turn. More than the
# reader hands out between two turns: who takes them as fast as they come must not be behind for that.
_TURN: Final = 128
# Seconds that the parts of leaving may take.
_LEAVING: Final = 1.0

Ended: TypeAlias = Literal["client", "closed", "full", "stopped", "failed", "left"]


def data_of(item: Item) -> str | bytes | None:
    """How sockets are sent an item unless something else is asked for: an event's data, and nothing else."""
    return item.data if type(item) is Event else None


class Receiver(Outbox):
    """An outbox that is attached to channels.

    Args:
        channels: Whose channels.
        names: Which.
        presence: Whether to get joins and leaves, too.
        history: Events of the history to begin with.
        since: By name, the position to go on from instead.
        policy: See `Outbox`, as the others.
    """

    __slots__ = ("_channels", "_history", "_since", "over", "positions", "used", "watched")

    def __init__(
        self,
        channels: Channels,
        names: Sequence[str],
        *,
        presence: bool,
        history: int,
        since: Mapping[str, str],
        policy: Policy,
        max_messages: int,
        max_bytes: int,
    ) -> None:
        super().__init__(policy, max_messages, max_bytes)
        self._channels = channels
        self._history = history
        self._since = since
        self.watched = (*names, *map(presence_of, names)) if presence else tuple(names)
        self.positions: dict[str, str] = {}
        self.used = False
        self.over = False  # it gets nothing any more

    async def _attach(self) -> None:
        """Get what is published from now on, behind what the history has."""
        self._channels.add(self)
        try:
            await self._channels.backend.watch(self.watched)
            for name in self.watched:
                if name == CONTROL and (position := self._channels.position_of(name)) is not None:
                    self._channels.settle(self, name, position)
                    continue
                since = self._since.get(name)
                # The companion of a channel has events, too, but nobody asked for those of the past.
                last = 0 if name.startswith("\0") else self._history
                found = await self._channels.recent.history(name, last=last, since=since)
                self._begin(name, since, found)
                self._channels.settle(self, name, found.position)
        except BaseException:
            self._channels.remove(self)
            raise

    def _begin(self, name: str, since: str | None, found: Recalled) -> None:
        """Take what the history has, and leave out of what came meanwhile what is in it."""
        if self.entries:
            order_of = self._channels.backend.order_of
            end = order_of(found.position)
            later: deque[Entry] = deque()
            for entry in self.entries:
                source = entry.source
                if source is not None and source.channel == name and order_of(source.id) <= end:
                    self.held -= entry.size
                else:
                    later.append(entry)
            self.entries = later
        if not name.startswith("\0") and (since is not None or not found.entries):
            self.positions[name] = since or found.position
        if since is not None and not found.complete:
            # If there is nothing left, there is nothing more to be missed either.
            self.backlog.append(Entry(Gap(name, since, since if found.entries else found.position)))
        self.backlog.extend(found.entries)
        self.more = True

    def end(self, why: Literal["full", "stopped"]) -> None:
        """The channels end it."""

    def full(self) -> None:
        self.end("full")


class Subscription(Receiver, AsyncIterator[Item]):
    """What `Channels.subscribe` returns: an asynchronous context manager, and in it an iterator."""

    __slots__ = ("_arrival", "_ended", "_row", "_waiting")

    positions: dict[str, str]
    """By channel, the id of the last event that was given: `since` for who wants to go on after it. Before
    the first one, where the subscription began. Only a channel that began with events of `history` has none
    until the first of them was given."""

    def __init__(self, channels: Channels, names: Sequence[str], **options: Any) -> None:
        super().__init__(channels, names, **options)
        self._arrival: anyio.Event | None = None
        self._waiting = False
        self._row = 0  # items that were taken without a turn for the others
        self._ended: Literal["full", "stopped", "left"] | None = None

    async def __aenter__(self) -> Subscription:
        if self.used:
            raise WebSocketRuntimeError(
                "cannot enter: this subscription was entered before. Make another one"
            )
        self._channels.check("subscribe")
        self.used = True
        await self._attach()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._channels.remove(self)
        self._ended = "left"
        self.clear()
        self.arrived()

    async def __anext__(self) -> Item:
        """The next item. Cancelling it loses none.

        Raises:
            StopAsyncIteration: The channels were stopped.
            OutboxFull: The outbox was full, and everything that waited in it was given.
            WebSocketRuntimeError: Not in its block, or another task is waiting for an item.
        """
        if not self.used or self._ended == "left":
            raise WebSocketRuntimeError(
                "cannot iterate: enter the subscription by `async with`, and iterate in that block"
            )
        if self._waiting:
            raise WebSocketRuntimeError("cannot iterate: another task is waiting for the next item")
        if self._row >= _TURN:
            await anyio.lowlevel.checkpoint()
            self._row = 0
        while (entry := self.take()) is None:
            if self._ended == "full":
                raise OutboxFull(dict(self.positions))
            if self._ended is not None:
                raise StopAsyncIteration
            self._arrival = anyio.Event()
            self._waiting = True
            try:
                await self._arrival.wait()
            finally:
                self._waiting = False
                self._arrival = None
            self._row = 0
        item = entry.item
        self._row += 1
        self.sent += 1
        if isinstance(item, (Event, Gap)):
            self.positions[item.channel] = item.id
        return item

    def arrived(self) -> None:
        if self._arrival is not None:
            self._arrival.set()

    def end(self, why: Literal["full", "stopped"]) -> None:
        self._channels.remove(self)
        self._ended = why
        if why == "full":
            self.dropped += 1  # the event that did not fit
        self.arrived()


class Membership(Receiver, AsyncIterator["Gap | Dropped"]):
    """What `Channels.join` returns: an asynchronous context manager.

    In its block it is an asynchronous iterator, too, over what the socket's client is missing: a `Gap` for
    each channel, and a `Dropped` with their number. It ends when there is nothing to be forwarded any more.
    """

    __slots__ = (
        "_body",
        "_cancels",
        "_failure",
        "_info",
        "_names",
        "_told",
        "_untold",
        "_untold_gaps",
        "draining",
        "ended",
        "form",
        "members",
        "released",
        "websocket",
        "writing",
    )

    def __init__(
        self,
        channels: Channels,
        names: Sequence[str],
        websocket: WebSocket,
        *,
        encode: Encode,
        info: str | None,
        cancel_on_disconnect: bool,
        **options: Any,
    ) -> None:
        super().__init__(channels, names, **options)
        self._cancels = cancel_on_disconnect
        self.websocket = websocket
        self.members: tuple[Member, ...] = ()
        """Who it is in each channel, if the socket is a member."""
        self.ended: Ended | None = None
        """Why nothing is forwarded any more: the client is gone, it was closed by the app or by
        `Channels.close`, its outbox was full, the channels were stopped, the server or `encode` failed, the
        block was left. `None` as long as none of this has happened."""
        self.draining: Literal["closed", "stopped"] | None = None  # the channels are about to close it
        self.writing: anyio.CancelScope | None = None
        # Equal for all sockets that get the same messages, and the same object for most.
        self.form: Form = channels.form(encode, websocket)
        self._info = info
        self._names = names
        self.watched = (*self.watched, CONTROL)
        self._body: anyio.CancelScope
        self.released: anyio.Event | None = None  # leaving waits for the send that is under way
        self._told: anyio.Event | None = None
        self._untold = 0
        self._untold_gaps: dict[str, Gap] = {}
        self._failure: Exception | None = None

    async def __aenter__(self) -> Membership:
        if self.used:
            raise WebSocketRuntimeError("cannot join: this block was entered before. Make another one")
        self._channels.check("join")
        websocket = self.websocket
        if not websocket._open:
            if websocket.application_state is CONNECTING and websocket.client_state is not DISCONNECTED:
                raise WebSocketRuntimeError(
                    "cannot join yet: the WebSocket is not accepted. Call accept() first, or open it by "
                    "`async with websocket`"
                )
            if websocket.application_state is RESPONSE:
                raise WebSocketRuntimeError(
                    "cannot join: an HTTP response has been started instead of accepting"
                )
            raise websocket._closed("join")
        self.used = True
        self._body = anyio.CancelScope()  # here, because it belongs to an event loop
        self._channels.writers.sockets += 1
        try:
            await self._attach()
            if self._info is not None:
                self.members = tuple(self._channels.roster.member(name, self._info) for name in self._names)
                await self._channels.roster.appear(self.members)
        except BaseException:
            await self._leave("left")
            raise
        self._body.__enter__()
        if websocket._block is not None:
            websocket._block.tell_at_end(self._end_of_socket)
        if self.backlog or self.entries:
            self.arrived()
            self._channels.writers.wake()
        else:
            self.idle = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._cancels = False
        if self.websocket._conversation is not None:
            self.websocket._conversation.forget(self._end_of_socket)
        if isinstance(exc, GeneratorExit):  # thrown away: there is no `await` any more
            self._stop("left")
            self._channels.writers.left()
            self._channels.roster.forget(self.members)
            self._body.__exit__(None, None, None)
            return False
        rest = exc
        try:
            if self._body.__exit__(exc_type, exc, traceback):
                rest = None
        except BaseException as error:
            rest = error
        ended = self.ended
        await self._leave("left")
        rest = self._without_the_end(rest, ended)
        if self._failure is not None:
            if rest is None:
                raise self._failure
            logger.error(
                "a message could not be sent while an exception left the block", exc_info=self._failure
            )
        if rest is None:
            return exc is not None
        if rest is exc:
            return False
        context = rest.__context__
        try:
            raise rest
        finally:
            rest.__context__ = context
            del rest, exc, context

    async def _leave(self, why: Literal["left"]) -> None:
        """Stop forwarding, tell the others, and close if it was the channels that have ended it."""
        full = self.ended == "full"
        self._stop(why)
        self._channels.writers.left()
        # Not to be interrupted, but each part has its limit.
        with anyio.CancelScope(shield=True):
            if self.writing is not None:
                self.released = anyio.Event()
                self.writing.cancel()
                with anyio.move_on_after(_LEAVING):
                    await self.released.wait()
            if self.members:
                await self._channels.roster.vanish(self.members)
            if full and self.websocket._open:
                report_slow(self.websocket)
                explain(self.websocket, "too slow", by="channels")
                await self._close(1013, "too slow")

    async def _close(self, code: int, reason: str) -> None:
        with anyio.move_on_after(_LEAVING):
            try:
                await self.websocket.close(code, reason)
            except WebSocketRuntimeError:
                pass  # it has ended otherwise meanwhile
            except Exception as error:
                logger.warning("the server refused to close", exc_info=error)

    def _without_the_end(self, failure: BaseException | None, ended: str | None) -> BaseException | None:
        """What remains of an exception without the news that this socket has ended."""
        if isinstance(failure, BaseExceptionGroup):
            ends, others = failure.split(lambda error: self._tells_the_end(error, ended))
            rest: BaseException | None = failure if ends is None else others
            return rest
        return None if failure is None or self._tells_the_end(failure, ended) else failure

    def _tells_the_end(self, error: BaseException, ended: str | None) -> bool:
        if self.websocket.close_code is None or not self.websocket._is_told_by(error):
            return False  # of another socket
        # Used after a `close()` of the app's own: that is a bug, and no end that came by surprise.
        return (
            self.draining is not None
            or ended in ("full", "stopped", "client")
            or not isinstance(error, WebSocketClosed)
        )

    # What the client misses

    async def __anext__(self) -> Gap | Dropped:
        """What the client is missing next. Cancelling it loses nothing."""
        if not self.used:
            raise WebSocketRuntimeError(
                "cannot iterate: enter the block first, `async with channels.join(...)`"
            )
        while not self._untold_gaps and not self._untold:
            if self.ended is not None:
                raise StopAsyncIteration
            if self._told is None:
                self._told = anyio.Event()
            await self._told.wait()
        if self._untold_gaps:
            return self._untold_gaps.pop(next(iter(self._untold_gaps)))
        dropped, self._untold = Dropped(self._untold), 0
        return dropped

    def _tell(self) -> None:
        if self._told is not None:
            self._told.set()
            self._told = None

    def lost(self, count: int) -> None:
        self._untold += count
        self._tell()
        report_dropped(self.websocket, count)

    # The writer's side

    def arrived(self) -> None:
        self._channels.writers.ready.append((None, iter((self,))))

    def missed(self, gap: Gap) -> None:
        """The client has come to a gap."""
        before = self._untold_gaps.get(gap.channel)
        self._untold_gaps[gap.channel] = gap if before is None else Gap(gap.channel, before.since, gap.id)
        self._tell()

    def written(self, error: Exception | None) -> None:
        """The writer goes on with another socket."""
        if self.released is not None:
            self.released.set()
        if isinstance(error, WebSocketDisconnect):
            own = isinstance(error, WebSocketClosed) and self.websocket.closed_by == "server"
            self._stop(self.draining or ("closed" if own else "client"))
            if self.ended == "client":
                self._let_go()
        elif error is not None:
            self._failure = error
            self._stop("failed")
            self._body.cancel()

    def _end_of_socket(self) -> None:
        """The conversation has ended, while the body was somewhere."""
        if self.draining or self.websocket._ended_by_app:
            return  # whoever closed it knows
        self._stop("closed" if self.websocket.closed_by == "server" else "client")
        self._let_go()

    def _let_go(self) -> None:
        if self._cancels:
            self._channels.cancel_soon(self)

    def cancel_body(self) -> None:
        """End the body, unless it is about to be told of the end itself."""
        if self._cancels and not self.websocket._receiving:
            self._body.cancel()

    def answers_to(self, name: Any, member: Any) -> bool:
        """Whether it has joined a channel, as this member or with such an info if one is asked for."""
        if name not in self._names:
            return False
        if member is None:
            return True
        for mine in self.members:
            if mine.channel == name:
                info = mine.json()
                if isinstance(member, str):
                    return mine.id == member
                return isinstance(info, dict) and all(info.get(key) == value for key, value in member.items())
        return False

    def _stop(self, why: Ended) -> None:
        if self.over:
            return
        self.over = True
        self.ended = why
        self._channels.remove(self)
        self.clear()
        self._tell()

    def end(self, why: Literal["full", "stopped", "closed"]) -> None:
        if why == "full":
            self.dropped += 1  # the event that did not fit
        self._stop(why)
        self._body.cancel()
