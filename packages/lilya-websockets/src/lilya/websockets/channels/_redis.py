"""Channels on Redis, or on Valkey: a stream for each channel. For asyncio, as the client of Redis is.

The rules of this file:

- What has to happen together is one script on the broker: an event, its number and its token. So the numbers
  of a channel have no holes, and a hole in what is read is a gap, exactly.
- There are two connections. One sends what is asked for, in order, many requests at a time; one waits for
  what comes in all channels. Neither fails alone: who loses the broker takes the other's connection away,
  so that an outage has one beginning and one end, and is logged once.
- A request without an answer is sent again, in its old place, with its old number. The broker remembers the
  last number of each publisher, so what was kept already is not kept twice. That needs numbers that rise: a
  request that was refused gets a new one, and only after everything sent with it was answered.
- Keys hold the channel's name percent-encoded: no name can leave its place, and the braces around it put
  all keys of one channel into one slot of a cluster.
- The time is the broker's.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import hashlib
import logging
import math
import random
import re
import secrets
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from itertools import chain
from types import TracebackType
from typing import Any, Final, Literal
from urllib.parse import quote, urlsplit

import anyio
from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from .._options import checked_number
from ._backend import Backend, BrokerError, Event, Gap, History, Id, Member, presence_event, presence_of

__all__ = ["RedisBackend"]

logger: Final = logging.getLogger("lilya.websockets")

# Requests that are sent without waiting for an answer between them.
_BATCH: Final = 256
# Members of a channel that one script adds or removes: nobody else is served while it runs.
_MEMBERS: Final = 500
# Events of one channel that are asked for at once, and events that one `read` gives.
_COUNT: Final = 256
_GIVEN: Final = 500
# Events that are kept for readers, however short the history is: a reader is some events behind at any time.
_KEPT: Final = 4096
# Seconds for connecting, and for the answers to what was sent together. A broker that saves to a slow disk
# takes its time.
_PATIENCE: Final = 5.0
# Seconds after which an idle connection is tried, and for which a read waits on the broker at once.
_IDLE: Final = 5.0
# The same where the broker does not let a read be woken.
_IDLE_UNWOKEN: Final = 0.2
# Seconds between two looks at whether the channels that are read are the same as before.
_CHECK: Final = 30.0
# The same while there are entries in them that nobody of us has written.
_CHECK_FOREIGN: Final = 1.0
# Seconds after which a read is woken again, if it was not asleep yet.
_AGAIN: Final = 0.002
# Seconds up to which a random time is waited before trying again: the first time, and the most, after
# twice as many each time.
_FIRST_DELAY: Final = 0.1
_LAST_DELAY: Final = 5.0

_OLDEST: Final = (6, 2)

_IN_SCRIPT: Final = re.compile(r"^Error running script \(.*?\): @user_script:\d+: (@user_script: \d+: )?")

_KINDS: Final[tuple[Literal["join"], Literal["leave"]]] = ("join", "leave")

_ATTEMPTS: Final = {
    "appear": "add members to",
    "vanish": "remove members of",
    "reap": "remove members of",
    "members": "list the members of",
}

# Milliseconds: a thousand years, so that no sum of times overflows.
_LONGEST: Final = 31_536_000_000_000

# The broker is not there, or not yet; and a protocol that is not its.
_AWAY: Final = (RedisError, OSError, EOFError)

# Milliseconds stay text: to write a number of this size as text costs more than most commands.
_COMMON: Final = """
local function text(number) return string.format('%.0f', number) end

local function clock()
  local time = redis.call('TIME')
  return time[1] .. string.sub('00000' .. time[2], -6, -4)
end

-- Where a channel stands. If that is not known any more, what is left of the channel is another life's.
local function standing(events, state, epoch, field)
  local found = redis.call('HMGET', state, 'epoch', 'ms', 'seq', field)
  local seq = tonumber(found[3] or '')
  if found[1] and seq and tonumber(found[2] or '') then
    return {epoch = found[1], ms = found[2], seq = seq, field = found[4]}
  end
  redis.call('XLEN', events)  -- fails on what is no stream, and is not ours to delete
  redis.call('HSET', state, 'epoch', epoch, 'ms', '0', 'seq', '0')
  redis.call('DEL', events)
  return {epoch = epoch, ms = '0', seq = 0, field = false}
end

local function append(events, state, stands, epoch, header, data, kept, publisher, number)
  local before, ms = stands.ms, clock()
  if #ms < #before or (#ms == #before and ms < before) then ms = before end
  stands.seq = stands.seq + 1
  local seq = text(stands.seq)
  local added = redis.pcall('XADD', events, 'MAXLEN', '~', kept, ms .. '-' .. seq,
    'h', stands.epoch .. header, 'd', data)
  if type(added) == 'table' then
    if string.find(added.err, 'smaller', 1, true) then
      -- Somebody has put an entry there that claims to be of the future.
      redis.call('DEL', events)
      before, ms, seq = '0', clock(), '1'
      stands.epoch, stands.seq = epoch, 1
      redis.call('HSET', state, 'epoch', epoch)
    end
    redis.call('XADD', events, ms .. '-' .. seq, 'h', stands.epoch .. header, 'd', data)
  end
  if publisher then
    redis.call('HSET', state, 'ms', ms, 'seq', seq, publisher, number .. ' ' .. ms)
  else
    redis.call('HSET', state, 'ms', ms, 'seq', seq)
  end
  stands.ms = ms
  -- Once in a second is often enough.
  stands.untidy = stands.untidy or string.sub(before, 1, -4) ~= string.sub(ms, 1, -4)
  return ms .. '-' .. seq .. '-' .. stands.epoch
