"""`Channels`: one reader for all channels of this process, and those who receive.

The rules of this file:

- The way of an event is `publish` → backend → the reader → the outboxes of subscriptions, and the writers
  for the sockets. The reader never waits for a receiver. It only waits until each had a turn, so that whose
  outbox is full then is slow itself.
- A receiver is attached before it asks for the history. What comes meanwhile waits in its outbox, and what
  the history has, too, is taken out again. So there is neither a hole nor a double.
- `_positions` is what the reader reads, and where it is. A channel without receivers is not in it.
- Whatever the broker does, the tasks here go on: they log, and try again.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from anyio.from_thread import BlockingPortal

from .._extensions import PREPARED
from .._messages import checked_bytes, checked_close, checked_text, dumps, encode_json
from .._options import checked_count, checked_number
from .._websocket import WebSocket
from ..draining import close_all
from ..exceptions import WebSocketRuntimeError
from ._backend import (
    CONTROL,
    Backend,
    Event,
    Gap,
    Member,
    channel_of,
    checked_name,
    is_presence,
)
from ._memory import MemoryBackend
from ._outbox import Encode, Entry, Form, Item, Policy, Presence, checked_policy
from ._receivers import Membership, Receiver, Subscription, data_of
from ._recent import Recent
from ._roster import Roster
from ._writers import Writers

if TYPE_CHECKING:
    from ..typed._typed import Typed

__all__ = ["Channels"]

logger: Final = logging.getLogger("lilya.websockets")

# By scheme: module, class, and the extra that it needs.
_REDIS: Final = ("._redis", "RedisBackend", "redis")
_BACKENDS: Final = {
    "memory": ("._memory", "MemoryBackend", "channels"),
    "redis": _REDIS,
    "rediss": _REDIS,
    "unix": _REDIS,
}

# Events, and bytes of them, that the reader hands out at most before everybody has a turn.
_MOST: Final = (64, 262_144)
# Seconds that leaving and stopping may wait for the broker.
_PATIENCE: Final = 2.0
# Seconds after the end of a socket in which the body of its block may end by itself.
_GRACE: Final = 1.0
# Seconds before the reader tries again after a backend failed that never should.
_RETRY: Final = (0.1, 5.0)


class _Channel:
    """Who receives a channel in this process."""

    __slots__ = ("joining", "receivers", "since", "sockets")

    def __init__(self) -> None:
        self.receivers: dict[Receiver, None] = {}  # a set that is in order
        self.sockets: dict[Membership, None] = {}  # whose outboxes are the writers' matter
        # Those who do not get everything yet, and what they have already; `None` while they wait for the
        # history.
        self.joining: dict[Receiver, tuple[int, int] | None] = {}
        self.since = -1  # the number of the read in which its position was set

    def settled(self, receiver: Receiver) -> None:
        """It gets from now on what everybody gets."""
        del self.joining[receiver]
        if isinstance(receiver, Membership):
            self.sockets[receiver] = None
        else:
            self.receivers[receiver] = None

    def remove(self, receiver: Receiver) -> bool:
        """It gets nothing any more; whether there is nobody left."""
        for those in (self.receivers, self.sockets, self.joining):
            those.pop(receiver, None)  # type: ignore[call-overload]  # one that is not there
        return not (self.receivers or self.sockets or self.joining)


class Channels:
    """Publish to everybody who listens, in this process or in all.

    Use it by `async with channels:`, as a rule in the app's lifespan. It can be made before there is an event
    loop, and be started again after it was stopped.

    Args:
        url: Where events and members are kept: `"memory://"`, in this process; `"redis://…"`, `"rediss://…"`
            or `"unix://…"`, in Redis or Valkey, with the extra `redis`; or a `Backend`.
        history: Events kept of each channel, at least 1. Also what a process can catch up on after an outage.
        max_age: Seconds that an event is kept, above 0. `None`: until newer ones take its place.
        prefix: What the names of all keys start with. Channels with another prefix are other channels.
        presence_ttl: Seconds after which the members of a process that has crashed are gone.
        **options: Of the backend.

    Raises:
        ImportError: The extra is not installed.
        TypeError: An argument of another type, or an option that the backend does not have.
        ValueError: An argument out of range, or a URL that no backend takes.
    """

    def __init__(
        self,
        url: str | Backend = "memory://",
        *,
        history: int = 1000,
        max_age: float | None = 3600.0,
        prefix: str = "lilya",
        presence_ttl: float = 30.0,
        **options: Any,
    ) -> None:
        self._ttl = checked_number("presence_ttl", presence_ttl)
        if isinstance(url, Backend):
            if options:
                raise TypeError(f"a backend takes its options itself, got {', '.join(options)}")
            self.backend = url
        else:
            self.backend = _backend(
                url,
                history=checked_count("history", history, least=1),
                max_age=None if max_age is None else checked_number("max_age", max_age),
                prefix=_checked_prefix(prefix),
                **options,
            )
        self._state = "new"
        self._portal: BlockingPortal | None = None
        self._clear()

    def _clear(self) -> None:
        self._channels: dict[str, _Channel] = {}
        self._positions: dict[str, str] = {}
        self._receivers: dict[Receiver, None] = {}
        self._reads = 0
        # What is handed out before everybody has a turn: no more than fits into the smallest outbox.
        self._most_events, self._most_bytes = _MOST
        self._tight = False  # whether somebody has an outbox that two such portions would fill
        self._form: Form = (data_of, ())
        self._leaving: deque[tuple[float, Membership]] = deque()  # whose sockets have ended

    def __repr__(self) -> str:
        return f"<Channels, {self._state}, {type(self.backend).__name__}>"

    @property
    def ready(self) -> anyio.Event:
        """Set while the broker can be reached. After an outage it is another one."""
        self.check("ask for the broker")
        return self.backend.ready

    # Starting and stopping

    async def __aenter__(self) -> Channels:
        if self._state in ("starting", "running", "stopping"):
            raise WebSocketRuntimeError("cannot start: these channels are running already. Start them once")
        self._state = "starting"
        try:
            await self.backend.start()
        except BaseException:
            self._state = "new"
            raise
        self._clear()
        self.roster = Roster(self.backend, self._ttl, self._with_presence)
        self.recent = Recent(self.backend)
        self._token: object = anyio.lowlevel.current_token()
        self._outside = anyio.CancelScope()  # between what is around the block and its tasks
        self._outside.__enter__()
        self._group: TaskGroup = anyio.create_task_group()
        await self._group.__aenter__()
        self.writers = Writers(self._start)
        self._thread = threading.get_ident()
        self._group.start_soon(self._serve_threads)
        self._group.start_soon(self.recent.run)
        self._group.start_soon(self._read)
        self._group.start_soon(self.roster.run)
        self._state = "running"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._state = "stopping"
        if isinstance(exc, GeneratorExit):  # thrown away: there is no `await` any more
            self._state = "stopped"
            self._group.cancel_scope.cancel()
            self._group.cancel_scope.__exit__(None, None, None)
            self._outside.__exit__(None, None, None)
            return
        # Not to be interrupted, but each part has its limit.
        self._outside.shield = True
        try:
            await self.drain()
            for receiver in list(self._receivers):
                receiver.end("stopped")
            await self.roster.stop()
        finally:
            self._state = "stopped"
            self._group.cancel_scope.cancel()
            try:
                await self._group.__aexit__(None, None, None)
            except anyio.get_cancelled_exc_class():
                pass  # the group's own; one from outside is what left the body, and goes on
            try:
                with anyio.move_on_after(_PATIENCE):
                    await self.backend.stop()
            except Exception as error:
                logger.warning("the backend of the channels did not stop as it should", exc_info=error)
            finally:
                self._outside.__exit__(None, None, None)
                self._clear()

    def check(self, attempted: str) -> None:
        """See that this is the time and the event loop to do something.

        Raises:
            WebSocketRuntimeError: It is not.
        """
        if self._state != "running":
            raise WebSocketRuntimeError(
                f"cannot {attempted} yet: the channels are not started. Do it in `async with channels:`, "
                "which as a rule is the app's lifespan"
                if self._state in ("new", "starting")
                else f"cannot {attempted} any longer: the channels were stopped"
            )
        if anyio.lowlevel.current_token() != self._token:
            raise WebSocketRuntimeError(
                f"cannot {attempted} here: the channels were started on another event loop. Use them in the "
                "thread and on the loop of `async with channels:`"
            )

    async def drain(
        self,
        code: int = 1012,
        reason: str | None = None,
        *,
        within: float = 10.0,
        batch: int = 100,
        interval: float = 0.1,
        jitter: float = 0.5,
    ) -> None:
        """Close all sockets that have joined, in batches, so that their clients do not come back all at once.

        Stopping does it, too. Cancelled, the rest stays open.

        Args:
            code: The close code, see `WebSocket.close`. Default: 1012, the service restarts.
            reason: At most 123 bytes of UTF-8. Default: none.
            within: Seconds after which all is done.
            batch: Sockets to close at once, 1 or more.
            interval: Seconds from one batch to the next.
            jitter: The part of an interval, 0 to 1, by which each batch comes later at random.

        Raises:
            TypeError: An argument of another type.
            ValueError: An argument out of range, or a code or a reason that must not be sent.
            WebSocketRuntimeError: Before the start, after the stop, or on another event loop.
        """
        if self._state != "stopping":
            self.check("drain")
        members = [receiver for receiver in self._receivers if isinstance(receiver, Membership)]
        for member in members:
            member.draining = "stopped"
        await close_all(
            [member.websocket for member in members],
            code,
            reason,
            within=within,
            batch=batch,
            interval=interval,
            jitter=jitter,
        )
        for member in members:
            member.end("stopped")

    # Publishing

    async def publish(self, channel: str, data: str | bytes | bytearray | memoryview) -> str:
        """Publish an event, to everybody who listens.

        Cancelled, it may have been published. When it returns, the event is kept.

        Args:
            channel: The channel's name: any text but one that is empty or starts with a NUL.
            data: Text that encodes to UTF-8, or bytes-like; receivers get `str` or `bytes`.

        Returns:
            The event's id.

        Raises:
            TypeError: An argument of another type.
            ValueError: A channel's name that is none, or text with a lone surrogate.
            BrokerError: The broker is away, or refuses. The event may have been kept only if it cannot tell.
            WebSocketRuntimeError: Before the start, after the stop, or on another event loop.
        """
        self.check("publish")
        checked = checked_text(data) if isinstance(data, str) else checked_bytes(data)
        return await self.backend.publish(checked_name(channel), checked)

    async def publish_json(self, channel: str, data: Any) -> str:
        """Publish a value as JSON text, as `WebSocket.send_json` encodes it; `Event.json` decodes it.

        Args:
            channel: See `publish`.
            data: What JSON can hold.

        Returns:
            The event's id.

        Raises:
            TypeError: The data, or a value in it, has no JSON form.
            ValueError: `NaN`, an infinity, a reference cycle, or nesting too deep.
            Exception: Also what `publish` raises.
        """
        return await self.publish(channel, encode_json(data, dumps))

    async def publish_message(self, channel: str, message: Any) -> str:
        """Publish a model as JSON text, encoded once by its library: pydantic or msgspec.

        A socket that has joined is sent this text. A `WebSocket[In, Out]` with another codec is sent the
        message in that codec, encoded once for all of them; it must be an `Out`.

        Args:
            channel: See `publish`.
            message: A model, a dataclass, or what JSON can hold.

        Returns:
            The event's id.

        Raises:
            ImportError: The library is not installed.
            TypeError: The message, or a value in it, has no JSON form.
            ValueError: A value in it cannot be encoded.
            Exception: Also what `publish` raises.
        """
        from ..typed._typed import encoded

        return await self.publish(channel, encoded(message))

    def publish_from_thread(self, channel: str, data: str | bytes | bytearray | memoryview) -> str:
        """`publish` for code in another thread than that of the event loop. It waits until the event is kept.

        Args:
            channel: See `publish`, as `data`.
            data: See `publish`.

        Returns:
            The event's id.

        Raises:
            WebSocketRuntimeError: Before the start, after the stop, or in the thread of the event loop.
            Exception: Also what `publish` raises.
        """
        portal = self._portal
        if portal is None:
            raise WebSocketRuntimeError("cannot publish: the channels are not started, or were stopped")
        if threading.get_ident() == self._thread:
            raise WebSocketRuntimeError(
                "cannot publish from the thread of the event loop, which would wait for itself. Use "
                "`await channels.publish(...)` there"
            )
        return portal.call(self.publish, channel, data)

    async def _serve_threads(self) -> None:
        async with BlockingPortal() as portal:
            self._portal = portal
            try:
                await portal.sleep_until_stopped()
            finally:
                self._portal = None

    # Receiving

    def subscribe(
        self,
        *names: str,
        history: int = 0,
        since: str | Mapping[str, str] | None = None,
        presence: bool = False,
        policy: Policy = "close",
        max_messages: int = 256,
        max_bytes: int = 1_048_576,
    ) -> Subscription:
        """Receive the events of channels, by iterating.

            async with channels.subscribe("room:1") as subscription:
                async for event in subscription: ...

        Entering waits for the history. From then on nothing is missed, until the block is left.

        Args:
            *names: The channels, one or more.
            history: Events of each channel's history to begin with, the newest ones, 0 or more.
            since: Begin after this position instead, the id of an event: of the channel, or by name for some
                of the channels. If history does not reach back to it, the first item is a `Gap`.
            presence: Whether to get a `Presence` for everybody who joins or leaves, too.
            policy: What happens when `max_messages` or `max_bytes` wait. `"close"`: the iteration ends by an
                `OutboxFull`. `"drop_oldest"`, `"drop_newest"`: they are dropped, and a `Dropped` stands in
                their place.
            max_messages: Events that may wait, 1 or more. Those of the history are not counted.
            max_bytes: Bytes of their data that may wait, 1 or more.

        Returns:
            An asynchronous context manager, and in its block an asynchronous iterator over `Event`, `Gap`,
            `Dropped` and `Presence`. It has `pending`, `dropped`, `sent` and `positions`.

        Raises:
            TypeError: An argument of another type.
            ValueError: An argument out of range, or an id that is none. From entering, as the next two.
            BrokerError: The broker is away.
            WebSocketRuntimeError: Before the start, after the stop, or on another event loop.
        """
        checked = _checked_names(names)
        return Subscription(
            self,
            checked,
            presence=bool(presence),
            history=checked_count("history", history),
            since=_checked_since(checked, since),
            policy=checked_policy(policy),
            max_messages=checked_count("max_messages", max_messages, least=1),
            max_bytes=checked_count("max_bytes", max_bytes, least=1),
        )

    def join(
        self,
        names: str | Iterable[str],
        websocket: Any,
        *,
        member: Any = None,
        history: int = 0,
        since: str | Mapping[str, str] | None = None,
        presence: bool = False,
        encode: Encode | None = None,
        cancel_on_disconnect: bool = True,
        policy: Policy = "close",
        max_messages: int = 256,
        max_bytes: int = 1_048_576,
    ) -> Membership:
        """Forward the events of channels to a socket, as long as a block lasts.

            async with channels.join("room:1", websocket):
                async for text in websocket.iter_text():
                    await channels.publish("room:1", text)

        The socket must be accepted. It is sent to in the background, from an outbox of its own, so a client
        that does not read keeps nobody waiting. A client that leaves ends the block quietly: a
        `WebSocketDisconnect` of this socket goes no further, and a body that waits for something else is
        cancelled a second later. In a block of `async with websocket` that is noticed at once; without one,
        when the body receives or something is sent. If the outbox is full by the policy `"close"`, or the
        channels are stopped, the body is cancelled and the block ends quietly, too. What waits when the block
        is left is not sent.

        Args:
            names: The channel, or several.
            websocket: An accepted one, in a block of its own or by hand; also the object of a framework, see
                `WebSocket.wrap`.
            member: What `members` says about it, anything that JSON can hold. `None`: it is no member.
            history: See `subscribe`, as `since`.
            presence: Whether joins and leaves are given to `encode`, too.
            encode: Called with an `Event`, `Gap`, `Dropped` or `Presence`: returns the message for the
                client, `str` or `bytes`, or `None` for none. Called once for all sockets that have the same
                function.
                Default: the data of events, and nothing else. For a `WebSocket[In, Out]` with another codec
                than JSON in text messages, text is read as an `Out`, and encoded in that codec.
            cancel_on_disconnect: Whether the body is cancelled if it has not ended by itself one second after
                the client left. It is not cancelled while it receives, because that ends it.
            policy: What happens when `max_messages` or `max_bytes` wait. `"close"`: the socket is closed with
                1013. `"drop_oldest"`, `"drop_newest"`: they are dropped.
            max_messages: See `subscribe`, as `max_bytes`.

        Returns:
            An asynchronous context manager. It has `pending`, `dropped`, `sent`, `ended`, `members`, and
            `positions`, where each channel began. It is an asynchronous iterator over each `Gap` and
            `Dropped`, until nothing is forwarded any more.

        Raises:
            TypeError: An argument of another type, or a member that has no JSON form.
            ValueError: An argument out of range, or an id that is none. From entering, as all that follow.
            WebSocketDisconnect: The conversation has ended.
            BrokerError: The broker is away.
            WebSocketRuntimeError: Not accepted; or before the start, after the stop, on another event loop.
            Exception: What the server or `encode` raises, from leaving; the body is cancelled.
        """
        wrapped = WebSocket.wrap(websocket)
        if encode is not None and not callable(encode):
            raise TypeError(f"encode must be callable, got {type(encode).__name__}")
        checked = _checked_names((names,) if isinstance(names, str) else names)
        return Membership(
            self,
            checked,
            wrapped,
            encode=_encode_for(wrapped._typed) if encode is None else encode,
            cancel_on_disconnect=bool(cancel_on_disconnect),
            info=None if member is None else _info(member),
            presence=bool(presence),
            history=checked_count("history", history),
            since=_checked_since(checked, since),
            policy=checked_policy(policy),
            max_messages=checked_count("max_messages", max_messages, least=1),
            max_bytes=checked_count("max_bytes", max_bytes, least=1),
        )

    async def members(self, channel: str) -> list[Member]:
        """Who is in a channel, across all processes, in the order of joining.

        Args:
            channel: The channel's name.

        Raises:
            TypeError: The name is no `str`.
            ValueError: It is none.
            BrokerError: The broker is away.
            WebSocketRuntimeError: Before the start, after the stop, or on another event loop.
        """
        self.check("ask for members")
        return list(await self.backend.members(checked_name(channel)))

    async def count(self, channel: str) -> int:
        """How many members a channel has, across all processes.

        Args:
            channel: The channel's name.

        Raises:
            TypeError: The name is no `str`.
            ValueError: It is invalid.
            BrokerError: The broker is away.
            WebSocketRuntimeError: Before the start, after the stop, or on another event loop.
        """
        self.check("count members")
        return await self.backend.count(checked_name(channel))

    async def close(
        self,
        channel: str,
        *,
        member: str | Mapping[str, Any] | None = None,
        code: int = 1000,
        reason: str | None = None,
    ) -> None:
        """Close the sockets that have joined a channel, in all processes.

        It returns when all processes will be told; the sockets are closed after that. The body of each one's
        `join` block is cancelled, and the block ends quietly.

        Args:
            channel: The channel's name.
            member: Only the sockets of this member, by its id; or of all members whose info is a mapping that
                has these values, such as `{"user": 7}`. Default: all sockets, members or not.
            code: The close code, see `WebSocket.close`.
            reason: At most 123 bytes of UTF-8. Default: none.

        Raises:
            TypeError: An argument of another type, or a value that has no JSON form.
            ValueError: An invalid name, or a code or a reason that must not be sent.
            BrokerError: The broker is away.
            WebSocketRuntimeError: Before the start, after the stop, or on another event loop.
        """
        self.check("close sockets")
        code, reason = checked_close(code, reason)
        if member is not None and not isinstance(member, (str, Mapping)):
            raise TypeError(f"member must be an id or a mapping, got {type(member).__name__}")
        order = {"close": checked_name(channel), "code": code, "reason": reason}
        if member is not None:
            order["member"] = member if isinstance(member, str) else dict(member)
        encoded = encode_json(order, dumps)
        await self.backend.publish(CONTROL, encoded if isinstance(encoded, str) else encoded.decode())

    def _obey(self, item: Event | Gap) -> None:
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
        here = self._channels[CONTROL]
        those = [
            receiver
            for receiver in (*here.sockets, *here.joining)
            if isinstance(receiver, Membership) and receiver.answers_to(name, wanted)
        ]
        if those:
            self._start(partial(self._close, those, code, reason))

    async def _close(self, those: Sequence[Membership], code: int, reason: str) -> None:
        for receiver in those:
            receiver.draining = "closed"
        await close_all([receiver.websocket for receiver in those], code, reason)
        for receiver in those:
            receiver.end("closed")

    # The reader

    async def _read(self) -> None:
        """Hand out what comes, for ever."""
        failures = 0
        while True:
            self._reads += 1
            try:
                found = await self.backend.read(self._positions)
            except Exception as error:
                # A backend waits for its broker itself. Whatever this is, nobody would notice a dead reader.
                if not failures:
                    logger.error("reading the channels failed; it is tried again", exc_info=error)
                least, most = _RETRY
                await anyio.sleep(min(least * 2**failures, most) * random.uniform(0.5, 1))
                failures = min(failures + 1, 16)
                self.backend.wake()  # what it had found then is to be found again
                continue
            failures = 0
            count = size = 0
            for item in found:
                item, entry = self._entry(item)
                count += 1
                size += entry.size
                if count > self._most_events or size > self._most_bytes:
                    await self._turn()
                    count, size = 1, entry.size
                self._deliver(item, entry)
            await self._turn()

    async def _turn(self) -> None:
        """Let everybody take what was handed out. So whose outbox is full later on is slow itself."""
        await self.writers.turn()
        await anyio.lowlevel.checkpoint()
        if self._tight:
            await anyio.lowlevel.checkpoint()  # on trio this task may be the first of both times

    def _deliver(self, item: Event | Gap, entry: Entry) -> None:
        """Put an item in the outbox of each who receives its channel."""
        name = item.channel
        channel = self._channels.get(name)
        if channel is None or name not in self._positions:
            return  # they have left meanwhile
        if name == CONTROL:
            self._positions[name] = item.id
            self._obey(item)
            return
        position = self._positions[name]
        back = isinstance(item, Gap) and self._is_before(item.id, position)
        if channel.since == self._reads and (
            item.since != position if isinstance(item, Gap) else self._is_before(item.id, position)
        ):
            return  # everybody has left and somebody has come, during this very read
        if back:
            # The broker has lost the end of the channel. What follows has its numbers, and is new to all.
            channel.since = -1
            for receiver, floor in list(channel.joining.items()):
                if floor is not None:
                    channel.settled(receiver)
        self._positions[name] = item.id
        # A copy, because a full outbox may end its receiver.
        for receiver in list(channel.receivers):
            receiver.put(entry)
        if channel.sockets:
            self.writers.ready.append((entry, iter(list(channel.sockets))))
        if channel.joining:
            order = self.backend.order_of(item.id)
            for receiver, floor in list(channel.joining.items()):
                if floor is None or order > floor:
                    receiver.put(entry)
                # Whoever is at the floor, or above it, has the same before it as everybody else. It may also
                # have ended just now.
                if floor is not None and order >= floor and receiver in channel.joining:
                    channel.settled(receiver)
        self.writers.wake()

    def _is_before(self, id: str, position: str) -> bool:
        return self.backend.order_of(id) <= self.backend.order_of(position)

    def _entry(self, item: Event | Gap) -> tuple[Event | Gap, Entry]:
        """What is handed out of an item; a gap, if it can't be told what it is."""
        if isinstance(item, Event) and not is_presence(item.channel):
            return item, Entry.of(item)
        if isinstance(item, Event):
            try:
                return item, Entry(_presence(item), len(item.data), item)
            except (KeyError, TypeError, ValueError) as error:
                logger.error("an event about who is in a channel is none of ours: %r", error)
                item = Gap(item.channel, self._positions.get(item.channel, item.id), item.id)
        return item, Entry(item, 0, item)

    # Receivers

    def _start(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._group.start_soon(task)

    def form(self, encode: Encode, websocket: WebSocket) -> Form:
        """What makes messages the same, as the same object as long as it is the same as the time before."""
        form = (encode, (PREPARED,) if PREPARED in (websocket.scope.get("extensions") or ()) else ())
        if form != self._form:
            self._form = form
        return self._form

    def add(self, receiver: Receiver) -> None:
        """Put what comes from now on in the outbox of a receiver that waits for its history."""
        self._receivers[receiver] = None
        self._most_events = min(self._most_events, receiver.max_messages)
        self._most_bytes = min(self._most_bytes, receiver.max_bytes)
        if receiver.max_messages < 2 * _MOST[0] or receiver.max_bytes < 2 * _MOST[1]:
            self._tight = True
        for name in receiver.watched:
            self._channels.setdefault(name, _Channel()).joining[receiver] = None

    def position_of(self, name: str) -> str | None:
        """Where the reader is in a channel, if it reads it."""
        return self._positions.get(name)

    def settle(self, receiver: Receiver, name: str, position: str) -> None:
        """A receiver has the history of a channel up to a position."""
        if receiver.over:
            return
        channel = self._channels[name]
        if name not in self._positions:
            self._positions[name] = position
            channel.since = self._reads
            self.backend.wake(name)
        if self._is_before(position, self._positions[name]):
            channel.settled(receiver)
        else:
            channel.joining[receiver] = self.backend.order_of(position)  # the reader is not there yet

    def remove(self, receiver: Receiver) -> None:
        """Nothing is put in the receiver's outbox any more."""
        receiver.over = True
        if self._receivers.pop(receiver, self) is self:
            return
        if not self._receivers:
            self._most_events, self._most_bytes = _MOST
            self._tight = False
        for name in receiver.watched:
            if self._channels[name].remove(receiver):
                del self._channels[name]
                self._positions.pop(name, None)
                self.backend.unwatch((name,))

    def cancel_soon(self, receiver: Membership) -> None:
        """Cancel a body whose socket has ended, if it has not ended by itself in a second."""
        self._leaving.append((anyio.current_time() + _GRACE, receiver))
        if len(self._leaving) == 1:
            self._start(self._cancel_bodies)

    async def _cancel_bodies(self) -> None:
        while self._leaving:
            due, receiver = self._leaving[0]
            await anyio.sleep_until(due)
            self._leaving.popleft()
            receiver.cancel_body()

    # Presence

    @property
    def _members(self) -> dict[str, Member]:
        return self.roster.members

    def _with_presence(self) -> set[str]:
        """The channels of which somebody here wants to know who comes and goes."""
        return {channel_of(name) for name in self._channels if is_presence(name)}


@lru_cache(maxsize=256)
def _encode_for(typed: Typed | None) -> Encode:
    """How sockets are sent an item unless something else is asked for: one function for all of a type."""
    if typed is None or typed.is_json_text:
        return data_of

    def encode(item: Item) -> str | bytes | None:
        data = data_of(item)
        return typed.encode(typed.decode_sent(data)) if isinstance(data, str) else data

    return encode


# Arguments


def _backend(url: object, *, history: int, max_age: float | None, prefix: str, **options: Any) -> Backend:
    """The backend of a URL."""
    if not isinstance(url, str):
        raise TypeError(f"url must be str or a Backend, got {type(url).__name__}")
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in _BACKENDS:
        # The rest of the URL may hold a password.
        raise ValueError(
            f"the URL of channels starts with one of {', '.join(f'{name}://' for name in _BACKENDS)}; "
            f"got {'the scheme ' + repr(scheme) if separator else 'none of them'}"
        )
    module, name, extra = _BACKENDS[scheme]
    if scheme == "memory":
        if url != "memory://":
            raise ValueError("the URL of channels in memory is 'memory://', without anything after it")
        if options:
            raise TypeError(f"channels in memory have no option {', '.join(map(repr, options))}")
        return MemoryBackend(history=history, max_age=max_age)
    try:
        backend = getattr(import_module(module, __package__), name)
    except ImportError as error:
        raise ImportError(
            f"channels at {scheme}:// need the extra {extra!r}: install lilya-websockets[{extra}]"
        ) from error
    made: Backend = backend(url, history=history, max_age=max_age, prefix=prefix, **options)
    return made


def _presence(event: Event) -> Presence:
    """Who has come or gone, by an event in the companion of a channel.

    Raises:
        KeyError, TypeError, ValueError: It does not say so.
    """
    told = event.json()
    kind, id = told["type"], told["id"]
    if kind not in ("join", "leave") or not isinstance(id, str):
        raise ValueError(f"neither a join nor a leave: {str(event.data)[:80]}")
    return Presence(kind, Member(channel_of(event.channel), id, _info(told["info"])))


def _checked_names(names: object) -> list[str]:
    if isinstance(names, bytes) or not isinstance(names, Iterable):
        raise TypeError(f"names must be str or an iterable of str, got {type(names).__name__}")
    checked = list(dict.fromkeys(map(checked_name, names)))
    if not checked:
        raise ValueError("there must be the name of a channel, got none")
    return checked


def _checked_since(names: Sequence[str], since: object) -> dict[str, str]:
    """Positions by name."""
    if since is None:
        return {}
    if isinstance(since, str):
        if len(names) > 1:
            raise ValueError(
                f"an id is of one channel, and these are {len(names)}: give a mapping from names to ids"
            )
        return {names[0]: since}
    if not isinstance(since, Mapping):
        raise TypeError(f"since must be str or a mapping of str, got {type(since).__name__}")
    for name, id in since.items():
        if not isinstance(id, str):
            raise TypeError(f"an event's id must be str, got {type(id).__name__}")
        if name not in names:
            raise ValueError(f"since has the channel {name!r}, which is not among those asked for")
    return dict(since)


def _checked_prefix(prefix: object) -> str:
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be str, got {type(prefix).__name__}")
    if not prefix:
        raise ValueError("prefix must not be empty")
    return prefix


def _info(member: Any) -> str:
    """What an app says about a member, as JSON text."""
    encoded = encode_json(member, dumps)
    return encoded if isinstance(encoded, str) else encoded.decode()
