"""A membership: a socket that has joined, and all of those of a process."""

from __future__ import annotations

import logging
import math
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import lru_cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import anyio

from .._messages import checked_close
from .._websocket import WebSocket
from ..draining import close_all
from ..exceptions import WebSocketClosed, WebSocketDisconnect, WebSocketRuntimeError
from ..observing import explain, report_dropped, report_slow
from ._backend import CONTROL, Event, Gap, Member, json_text, presence_of
from ._hub import Hub
from ._outbox import Dropped, Encode, Item, Policy
from ._writers import SocketOutbox

if TYPE_CHECKING:
    from ..typed._typed import Typed

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["Membership", "Memberships", "order_to_close"]

logger: Final = logging.getLogger("lilya.websockets")

# Seconds that the parts of leaving may take.
_LEAVING: Final = 1.0
# Seconds after the end of a socket in which the body of its block may end by itself.
_GRACE: Final = 1.0

Ended: TypeAlias = Literal["client", "closed", "full", "stopped", "failed", "left"]


class Memberships:
    """The sockets of a process that have joined: closing some of them, or all.

    Args:
        run: Runs a task as long as the channels run.
    """

    def __init__(self, run: Callable[[Callable[[], Any]], None]) -> None:
        self._run = run
        self._those: dict[Membership, None] = {}
        self._ended: list[Membership] = []  # whose sockets have ended since the task looked
        self._has_ended: anyio.Event

    def start(self) -> None:
        """Begin, or begin anew after the channels were stopped."""
        self._those.clear()
        self._ended.clear()
        self._has_ended = anyio.Event()
        self._run(self._cancel_bodies)

    def add(self, membership: Membership) -> None:
        """A socket is joining."""
        self._those[membership] = None

    def remove(self, membership: Membership) -> None:
        """A socket has left."""
        self._those.pop(membership, None)

    async def close(
        self,
        code: int,
        reason: str | None,
        *,
        why: Literal["closed", "stopped"],
        among: Sequence[Membership] | None = None,
        **pace: Any,
    ) -> None:
        """Close sockets in batches, all or some, and end their blocks."""
        those = list(self._those) if among is None else among
        for membership in those:
            membership._draining = why
        await close_all([membership.websocket for membership in those], code, reason, **pace)
        for membership in those:
            membership._end(why)

    def obey(self, item: Event | Gap) -> None:
        """Do what all processes are told to."""
        if isinstance(item, Gap):
            logger.warning("sockets may have been told to be closed while the broker was away")
            return
        try:
            order = item.json()
            name, wanted = order["close"], order.get("member")
            code, reason = checked_close(order["code"], order["reason"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            logger.error("what all processes are told to do cannot be read: %r", error)
            return
        those = [membership for membership in self._those if membership._answers_to(name, wanted)]
        if those:
            self._run(partial(self.close, code, reason, why="closed", among=those))

    def cancel_soon(self, membership: Membership) -> None:
        """Cancel a body whose socket has ended, if it has not ended by itself in a second.

        A server may tell the end in a callback, outside of any task, where AnyIO knows neither the time nor
        how to start a task. So one task does that for all of them.
        """
        self._ended.append(membership)
        self._has_ended.set()

    async def _cancel_bodies(self) -> None:
        leaving: deque[tuple[float, Membership]] = deque()
        while True:
            now = anyio.current_time()
            while leaving and leaving[0][0] <= now:
                leaving.popleft()[1]._cancel_body()
            self._has_ended = anyio.Event()
            leaving.extend((now + _GRACE, membership) for membership in self._ended)
            self._ended.clear()
            with anyio.CancelScope(deadline=leaving[0][0] if leaving else math.inf):
                await self._has_ended.wait()


def order_to_close(channel: str, member: str | Mapping[str, Any] | None, code: int, reason: str) -> str:
    """What all processes are told, to close the sockets of a channel; see `Memberships.obey`."""
    order = {"close": channel, "code": code, "reason": reason}
    if member is not None:
        order["member"] = member if isinstance(member, str) else dict(member)
    return json_text(order)


def data_of(item: Item) -> str | bytes | None:
    """How sockets are sent an item unless something else is asked for: an event's data, and nothing else."""
    return item.data if type(item) is Event else None


@lru_cache(maxsize=256)
def encode_for(typed: Typed | None) -> Encode:
    """How sockets are sent an item unless something else is asked for: one function for all of a type."""
    if typed is None or typed.is_json_text:
        return data_of

    def encode(item: Item) -> str | bytes | None:
        data = data_of(item)
        return typed.encode(typed.decode_sent(data)) if isinstance(data, str) else data

    return encode


class _Outbox(SocketOutbox):
    """What waits for the socket of a membership."""

    __slots__ = ("hub", "owner")

    def __init__(self, hub: Hub, owner: Membership, *options: Any) -> None:
        super().__init__(*options)
        self.hub = hub
        self.owner: Membership | None = owner  # until the block was left: no circle stays behind

    def arrived(self) -> None:
        self.hub.writers.put(self)

    def full(self) -> None:
        self.dropped += 1  # the event that did not fit
        if self.owner is not None:
            self.owner._end("full")

    def lost(self, count: int) -> None:
        if self.owner is not None:
            self.owner._tell_dropped(count)

    def missed(self, gap: Gap) -> None:
        if self.owner is not None:
            self.owner._tell_gap(gap)

    def failed(self, error: Exception) -> None:
        if self.owner is not None:
            self.owner._fail(error)


class Membership(AsyncIterator["Gap | Dropped"]):
    """What `Channels.join` returns: an asynchronous context manager.

    In its block, iterate over it with `async for` to learn what the socket's client is missing: a `Gap` in a
    channel, and a `Dropped` with the number of dropped events. The iteration ends when nothing is forwarded
    any more.
    """

    __slots__ = (
        "_body",
        "_cancels",
        "_draining",
        "_encode",
        "_failure",
        "_history",
        "_hub",
        "_info",
        "_latest",
        "_memberships",
        "_names",
        "_outbox",
        "_since",
        "_told",
        "_untold",
        "_untold_gaps",
        "_used",
        "_watched",
        "ended",
        "members",
        "positions",
        "websocket",
    )

    websocket: WebSocket
    """The socket."""

    members: tuple[Member, ...]
    """Its member in each channel, if the socket is a member."""

    positions: dict[str, str]
    """By channel, the position where it started: `since` for a client that has not received an event yet."""

    ended: Ended | None
    """Why nothing is forwarded any more: the client left, the socket was closed by the app or by
    `Channels.close`, its outbox was full, the channels were stopped, the server or `encode` failed, or the
    block was left. `None` until then."""

    def __init__(
        self,
        hub: Hub,
        memberships: Memberships,
        names: Sequence[str],
        websocket: WebSocket,
        *,
        encode: Encode | None,
        info: str | None,
        key: str | None,
        cancel_on_disconnect: bool,
        presence: bool | Literal["keys"],
        history: int,
        since: Mapping[str, str],
        latest: bool,
        policy: Policy,
        max_messages: int,
        max_bytes: int,
    ) -> None:
        self._hub = hub
        self._memberships = memberships
        self._names = names
        self._watched = (*names, *(map(presence_of, names) if presence else ()), CONTROL)
        self._history = history
        self._since = since
        self._latest = latest
        self._outbox = _Outbox(hub, self, websocket, policy, max_messages, max_bytes)
        self._outbox.by_key = presence == "keys"
        self._outbox.key = key
        self._cancels = cancel_on_disconnect
        self._encode = encode_for(websocket._typed) if encode is None else encode
        self._info = info
        self.websocket = websocket
        self.members = ()
        self.positions = {}
        self.ended = None
        self._used = False
        self._draining: Literal["closed", "stopped"] | None = None  # the channels are about to close it
        self._body: anyio.CancelScope
        self._told: anyio.Event | None = None
        self._untold = 0
        self._untold_gaps: dict[str, Gap] = {}
        self._failure: Exception | None = None

    @property
    def id(self) -> str:
        """A unique id that starts with a NUL. Pass it as `exclude` to `publish`, in any process."""
        return self._outbox.id

    @property
    def pending(self) -> int:
        """The number of items that wait to be sent."""
        return self._outbox.pending

    @property
    def sent(self) -> int:
        """The number of messages that were sent."""
        return self._outbox.sent

    @property
    def dropped(self) -> int:
        """The number of events that were dropped because the outbox was full, or when the block was left."""
        return self._outbox.dropped

    async def __aenter__(self) -> Membership:
        if self._used:
            raise WebSocketRuntimeError("cannot join: this block was entered before. Make another one")
        hub, outbox = self._hub, self._outbox
        hub.check("join")
        self.websocket._check_open("join")
        self._used = True
        self._body = anyio.CancelScope()  # here, because it belongs to an event loop
        hub.writers.entered(outbox, self._encode)
        self._memberships.add(self)
        try:
            self.positions = await hub.attach(
                outbox, self._watched, history=self._history, since=self._since, latest=self._latest
            )
            if self._info is not None:
                self.members = tuple(hub.roster.member(name, self._info, outbox.key) for name in self._names)
                await hub.roster.appear(self.members)
        except BaseException:
            await self._leave()
            raise
        self._body.__enter__()
        self.websocket._tell_at_end(self._end_of_socket)
        if outbox.pending:
            outbox.arrived()
            hub.writers.wake()
        else:
            outbox.idle = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._cancels = False
        self.websocket._tell_no_more(self._end_of_socket)
        if isinstance(exc, GeneratorExit):  # thrown away: there is no `await` any more
            self._stop("left")
            self._outbox.owner = None
            self._hub.writers.left()
            self._hub.roster.forget(self.members)
            self._body.__exit__(None, None, None)
            return False
        rest = exc
        try:
            if self._body.__exit__(exc_type, exc, traceback):
                rest = None
        except BaseException as error:
            rest = error
        ended = self.ended
        await self._leave()
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

    async def _leave(self) -> None:
        """Stop forwarding, tell the others, and close if it was the channels that have ended it."""
        full = self.ended == "full"
        self._stop("left")
        self._hub.writers.left()
        # Not to be interrupted, but each part has its limit.
        with anyio.CancelScope(shield=True):
            await self._outbox.release(_LEAVING)
            self._outbox.owner = None
            if self.members:
                await self._hub.roster.vanish(self.members)
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
            self._draining is not None
            or ended in ("full", "stopped", "client")
            or not isinstance(error, WebSocketClosed)
        )

    # What the client misses

    async def __anext__(self) -> Gap | Dropped:
        """What the client is missing next. Cancelling it loses nothing."""
        if not self._used:
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

    # What its outbox tells

    def _tell_dropped(self, count: int) -> None:
        """So many were dropped."""
        self._untold += count
        self._tell()
        report_dropped(self.websocket, count)

    def _tell_gap(self, gap: Gap) -> None:
        """The client has come to a gap."""
        before = self._untold_gaps.get(gap.channel)
        self._untold_gaps[gap.channel] = gap if before is None else Gap(gap.channel, before.since, gap.id)
        self._tell()

    def _fail(self, error: Exception) -> None:
        """A message could not be sent."""
        if isinstance(error, WebSocketDisconnect):
            own = isinstance(error, WebSocketClosed) and self.websocket.closed_by == "server"
            self._stop(self._draining or ("closed" if own else "client"))
            if self.ended == "client":
                self._let_go()
        else:
            self._failure = error
            self._stop("failed")
            self._body.cancel()

    # The end

    def _end_of_socket(self) -> None:
        """The conversation has ended, while the body was somewhere."""
        if self._draining or self.websocket._ended_by_app:
            return  # the closer knows
        self._stop("closed" if self.websocket.closed_by == "server" else "client")
        self._let_go()

    def _let_go(self) -> None:
        if self._cancels:
            self._memberships.cancel_soon(self)

    def _cancel_body(self) -> None:
        """End the body, unless it is about to be told of the end itself."""
        if self._cancels and not self.websocket._is_receiving:
            self._body.cancel()

    def _end(self, why: Literal["full", "stopped", "closed"]) -> None:
        """The channels end it."""
        self._stop(why)
        self._body.cancel()

    def _stop(self, why: Ended) -> None:
        """Nothing is forwarded any more."""
        self._memberships.remove(self)  # also if joining failed, and the outbox was taken away by that
        if self._outbox.over:
            return
        self.ended = why
        self._hub.detach(self._outbox)
        self._outbox.clear()
        self._tell()

    def _answers_to(self, name: Any, member: Any) -> bool:
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
