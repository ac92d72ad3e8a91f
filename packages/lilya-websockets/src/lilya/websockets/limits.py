"""Limits on the number of WebSockets, their handshakes, and what clients send.

    from lilya.websockets.limits import LimitGuard

    app = LimitGuard(app, connections=10_000, connections_per_key=20, handshakes_per_second=5)

The rules of this file:

- A limit counts in this process, and with a `store` in all processes, too. Without one nothing here waits.
- What is kept is bounded: of open connections by their number, of rates by `max_keys`. A key that has its
  whole burst is forgotten, because a new one would be treated the same.
- A connection counts from its handshake until the app has left it, whatever the client does.
- A message costs nothing more than before where there is no limit for messages.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from hashlib import blake2b
from ipaddress import AddressValueError, IPv6Address
from typing import Any, Final, Literal, NamedTuple, cast

import anyio

from ._messages import checked_close, size_of_text
from ._options import checked_count, checked_number
from ._websocket import WebSocket
from .datastructures import Address
from .observing import explain
from .types import AnyASGIApp, Message, Receive, Scope, Send

__all__ = ["LimitGuard", "LimitStore", "Place", "RateLimit", "StoreUnavailable", "Use", "client_key"]

logger: Final = logging.getLogger("lilya.websockets")

_MAX_KEYS: Final = 100_000
_KEY: Final = 64  # characters; of a longer key, which a client may have chosen, a digest is kept
_CLOSING: Final = 1.0  # seconds that a close may take
_DAY: Final = 86_400  # seconds: the longest `Retry-After`


def client_key(scope: Scope) -> str | None:
    """Return the client's address as the server reports it; for IPv6, the network of its first 64 bits.

    Args:
        scope: An ASGI scope.

    Returns:
        The address or network, or `None` if the server reports none, as on a Unix socket.
    """
    client = Address.of(scope.get("client"))
    if client is None or not client.host:
        return None
    host = str(client.host)
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host.partition("%")[0])
    except AddressValueError:
        return host
    if address.ipv4_mapped is not None:  # an IPv4 client on a socket for both
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


class RateLimit:
    """Limits what each key may use per second, in this process.

    Args:
        per_second: The amount that a key may use per second, on average.
        burst: The amount that it may use at once. Default: as much as in one second, at least 1.
        max_keys: The number of keys to remember. Default: 100,000. If there are more, the one that was used
            least recently is forgotten, and may use its burst again.
        clock: Returns the time in seconds. Default: `time.monotonic`.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An argument out of range.

    It is a token bucket (GCRA): one number for each key.
    """

    def __init__(
        self,
        per_second: float,
        *,
        burst: float | None = None,
        max_keys: int = _MAX_KEYS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.per_second = checked_number("per_second", per_second)
        """The amount that a key may use per second, on average."""
        self.burst = max(1.0, per_second) if burst is None else checked_number("burst", burst)
        """The amount that it may use at once."""
        self._each = 1 / self.per_second
        self._depth = self.burst * self._each
        self._rounding = self._each / 1000 + 1e-9
        self._max_keys = checked_count("max_keys", max_keys, least=1)
        self._clock = clock
        # By key, when it has its whole burst again. The key that was used least recently stands first.
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()
        self.refused = 0
        """The number of times that a key was refused."""

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._full_at)

    def take(self, key: Hashable, amount: float = 1.0) -> float:
        """Use an amount, if the key has it.

        Args:
            key: The key that uses the amount.
            amount: The amount, 0 or more.

        Returns:
            0.0 if the amount was used. Otherwise nothing was used, and this is the number of seconds after
            which the key will have enough, or infinity if the amount is larger than the burst.

        Raises:
            ValueError: A negative amount.
        """
        if amount < 0:
            raise ValueError(f"amount must be at least 0, got {amount!r}")
        key = _short(key)
        now = self._clock()
        kept = self._full_at
        for _ in range(2):  # so that they become fewer, and each call costs the same
            if kept and kept[next(iter(kept))] <= now:
                kept.popitem(last=False)
        after = max(kept.get(key, now), now) + amount * self._each
        wait = after - now - self._depth
        if wait > self._rounding:
            self.refused += 1
            return math.inf if amount * self._each > self._depth else wait
        kept[key] = after
        kept.move_to_end(key)
        if len(kept) > self._max_keys:
            kept.popitem(last=False)
        return 0.0


class StoreUnavailable(Exception):
    """A `LimitStore` cannot be reached."""


class Use(NamedTuple):
    """An amount of a rate that a key asks for."""

    limit: str
    """The rate's name. Each key has its own amount in each rate."""
    key: str
    """The key that asks."""
    per_second: float
    """The amount that the key may use per second, on average."""
    burst: float
    """The amount that it may use at once."""
    amount: float = 1.0
    """The amount that it asks for."""


