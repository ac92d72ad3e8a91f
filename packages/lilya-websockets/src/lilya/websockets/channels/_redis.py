"""Channels on Redis or Valkey: a stream for each channel. For asyncio only, because redis-py is.

One script appends an event to the stream of its channel and pushes it to all processes. It numbers the events
without a hole, so a process notices when a push is missing. `_feed` takes what is pushed, and reads from the
stream only what is missing. `_link` keeps the three connections: to publish, to ask, and to hear what is
pushed. All times are the server's.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import math
import secrets
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote, unquote

import anyio
from redis.asyncio.connection import Connection
from redis.exceptions import AskError, ClusterDownError, RedisError, ResponseError

from .._options import checked_number
from ._backend import (
    NO_WISHES,
    Backend,
    BrokerError,
    Event,
    Gap,
    History,
    Id,
    Member,
    Status,
    Wishes,
    channel_of,
    json_text,
    presence_event,
    presence_of,
)
from ._cluster import Cluster, Node, Route
from ._entries import Standing, decoded, encoded, floor_of, is_lasting
from ._feed import Feed
from ._keys import Keys, epoch
from ._link import Asking, Link, Pipe, ask, new_connection, reason
from ._listening import Listener, Words
from ._places import Place
from ._sentinel import finder
from ._status import ANSWERS, QUESTIONS, Answers, question

__all__ = ["RedisBackend"]

T = TypeVar("T")

# Members of a channel that one script adds or removes. A script blocks the server for everybody else.
_MEMBERS: Final = 500
# Events that are kept at least, so that a process can catch up after a short outage.
_KEPT: Final = 128
# Channels that are looked at together, and that one question to the processes is about.
_LOOKED_AT: Final = 256
# Requests under way at a time: publishes and presence, and what has large answers.
_PUBLISHES: Final = 256
_QUESTIONS: Final = 64

_OLDEST: Final = (6, 2)
_OLDEST_IN_CLUSTER: Final = (7, 0)

_SHARDED_WORDS: Final = Words(b"SSUBSCRIBE", b"SUNSUBSCRIBE", b"smessage")

_OF_MEMBERS: Final = (b"members", b"deadlines", b"keys")
_KINDS: Final[tuple[Literal["join"], Literal["leave"]]] = ("join", "leave")

_ATTEMPTS: Final = {
    "appear": "add members to",
    "vanish": "remove members of",
    "reap": "remove members of",
    "members": "list the members of",
    "count": "count the members of",
    "count keys": "count the members of",
}

# Before the first event, whatever the life.
_NO_EVENT: Final = "0-0-00000000"

# Milliseconds: a thousand years, so that no sum of times overflows.
_LONGEST: Final = 31_536_000_000_000

# What is raised if the server is away or still starting, or if it speaks another protocol.
_AWAY: Final = (RedisError, OSError, EOFError, ValueError)


class RedisBackend(Backend):
    """Events and members on a Redis or Valkey server, from version 6.2 on.

    Args:
        url: `redis://user:password@host:port/db`, `rediss://` for TLS, or `unix:///path`; options of the
            client's connection may follow, as in `rediss://host?ssl_ca_certs=/path`. `valkey://` and
            `valkeys://` mean the same. `redis+sentinel://host:port,host:port/service/db` is the primary that
            these sentinels name, and `redis+cluster://host:port,host:port` a cluster with these nodes.
        history: Events of a channel that can be asked for later, at least 1.
        max_age: Seconds for which they can; without a limit by default.
        prefix: What the keys start with. Two prefixes see nothing of each other.
        publish_timeout: Seconds in which the broker must have answered, to a publish or to anything else.
            `None` waits as long as it takes.
        expire: Seconds after which a channel that nobody publishes to or reads is forgotten. At least
            `max_age` and a minute.
        credentials: A `CredentialProvider` of the client, which names the user and the password of each new
            connection.
        client: A `redis.asyncio.Redis`. Connections are made with its address and options, and it is not used
            itself. The URL is `redis://`, alone.
    """

    def __init__(
        self,
        url: str,
        *,
        history: int = 1000,
        max_age: float | None = None,
        prefix: str = "lilya",
        publish_timeout: float | None = 5.0,
        expire: float = 86_400.0,
        credentials: Any = None,
        client: Any = None,
    ) -> None:
        if isinstance(history, bool) or not isinstance(history, int):
            raise TypeError(f"history must be int, got {type(history).__name__}")
        if history < 1:
            raise ValueError(f"history must be at least 1, got {history}")
        if not isinstance(prefix, str):
            raise TypeError(f"prefix must be str, got {type(prefix).__name__}")
        self._history = history
        self._max_age = None if max_age is None else checked_number("max_age", max_age)
        self.timeout = _LONGEST / 1000
        if publish_timeout is not None:
            self.timeout = checked_number("publish_timeout", publish_timeout)
        expire = checked_number("expire", expire)
        if self._max_age is not None:
            expire = max(expire, self._max_age + 60)
        self._place = (
            Place.of(url, credentials) if client is None else Place.of_client(url, client, credentials)
        )
        self.where = self._place.where
        new_connection(self._place.arguments, lambda: None)  # raises for options that redis-py does not know
        self._in_cluster = self._place.kind == "cluster"
        self._keys = Keys(prefix, self._place.database, in_cluster=self._in_cluster)
        # What the scripts are given: how many events are kept, for how long, and how long at all.
        self._kept = b"%d" % max(history, _KEPT)
        self._age = b"%d" % _milliseconds(self._max_age or 0)
        self._expire = b"%d" % _milliseconds(expire)
        self._servers: Link | Cluster | None = None
        self._listener: Listener | None = None  # of the one server that there is
        self._ready = anyio.Event()  # as long as there is no link

    # Starting and stopping

    @property
    def ready(self) -> anyio.Event:  # type: ignore[override]  # never set from outside
        """See `Backend.ready`."""
        return self._ready if self._servers is None else self._servers.ready

    async def start(self) -> None:
        """Connect; see `Backend.start`."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "channels on Redis need asyncio: its client does not run on trio. Run the app on asyncio, "
                "or use memory://"
            ) from None
        # A new name at each start: the server compares the numbers of publishes by name, and they begin at 1.
        self._publisher = b"p" + secrets.token_hex(6).encode()
        self._is_known = False
        try:
            self._servers = await (self._start_cluster() if self._in_cluster else self._start_link())
        except _AWAY as error:
            raise BrokerError(f"cannot use Redis at {self.where}: {reason(error)}") from error
        self._is_known = True

    async def _start_link(self) -> Link:
        find = finder(self._place) if self._place.kind == "sentinel" else None
        link = Link(self._place.arguments, self.where, self._prepare, self._keys.scripts, find=find)
        # The first line of a link is the one that tries again in an outage. It is the one that is always
        # open.
        publishing = self._publishing_pipe(link)
        self._publishing: Asking = publishing
        self._asking: Asking = self._asking_pipe(link)
        listener: Listener
        self._feed = self._feed_at(lambda slot: listener)
        listener = Listener(link, self._feed, Words())
        self._listener = listener
        # Connect here and not in the line's task, so that `start` raises what is wrong.
        publishing.line.start(await publishing.line.connect())
        return link

    async def _start_cluster(self) -> Cluster:
        # One sequence for all nodes: a slot that moves takes the last number of this publisher along.
        numbers = itertools.count(1)

        def make(link: Link) -> Node:
            return Node(
                link,
                self._publishing_pipe(link, numbers=numbers),
                self._asking_pipe(link, came=asking.came),
                Listener(link, self._feed, _SHARDED_WORDS),
            )

        cluster = Cluster(self._place, make, self._prepare, self._keys.scripts)
        asking = Route(cluster, "asking", timeout=self.timeout, patient=True)
        self._publishing = Route(cluster, "publishing", timeout=self.timeout, patient=False)
        self._asking = asking
        self._feed = self._feed_at(cluster.listener, cluster.astray)
        cluster.settled, cluster.lost = self._feed.settle, self._feed.forget
        try:
            await cluster.start()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await cluster.stop()
            raise
        return cluster

    def _publishing_pipe(self, link: Link, **options: Any) -> Pipe:
        return Pipe(link, "publishing", most=_PUBLISHES, timeout=self.timeout, patient=False, **options)

    def _asking_pipe(self, link: Link, **options: Any) -> Pipe:
        return Pipe(link, "asking", most=_QUESTIONS, timeout=self.timeout, patient=True, **options)

    def _feed_at(
        self,
        place: Callable[[int], Listener | None],
        astray: Callable[[int, ResponseError | None], None] = lambda slot, error: None,
    ) -> Feed:
        return Feed(self._asking, self._keys, place=place, astray=astray, age=self._age, expire=self._expire)

    async def stop(self) -> None:
        """Disconnect; see `Backend.stop`."""
        servers, self._servers = self._servers, None
        if servers is None:
            return
        with anyio.CancelScope(shield=True):
            await self._feed.stop()
            await servers.stop()
            if self._listener is not None:
                self._listener.stop()
            self._publishing.stop()
            self._asking.stop()

    async def _prepare(self, connection: Connection, line: str) -> None:
        """Check that a connection can be used for what its line does."""
        # Each new connection is checked: after an outage it may be another server, or the user may have other
        # rights.
        if not self._is_known:
            await _check_server(connection, in_cluster=self._in_cluster)
        await _check_role(connection)
        if line == "publishing":
            await _check_push(connection, self._keys)
        elif line == "asking" and not self._in_cluster:
            # What memory this server has is learned with each connection: it may have come back without its
            # data.
            key = self._keys.memory_of(0)
            await ask(connection, b"SETNX", key, epoch())
            self._feed.remember((await ask(connection, b"GET", key)).decode())

    def _lose(self, error: Exception) -> None:
        if self._servers is not None:
            self._servers.lose(error)

    # Events

    async def publish(self, channel: str, data: str | bytes, wishes: Wishes = NO_WISHES) -> str:
        """Append an event; see `Backend.publish`."""
        parts = self.publish_parts(channel, data, wishes, self._publisher)
        return await self._ask(
            self._publishing, f"publish to {channel!r}", parts, self._published, numbered=True
        )

    def publish_parts(
        self, channel: str, data: str | bytes, wishes: Wishes, publisher: bytes
    ) -> tuple[bytes, ...]:
        """The command that publishes, less the number that the publisher gives it."""
        kind, payload = encoded(data, wishes)
        name, kept = "publish", self._kept
        keys: tuple[bytes, ...] = self._keys.of(channel)
        wished: tuple[bytes, ...] = ()
        if wishes.history is not None:
            # The stream keeps more than is given to those who come, because readers fill holes from it.
            kept = b"%d" % max(min(wishes.history, self._history), _KEPT)
        if wishes.idempotency_key is not None or wishes.max_age is not None:
            # Only these need more of the server than to keep the event and to push it.
            name = "wished"
            wished = (b"" if wishes.max_age is None else b"%d" % _milliseconds(wishes.max_age),)
        if wishes.idempotency_key is not None:
            keys = (*keys, self._keys.once(channel, wishes.idempotency_key))
        return self._keys.script(
            name,
            keys,
            epoch(),
            self._keys.push,
            kept,
            self._age,
            self._expire,
            kind,
            payload,
            publisher,
            *wished,
        )

    @property
    def publish_scripts(self) -> list[bytes]:
        """The sources of the scripts that publish."""
        return [self._keys.source(name) for name in ("publish", "wished")]

    def _published(self, answer: Any) -> str:
        if isinstance(answer, list):
            # The event is kept, but this user may not push any more. Readers find it by comparing. The next
            # connection raises the reason, so this one is given up.
            id = published(answer)
            self._lose(_refusal(answer[1].decode(), self._keys))
            return id
        return published(answer)

    def synchronous_client(self) -> Any:
        """A client of the same server for who has no event loop; not connected yet."""
        return self._place.synchronous_client(self.timeout)

    async def history(self, channel: str, *, last: int = 0, since: str | None = None) -> History:
        """What a channel has kept; see `Backend.history`."""
        after = None if since is None else Id.parse(since)
        attempted = f"read the history of {channel!r}"
        memory = ""
        slot = self._keys.slot_of(self._keys.pushed(channel))
        if after is not None and after.seq == 0:  # of a channel that was empty, as a rule
            script = self._keys.script("memory", [self._keys.memory_of(slot)], epoch())
            memory = await self._ask(self._asking, attempted, script, lambda answer: str(answer.decode()))
        # One more than can be given: the event at the position, which shows whether it is the one meant.
        most = min(last, self._history) if after is None else self._history + 1
        found: list[tuple[Id, Event]] = []  # the newest first
        end: Id | None = None
        before, given = b"+", 0
        floor = 0  # what is not above it is kept no longer
        lasting = True
        max_age = None if self._max_age is None else _milliseconds(self._max_age)
        same = after is not None
        # Pages, from the newest event back, so that no script runs for long. What is published meanwhile is
        # after the end that the first page has told, and comes by the subscription.
        while True:
            parts = self._keys.script(
                "history",
                self._keys.of(channel),
                self._age,
                self._expire,
                b"%d" % (most - given),
                *((after.epoch.encode(), b"%d" % after.seq) if same and after else (b"", b"0")),
                before,
            )
            standing = await self._ask(self._asking, attempted, parts, Standing.of)
            if end is None:
                end, now = standing.end, standing.now
            if standing.end is None or end is None or standing.end.epoch != end.epoch:
                break  # the channel is empty, or it began again between two pages
            page = (decoded(channel, raw, fields) for raw, fields in standing.entries)
            found += [pair for pair in page if pair is not None]
            floor = max(floor, *(floor_of(raw, fields, now, max_age) for raw, fields in standing.entries), 0)
            lasting = lasting and all(is_lasting(fields) for _, fields in standing.entries)
            given += len(standing.entries)
            if same and after is not None:
                if not _is_in(after, end, found):
                    same = False  # all that is kept, then
                elif found and found[-1][0].seq <= after.seq:
                    break
            if standing.ended or given >= most:
                break
            before = b"(" + standing.entries[-1][0]
        # The position of an empty channel names the memory of the server, see `Feed`.
        if end is None and not memory:
            memory = self._feed.known_memory(slot)
            if not memory:
                # Learn the memory first and read again. The other way round, the server could lose its data
                # in between, and the position would claim to be of the new memory.
                await self._feed.memory_of(channel)
                return await self.history(channel, last=last, since=since)
        history = self._history_of(after, same, memory, now, end, found, floor)
        return history if lasting else history._replace(lasting=False)

    def _history_of(
        self,
        after: Id | None,
        same: bool,
        memory: str,
        now: int,
        end: Id | None,
        found: list[tuple[Id, Event]],
        floor: int,
    ) -> History:
        """What was found, without what is too old or not after the position; and whether that is all."""
        position = end or Id(now, 0, memory)
        # If the position is older than `expire`, the channel may have had events and may have expired since.
        was_empty = after is not None and not after.seq and after.epoch == memory
        was_empty = was_empty and after is not None and now - after.ms < int(self._expire)
        first = max(floor, after.seq if after is not None and same else 0) + 1
        kept = [event for id, event in reversed(found) if id.epoch == position.epoch and id.seq >= first]
        kept = kept[max(len(kept) - self._history, 0) :]
        if after is None:
            complete = True
        elif same and end is not None:
            # Numbers have no holes: so many there must be between the position and the end.
            complete = len(kept) == end.seq - after.seq
        else:
            # Another life. Nothing is missing only if the channel was empty before, and all of it is here.
            complete = was_empty and len(kept) == position.seq
        return History(kept, complete, str(position))

    async def watch(self, channels: Collection[str]) -> None:
        """See everything that is published from now on; see `Backend.watch`."""
        if self._servers is None:
            raise BrokerError("cannot listen: the channels were stopped")
        await self._feed.watch(channels)

    def unwatch(self, channels: Collection[str]) -> None:
        """Watch some channels no longer; see `Backend.unwatch`."""
        self._feed.unwatch(channels)

    async def read(self, positions: Mapping[str, str]) -> Sequence[Event | Gap]:
        """Wait for what comes after the positions; see `Backend.read`."""
        return await self._feed.read(positions)

    def wake(self, channel: str | None = None) -> None:
        """Make `read` look at the positions anew; see `Backend.wake`."""
        self._feed.wake(channel)

    def order_of(self, id: str) -> tuple[int, int]:
        """What orders the ids of a channel; see `Backend.order_of`."""
        ms, seq, _ = Id.parse(id)
        # Whatever the time was when a channel was empty, what comes in it comes later.
        return (ms if seq else 0), seq

    # Presence

    async def appear(self, members: Collection[Member], ttl: float) -> None:
        """Keep members; see `Backend.appear`."""
        await self._presence("appear", members, ttl)

    async def vanish(self, members: Collection[Member]) -> None:
        """Remove members; see `Backend.vanish`."""
        await self._presence("vanish", members)

    async def members(self, channel: str) -> Sequence[Member]:
        """Who is in a channel; see `Backend.members`."""

        def members_of(found: Any) -> list[Member]:
            members = []
            _listed(found)
            for id, value in zip(found[::2], found[1::2], strict=True):
                joined, rest = value.decode().split(" ", 1)
                if rest.startswith(
                    "{"
                ):  # of a version without `key`: the whole event that tells of the leaving
                    member = Member(channel, id.decode(), json_text(json.loads(rest)["info"]))
                    members.append((self.order_of(joined), member))
                    continue
                quoted, left = rest.split(" ", 1)
                member = Member(channel, id.decode(), "", unquote(quoted) or None)
                # The server keeps the event that will tell of the leaving, without its end. The member's info
                # is cut out of it, by the length of what stands before it and behind it.
                around = _begun("leave", member)
                before = around.index('"info":') + len('"info":')
                info = left[before : len(left) - (len(around) - before)]
                members.append((self.order_of(joined), dataclasses.replace(member, info=info)))
            return [member for _, member in sorted(members, key=lambda pair: pair[0])]

        found: list[Member] = await self._about_members("members", channel, then=members_of)
        return found

    async def count(self, channel: str, *, keys: bool = False) -> int:
        """How many are in a channel; see `Backend.count`."""
        return int(await self._about_members("count keys" if keys else "count", channel, then=int))

    async def names(self) -> Collection[str]:
        """The channels that there are; see `Backend.names`."""
        attempted = "list the channels"

        def page(answer: Any) -> tuple[bytes, list[bytes]]:
            at, keys = _listed(answer)
            return bytes(at), [bytes(key) for key in _listed(keys)]

        found = set()
        for pipe in self._asking.pipes():
            cursor = b"0"
            while True:
                parts = (b"SCAN", cursor, b"MATCH", self._keys.any_state, b"COUNT", b"1000")
                cursor, keys = await self._ask(pipe, attempted, parts, page)
                found |= {channel_of(self._keys.channel_of(key)) for key in keys}
                if cursor == b"0":
                    break
        return {name for name in found if not name.startswith("\0")}

    async def status(self, channels: Collection[str], within: float) -> Sequence[Status]:
        """How channels are doing; see `Backend.status`."""
        names = list(channels)
        found: dict[str, Status] = {}
        for at in range(0, len(names), _LOOKED_AT):
            some = names[at : at + _LOOKED_AT]
            found |= zip(some, await asyncio.gather(*map(self._look_at, some)), strict=True)
        listened = {name: status.listeners for name, status in found.items() if status.listeners}
        answers = await self._ask_processes(listened, within) if listened else {}
        for name, processes in answers.items():
            end = Id.parse(found[name].newest or _NO_EVENT)
            # A position of another life of the channel has nothing of this one.
            behind = [end.seq - (at.seq if at.epoch == end.epoch else 0) for _, at in processes.values()]
            lags = {process: took for process, (took, _) in processes.items()}
            found[name] = dataclasses.replace(found[name], lags=lags, behind=max(0, *behind, 0))
        return [found[name] for name in names]

    async def _look_at(self, channel: str) -> Status:
        attempted = f"look at {channel!r}"
        keys, (events, state) = self._keys.of(channel), self._keys.of(presence_of(channel))
        those = [keys, (events, state, *(events + b":" + name for name in _OF_MEMBERS))]
        (now, kept, end, used, listeners, _), (*_, used_by_members, _, members) = await asyncio.gather(
            *(
                self._ask(self._asking, attempted, self._keys.script("status", some, self._keys.push), _six)
                for some in those
            )
        )
        newest = None if end is None or None in end else Id(int(end[0]), int(end[1]), end[2].decode())
        return Status(
            channel,
            members,
            kept,
            newest and str(newest),
            newest and max(int(now) - newest.ms, 0) / 1000,
            None if None in (used, used_by_members) else used + used_by_members,
            listeners,
        )

    async def _ask_processes(
        self, listened: Mapping[str, int], within: float
    ) -> Mapping[str, Mapping[str, tuple[float, Id]]]:
        """By channel and process: in how many seconds it has answered, and where it is."""
        names, word = list(listened), secrets.token_hex(8)
        answers = Answers(listened)
        try:
            await self._feed.hear(ANSWERS + word, answers.hear)
            answers.begin()
            to = self._keys.pushed(QUESTIONS)
            for at in range(0, len(names), _LOOKED_AT):
                asked = question(word, names[at : at + _LOOKED_AT])
                await self._asking.answer("ask the processes", (self._keys.publish, to, asked))
            with anyio.move_on_after(within):
                await answers.done.wait()
        finally:
            self._feed.unhear(ANSWERS + word)
        return answers.found

    async def reap(self, channels: Collection[str]) -> None:
        """Remove the members whose time is over; see `Backend.reap`."""
        await _all(self._about_members("reap", channel) for channel in channels)

    async def _presence(self, action: str, members: Collection[Member], ttl: float = 0.0) -> None:
        per_channel: dict[str, list[tuple[bytes, ...]]] = {}
        for member in members:
            arguments = [member.id.encode()]
            if action == "appear":
                arguments += (_begun(kind, member).encode() for kind in _KINDS)
                arguments.append(quote(member.key or "", safe="").encode())
            per_channel.setdefault(member.channel, []).append(tuple(arguments))
        await _all(
            self._about_members(action, channel, *chain(*found[at : at + _MEMBERS]), ttl=ttl)
            for channel, found in per_channel.items()
            for at in range(0, len(found), _MEMBERS)
        )

    async def _about_members(
        self,
        action: str,
        channel: str,
        *arguments: bytes,
        ttl: float = 0.0,
        then: Callable[[Any], Any] = lambda found: None,
    ) -> Any:
        def about(answer: Any) -> tuple[int, Any]:
            over, found = _listed(answer)
            return int(over), then(found)

        events, state = self._keys.of(presence_of(channel))
        over = _MEMBERS
        # Each call also removes members whose time is over, so many at most. If it was that many, there may
        # be more.
        while over == _MEMBERS:
            over, found = await self._ask(
                self._publishing,
                f"{_ATTEMPTS[action]} {channel!r}",
                self._keys.script(
                    "presence",
                    (events, state, *(events + b":" + name for name in _OF_MEMBERS)),
                    epoch(),
                    self._keys.push,
                    self._kept,
                    self._age,
                    self._expire,
                    action.encode(),
                    b"%d" % _milliseconds(ttl),
                    *arguments,
                ),
                about,
            )
        return found

    async def _ask(
        self,
        pipe: Asking,
        attempted: str,
        parts: Sequence[bytes],
        then: Callable[[Any], T],
        *,
        numbered: bool = False,
    ) -> T:
        """What the server answers, made of what it has sent."""
        answer = await pipe.answer(attempted, parts, numbered=numbered)
        try:
            return then(answer)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # It may be the answer to another request. Then all answers on this connection are wrong.
            self._lose(RedisError(f"it has answered {str(answer)[:80]!r} to a request to {attempted}"))
            raise BrokerError(f"cannot {attempted}: Redis has answered {str(answer)[:80]!r}") from error


