"""A membership, which is a socket that has joined channels; and all memberships of a process."""

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

# The seconds that each part of leaving may take.
_LEAVING: Final = 1.0
# The seconds after the end of a socket in which the body of its block may end by itself. Then it is
# cancelled.
_GRACE: Final = 1.0

Ended: TypeAlias = Literal["client", "closed", "full", "stopped", "failed", "left"]


class Memberships:
    """The memberships of a process. Closes the sockets of some or all of them.

    Args:
        run: Runs a task that ends with the channels.
    """

    def __init__(self, run: Callable[[Callable[[], Any]], None]) -> None:
        self._run = run
        self._those: dict[Membership, None] = {}
        self._ended: list[Membership] = []  # those whose sockets have ended, for `_cancel_bodies`
        self._has_ended: anyio.Event

    def start(self) -> None:
        """Start, also again after the channels were stopped."""
        self._those.clear()
        self._ended.clear()
        self._has_ended = anyio.Event()
        self._run(self._cancel_bodies)

    def add(self, membership: Membership) -> None:
        """Add a socket that is joining."""
        self._those[membership] = None

    def remove(self, membership: Membership) -> None:
        """Remove a socket that has left."""
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
        """Close all sockets, or those of some memberships, in batches, and end their blocks."""
        those = list(self._those) if among is None else among
        for membership in those:
            membership._draining = why
        await close_all([membership.websocket for membership in those], code, reason, **pace)
        for membership in those:
            membership._end(why)

    def obey(self, item: Event | Gap) -> None:
        """Carry out an event of `CONTROL`, see `order_to_close`."""
        if isinstance(item, Gap):
            logger.warning("sockets may have been told to be closed while the broker was away")
            return
        try:
            order = item.json()
            name, wanted = order["close"], order.get("member")
            if not (wanted is None or isinstance(wanted, (str, dict))):
                raise TypeError(f"a member is an id or an object, got {type(wanted).__name__}")
            code, reason = checked_close(order["code"], order["reason"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            logger.error("what all processes are told to do cannot be read: %r", error)
            return
        those = [membership for membership in self._those if membership._answers_to(name, wanted)]
        if those:
            self._run(partial(self.close, code, reason, why="closed", among=those))

    def cancel_soon(self, membership: Membership) -> None:
        """Cancel a body whose socket has ended, if it has not ended by itself a second later.

        A server may report the end in a callback, outside of any task. There, AnyIO can neither tell the time
        nor start a task. So one task does this for all sockets.
        """
        self._ended.append(membership)
        self._has_ended.set()

    async def _cancel_bodies(self) -> None:
        """Cancel each body that still runs `_GRACE` seconds after its socket has ended, for ever."""
        leaving: deque[tuple[float, Membership]] = deque()  # with the time of each, the earliest first
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
    """The event of `CONTROL` that has all processes close sockets of a channel; see `Memberships.obey`."""
    order = {"close": channel, "code": code, "reason": reason}
    if member is not None:
        order["member"] = member if isinstance(member, str) else dict(member)
    return json_text(order)


def data_of(item: Item) -> str | bytes | None:
    """The message for an item, without an `encode` of the app: an event's data, or nothing."""
    return item.data if type(item) is Event else None


@lru_cache(maxsize=256)
def encode_for(typed: Typed | None) -> Encode:
    """The function that makes the messages for sockets without an `encode` of the app.

    It is the same function for all sockets of a type, so that each item is encoded once for all of them.
    """
    if typed is None or typed.is_json_text:
        return data_of

    def encode(item: Item) -> str | bytes | None:
        data = data_of(item)
        return typed.encode(typed.decode_sent(data)) if isinstance(data, str) else data

    return encode


class _Outbox(SocketOutbox):
    """The outbox of a membership's socket."""

    __slots__ = ("hub", "owner")

    def __init__(self, hub: Hub, owner: Membership, *options: Any) -> None:
        super().__init__(*options)
        self.hub = hub
        # `None` after the block was left. Otherwise, the two would refer to each other, and wait for the
        # garbage collector.
        self.owner: Membership | None = owner

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
        self._body = anyio.CancelScope()  # not in `__init__`, because it belongs to an event loop
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
        outbox.begin()
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
        if isinstance(exc, GeneratorExit):  # the coroutine is garbage-collected: nothing can be awaited
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
        # `raise` would set `exc` as the context, and a traceback would show the disconnects that were
        # removed. The names are deleted so that no reference cycle keeps the exceptions alive.
        context = rest.__context__
        try:
            raise rest
        finally:
            rest.__context__ = context
            del rest, exc, context

    async def _leave(self) -> None:
        """Stop forwarding, let the members leave, and close the socket if its outbox was full."""
        full = self.ended == "full"
        self._stop("left")
        self._hub.writers.left()
        # A cancellation must not interrupt this. Each part has a time limit.
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
                pass  # it was closed meanwhile
            except Exception as error:
                logger.warning("the server refused to close", exc_info=error)

    def _without_the_end(self, failure: BaseException | None, ended: str | None) -> BaseException | None:
        """What is left of an exception, or of a group of them, without the disconnects of this socket.

        The end of the socket is an expected way to leave the block, so it is not raised.
        """
        if isinstance(failure, BaseExceptionGroup):
            ends, others = failure.split(lambda error: self._tells_the_end(error, ended))
            rest: BaseException | None = failure if ends is None else others
            return rest
        return None if failure is None or self._tells_the_end(failure, ended) else failure

    def _tells_the_end(self, error: BaseException, ended: str | None) -> bool:
        """Whether an exception only says that this socket has ended, without a mistake of the app."""
        if self.websocket.close_code is None or not self.websocket._is_told_by(error):
            return False  # it is about something else, for example another socket
        # `WebSocketClosed` means that the app has used the socket after it was closed. If the app itself has
        # closed it, that is a bug, and it is raised. If the channels or the client did, the app could not
        # know.
        return (
            self._draining is not None
            or ended in ("full", "stopped", "client")
            or not isinstance(error, WebSocketClosed)
        )

    # What the client is missing

    async def __anext__(self) -> Gap | Dropped:
        """The next gap or drop. Cancelling it loses nothing."""
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

    # Called by the outbox

    def _tell_dropped(self, count: int) -> None:
        """Note that events were dropped."""
        self._untold += count
        self._tell()
        report_dropped(self.websocket, count)

    def _tell_gap(self, gap: Gap) -> None:
        """Note that a gap was reached. Gaps of a channel that nobody has asked for are merged into one."""
        before = self._untold_gaps.get(gap.channel)
        self._untold_gaps[gap.channel] = gap if before is None else Gap(gap.channel, before.since, gap.id)
        self._tell()

    def _fail(self, error: Exception) -> None:
        """End the membership, because a message could not be sent."""
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
        """End the membership, because the socket has ended. The body may be waiting for anything."""
        if self._draining or self.websocket._ended_by_app:
            return  # whoever has closed it ends the membership
        self._stop("closed" if self.websocket.closed_by == "server" else "client")
        self._let_go()

    def _let_go(self) -> None:
        if self._cancels:
            self._memberships.cancel_soon(self)

    def _cancel_body(self) -> None:
        """Cancel the body, unless it is receiving: then the receive raises an exception by itself."""
        if self._cancels and not self.websocket._is_receiving:
            self._body.cancel()

    def _end(self, why: Literal["full", "stopped", "closed"]) -> None:
        """End the membership and its body, on behalf of the channels."""
        self._stop(why)
        self._body.cancel()

    def _stop(self, why: Ended) -> None:
        """Stop forwarding. Only the first reason counts."""
        self._memberships.remove(self)  # before the check: a failed join has detached the outbox already
        if self._outbox.over:
            return
        self.ended = why
        self._hub.detach(self._outbox)
        self._outbox.clear()
        self._tell()

    def _answers_to(self, name: Any, member: Any) -> bool:
        """Whether it has joined a channel, with this member id or with these values in the info, if given."""
        if name not in self._names:
            return False
        if member is None:
            return True
        for mine in self.members:
            if mine.channel == name:
                if isinstance(member, str):
                    return mine.id == member
                try:
                    info = mine.json()
                except ValueError:  # it is nested too deep, so its values cannot be compared
                    return False
                return isinstance(info, dict) and all(info.get(key) == value for key, value in member.items())
        return False