class Place(NamedTuple):
    """A limited number of connections, of which a connection asks to be one."""

    limit: str
    """The limit's name. Each key has its own number in each limit."""
    key: str
    """The key that the connections belong to; `""` for those of all keys."""
    most: int
    """The largest number of connections."""


class LimitStore(ABC):
    """Counts for several processes. `lilya.websockets.redis.RedisStore` is one.

    Every method is called in the event loop of the app.
    """

    @abstractmethod
    async def take(self, uses: Sequence[Use]) -> tuple[str, float]:
        """Use several amounts: all of them or none. If this is cancelled, they may have been used.

        Returns:
            The name of the first limit that would be exceeded, and the number of seconds after which the key
            will have enough, or infinity if the amount is larger than the burst. `""` and 0.0 if all amounts
            were used.

        Raises:
            StoreUnavailable: It is not known whether they were used.
        """

    @abstractmethod
    async def enter(self, connection: str, places: Sequence[Place]) -> str:
        """Count a connection, in all places or in none. If this is cancelled, it counts until `leave`.

        Args:
            connection: A unique id of the connection.
            places: The places where it counts.

        Returns:
            The name of the first limit that is reached, or `""` if the connection was counted.

        Raises:
            StoreUnavailable: The connection could not be counted. It is counted as soon as the store is
                available again, until `leave`.
        """

    @abstractmethod
    def leave(self, connection: str) -> None:
        """Stop counting a connection. This does nothing if it is not counted."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections to servers. You can use the store again afterwards."""


