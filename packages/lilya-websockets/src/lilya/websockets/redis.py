"""Limits over all processes, counted on Redis or Valkey. For asyncio, as the client of Redis is.

    from lilya.websockets.limits import LimitGuard
    from lilya.websockets.redis import RedisStore

    app = LimitGuard(app, messages_per_second=20, store=RedisStore("redis://localhost"))

The rules of this file:

- What belongs together is one script on the server, and the time is the server's.
- Every key on the server expires: that of a rate when it is full again, that of connections when no process
  has said for `lease` seconds that they are open.
- A call takes at most `timeout` seconds. After one that has failed, calls fail at once for a second, and then
  one of them tries again. An outage is logged once, and so is its end.

It needs the client of Redis: install `lilya-websockets[redis]`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

try:
    import anyio
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
except ModuleNotFoundError as error:
    raise ImportError(
        "lilya.websockets.redis needs the client of Redis: install lilya-websockets[redis]"
    ) from error

from ._options import checked_number
from .limits import LimitStore, Place, StoreUnavailable, Use

__all__ = ["RedisStore"]

logger: Final = logging.getLogger("lilya.websockets")

# Seconds after a failure in which nothing is asked.
_PAUSE: Final = 1.0
# Connections that are named in one command, and commands that are sent at once.
_BATCH: Final = 200
# Milliseconds that a rate is remembered at most: a year.
_LONGEST: Final = 31_536_000_000

# The server is not there, or cannot be used.
_AWAY: Final = (RedisError, OSError, EOFError, TimeoutError)

# For each key: the microseconds that one unit takes, those of the whole burst, and the amount. A key holds
# when it is full again, as `RateLimit` does. Rounding is allowed for as there.
_TAKE: Final = """
local time, after = redis.call('TIME'), {}
local now = time[1] * 1000000 + time[2]
for i, key in ipairs(KEYS) do
  local each, depth, amount = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  after[i] = math.max(tonumber(redis.call('GET', key) or '0'), now) + amount * each
  local wait = after[i] - now - depth
  if wait > each / 1000 + 1 then return {i, string.format('%.0f', wait)} end