end

local function tidy(events, state, stands, age, expire)
  if age ~= '0' then
    redis.call('XTRIM', events, 'MINID', '~', text(math.max(stands.ms - age, 0)))
  end
  redis.call('PEXPIRE', events, text(expire + 1000))
  redis.call('PEXPIRE', state, text(expire + 1000))
end
"""

# Before the functions is what nearly every publish comes to: the channel and the publisher are known, and
# nothing has to be tidied. The rest would do the same, and takes a sixth more.
_PUBLISH: Final = (
    """
local events, state = KEYS[1], KEYS[2]
local epoch, kept, age, expire, header, data, publisher, number = unpack(ARGV)
local found, time = redis.call('HMGET', state, 'epoch', 'ms', 'seq', publisher), redis.call('TIME')
local before, seq = found[2], tonumber(found[3] or '')
local last = tonumber(found[4] and string.match(found[4], '^%d+') or '')
if found[1] and before and seq and last and last < tonumber(number)
  and string.sub(before, 1, -4) == time[1] then
  local ms = time[1] .. string.sub('00000' .. time[2], -6, -4)
  if ms < before then ms = before end
  seq = string.format('%.0f', seq + 1)
  local id = ms .. '-' .. seq
  local added = redis.pcall('XADD', events, 'MAXLEN', '~', kept, id,
    'h', found[1] .. header .. publisher .. ':' .. number, 'd', data)
  if type(added) == 'string' then
    redis.call('HSET', state, 'ms', ms, 'seq', seq, publisher, number .. ' ' .. ms)
    return id .. '-' .. found[1]
  end
end
"""
    + _COMMON
    + """
local stands = standing(events, state, epoch, publisher)
last = stands.field and tonumber(string.match(stands.field, '^%d+'))
if last and tonumber(number) <= last then
  -- It is kept, and the answer was lost.
  local token, stop = publisher .. ':' .. number, '+'
  repeat
    found = redis.call('XREVRANGE', events, stop, '-', 'COUNT', 100)
    for _, entry in ipairs(found) do
      if string.sub(entry[2][2] or '', 10) == token then
        return entry[1] .. '-' .. string.sub(entry[2][2], 1, 8)
      end
      stop = '(' .. entry[1]
    end
  until #found < 100
  -- It is trimmed, too: a position before everything that is kept means the same.
  local first = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)[1]
  if not first then return stands.ms .. '-' .. text(stands.seq) .. '-' .. stands.epoch end
  local ms, seq = string.match(first[1], '^(%d+)-(%d+)$')
  return ms .. '-' .. text(math.max(seq - 1, 0)) .. '-' .. stands.epoch
end
local id = append(events, state, stands, epoch, header .. publisher .. ':' .. number, data, kept,
  publisher, number)
if not last and redis.call('HLEN', state) > 64 then
  -- Publishers that have not been heard of for an hour send nothing again.
  local fields = redis.call('HGETALL', state)
  for i = 1, #fields, 2 do
    local heard = string.match(fields[i + 1], '^%d+ (%d+)$')
    if heard and heard + 3600000 < tonumber(stands.ms) then redis.call('HDEL', state, fields[i]) end
  end
end
if stands.untidy then tidy(events, state, stands, age, expire) end
return id
"""
)

_HISTORY: Final = (
    _COMMON
    + """
local events, state = KEYS[1], KEYS[2]
local epoch, age, expire, most, since_epoch, since_ms, since_seq = unpack(ARGV)
local stands = standing(events, state, epoch, '')
tidy(events, state, stands, age, expire)
local function newest(count)
  if count < 1 then return {} end
  return redis.call('XREVRANGE', events, '+', '-', 'COUNT', text(count))