def _begun(kind: Literal["join", "leave"], member: Member) -> str:
    """The event of a member, up to the number of sockets, which the server counts."""
    return presence_event(kind, member, 0)[: -len("0}")]


def published(answer: Any) -> str:
    """The id of an event, from the answer to a publish."""
    if isinstance(answer, list):
        answer, _ = answer
    return str(Id.parse(answer.decode()))


async def _check_server(connection: Connection, *, in_cluster: bool) -> None:
    """Whether this is a server that can be used."""
    try:
        answer: bytes = await ask(connection, b"INFO")
    except ResponseError:  # a user who is not allowed to ask
        return
    lines = (line.partition(":") for line in answer.decode("utf-8", "replace").splitlines())
    info = {name: value for name, _, value in lines}
    version = info.get("redis_version", "")
    oldest = _OLDEST_IN_CLUSTER if in_cluster else _OLDEST
    if tuple(int(part) for part in version.split(".")[:2]) < oldest:
        what = "channels in a cluster" if in_cluster else "channels"
        raise RedisError(f"it is version {version}, and {what} need {oldest[0]}.{oldest[1]} or newer")
    if info.get("cluster_enabled") == "1" and not in_cluster:
        raise RedisError("it is a node of a cluster: use a URL that starts with redis+cluster://")