end
for i, key in ipairs(KEYS) do
  local left = math.min(math.ceil((after[i] - now) / 1000), tonumber(ARGV[#ARGV]))
  if left > 0 then
    redis.call('SET', key, string.format('%.0f', after[i]), 'PX', string.format('%.0f', left))
  end
end
return {0, '0'}
"""

# The connection's id, the milliseconds of a lease, and for each key how many there may be. Of leases that
# have run out, some are removed each time: nobody else is served while this runs.
_ENTER: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, key in ipairs(KEYS) do
  local old = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, 500)
  if #old > 0 then redis.call('ZREM', key, unpack(old)) end
  if redis.call('ZCOUNT', key, '(' .. now, '+inf') >= tonumber(ARGV[i + 2]) then return i end
end
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, string.format('%.0f', now + tonumber(ARGV[2])), ARGV[1])
  redis.call('PEXPIRE', key, ARGV[2])
end
return 0
"""


class RedisStore(LimitStore):
    """Counts on a Redis or Valkey server, for all processes with the same prefix.

    Args:
        url: `redis://user:password@host:port/db`, `rediss://` for TLS, or `unix:///path`.
        prefix: The start of all keys. Guards whose keys mean different things, such as addresses and users,
            need different prefixes. Default: `"lilya:limits"`.
        timeout: Seconds that a call may take. Default: 0.5.
        lease: Seconds after which connections no longer count if their process does not renew them, because
            it has crashed or cannot reach the server. At least 1. Default: 30.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An argument out of range, or a URL that the client of Redis refuses.
    """

    def __init__(
        self, url: str, *, prefix: str = "lilya:limits", timeout: float = 0.5, lease: float = 30.0
    ) -> None:
        if not isinstance(prefix, str):
            raise TypeError(f"prefix must be str, got {type(prefix).__name__}")
        self._url = url
        self._prefix = prefix
        self._timeout = checked_number("timeout", timeout)
        self._lease = checked_number("lease", lease)
        if self._lease < 1:
            raise ValueError(f"lease must be at least 1, got {lease!r}")
        self._client: Any = None
        try:
            pool: Any = self._new_client().connection_pool
            pool.make_connection()  # whether the URL and its options are any
        except (TypeError, ValueError, AttributeError, RedisError):
            # What the client says may show a part of the password.
            raise ValueError(
                "the client of Redis refuses the URL: expected redis://user:password@host:port/db, "
                "rediss://… or unix:///path"
            ) from None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._quiet_until: float | None = None  # since a call has failed
        self._probing = False
        # By connection, the keys in which it counts; and those that have left.
        self._leases: dict[str, tuple[str, ...]] = {}
        self._left: dict[str, tuple[str, ...]] = {}
        self._tending: asyncio.Task[None] | None = None
        self._wake: asyncio.Event

    async def take(self, uses: Sequence[Use]) -> tuple[str, float]:
        """Use amounts; see `LimitStore.take`."""
        arguments: list[Any] = []
        for use in uses:
            if use.amount > use.burst:
                return use.limit, math.inf
            each = 1e6 / use.per_second
            arguments += [each, each * use.burst, use.amount]
        keys = [f"{self._prefix}:{use.limit}:{use.key}" for use in uses]
        number, wait = await self._ask(lambda: self._take(keys, [*arguments, _LONGEST]))
        return (uses[number - 1].limit, int(wait) / 1e6) if number else ("", 0.0)

    async def enter(self, connection: str, places: Sequence[Place]) -> str:
        """Count a connection; see `LimitStore.enter`."""
        keys = tuple(f"{self._prefix}:{place.limit}:{place.key}" for place in places)
        arguments = [connection, self._milliseconds, *(place.most for place in places)]
        try:
            number: int = await self._ask(lambda: self._enter(keys, arguments))
        except StoreUnavailable:
            self._keep(self._leases, connection, keys)
            raise
        except BaseException:  # cancelled: nobody knows whether it was counted
            self._keep(self._left, connection, keys)
            raise
        if number:
            return places[number - 1].limit
        self._keep(self._leases, connection, keys)
        return ""

    def leave(self, connection: str) -> None:
        """Stop counting a connection; see `LimitStore.leave`."""
        keys = self._leases.pop(connection, None)
        if keys is not None:
            self._keep(self._left, connection, keys)
            self._wake.set()

    async def close(self) -> None:
        """Disconnect; see `LimitStore.close`. Connections that still count do so until the lease ends."""
        task, self._tending = self._tending, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._leases.clear()
        self._left.clear()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    # The server

    @property
    def _milliseconds(self) -> int:
        return math.ceil(self._lease * 1000)

    def _new_client(self) -> Redis:
        client: Redis = Redis.from_url(
            self._url,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
            retry=Retry(NoBackoff(), 0),
        )
        return client

    def _ready(self) -> None:
        """Have a client of this event loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "limits on Redis need asyncio: its client does not run on trio. Run the app on asyncio, or "
                "use no store"
            ) from None
        if self._loop is not loop:  # what was of another one has gone with it
            self._client, self._tending, self._quiet_until, self._probing = None, None, None, False
            self._leases, self._left = {}, {}
            self._loop = loop
        if self._client is None:
            self._client = self._new_client()
            self._take = self._client.register_script(_TAKE)
            self._enter = self._client.register_script(_ENTER)

    async def _ask(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Ask the server, if it is not known to be away.

        Raises:
            StoreUnavailable: It is.
        """
        self._ready()
        if self._quiet_until is not None and (self._probing or anyio.current_time() < self._quiet_until):
            raise StoreUnavailable("the server could not be reached a moment ago")
        probes = self._probing = self._quiet_until is not None
        try:
            with anyio.fail_after(self._timeout):
                answer = await call()
        except _AWAY as error:
            if self._quiet_until is None:
                reason = str(error) or type(error).__name__
                logger.warning("limits are not counted over all processes: Redis cannot be used: %s", reason)
            self._quiet_until = anyio.current_time() + _PAUSE
            raise StoreUnavailable("the server cannot be used") from error
        finally:
            if probes:
                self._probing = False
        if self._quiet_until is not None:
            self._quiet_until = None
            logger.warning("limits are counted over all processes again")
        return answer

    # Leases

    def _keep(self, where: dict[str, tuple[str, ...]], connection: str, keys: tuple[str, ...]) -> None:
        where[connection] = keys
        if self._tending is None:
            self._wake = asyncio.Event()
            self._tending = asyncio.create_task(self._tend())

    async def _tend(self) -> None:
        """Renew leases, and give back those of connections that have left, until there are none."""
        renew_at = anyio.current_time() + self._lease / 3
        try:
            while self._leases or self._left:
                self._wake.clear()
                try:
                    await self._give_back()
                    if anyio.current_time() >= renew_at:
                        await self._renew()
                        renew_at = anyio.current_time() + self._lease / 3
                except StoreUnavailable:
                    # What has left counts until its lease ends. What is open is renewed later.
                    self._left.clear()
                    renew_at = anyio.current_time() + _PAUSE
                if self._leases and not self._left:
                    with anyio.move_on_after(max(renew_at - anyio.current_time(), 0)):
                        await self._wake.wait()
        finally:
            self._tending = None

    async def _give_back(self) -> None:
        while self._left:
            some = [self._left.popitem() for _ in range(min(len(self._left), _BATCH))]
            await self._ask(
                self._pipeline([("ZREM", key, connection) for connection, keys in some for key in keys])
            )

    async def _renew(self) -> None:
        """Say that connections are open. A server that has lost its memory learns of them anew."""
        seconds, micro = await self._ask(lambda: self._client.time())
        until = seconds * 1000 + micro // 1000 + self._milliseconds
        by_key: dict[str, list[str]] = {}
        for connection, keys in self._leases.items():
            for key in keys:
                by_key.setdefault(key, []).append(connection)
        commands: list[tuple[Any, ...]] = []
        for key, connections in by_key.items():
            for start in range(0, len(connections), _BATCH):
                scored = [part for each in connections[start : start + _BATCH] for part in (until, each)]
                commands += [("ZADD", key, *scored), ("PEXPIRE", key, self._milliseconds)]
        for start in range(0, len(commands), _BATCH):
            await self._ask(self._pipeline(commands[start : start + _BATCH]))

    def _pipeline(self, commands: Sequence[tuple[Any, ...]]) -> Callable[[], Awaitable[Any]]:
        async def send() -> None:
            async with self._client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                await pipeline.execute()

        return send