end
most = tonumber(most)
local found
if since_epoch == stands.epoch and tonumber(since_seq) <= stands.seq then
  -- One more than those after it: the event itself, which shows whether it is the one that is meant.
  found = newest(math.min(most, stands.seq - since_seq + 1))
  local ms, seq = string.match(found[#found] and found[#found][1] or '', '^(%d+)-(%d+)$')
  if seq == since_seq and ms ~= since_ms then
    -- The broker lost the end of its memory, and gave the numbers again.
    since_epoch, found = '', newest(most)
  end
else
  since_epoch, found = '', newest(most)
end
return {stands.epoch, stands.ms, text(stands.seq), since_epoch, clock(), found}
"""
)

_POSITION: Final = (
    _COMMON
    + """
local events, state = KEYS[1], KEYS[2]
local epoch, age, expire = unpack(ARGV)
local stands = standing(events, state, epoch, '')
tidy(events, state, stands, age, expire)
local first = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)[1]
return {stands.epoch, stands.ms, text(stands.seq), first and first[1] or ''}
"""
)

_PRESENCE: Final = (
    _COMMON
    + """
local events, state, members, deadlines = unpack(KEYS)
-- Not all of them: Lua has room for some 8,000 values, and there are three for each member.
local epoch, kept, age, expire, action, ttl = unpack(ARGV, 1, 6)
local stands = nil
local now = clock()

local function tell(data)
  stands = stands or standing(events, state, epoch, '')
  return append(events, state, stands, epoch, 's', data, kept)
end

local function leave(id)
  if redis.call('ZREM', deadlines, id) == 1 then
    local member = redis.call('HGET', members, id)
    redis.call('HDEL', members, id)
    if member then tell(string.match(member, ' (.*)$')) end
  end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', deadlines, '-inf', now)) do leave(id) end
if action == 'appear' then
  for i = 7, #ARGV, 3 do
    if not redis.call('ZSCORE', deadlines, ARGV[i]) then
      redis.call('HSET', members, ARGV[i], tell(ARGV[i + 1]) .. ' ' .. ARGV[i + 2])
    end
    redis.call('ZADD', deadlines, text(now + ttl), ARGV[i])
  end
  redis.call('PEXPIRE', members, text(expire + ttl))
  redis.call('PEXPIRE', deadlines, text(expire + ttl))
elseif action == 'vanish' then
  for i = 7, #ARGV do leave(ARGV[i]) end
end
if stands and stands.untidy then tidy(events, state, stands, age, expire) end
return action == 'members' and redis.call('HGETALL', members) or {}
"""
)


class _Script:
    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()


_SCRIPTS: Final = {
    name: _Script(source)
    for name, source in (
        ("publish", _PUBLISH),
        ("history", _HISTORY),
        ("position", _POSITION),
        ("presence", _PRESENCE),
    )
}


class _Request:
    """What is asked of the broker: the parts of a command, and who waits for the answer."""

    __slots__ = ("future", "number", "parts", "until")

    def __init__(self, parts: Sequence[bytes], future: asyncio.Future[Any], number: int | None) -> None:
        self.parts = parts
        self.future = future
        self.until = math.inf  # when somebody stops to wait for the answer
        self.number = number  # of a publish, 0 until it is sent


class _Late(Exception):
    """There was no answer within the time limit."""


class _Limit:
    """A time limit that costs next to nothing to move: its timer is set anew only when it has come too early.

    Args:
        late: Called when the time is over.
    """

    __slots__ = ("_at", "_late", "_loop", "_timer")

    def __init__(self, late: Callable[[], object]) -> None:
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Let so many seconds be left from now on."""
        self._at = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._at, self._fire)

    def lift(self) -> None:
        """Let there be no limit. The timer finds nothing to do."""
        self._at = math.inf

    def stop(self) -> None:
        self.lift()
        if self._timer is not None:
            self._timer.cancel()

    def _fire(self) -> None:
        self._timer = None
        if self._at == math.inf:
            return
        left = self._at - self._loop.time()
        if left > 0:
            self.set(left)
        else:
            self.lift()
            self._late()


class _Use:
    """A block that uses a connection: left when another has found the broker to be away, or at a time limit.

    Raises:
        TimeoutError: At the time limit. `limit` is that of all blocks, one after the other.
    """

    def __init__(self) -> None:
        self.limit = _Limit(self._late)
        self._scope: anyio.CancelScope
        self._entered = False
        self._was_late = False

    def __enter__(self) -> None:
        self._was_late = False
        self._scope = anyio.CancelScope().__enter__()
        self._entered = True

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.limit.lift()
        self._entered = False
        left = bool(self._scope.__exit__(exc_type, exc, traceback))
        if left and self._was_late:
            raise TimeoutError from exc
        return left

    def _late(self) -> None:
        self._was_late = True
        self.leave()

    def leave(self) -> None:
        if self._entered:
            self._scope.cancel()