class LimitGuard:
    """An ASGI app that refuses WebSockets beyond its limits, and passes everything else on to your app.

    A refused handshake is answered with 429 (too many of this key) or 503 (too many in total), and with
    `Retry-After`. Servers that cannot send a response before accepting answer with 403. The connection of a
    client that sends too much is closed, and the app receives a disconnect with that code and reason.

    Limits hold in this process, and with a `store` also across all processes that share it. For limits by
    address and by user, put one guard around another.

    Args:
        app: The app to guard, of any framework.
        connections: The number of WebSockets that may be open in total. Default: any number.
        connections_per_key: The number of WebSockets that each key may have open. Default: any number.
        handshakes_per_second: The handshakes that each key may start per second on average, and as many at
            once. Default: any number.
        messages_per_second: The messages that each key may send per second over all its connections, on
            average, and as many at once. Default: any number.
        bytes_per_second: The same for bytes; text counts as UTF-8. A larger message closes the connection.
        key: A function that gets the scope, and returns the key of the connection, or `None` if only
            `connections` applies. Default: `client_key`, the client's address.
        retry_after: Seconds after which a client may try again if there were too many connections.
        code: The close code for too many messages or bytes, see `WebSocket.close`. Default: 1008.
        store: A store that counts for all processes. Each limit then holds in each process and across all of
            them. Keys must be `str`, `bytes` or `int`. Default: none.
        outage: What to do while the store is unavailable. `"open"`, the default: limits hold in each
            process only. `"closed"`: handshakes are answered with 503, and connections whose messages are
            limited are closed with 1013 at the next message.

    To set another burst, or to share a rate between guards, pass a `RateLimit` instead of a number.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An argument out of range.

    RFC 6585 section 4; RFC 9110 section 10.2.3; RFC 6455 section 7.4.
    """

    def __init__(
        self,
        app: AnyASGIApp,
        *,
        connections: int | None = None,
        connections_per_key: int | None = None,
        handshakes_per_second: float | RateLimit | None = None,
        messages_per_second: float | RateLimit | None = None,
        bytes_per_second: float | RateLimit | None = None,
        key: Callable[[Scope], Hashable] = client_key,
        retry_after: float = 10.0,
        code: int = 1008,
        store: LimitStore | None = None,
        outage: Literal["open", "closed"] = "open",
    ) -> None:
        self.app = app
        self.open = 0
        """The number of open WebSockets."""
        self.refused = dict.fromkeys(_REFUSALS, 0)
        """The number of refused handshakes and closed connections, by the name of the limit."""
        self._most = _count("connections", connections)
        self._most_per_key = _count("connections_per_key", connections_per_key)
        self._handshakes = _rate("handshakes_per_second", handshakes_per_second)
        self._messages = _rate("messages_per_second", messages_per_second)
        self._bytes = _rate("bytes_per_second", bytes_per_second)
        self._key = key
        self._retry_after = checked_number("retry_after", retry_after, least=0.0)
        self._code, _ = checked_close(code, None)
        if store is not None and not isinstance(store, LimitStore):
            raise TypeError(f"store must be a LimitStore, got {type(store).__name__}")
        if outage not in ("open", "closed"):
            raise ValueError(f"outage must be 'open' or 'closed', got {outage!r}")
        self._store = store
        self._outage = outage
        self._open_of: dict[Hashable, int] = {}

    def open_of(self, key: Hashable) -> int:
        """Return the number of open WebSockets of a key, or 0 without `connections_per_key`."""
        return self._open_of.get(_short(key), 0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Refuse the connection, or let the app have it."""
        if scope["type"] != "websocket":
            try:
                await self.app(scope, receive, send)
            finally:
                if scope["type"] == "lifespan" and self._store is not None:
                    await self._store.close()
            return
        whose = self._key(scope)
        key = _short(whose)
        name, wait = self._refusal(key)
        if name:
            await self._refuse(name, wait, scope, receive, send)
            return
        counts = self._most_per_key is not None and key is not None
        self.open += 1
        if counts:
            self._open_of[key] = self._open_of.get(key, 0) + 1
        try:
            if self._store is None:
                await self._let_in(key, None, scope, receive, send)
            else:
                await self._ask_first(self._store, whose, scope, receive, send)
        finally:
            self.open -= 1
            if counts:
                left = self._open_of.pop(key) - 1
                if left:
                    self._open_of[key] = left

    async def _ask_first(
        self, store: LimitStore, whose: Hashable, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Let the app have the connection, if the limits over all processes allow it."""
        shared = None if whose is None else _shared_key(whose)
        connection = secrets.token_hex(8)
        try:
            try:
                name, wait = await self._shared_refusal(store, shared, connection)
            except StoreUnavailable:
                name, wait = ("store" if self._outage == "closed" else ""), self._retry_after
            if name:
                await self._refuse(name, wait, scope, receive, send)
            else:
                await self._let_in(_short(whose), shared, scope, receive, send)
        finally:
            store.leave(connection)

    async def _let_in(
        self, key: Hashable, shared: str | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if key is None or (self._messages is None and self._bytes is None):
            await self.app(scope, receive, send)
        else:
            await _Metered(self, key, shared, scope, receive, send).run()

    async def _refuse(self, name: str, wait: float, scope: Scope, receive: Receive, send: Send) -> None:
        self.refused[name] += 1
        status, text = _REFUSALS[name]
        explain(scope, name, by="LimitGuard")
        headers = {"retry-after": str(math.ceil(min(max(wait, 1), _DAY)))}
        await WebSocket(scope, receive, send).deny(status, text, headers)

    def _refusal(self, key: Hashable) -> tuple[str, float]:
        """The limit that a handshake exceeds, `""` for none, and the seconds after which to come again."""
        if key is not None:
            if self._handshakes is not None and (wait := self._handshakes.take(key)):
                return "handshakes_per_second", wait
            if self._most_per_key is not None and self._open_of.get(key, 0) >= self._most_per_key:
                return "connections_per_key", self._retry_after
        if self._most is not None and self.open >= self._most:
            return "connections", self._retry_after
        return "", 0.0

    async def _shared_refusal(self, store: LimitStore, key: str | None, connection: str) -> tuple[str, float]:
        """The same over all processes."""
        if key is not None and self._handshakes is not None:
            rate = self._handshakes
            name, wait = await store.take([Use("handshakes_per_second", key, rate.per_second, rate.burst)])
            if name:
                return name, wait
        places = []
        if key is not None and self._most_per_key is not None:
            places.append(Place("connections_per_key", key, self._most_per_key))
        if self._most is not None:
            places.append(Place("connections", "", self._most))
        return (await store.enter(connection, places)) if places else "", self._retry_after

    async def _shared_excess(self, key: str, message: Message) -> str:
        """The limit over all processes that a message exceeds; `""` if there is none."""
        uses = []
        if self._messages is not None:
            uses.append(Use("messages_per_second", key, self._messages.per_second, self._messages.burst))
        if self._bytes is not None:
            uses.append(
                Use("bytes_per_second", key, self._bytes.per_second, self._bytes.burst, _size(message))
            )
        try:
            return (await cast(LimitStore, self._store).take(uses))[0]
        except StoreUnavailable:
            return "store" if self._outage == "closed" else ""

    def _excess(self, key: Hashable, message: Message) -> str:
        """The limit that a message exceeds; `""` if there is none."""
        if self._messages is not None and self._messages.take(key):
            return "messages_per_second"
        if self._bytes is not None and self._bytes.take(key, _size(message)):
            return "bytes_per_second"
        return ""


# By limit: the status and the body for a handshake, or the reason of a close.
_REFUSALS: Final = {
    "connections": (503, "There are too many connections."),
    "connections_per_key": (429, "You have too many connections."),
    "handshakes_per_second": (429, "You connect too often."),
    "messages_per_second": (0, "too many messages"),
    "bytes_per_second": (0, "too many bytes"),
    "store": (503, "Try again later."),
}


class _Exceeded(ConnectionError):
    """What a send raises after the client was found to send too much."""


class _Metered:
    """One connection whose messages are counted, between server and app.

    The close goes out when the app has ended, or closes: `receive` must not wait for a client to read.
    """

    def __init__(
        self,
        guard: LimitGuard,
        key: Hashable,
        shared: str | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._guard = guard
        self._key = key
        self._shared = shared  # the key in the store, if there is one
        self._scope = scope
        self._receive = receive
        self._send = send
        self._kept: Message | None = None  # received, and the store is being asked
        self._limit = ""  # that the client has exceeded
        self._end: Message | None = None  # what the app receives when the client has sent too much
        self._closed = False  # whether the app, or this, has sent a close

    async def run(self) -> None:
        try:
            await self._guard.app(self._scope, self.receive, self.send)
        finally:
            if self._end is not None:
                await self._close(self._end)

    async def receive(self) -> Message:
        if self._end is None:
            message, name = self._kept, ""
            if message is None:
                message = await self._receive()
                if message["type"] != "websocket.receive":
                    return message
                name = self._guard._excess(self._key, message)
            if self._shared is not None and not name:
                self._kept = message  # if this is cancelled, it comes next time
                name = await self._guard._shared_excess(self._shared, message)
                self._kept = None
            if not name:
                return message
            self._guard.refused[name] += 1
            self._limit = name
            code, reason = self._guard._code, _REFUSALS[name][1]
            if name == "store":
                code, reason = 1013, "try again later"
            self._end = {"type": "websocket.disconnect", "code": code, "reason": reason}
        return dict(self._end)

    async def send(self, message: Message) -> None:
        closes = message["type"] == "websocket.close"
        if self._end is None:
            self._closed = self._closed or closes
            await self._send(message)
        elif closes:
            await self._close(self._end)
        else:
            raise _Exceeded(f"the client is being disconnected: {self._end['reason']}")

    async def _close(self, end: Message) -> None:
        if self._closed:
            return
        self._closed = True
        explain(self._scope, self._limit, by="LimitGuard")
        with anyio.move_on_after(_CLOSING, shield=True):
            try:
                await self._send({**end, "type": "websocket.close"})
            except Exception as error:
                logger.debug("the server refused to close", exc_info=error)


def _size(message: Message) -> int:
    """The bytes of a message's payload."""
    data = message.get("bytes")
    if data is not None:
        return len(data)
    return size_of_text(message.get("text") or "")


def _short(key: Hashable) -> Hashable:
    """The key, or a digest of a long one, so that the memory of a key is bounded."""
    if not isinstance(key, (str, bytes)) or len(key) <= _KEY:
        return key
    data = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    return blake2b(data, digest_size=16).digest()


def _shared_key(key: Hashable) -> str:
    """A key as other processes have it, too: a digest, so that no address or name is kept elsewhere."""
    if not isinstance(key, (str, bytes, int)):
        raise TypeError(f"with a store, a key must be str, bytes or int, got {type(key).__name__}")
    data = key if isinstance(key, bytes) else str(key).encode("utf-8", "surrogatepass")
    kind = b"b" if isinstance(key, bytes) else b"s" if isinstance(key, str) else b"i"
    return blake2b(data, digest_size=16, person=kind).hexdigest()


def _count(name: str, value: int | None) -> int | None:
    return None if value is None else checked_count(name, value)


def _rate(name: str, value: float | RateLimit | None) -> RateLimit | None:
    if value is None or isinstance(value, RateLimit):
        return value
    return RateLimit(checked_number(name, value))
