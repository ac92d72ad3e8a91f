"""`Channels`: what users call. It checks the arguments; the hub and the receivers do the work."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal

import anyio
from anyio.abc import TaskStatus
from anyio.from_thread import BlockingPortal

from .._messages import checked_bytes, checked_close, checked_text, dumps, encode_json
from .._options import checked_count, checked_flag, checked_number
from .._websocket import WebSocket
from ..exceptions import WebSocketRuntimeError
from ._backend import (
    CONTROL,
    NO_WISHES,
    Backend,
    BrokerError,
    Member,
    checked_name,
    checked_prefix,
    checked_text_key,
    checked_wishes,
    json_text,
)
from ._hub import Hub
from ._membership import Membership, Memberships, order_to_close
from ._memory import MemoryBackend
from ._outbox import Encode, Policy, checked_policy
from ._subscription import Subscription

__all__ = ["Channels"]

_SCHEMES: Final = (
    "memory",
    *(
        f"{name}{tls}{many}"
        for name in ("redis", "valkey")
        for tls in ("", "s")
        for many in ("", "+sentinel", "+cluster")
    ),
    "unix",
)


class Channels:
    """Publish events to everybody who listens, in this process or in all processes.

    Start it with `async with channels:`, usually in the app's lifespan. You can create it before there is an
    event loop, and start it again after it was stopped.

    Args:
        url: Where events and members are kept: `"memory://"`, in this process; `"redis://…"`, `"rediss://…"`
            or `"unix://…"`, in Redis or Valkey, with the extra `redis`; or a `Backend`, which has options of
            its own: `history`, `max_age` and `prefix` have no effect on it.
        history: The number of events kept in each channel, at least 1. After an outage, a process can
            catch up on this many.
        max_age: How long an event is kept, in seconds, above 0. With `None`, it is kept until newer events
            replace it.
        prefix: The start of all keys. Apps with different prefixes have separate channels.
        presence_ttl: Seconds after which the members of a crashed process are removed.
        **options: Options of the backend.

    Raises:
        ImportError: The extra is not installed.
        TypeError: An argument of the wrong type, or an option that the backend does not have.
        ValueError: An argument out of range, or a URL that no backend accepts.
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
        ttl = checked_number("presence_ttl", presence_ttl)
        if isinstance(url, Backend):
            if options:
                raise TypeError(f"a backend takes its options itself, got {', '.join(options)}")
            backend = url
        else:
            backend = _backend(
                url,
                history=checked_count("history", history, least=1),
                max_age=None if max_age is None else checked_number("max_age", max_age),
                prefix=checked_prefix(prefix),
                **options,
            )
        self._hub = Hub(backend, ttl)
        self._memberships = Memberships(self._hub.run)
        self._portal: BlockingPortal | None = None

    def __repr__(self) -> str:
        return f"<Channels, {self._hub.state}, {type(self._hub.backend).__name__}>"

    @property
    def backend(self) -> Backend:
        """Where events and members are kept: the given backend, or the one made for the URL."""
        return self._hub.backend

    @property
    def ready(self) -> anyio.Event:
        """Set while the broker can be reached. After an outage, this is a new event."""
        self._hub.check("ask for the broker")
        return self._hub.backend.ready

    # Starting and stopping

    async def __aenter__(self) -> Channels:
        await self._hub.start(self._memberships.obey)
        self._memberships.start()
        self._thread = threading.get_ident()
        # Wait until threads can publish: one of them may be started right after this.
        try:
            await self._hub.begin(self._serve_threads)
        except BaseException:
            await self._hub.stop(self.drain)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(exc, GeneratorExit):
            self._hub.abandon()
        else:
            await self._hub.stop(self.drain)

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
        """Close all sockets that have joined, in batches, so that their clients do not all reconnect at once.

        Stopping does this, too. If cancelled, the remaining sockets stay open.

        Args:
            code: The close code, see `WebSocket.close`. Default: 1012, the service restarts.
            reason: At most 123 bytes of UTF-8. Default: none.
            within: Seconds after which all sockets are closed.
            batch: The number of sockets to close at once, 1 or more.
            interval: Seconds between two batches.
            jitter: The part of an interval, 0 to 1, by which each batch is delayed at random.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: An argument out of range, or a code or a reason that must not be sent.
            WebSocketRuntimeError: Before the start, after the stop, or on another event loop.
        """
        if self._hub.state != "stopping":
            self._hub.check("drain")
        await self._memberships.close(
            code, reason, why="stopped", within=within, batch=batch, interval=interval, jitter=jitter
        )

    # Publishing

    async def publish(
        self,
        channel: str,
        data: str | bytes | bytearray | memoryview,
        *,
        exclude: Membership | Subscription | str | None = None,
        idempotency_key: str | None = None,
        history: int | None = None,
        max_age: float | None = None,
    ) -> str:
        """Publish an event to everybody who listens.

        When it returns, the event is kept. If cancelled, the event may have been published.

        Args:
            channel: The channel's name: any text that is not empty and does not start with a NUL.
            data: Text that encodes to UTF-8, or bytes-like. Receivers get `str` or `bytes`.
            exclude: The receivers that do not get the event: a membership, a subscription, or the `id` of
                one; or a `key`, which excludes everybody who joined with it, in every process, also after
                they reconnect.
            idempotency_key: If an event was published to this channel with this key in the last five
                minutes, nothing is published.
            history: The number of events to keep in the channel from now on, this one included, 0 or more. A
                value above the `history` of `Channels` has no effect.
            max_age: The seconds to keep this event, above 0. It may be more than the `max_age` of `Channels`.
                When the event expires, all events before it expire, too.

        Returns:
            The event's id. If the idempotency key was used before, the id of the event published with it.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: An invalid channel name, or text with a lone surrogate.
            BrokerError: The broker is unavailable, or refuses. The event was not kept, unless the error says
                that it may have been.
            WebSocketRuntimeError: Before the start, after the stop, or on another event loop.
        """
        self._hub.check("publish")
        checked = checked_text(data) if isinstance(data, str) else checked_bytes(data)
        name = checked_name(channel)
        if exclude is not None:  # first, because `isinstance` costs more here than all other checks together
            if isinstance(exclude, (Membership, Subscription)):
                exclude = exclude.id
            elif not isinstance(exclude, str):
                raise TypeError(
                    f"exclude must be a membership, a subscription or str, got {type(exclude).__name__}"
                )
        wishes = checked_wishes(exclude, idempotency_key, history, max_age)
        if wishes is NO_WISHES:
            return await self._hub.backend.publish(name, checked)
        return await self._hub.backend.publish(name, checked, wishes)

    async def publish_json(self, channel: str, data: Any, **wishes: Any) -> str:
        """Publish a value as JSON text, as `WebSocket.send_json` encodes it; `Event.json` decodes it.

        Args:
            channel: See `publish`.
            data: Any value that JSON can hold.
            **wishes: The keyword arguments of `publish`.

        Returns:
            The event's id.

        Raises:
            TypeError: The data, or a value in it, cannot be encoded as JSON.
            ValueError: `NaN`, an infinity, a reference cycle, or nesting too deep.
            Exception: Also what `publish` raises.
        """
        return await self.publish(channel, encode_json(data, dumps), **wishes)

    async def publish_message(self, channel: str, message: Any, **wishes: Any) -> str:
        """Publish a model as JSON text, encoded once by its library: pydantic or msgspec.

        Sockets that have joined receive this text. A `WebSocket[In, Out]` with another codec receives the
        message in that codec, encoded once for all such sockets. The message must be an `Out`.

        Args:
            channel: See `publish`.
            message: A model, a dataclass, or any value that JSON can hold.
            **wishes: The keyword arguments of `publish`.

        Returns:
            The event's id.

        Raises:
            ImportError: The library is not installed.
            TypeError: The message, or a value in it, cannot be encoded as JSON.
            ValueError: A value in it cannot be encoded.
            Exception: Also what `publish` raises.
        """
        from ..typed._typed import encoded

        return await self.publish(channel, encoded(message), **wishes)

    def publish_from_thread(
        self, channel: str, data: str | bytes | bytearray | memoryview, **wishes: Any
    ) -> str:
        """Publish from another thread than that of the event loop. The call waits until the event is kept.

        Args:
            channel: See `publish`.
            data: See `publish`.
            **wishes: The keyword arguments of `publish`.

        Returns:
            The event's id.

        Raises:
            WebSocketRuntimeError: Before the start, after the stop, or in the thread of the event loop.
            BrokerError: The channels were stopped during the call. The event may have been kept.
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
        try:
            return portal.call(partial(self.publish, channel, data, **wishes))
        except CancelledError:
            raise BrokerError(
                f"cannot publish to {channel!r}: the channels were stopped before the answer. It may "
                "have been kept"
            ) from None
        except RuntimeError as error:
            if isinstance(error, WebSocketRuntimeError):
                raise
            # The portal has ended since the check above.
            raise WebSocketRuntimeError("cannot publish: the channels were stopped") from error

    async def _serve_threads(self, *, task_status: TaskStatus[None]) -> None:
        async with BlockingPortal() as portal:
            self._portal = portal
            task_status.started()
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
        latest: bool = False,
        presence: bool | Literal["keys"] = False,
        policy: Policy = "close",
        max_messages: int = 256,
        max_bytes: int = 1_048_576,
    ) -> Subscription:
        """Receive the events of channels, by iterating.

            async with channels.subscribe("room:1") as subscription:
                async for event in subscription: ...

        Entering the block waits for the history. From then on you miss nothing until you leave the block.

        Args:
            *names: The channels, one or more.
            history: The number of events from each channel's history to start with, the newest ones, 0 or
                more.
            since: Start after this position instead: the id of an event, or a mapping from names of channels
                to ids. If the history does not reach back that far, the first item is a `Gap`.
            latest: Start with the newest event of each channel only. Use it if the events of a channel
                replace each other. Events that exclude this receiver are skipped. With `since`, you get the
                newest event if it comes after that position, and a `Gap` only if it is no longer kept.
            presence: Whether to receive a `Presence` for each join and leave, too. `"keys"`: only for the
                first and the last socket of a person, see `join`.
            policy: What happens when the outbox is full. `"close"`: the iteration raises `OutboxFull`.
                `"drop_oldest"`, `"drop_newest"`: events are dropped, and you get a `Dropped` in their place.
            max_messages: The number of events that may wait, 1 or more. Events from the history do not count.
            max_bytes: The bytes of data that may wait, 1 or more.

        Returns:
            An asynchronous context manager. In its block, iterate over it with `async for` to get `Event`,
            `Gap`, `Dropped` and `Presence`. It has `pending`, `dropped`, `sent` and `positions`.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: An argument out of range; on entering the block, an invalid id. The errors below are
                also raised on entering.
            BrokerError: The broker is unavailable.
            WebSocketRuntimeError: Before the start, after the stop, or on another event loop.
        """
        checked = _checked_names(names)
        return Subscription(
            self._hub,
            checked,
            presence=_checked_presence(presence),
            latest=checked_flag("latest", latest),
            history=_checked_history(history, latest),
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
        key: str | None = None,
        history: int = 0,
        since: str | Mapping[str, str] | None = None,
        latest: bool = False,
        presence: bool | Literal["keys"] = False,
        encode: Encode | None = None,
        cancel_on_disconnect: bool = True,
        policy: Policy = "close",
        max_messages: int = 256,
        max_bytes: int = 1_048_576,
    ) -> Membership:
        """Forward the events of channels to a socket until the block ends.

            async with channels.join("room:1", websocket):
                async for text in websocket.iter_text():
                    await channels.publish("room:1", text)

        The socket must be accepted. Events are sent in the background from the socket's own outbox, so a
        client that does not read delays nobody else.

        When the client leaves, the block ends without an error: it catches this socket's
        `WebSocketDisconnect`, and cancels a body that waits for something else one second later. Inside
        `async with websocket`, a disconnect is detected at once. Otherwise, it is detected when the body
        receives or something is sent. If the outbox is full and the policy is `"close"`, or if the channels
        are stopped, the body is cancelled, and the block also ends without an error. Events that still wait
        when you leave the block are not sent.

        Args:
            names: The name of a channel, or several names.
            websocket: An accepted WebSocket, or the object of a framework, see `WebSocket.wrap`.
            member: The info that `members` returns for this socket, any value that JSON can hold. With
                `None`, the socket is not a member.
            key: Identifies the person, who may have several sockets. Sockets with the same key are one
                person, see `Presence.of_person`, and `publish` can exclude them.
            history: See `subscribe`.
            since: The position to start after, see `subscribe`.
            latest: Start with the newest event only, see `subscribe`.
            presence: Whether to pass joins and leaves to `encode`, too. `"keys"`: only those of persons.
            encode: A function that gets an `Event`, `Gap`, `Dropped` or `Presence`, and returns the message
                for the client: `str`, `bytes`, or `None` for no message. It is called once for all sockets
                with the same function. By default, clients get the data of events, and nothing else. If a
                `WebSocket[In, Out]` has another codec than JSON in text messages, text is read as an `Out`
                and encoded in that codec.
            cancel_on_disconnect: Whether to cancel the body if it still runs one second after the client
                left. The body is not cancelled while it receives, because the receive ends it.
            policy: What happens when the outbox is full. `"close"`: the socket is closed with 1013.
                `"drop_oldest"`, `"drop_newest"`: events are dropped.
            max_messages: See `subscribe`.

        Returns:
            An asynchronous context manager. It has `pending`, `dropped`, `sent`, `ended`, `members` and
            `positions`. Iterate over it with `async for` to get each `Gap` and `Dropped`, until nothing is
            forwarded any more.

        Raises:
            TypeError: An argument of the wrong type, or a member that cannot be encoded as JSON.
            ValueError: An argument out of range; on entering the block, an invalid id. The errors below are
                also raised on entering.
            WebSocketDisconnect: The connection has ended.
            BrokerError: The broker is unavailable.
            WebSocketRuntimeError: The socket is not accepted; or before the start, after the stop, or on
                another event loop.
            Exception: What the server or `encode` raises while a message is sent. The body is cancelled, and
                leaving the block raises it.
        """
        wrapped = WebSocket.wrap(websocket)
        if encode is not None and not callable(encode):
            raise TypeError(f"encode must be callable, got {type(encode).__name__}")
        checked = _checked_names((names,) if isinstance(names, str) else names)
        return Membership(
            self._hub,
            self._memberships,
            checked,
            wrapped,
            encode=encode,
            cancel_on_disconnect=checked_flag("cancel_on_disconnect", cancel_on_disconnect),
            info=None if member is None else json_text(member),
            key=None if key is None else checked_text_key("key", key),
            presence=_checked_presence(presence),
            latest=checked_flag("latest", latest),
            history=_checked_history(history, latest),
            since=_checked_since(checked, since),
            policy=checked_policy(policy),
            max_messages=checked_count("max_messages", max_messages, least=1),
            max_bytes=checked_count("max_bytes", max_bytes, least=1),
        )

    async def members(self, channel: str) -> list[Member]:
        """Return the members of a channel in all processes, in the order in which they joined.

        A long list is read from Redis in pages. Somebody who joins or leaves meanwhile may be in it or not.

        Args:
            channel: The channel's name.

        Raises:
            TypeError: The name is not a `str`.
            ValueError: The name is invalid.
            BrokerError: The broker is unavailable.
            WebSocketRuntimeError: Before the start, after the stop, or on another event loop.
        """
        self._hub.check("ask for members")
        return list(await self._hub.backend.members(checked_name(channel)))

    async def count(self, channel: str, *, keys: bool = False) -> int:
        """Return the number of members of a channel in all processes.

        Args:
            channel: The channel's name.
            keys: Count persons: members with the same `key` count as one, and each without a key as one.

        Raises:
            TypeError: The name is not a `str`.
            ValueError: The name is invalid.
            BrokerError: The broker is unavailable.
            WebSocketRuntimeError: Before the start, after the stop, or on another event loop.
        """
        self._hub.check("count members")
        name = checked_name(channel)
        persons = checked_flag("keys", keys)
        return await (self._hub.backend.count(name, keys=True) if persons else self._hub.backend.count(name))

    async def close(
        self,
        channel: str,
        *,
        member: str | Mapping[str, Any] | None = None,
        code: int = 1000,
        reason: str | None = None,
    ) -> None:
        """Close the sockets that have joined a channel, in all processes.

        The call returns when the request is stored for all processes. They close the sockets after that. The
        body of each socket's `join` block is cancelled, and the block ends without an error.

        Args:
            channel: The channel's name.
            member: Close only some sockets: the id of a member, or values that a member's info must have,
                such as `{"user": 7}`. Default: all sockets, members or not.
            code: The close code, see `WebSocket.close`.
            reason: At most 123 bytes of UTF-8. Default: none.

        Raises:
            TypeError: An argument of the wrong type, or a value that cannot be encoded as JSON.
            ValueError: An invalid name, or a code or a reason that must not be sent.
            BrokerError: The broker is unavailable.
            WebSocketRuntimeError: Before the start, after the stop, or on another event loop.
        """
        self._hub.check("close sockets")
        code, reason = checked_close(code, reason)
        if member is not None and not isinstance(member, (str, Mapping)):
            raise TypeError(f"member must be an id or a mapping, got {type(member).__name__}")
        order = order_to_close(checked_name(channel), member, code, reason)
        await self._hub.backend.publish(CONTROL, order)


# Arguments


def _backend(url: object, *, history: int, max_age: float | None, prefix: str, **options: Any) -> Backend:
    """The backend for a URL."""
    if not isinstance(url, str):
        raise TypeError(f"url must be str or a Backend, got {type(url).__name__}")
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        # Show only the scheme, because the rest of the URL may contain a password.
        raise ValueError(
            f"the URL of channels starts with one of {', '.join(f'{name}://' for name in _SCHEMES)}; "
            f"got {'the scheme ' + repr(scheme) if separator else 'none of them'}"
        )
    if scheme == "memory":
        if url != "memory://":
            raise ValueError("the URL of channels in memory is 'memory://', without anything after it")
        if options:
            raise TypeError(f"channels in memory have no option {', '.join(map(repr, options))}")
        return MemoryBackend(history=history, max_age=max_age)
    try:
        # Imported here, because without the extra there is no client of Redis.
        from ._redis import RedisBackend
    except ImportError as error:
        raise ImportError(
            f"channels at {scheme}:// need the extra 'redis': install lilya-websockets[redis]"
        ) from error
    return RedisBackend(url, history=history, max_age=max_age, prefix=prefix, **options)


def _checked_names(names: object) -> list[str]:
    if isinstance(names, bytes) or not isinstance(names, Iterable):
        raise TypeError(f"names must be str or an iterable of str, got {type(names).__name__}")
    checked = list(dict.fromkeys(map(checked_name, names)))
    if not checked:
        raise ValueError("there must be the name of a channel, got none")
    return checked


def _checked_presence(presence: object) -> bool | Literal["keys"]:
    if isinstance(presence, bool):
        return presence
    if not isinstance(presence, str):
        raise TypeError(f"presence must be bool or 'keys', got {type(presence).__name__}")
    if presence != "keys":
        raise ValueError(f"presence must be True, False or 'keys', got {presence[:80]!r}")
    return "keys"


def _checked_history(history: object, latest: bool) -> int:
    """The number of events of the history to begin with."""
    count = checked_count("history", history)
    if latest and count:
        raise ValueError(f"latest is the newest event alone: leave out history, got {count}")
    return 1 if latest else count


def _checked_since(names: Sequence[str], since: object) -> dict[str, str]:
    """The positions to begin at, by channel."""
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