class RedisBackend(Backend):
    """Events and members on a Redis or Valkey server, from version 6.2 on.

    Args:
        url: `redis://user:password@host:port/db`, `rediss://` for TLS, or `unix:///path`; options of the
            client's connection may follow, as in `rediss://host?ssl_ca_certs=/path`.
        history: Events of a channel that can be asked for later, at least 1.
        max_age: Seconds for which they can; without a limit by default.
        prefix: What the keys start with. Two prefixes see nothing of each other.
        publish_timeout: Seconds in which the broker must have answered, to a publish or to anything else.
            `None` waits as long as it takes.
        expire: Seconds after which a channel that nobody publishes to or reads is forgotten. At least
            `max_age` and a minute.
    """

    ready: anyio.Event

    def __init__(
        self,
        url: str,
        *,
        history: int = 1000,
        max_age: float | None = None,
        prefix: str = "lilya",
        publish_timeout: float | None = 5.0,
        expire: float = 86_400.0,
    ) -> None:
        if isinstance(history, bool) or not isinstance(history, int):
            raise TypeError(f"history must be int, got {type(history).__name__}")
        if history < 1:
            raise ValueError(f"history must be at least 1, got {history}")
        if not isinstance(prefix, str):
            raise TypeError(f"prefix must be str, got {type(prefix).__name__}")
        self._history = history
        self._max_age = None if max_age is None else checked_number("max_age", max_age)
        self._timeout = _LONGEST / 1000
        if publish_timeout is not None:
            self._timeout = checked_number("publish_timeout", publish_timeout)
        expire = checked_number("expire", expire)
        if self._max_age is not None:
            expire = max(expire, self._max_age + 60)
        self._prefix = quote(prefix, safe="")
        self._arguments, self._where = _from_url(url)
        self._new_connection()  # whether its options are any
        # What the scripts are given: how many events are kept for readers, for how long, and how long at all.
        self._kept = b"%d" % max(history, _KEPT)
        self._age = b"%d" % _milliseconds(self._max_age or 0)
        self._expire = b"%d" % _milliseconds(expire)
        self._keys = functools.lru_cache(maxsize=10_000)(self._make_keys)
        self._task: asyncio.Task[None] | None = None

    # Starting and stopping

    async def start(self) -> None:
        """Connect; see `Backend.start`."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "channels on Redis need asyncio: its client does not run on trio. Run the app on asyncio, "
                "or use memory://"
            ) from None
        self.ready = anyio.Event()
        self._queue: deque[_Request] = deque()
        self._sent: deque[_Request] = deque()  # and not answered yet
        self._work = asyncio.Event()
        self._up = asyncio.Event()  # the connection for requests is there
        self._down: set[str] = set()  # of "requests" and "reading", what the outage has taken
        self._lost_at = 0.0
        self._attempts = 0
        self._reason = ""  # of the outage
        self._requesting, self._reading = _Use(), _Use()
        self._idling = _Limit(self._ping)
        # Whose answers somebody waits for, and not for ever. All wait equally long: so they are in order.
        self._awaited: deque[_Request] = deque()
        self._patience = _Limit(self._give_up)
        self._publisher = b"p" + secrets.token_hex(6).encode()
        self._number = 0
        self._reader: Connection | None = None
        self._abandoned: Connection | None = None  # a reader that the outage has found at rest
        self._reader_id = b""
        self._in_read = False
        self._asleep = False  # the reader waits on the broker
        self._woken = asyncio.Event()
        self._waking = False
        self._wake_again: asyncio.TimerHandle | None = None
        self._longest = _IDLE
        self._checked_at = 0.0
        self._left_over: deque[tuple[str, str, list[Event | Gap]]] = deque()
        self._foreign: dict[str, tuple[str, bytes]] = {}
        self._unreadable: set[str] = set()
        try:
            self._requests: Connection | None = await self._connect(first=True)
        except _AWAY as error:
            raise BrokerError(f"cannot use Redis at {self._where}: {_reason(error)}") from error
        self._up.set()
        self.ready.set()
        self._task = asyncio.create_task(self._serve())

    async def stop(self) -> None:
        """Disconnect; see `Backend.stop`."""
        task, self._task = self._task, None
        if task is None:
            return
        with anyio.CancelScope(shield=True):
            task.cancel()
            await asyncio.wait([task])
            for limit in (self._requesting.limit, self._reading.limit, self._idling, self._patience):
                limit.stop()
            if self._wake_again is not None:
                self._wake_again.cancel()
            for request in (*self._sent, *self._queue):
                _fail(request, BrokerError("the channels were stopped before Redis answered"))
            await self._close_reader()

    def _new_connection(self) -> Connection:
        arguments = dict(self._arguments)
        try:
            return arguments.pop("connection_class", Connection)(**arguments)  # type: ignore[no-any-return]
        except (TypeError, ValueError, RedisError) as error:
            raise ValueError(f"the URL has options that the client of Redis refuses: {error}") from None

    async def _connect(self, *, first: bool = False) -> Connection:
        """A connection on which everything is known that is used."""
        connection = self._new_connection()
        try:
            with anyio.fail_after(_PATIENCE):
                await connection.connect()  # type: ignore[no-untyped-call]
                if first:
                    await _check_server(connection)
                await _check_role(connection)
                for script in _SCRIPTS.values():
                    await _ask(connection, b"SCRIPT", b"LOAD", script.source)
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"no answer within {_PATIENCE:g} seconds") from error
            raise
        return connection

    # Requests

    async def publish(self, channel: str, data: str | bytes) -> str:
        """Append an event; see `Backend.publish`."""
        kind, payload = (b"s", data.encode()) if isinstance(data, str) else (b"b", data)
        events, state = self._keys(channel)
        answer = await self._answer(
            f"publish to {channel!r}",
            *self._script("publish", events, state),
            self._kept,
            self._age,
            self._expire,
            kind,
            payload,
            self._publisher,
            numbered=True,
        )
        return str(answer.decode())

    async def history(self, channel: str, *, last: int = 0, since: str | None = None) -> History:
        """What a channel has kept; see `Backend.history`."""
        after = None if since is None else Id.parse(since)
        most = min(last, self._history) if after is None else self._history + 1
        events, state = self._keys(channel)
        epoch, ms, seq, same, now, found = await self._answer(
            f"read the history of {channel!r}",
            *self._script("history", events, state),
            self._age,
            self._expire,
            b"%d" % most,
            *((b"", b"0", b"0") if after is None else (after.epoch.encode(), *_parts(after))),
        )
        position = Id(int(ms), int(seq), epoch.decode())
        oldest = 0 if self._max_age is None else int(now) - _milliseconds(self._max_age)
        from_seq = after.seq + 1 if after is not None and same else 0
        decoded = (_decoded(channel, raw, fields) for raw, fields in reversed(found))
        kept = [
            pair for pair in decoded if pair is not None and pair[0].ms >= oldest and pair[0].seq >= from_seq
        ]
        events_kept = [event for _, event in kept[max(len(kept) - self._history, 0) :]]
        complete = after is None or (bool(same) and len(events_kept) == position.seq - after.seq)
        return History(events_kept, complete, str(position))

    async def appear(self, members: Collection[Member], ttl: float) -> None:
        """Keep members; see `Backend.appear`."""
        await self._presence("appear", members, ttl)

    async def vanish(self, members: Collection[Member]) -> None:
        """Remove members; see `Backend.vanish`."""
        await self._presence("vanish", members)

    async def members(self, channel: str) -> Sequence[Member]:
        """Who is in a channel; see `Backend.members`."""
        found: list[bytes] = await self._about_members("members", channel)
        members = []
        for id, value in zip(found[::2], found[1::2], strict=True):
            joined, _, text = value.partition(b" ")
            member = Member(channel, id.decode(), "")
            # What stands around the info in the event that it is kept as.
            info = text.decode()[len(presence_event("leave", member)) - 1 : -1]
            members.append((self.order_of(joined.decode()), dataclasses.replace(member, info=info)))
        return [member for _, member in sorted(members, key=lambda pair: pair[0])]

    async def reap(self, channels: Collection[str]) -> None:
        """Remove the members whose time is over; see `Backend.reap`."""
        await _all(self._about_members("reap", channel) for channel in channels)

    async def _presence(self, action: str, members: Collection[Member], ttl: float = 0.0) -> None:
        per_channel: dict[str, list[tuple[bytes, ...]]] = {}
        for member in members:
            arguments = [member.id.encode()]
            if action == "appear":
                arguments += (presence_event(kind, member).encode() for kind in _KINDS)
            per_channel.setdefault(member.channel, []).append(tuple(arguments))
        await _all(
            self._about_members(action, channel, *chain(*found[at : at + _MEMBERS]), ttl=ttl)
            for channel, found in per_channel.items()
            for at in range(0, len(found), _MEMBERS)
        )

    async def _about_members(self, action: str, channel: str, *arguments: bytes, ttl: float = 0.0) -> Any:
        events, state = self._keys(presence_of(channel))
        return await self._answer(
            f"{_ATTEMPTS[action]} {channel!r}",
            *self._script("presence", events, state, events + b":members", events + b":deadlines"),
            self._kept,
            self._age,
            self._expire,
            action.encode(),
            b"%d" % _milliseconds(ttl),
            *arguments,
        )

    def _make_keys(self, channel: str) -> tuple[bytes, bytes]:
        key = f"{{{self._prefix}:{quote(channel, safe=':/')}}}".encode()
        return key, key + b":state"

    def _script(self, name: str, *keys: bytes) -> tuple[bytes, ...]:
        """A script, its keys, and what it takes for an epoch if it begins one."""
        epoch = b"%08x" % random.getrandbits(32)
        return (b"EVALSHA", _SCRIPTS[name].sha, b"%d" % len(keys), *keys, epoch)

    async def _answer(self, attempted: str, *parts: bytes, numbered: bool = False) -> Any:
        """What the broker answers, within the time limit."""
        if self._task is None:
            raise BrokerError(f"cannot {attempted}: the channels were stopped")
        request = self._request(parts, 0 if numbered else None)
        request.until = self._loop.time() + self._timeout
        awaited = self._awaited
        while awaited and awaited[0].future.done():
            awaited.popleft()
        if not awaited:
            self._patience.set(self._timeout)
        awaited.append(request)
        try:
            return await request.future
        except ResponseError as error:
            raise BrokerError(f"cannot {attempted}: Redis refuses: {_reason(error)}") from error
        except _Late:
            pass
        why = f": {self._reason}" if self._down else ""
        unknown = ". It was sent, and may have been kept" if request.number else ""
        raise BrokerError(
            f"cannot {attempted}: no answer from Redis at {self._where} within {self._timeout:g} seconds"
            f"{why}{unknown}"
        ) from None

    def _give_up(self) -> None:
        """Tell those who have waited for too long."""
        awaited, now = self._awaited, self._loop.time()
        while awaited and (awaited[0].future.done() or awaited[0].until <= now):
            _fail(awaited.popleft(), _Late())
        if awaited:
            self._patience.set(awaited[0].until - now)

    def _request(self, parts: Sequence[bytes], number: int | None = None) -> _Request:
        request = _Request(parts, self._loop.create_future(), number)
        self._queue.append(request)
        self._work.set()
        return request

    async def _serve(self) -> None:
        """Send what is asked for, and connect again as often as it takes."""
        try:
            while True:
                try:
                    if self._requests is None:
                        limit = min(_FIRST_DELAY * 2 ** min(self._attempts, 20), _LAST_DELAY)
                        self._attempts += 1
                        await asyncio.sleep(random.uniform(0, limit))
                        self._requests = await self._connect()
                        self._found("requests")
                    # One block for all that is asked on a connection: it costs more to enter than to ask. An
                    # outage is what it is left for.
                    with self._requesting:
                        while True:
                            if self._queue:
                                await self._exchange(self._requests)
                            else:
                                await self._wait_for_work()
                except _AWAY as error:
                    self._lose(error)
                await self._close_requests()
        finally:
            await self._close_requests()

    async def _close_requests(self) -> None:
        for connection in (self._requests, self._abandoned):
            if connection is not None:
                await connection.disconnect(nowait=True)
        self._requests = self._abandoned = None

    async def _wait_for_work(self) -> None:
        self._work.clear()
        self._idling.set(_IDLE)
        try:
            await self._work.wait()
        finally:
            self._idling.lift()

    def _ping(self) -> None:
        """See whether an idle connection is still there."""
        self._request((b"PING",)).future.add_done_callback(_forget)

    async def _exchange(self, connection: Connection) -> None:
        """Send what is there, and hand on the answers."""
        batch, queue = self._sent, self._queue
        while queue and len(batch) < _BATCH:
            request = queue.popleft()
            if not request.future.done():
                batch.append(request)
        if not batch:
            return
        refused: list[_Request] = []  # for want of a script
        failure: Exception | None = None
        try:
            self._requesting.limit.set(_PATIENCE)
            await connection.send_packed_command([self._packed(request) for request in batch], False)
            while batch:
                try:
                    answer = await connection.read_response()
                except NoScriptError:
                    refused.append(batch.popleft())
                except ResponseError as error:
                    _fail(batch.popleft(), error)
                    if "READONLY" in str(error) or isinstance(error, ReadOnlyError):
                        failure = error  # what was the primary is no more
                else:
                    request = batch.popleft()
                    if not request.future.done():
                        request.future.set_result(answer)
        finally:
            self._requesting.limit.lift()
            if batch:
                # Sent again it would come behind what was sent after it, with a number that says otherwise.
                for request in refused:
                    _fail(request, ResponseError("its scripts were lost while the connection was"))
                queue.extendleft(reversed(batch))
                batch.clear()
            else:
                for request in refused:
                    request.number = None if request.number is None else 0
                queue.extendleft(reversed(refused))
        if failure is not None:
            raise failure
        if refused:
            with anyio.fail_after(_PATIENCE):
                for script in _SCRIPTS.values():
                    await _ask(connection, b"SCRIPT", b"LOAD", script.source)

    def _packed(self, request: _Request) -> bytes:
        if request.number is None:
            return _packed(*request.parts)
        if not request.number:
            self._number += 1
            request.number = self._number
        return _packed(*request.parts, b"%d" % request.number)

    # The outage

    def _lose(self, error: BaseException) -> None:
        """The broker is away: nothing of either connection is trusted any more."""
        self._reason = _reason(error)
        if not self._down:
            self._lost_at = self._loop.time()
            self.ready = anyio.Event()
            logger.warning("Redis at %s is away: %s. Trying again", self._where, self._reason)
        self._down.add("requests")
        if self._in_read:
            self._down.add("reading")
        elif self._reader is not None:
            self._abandoned, self._reader = self._reader, None
        self._up.clear()
        self._requesting.leave()
        self._reading.leave()
        self._work.set()

    def _found(self, which: str) -> None:
        if which not in self._down:
            return
        self._down.discard(which)
        if which == "requests":
            self._up.set()
        if not self._down:
            self._attempts = 0  # not sooner: the broker may take one connection and no more
            self.ready.set()
            seconds = self._loop.time() - self._lost_at
            logger.warning("Redis at %s is back after %.1f seconds", self._where, seconds)

    # Reading

    async def read(self, positions: Mapping[str, str]) -> Sequence[Event | Gap]:
        """Wait for what comes after the positions; see `Backend.read`."""
        self._in_read = True
        try:
            while True:
                found = self._take(positions)
                if found:
                    return found
                try:
                    with self._reading:
                        await self._up.wait()
                        if self._reader is None:
                            self._reader = await self._connect()
                            await self._learn_to_wake(self._reader)
                            self._checked_at = -_CHECK
                        self._found("reading")
                        if not await self._compare(self._reader, positions):
                            await self._receive(self._reader, positions)
                except _AWAY as error:
                    self._lose(error)
                if "reading" in self._down:
                    await self._close_reader()
        except BaseException:
            # What the broker still has to say on this connection would be taken for another answer.
            await self._close_reader()
            raise
        finally:
            self._in_read = False
            self._found("reading")

    def _take(self, positions: Mapping[str, str]) -> list[Event | Gap]:
        """Some hundred of what was received and still comes after the positions."""
        taken: list[Event | Gap] = []
        while self._left_over and len(taken) < _GIVEN:
            channel, position, items = self._left_over.popleft()
            if positions.get(channel) == position:
                taken += items
        return taken

    async def _close_reader(self) -> None:
        connection, self._reader = self._reader, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _compare(self, connection: Connection, positions: Mapping[str, str]) -> bool:
        """Look from time to time whether the channels are what they were; whether that has found a gap.

        A channel that begins anew under a clock that was put back has nothing behind the old position. This
        also keeps what is read from expiring.
        """
        now = self._loop.time()
        if now < self._checked_at + (_CHECK_FOREIGN if self._foreign else _CHECK):
            return False
        self._checked_at = now
        self._unreadable.clear()
        channels = list(positions.items())
        for start in range(0, len(channels), _BATCH):
            part = channels[start : start + _BATCH]
            with anyio.fail_after(_PATIENCE):
                await connection.send_packed_command(
                    [
                        _packed(*self._script("position", *self._keys(channel)), self._age, self._expire)
                        for channel, _ in part
                    ],
                    False,
                )
                failure: Exception | None = None
                for channel, position in part:
                    try:
                        answer = await connection.read_response()
                    except NoScriptError as error:
                        failure = error  # a new connection has them
                    except ResponseError as error:
                        if "WRONGTYPE" in str(error):
                            self._unreadable.add(channel)
                            logger.error("channel %r cannot be read: its key is no stream", channel)
                    else:
                        new = _moved(Id.parse(position), *answer)
                        if new is not None:
                            gap = Gap(channel, position, str(new))
                            self._left_over.append((channel, position, [gap]))
                if failure is not None:
                    raise failure
        return bool(self._left_over)

    async def _receive(self, connection: Connection, positions: Mapping[str, str]) -> None:
        """Wait on the broker for what comes, but not for long."""
        self._woken.clear()
        current = {
            self._keys(channel)[0]: (channel, position)
            for channel, position in positions.items()
            if channel not in self._unreadable
        }
        longest = min(self._longest, _CHECK_FOREIGN) if self._foreign else self._longest
        if not current:
            with anyio.move_on_after(longest):
                await self._woken.wait()
            return
        ids = [self._read_after(channel, position) for channel, position in current.values()]
        command = (b"XREAD", b"COUNT", b"%d" % _COUNT, b"BLOCK", b"%d" % _milliseconds(longest), b"STREAMS")
        self._asleep = True
        try:
            self._reading.limit.set(longest + _PATIENCE)
            answer = await _ask(connection, *command, *current, *ids)
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            self._checked_at = -_CHECK  # finds out which of them it is
            return
        finally:
            self._reading.limit.lift()
            self._asleep = False
        for key, entries in answer or ():
            channel, position = current[key]
            items = self._read_entries(channel, Id.parse(position), entries)
            self._left_over.append((channel, position, items))

    def _read_after(self, channel: str, position: str) -> bytes:
        at, behind = self._foreign.get(channel, ("", b""))
        if at == position:
            return behind
        self._foreign.pop(channel, None)
        return position.rpartition("-")[0].encode()

    def _read_entries(self, channel: str, at: Id, entries: Iterable[tuple[bytes, Any]]) -> list[Event | Gap]:
        """The events of a channel from a position on, and the gaps between them."""
        items: list[Event | Gap] = []
        for raw, fields in entries:
            decoded = _decoded(channel, raw, fields)
            if decoded is None:
                before = at
                ms, seq = raw.split(b"-")
                if int(seq) == at.seq + 1:  # one of ours, and damaged
                    at = Id(int(ms), at.seq + 1, at.epoch)
                else:
                    self._foreign[channel] = (str(at), raw)
                logger.error("entry %s of channel %r is no event: a gap", raw.decode(), channel)
                items.append(Gap(channel, str(before), str(at)))
                continue
            id, event = decoded
            if id.seq != at.seq + 1 or id.epoch != at.epoch:
                items.append(Gap(channel, str(at), str(id._replace(seq=id.seq - 1))))
            items.append(event)
            at = id
        return items

    # Waking

    async def _learn_to_wake(self, connection: Connection) -> None:
        """What the reader is called at the broker, and whether it may be called there."""
        try:
            self._reader_id = b"%d" % await _ask(connection, b"CLIENT", b"ID")
            await _ask(connection, b"CLIENT", b"UNBLOCK", self._reader_id)
        except ResponseError as error:
            if self._longest > _IDLE_UNWOKEN:
                self._longest = _IDLE_UNWOKEN
                logger.warning(
                    "Redis at %s does not let a read be woken: %s. New channels are read after up to %g "
                    "seconds. Allow the user `CLIENT ID` and `CLIENT UNBLOCK`",
                    self._where,
                    _reason(error),
                    _IDLE_UNWOKEN,
                )

    def wake(self) -> None:
        """Make `read` look at the positions anew; see `Backend.wake`."""
        self._woken.set()
        if self._asleep and not self._waking and self._longest > _IDLE_UNWOKEN:
            self._waking = True
            request = self._request((b"CLIENT", b"UNBLOCK", self._reader_id))
            request.future.add_done_callback(self._after_waking)

    def _after_waking(self, future: asyncio.Future[Any]) -> None:
        self._waking = False
        if future.exception() is None and not future.result() and self._asleep and self._woken.is_set():
            # It was not asleep yet: the two connections are not in step.
            self._wake_again = self._loop.call_later(_AGAIN, self.wake)


def _from_url(url: str) -> tuple[dict[str, Any], str]:
    """What the client's connection is made with, and where that is: without the password."""
    expected = "redis://user:password@host:port/db, rediss://… or unix:///path"
    try:
        # What comes of a wrong URL may hold parts of the password.
        arguments: dict[str, Any] = dict(parse_url(url))
        path = urlsplit(url).path.strip("/")
    except ValueError:
        raise ValueError(
            f"not a URL of Redis: expected {expected}, with `/`, `#`, `?` and `%` in a password encoded as "
            "`%2F`, `%23`, `%3F` and `%25`"
        ) from None
    if "path" in arguments:
        where = arguments["path"]
    else:
        if path and not path.isdecimal():
            raise ValueError(f"not a URL of Redis: the database must be a number, got {path[:80]!r}")
        where = f"{arguments.get('host', 'localhost')}:{arguments.get('port', 6379)}"
    arguments.update(
        decode_responses=False,
        health_check_interval=0,
        protocol=2,
        # Time limits and trying again are ours.
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        retry_on_timeout=False,
        socket_connect_timeout=None,
        socket_timeout=None,
    )
    return arguments, where