async def _check_role(connection: Connection) -> None:
    """Whether it can be published to."""
    try:
        role = await ask(connection, b"ROLE")
    except ResponseError:
        return
    if role[0] != b"master":
        raise RedisError("it is a replica, which cannot be published to: name the primary")


async def _check_push(connection: Connection, keys: Keys) -> None:
    """Whether what is published can be pushed. Else it would be kept, and come half a minute later."""
    try:
        await ask(connection, keys.publish, keys.probe, b"")
    except (AskError, ClusterDownError):  # rights are checked before slots: so the user may push
        pass
    except ResponseError as error:
        raise _refusal(reason(error), keys) from error


def _refusal(why: str, keys: Keys) -> RedisError:
    s = "s" if keys.in_cluster else ""
    return RedisError(
        f"this user may not push events: {why}. Allow it `+{s}publish`, `+{s}subscribe` and "
        f"`+{s}unsubscribe`, and the channels `&{keys.pattern}*`"
    )


async def _all(calls: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Await all, at the same time, and raise the first error when all have ended."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _is_in(after: Id, end: Id, found: list[tuple[Id, Event]]) -> bool:
    """Whether a position can be of a channel's history, by its newest events."""
    if after.epoch != end.epoch or after.seq > end.seq or (after.seq == end.seq and after.ms != end.ms):
        return False
    # The event that has its number is it; and what comes after it is not from before.
    return all(
        id.ms == after.ms if id.seq == after.seq else id.ms >= after.ms
        for id, _ in found
        if id.seq >= after.seq and id.epoch == end.epoch
    )


def _six(answer: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
    now, kept, end, used, listeners, members = _listed(answer)
    return now, kept, end, used, listeners, members


def _listed(answer: Any) -> list[Any]:
    if not isinstance(answer, list):
        raise TypeError("not a list")
    return answer


def _milliseconds(seconds: float) -> int:
    return math.ceil(min(seconds * 1000, _LONGEST))  # the product may be infinite