def _packed(*parts: bytes) -> bytes:
    """A command in the protocol of Redis."""
    return b"*%d\r\n%b" % (len(parts), b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]))


async def _ask(connection: Connection, *parts: bytes) -> Any:
    await connection.send_packed_command([_packed(*parts)], False)
    return await connection.read_response()


async def _check_server(connection: Connection) -> None:
    """Whether this is a server that can be used."""
    try:
        answer: bytes = await _ask(connection, b"INFO")
    except ResponseError:  # a user who is not allowed to ask
        return
    lines = (line.partition(":") for line in answer.decode("utf-8", "replace").splitlines())
    info = {name: value for name, _, value in lines}
    version = info.get("redis_version", "")
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise RedisError(f"it is version {version}, and channels need {_OLDEST[0]}.{_OLDEST[1]} or newer")
    if info.get("cluster_enabled") == "1":
        raise RedisError(
            "it is a node of a cluster. Give each of several `Channels` a server of its own instead"
        )


async def _check_role(connection: Connection) -> None:
    """Whether it can be published to."""
    try:
        role = await _ask(connection, b"ROLE")
    except ResponseError:
        return
    if role[0] != b"master":
        raise RedisError("it is a replica, which cannot be published to: name the primary")


async def _all(calls: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Await all, at the same time, and raise the first error when all have ended."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _fail(request: _Request, error: Exception) -> None:
    if not request.future.done():
        request.future.set_exception(error)


def _forget(future: asyncio.Future[Any]) -> None:
    future.exception()  # asyncio complains about one that nobody has seen


def _moved(at: Id, epoch: bytes, ms: bytes, seq: bytes, first: bytes) -> Id | None:
    """From where a channel can be read on, if a position is none in it any more."""
    end = Id(int(ms), int(seq), epoch.decode())
    if end.epoch == at.epoch:
        return end if end.seq < at.seq else None
    begin, _, number = first.partition(b"-")
    return end._replace(ms=int(begin), seq=max(int(number) - 1, 0)) if first else end


def _decoded(channel: str, raw: bytes, fields: Any) -> tuple[Id, Event] | None:
    """An entry of a stream as the event that it holds, if it does."""
    try:
        header_name, header, data_name, data = fields
        id = Id.parse(f"{raw.decode()}-{header[:8].decode()}")
        kind = header[8:9]
        if (header_name, data_name) != (b"h", b"d") or kind not in (b"s", b"b"):
            return None
        return id, Event(channel, str(id), data.decode() if kind == b"s" else data)
    except (TypeError, ValueError):
        return None


def _milliseconds(seconds: float) -> int:
    return min(math.ceil(seconds * 1000), _LONGEST)


def _parts(id: Id) -> tuple[bytes, bytes]:
    return b"%d" % id.ms, b"%d" % id.seq


def _reason(error: BaseException | None) -> str:
    # Redis 6 says first where in a script it was, and the client of Redis 5 nothing of what TLS says.
    text = _IN_SCRIPT.sub("", str(error)) or type(error).__name__
    context = error and error.__context__
    return f"{text} {context}" if type(context).__name__.startswith("SSL") else text
