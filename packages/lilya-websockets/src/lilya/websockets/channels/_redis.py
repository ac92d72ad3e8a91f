"""Channels on Redis or Valkey: a stream for each channel. For asyncio only, because redis-py is.

One script appends an event to the stream of its channel and pushes it to all processes. It numbers the events
without holes, so a process notices when a push is missing. `_feed` receives the pushes, and reads only what
is missing from the stream. `_link` keeps the three connections: one to publish, one to ask, and one that
receives the pushes. All times are the server's, because the clocks of the processes differ.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import math
import secrets
import sys
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote, unquote

import anyio
from redis.asyncio.connection import Connection
from redis.exceptions import AskError, ClusterDownError, RedisError, ResponseError

from .._options import checked_count, checked_number
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
    checked_prefix,
    in_parts,
    json_text,
    presence_event,
    presence_of,
)
from ._cluster import Cluster, Node, Route
from ._entries import Pages, Standing, encoded
from ._feed import Feed
from ._keys import Keys, epoch
from ._link import Asking, Link, Pipe, ask, new_connection, reason
from ._listening import Listener, Words
from ._places import Place
from ._sentinel import Sentinels
from ._status import ANSWERS, QUESTIONS, Answers, question

__all__ = ["RedisBackend", "published"]

T = TypeVar("T")

# The most members that one script adds or removes, because the server answers nobody else while a script
# runs.
_MEMBERS: Final = 500
# The most bytes in the infos and keys of the members that are added or removed at the same time. A single
# member may have more. A command has each info twice, in the join event and in the leave event.
_INFOS: Final = 524_288
# The least number of events that a stream keeps, even with `history=1`. Readers fill holes from the stream
# after a short outage.
_KEPT: Final = 128
# The number of channels whose status is read at the same time, and of channels in one question to the
# processes.
_LOOKED_AT: Final = 256
# The most requests under way at a time: of publishes and presence, and of those with large answers.
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

# The position before the first event of any epoch.
_NO_EVENT: Final = "0-0-00000000"

# In milliseconds, a thousand years. With this limit, no sum of times overflows on the server.
_LONGEST: Final = 31_536_000_000_000

# Parts of the errors of a server that refuses to store anything, and can be read.
_REFUSALS: Final = ("maxmemory", "NOREPLICAS", "MISCONF")

# What connecting raises if the server is away, is still starting, or speaks another protocol.
_AWAY: Final = (RedisError, OSError, EOFError, ValueError)


class RedisBackend(Backend):
    """Stores events and members on a Redis or Valkey server, version 6.2 or newer.

    Args:
        url: `redis://user:password@host:port/db`, `rediss://` for TLS, or `unix:///path`. Options of
            redis-py's connection may follow, as in `rediss://host?ssl_ca_certs=/path`. `valkey://` and
            `valkeys://` mean the same. `redis+sentinel://host:port,host:port/service/db` is the primary that
            these sentinels name, and `redis+cluster://host:port,host:port` a cluster with these nodes.
        history: The number of events kept in each channel, at least 1.
        max_age: The seconds that an event is kept, or `None` for no limit.
        prefix: The start of all keys. Apps with different prefixes have separate channels.
        publish_timeout: The seconds that the broker has to answer any request. `None` waits without a limit.
        expire: The seconds after which a channel is forgotten if nobody publishes to it or reads it. It is
            raised to `max_age` and a minute.
        credentials: A `CredentialProvider` of redis-py, which provides the user and the password of each new
            connection.
        client: A `redis.asyncio.Redis`. Its address and options are used for new connections, and the client
            itself is not used. The URL must be `redis://`.
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
        self._history = checked_count("history", history, least=1)
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
        self._keys = Keys(checked_prefix(prefix), self._place.database, in_cluster=self._in_cluster)
        # Arguments of the scripts: how many events a stream keeps, for how many milliseconds (0: no limit),
        # and after how many milliseconds without use a channel expires.
        self._kept = b"%d" % max(self._history, _KEPT)
        self._age = b"%d" % _milliseconds(self._max_age or 0)
        self._expire = b"%d" % _milliseconds(expire)
        self._servers: Link | Cluster | None = None
        self._listener: Listener | None = None  # of a single server; in a cluster, each node has its own
        self._following: asyncio.Task[None] | None = None
        self._ready = anyio.Event()  # stands in while there is no link

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
        # A new name for each start, because the numbers of publishes start at 1 again. Under the old name,
        # the server would take the first publishes for ones that it has stored already, and drop them.
        self._publisher = b"p" + secrets.token_hex(6).encode()
        self._is_known = False
        try:
            self._servers = await (self._start_cluster() if self._in_cluster else self._start_link())
        except _AWAY as error:
            raise BrokerError(f"cannot use Redis at {self.where}: {reason(error)}") from error
        self._is_known = True

    async def _start_link(self) -> Link:
        sentinels = Sentinels(self._place) if self._place.kind == "sentinel" else None
        find = None if sentinels is None else sentinels.find
        link = Link(self._place.arguments, self.where, self._prepare, self._keys.scripts, find=find)
        # In an outage, the first line of a link is the one that tries to connect. So this must be the line
        # that is always open. The others open on first use.
        publishing = self._publishing_pipe(link)
        self._publishing: Asking = publishing
        self._asking: Asking = self._asking_pipe(link)
        listener: Listener
        self._feed = self._feed_at(lambda slot: listener)
        listener = Listener(link, self._feed, Words())
        self._listener = listener
        # Connect here and not in the line's task. There, a wrong password would be an outage to retry; here,
        # `start` raises it.
        publishing.line.start(await publishing.line.connect())
        if sentinels is not None:
            self._following = asyncio.create_task(self._follow(link, sentinels))
        return link

    async def _follow(self, link: Link, sentinels: Sentinels) -> None:
        """Leave a primary that is no longer the one, also if it still answers."""
        while True:
            host, port = await sentinels.failover()
            link.lose(RedisError(f"the primary is now {host}:{port}"))

    async def _start_cluster(self) -> Cluster:
        # One sequence of numbers for all nodes. A slot that moves takes the last number of this publisher
        # with it. If each node had its own sequence, the new node could get a lower number, and drop the
        # event.
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
            if self._following is not None:
                self._following.cancel()
                await asyncio.wait([self._following])
                self._following = None
            await self._feed.stop()
            await servers.stop()
            if self._listener is not None:
                self._listener.stop()
            self._publishing.stop()
            self._asking.stop()

    async def _prepare(self, connection: Connection, line: str) -> None:
        """Check that a connection can be used for what its line does."""
        # Check each new connection: after an outage, it may lead to another server, or the user may have
        # other rights. Only `_check_server` is left out after `start`.
        if not self._is_known:
            await _check_server(connection, in_cluster=self._in_cluster)
        await _check_role(connection)
        if line == "publishing":
            await _check_push(connection, self._keys)
        elif line == "asking" and not self._in_cluster:
            # Ask for the id of the memory on each new connection: the server may have come back without its
            # data. In a cluster, each slot has an id. `Feed` asks for it when it is needed.
            self._feed.remember(await _memory(connection, self._keys.memory_of(0)))

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
        """The command that publishes, without its last argument: the number that the publisher gives it."""
        kind, payload = encoded(data, wishes)
        name, kept = "publish", self._kept
        keys: tuple[bytes, ...] = self._keys.of(channel)
        wished: tuple[bytes, ...] = ()
        if wishes.history is not None:
            # The stream keeps at least `_KEPT` events, also with `history=0`, because readers fill holes from
            # it. `history` leaves out the others: the event's payload says how many it wants to be kept.
            kept = b"%d" % max(min(wishes.history, self._history), _KEPT)
        if wishes.idempotency_key is not None or wishes.max_age is not None:
            # Only these two need more than the script `publish` does. The other wishes are in the payload.
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
            # The event is stored, but the user may no longer push. Readers only find it when they compare
            # positions, every half minute. So this is treated as an outage: it is logged with the reason, and
            # goes on until the check of a new connection finds that the user may push.
            id = published(answer)
            self._lose(_refusal(answer[1].decode(), self._keys))
            return id
        return published(answer)

    def synchronous_client(self, most: float) -> Any:
        """A client of the same server for code without an event loop. It is not connected yet.

        Args:
            most: The most seconds that it waits for an answer, if `publish_timeout` is longer.
        """
        return self._place.synchronous_client(min(self.timeout, most))

    async def history(self, channel: str, *, last: int = 0, since: str | None = None) -> History:
        """Return the events that a channel has kept; see `Backend.history`."""
        after = None if since is None else Id.parse(since)
        attempted = f"read the history of {channel!r}"
        memory = ""
        slot = self._keys.slot_of(self._keys.pushed(channel))
        if after is not None and after.seq == 0:
            # Usually the position of an empty channel, with the id of the memory in place of an epoch. If the
            # server still has this id, it has not lost its data since. Ask before the events are read, for
            # the reason given below.
            memory = await self._memory_now(attempted, slot)
        max_age = None if self._max_age is None else _milliseconds(self._max_age)
        pages = Pages(channel, after, last, kept=self._history, max_age=max_age)
        more = True
        while more:
            parts = self._keys.script(
                "history", self._keys.of(channel), self._age, self._expire, *pages.next_page
            )
            more = pages.add(await self._ask(self._asking, attempted, parts, Standing.of))
        # The position of an empty channel has the id of the server's memory in place of an epoch, see `Feed`.
        if pages.end is None and not memory:
            memory = self._feed.known_memory(slot)
            if not memory:
                # The id must be known before the channel is found empty. Otherwise, between the two requests,
                # the server could store an event and then lose its data. The position would say that the
                # channel is empty in the new memory, and nobody would get a gap for the lost event.
                await self._feed.memory_of(channel)
                return await self.history(channel, last=last, since=since)
        if pages.end is not None and after is not None and not after.seq and after.epoch == memory:
            # The channel was empty at the position, and has events now. Ask again: if the server has lost its
            # data since it was asked, it may have lost events that came before these.
            memory = await self._memory_now(attempted, slot)
        return pages.history(memory, expire=int(self._expire))

    async def _memory_now(self, attempted: str, slot: int) -> str:
        """The id of the memory that a slot is in now, also if another one is known."""
        lives = self._feed.lives
        script = self._keys.script("memory", [self._keys.memory_of(slot)], epoch())
        memory = await self._ask(self._asking, attempted, script, lambda answer: str(answer.decode()))
        # The data may have been lost without the loss of a connection, by `FLUSHALL`. Without this, the feed
        # would compare new positions with the old id, and report a gap in each empty channel.
        if lives == self._feed.lives:
            self._feed.remember(memory, slot)
        return memory

    async def watch(self, channels: Collection[str]) -> None:
        """Receive everything that is published from now on; see `Backend.watch`."""
        if self._servers is None:
            raise BrokerError("cannot listen: the channels were stopped")
        await self._feed.watch(channels)

    def unwatch(self, channels: Collection[str]) -> None:
        """Stop watching channels; see `Backend.unwatch`."""
        self._feed.unwatch(channels)

    async def read(self, positions: Mapping[str, str]) -> Sequence[Event | Gap]:
        """Wait for events after the positions; see `Backend.read`."""
        return await self._feed.read(positions)

    def wake(self, channel: str | None = None) -> None:
        """Make `read` check positions again; see `Backend.wake`."""
        self._feed.wake(channel)

    def order_of(self, id: str) -> tuple[int, int]:
        """Return a key that sorts the ids of a channel; see `Backend.order_of`."""
        ms, seq, _ = Id.parse(id)
        # The position of an empty channel sorts before all of its events. It has the time at which somebody
        # looked, and after a failover to a server whose clock is behind, the first event may have an earlier
        # time.
        return (ms if seq else 0), seq

    def order_in_time(self, id: str) -> tuple[int, int]:
        """Return a key that sorts ids also across a loss; see `Backend.order_in_time`."""
        # After a loss, the channel is empty, or its first events follow. A gap ends there, with the number 0,
        # and it is after everything that was lost.
        ms, seq, _ = Id.parse(id)
        return ms, seq

    # Presence

    async def appear(self, members: Collection[Member], ttl: float) -> None:
        """Store members; see `Backend.appear`."""
        await self._presence("appear", members, ttl)

    async def vanish(self, members: Collection[Member]) -> None:
        """Remove members; see `Backend.vanish`."""
        await self._presence("vanish", members)

    async def members(self, channel: str) -> Sequence[Member]:
        """List the members of a channel, in pages; see `Backend.members`."""

        def page_of(found: Any) -> tuple[bytes, list[tuple[str, Member]], bytes]:
            cursor, page, server = _listed(found)
            pairs = zip(_listed(page)[::2], page[1::2], strict=True)
            members = [_stored(channel, id.decode(), value.decode()) for id, value in pairs]
            return bytes(cursor), members, bytes(server)

        # By member, the id of its join event. A page may repeat members of an earlier one.
        members: dict[Member, str] = {}
        cursor, last = b"0", b""
        while True:
            before = self.ready, self._feed.lives
            at, page, server = await self._about_members("members", channel, cursor, then=page_of)
            if before != (self.ready, self._feed.lives) or (server != last and cursor != b"0"):
                # There was an outage, or the slot is moving. Another server may have the channel now, and a
                # cursor is of use only to the server that has returned it.
                cursor = b"0"
                members.clear()
                continue
            cursor, last = at, server
            members.update((member, joined) for joined, member in page)
            if cursor == b"0":
                return sorted(members, key=lambda member: self.order_of(members[member]))

    async def count(self, channel: str, *, keys: bool = False) -> int:
        """Count the members of a channel; see `Backend.count`."""
        return int(await self._about_members("count keys" if keys else "count", channel, then=int))

    async def names(self) -> Collection[str]:
        """List the channels; see `Backend.names`."""
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
                # A companion counts as its channel, which may have members and no events.
                found |= {channel_of(self._keys.channel_of(key)) for key in keys}
                if cursor == b"0":
                    break
        return {name for name in found if not name.startswith("\0")}

    async def status(self, channels: Collection[str], within: float) -> Sequence[Status]:
        """Return the state of channels; see `Backend.status`."""
        names = list(channels)
        found: dict[str, Status] = {}
        for at in range(0, len(names), _LOOKED_AT):
            some = names[at : at + _LOOKED_AT]
            found |= zip(some, await asyncio.gather(*map(self._look_at, some)), strict=True)
        listened = {name: status.listeners for name, status in found.items() if status.listeners}
        answers = await self._ask_processes(listened, within) if listened else {}
        for name, processes in answers.items():
            end = Id.parse(found[name].newest or _NO_EVENT)
            # A process whose position is of another epoch has still to fetch all events of this one. The
            # result may be negative, because the process may have got events since the end was read.
            behind = [end.seq - (at.seq if at.epoch == end.epoch else 0) for _, at in processes.values()]
            lags = {process: took for process, (took, _) in processes.items()}
            found[name] = dataclasses.replace(found[name], lags=lags, behind=max(0, *behind, 0))
        return [found[name] for name in names]

    async def _look_at(self, channel: str) -> Status:
        """The state of a channel, without what its processes answer."""
        # The script is run for the channel, and for the companion with the keys of its members. Their keys
        # are in different slots, so in a cluster one command cannot have them all.
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
        """By channel and process: the seconds until the process answered, and its position in the channel."""
        names, word = list(listened), secrets.token_hex(8)
        answers = Answers(listened)
        try:
            # Subscribe to the answers before asking: the first of them may arrive at once. The time to
            # subscribe is not part of the lag.
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
        """Remove expired members; see `Backend.reap`."""
        await _all(self._about_members("reap", channel) for channel in channels)

    async def _presence(self, action: str, members: Collection[Member], ttl: float = 0.0) -> None:
        """Add or remove members of any number of channels, up to `_MEMBERS` of one channel in each script."""
        failure: BrokerError | None = None
        # One part after the other, so that no more than `_INFOS` is encoded and sent at the same time.
        for part in in_parts(members, sys.maxsize, _INFOS):
            per_channel: dict[str, list[tuple[bytes, ...]]] = {}
            for member in part:
                arguments = [member.id.encode()]
                if action == "appear":
                    arguments += (_begun(kind, member).encode() for kind in _KINDS)
                    arguments.append(quote(member.key or "", safe="").encode())
                per_channel.setdefault(member.channel, []).append(tuple(arguments))
            try:
                await _all(
                    self._about_members(action, channel, *chain(*found[at : at + _MEMBERS]), ttl=ttl)
                    for channel, found in per_channel.items()
                    for at in range(0, len(found), _MEMBERS)
                )
            except BrokerError as error:
                failure = failure or error
                if not self.ready.is_set():
                    break  # each of the other parts would wait for the broker, too
        if failure is not None:
            raise failure

    async def _about_members(
        self,
        action: str,
        channel: str,
        *arguments: bytes,
        ttl: float = 0.0,
        then: Callable[[Any], Any] = lambda found: None,
    ) -> Any:
        """Run the script `presence` for a channel. `then` converts what it has found."""

        def about(answer: Any) -> tuple[bool, Any]:
            more, found = _listed(answer)
            return more == 1, then(found)

        events, state = self._keys.of(presence_of(channel))
        attempted = f"{_ATTEMPTS[action]} {channel!r}"
        more = True
        # Each call also removes some of the expired members. If there may be more of them, these would still
        # be counted and listed. So the call is repeated, without the members that it has added or removed.
        while more:
            more, found = await self._ask(
                self._publishing,
                attempted,
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
            if action in ("appear", "vanish"):
                action, arguments = "reap", ()
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
        """Send a command, and return its answer as `then` converts it."""
        answer = await pipe.answer(attempted, parts, numbered=numbered)
        try:
            return then(answer)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # Answers are matched to requests by their order. So this may be the answer to another request,
            # and then all later answers on this connection are wrong, too. Drop the connection.
            self._lose(RedisError(f"it has answered {str(answer)[:80]!r} to a request to {attempted}"))
            unknown = ". It may have been kept" if numbered else ""
            raise BrokerError(
                f"cannot {attempted}: Redis has answered {str(answer)[:80]!r}{unknown}"
            ) from error


def _stored(channel: str, id: str, value: str) -> tuple[str, Member]:
    """The id of a member's join event, and the member, from what the server has stored of it."""
    joined, rest = value.split(" ", 1)
    if rest.startswith("{"):  # stored by a version without `key`: the whole leave event, as JSON
        return joined, Member(channel, id, json_text(json.loads(rest)["info"]))
    quoted, left = rest.split(" ", 1)
    member = Member(channel, id, "", unquote(quoted) or None)
    # The server has the member's leave event without its end, and the info is in there. The same event with
    # an empty info shows how much text is before and after it. The info is cut out, not parsed: so it stays
    # exactly the text that was given.
    around = _begun("leave", member)
    before = around.index('"info":') + len('"info":')
    return joined, dataclasses.replace(member, info=left[before : len(left) - (len(around) - before)])


def _begun(kind: Literal["join", "leave"], member: Member) -> str:
    """A member's join or leave event, up to the number of sockets, which the server counts and adds."""
    return presence_event(kind, member, 0)[: -len("0}")]


def published(answer: Any) -> str:
    """The id of the event, from the answer to a publish."""
    if isinstance(answer, list):  # with the reason why the push was refused
        answer, _ = answer
    return str(Id.parse(answer.decode()))


async def _info(connection: Connection) -> dict[str, str]:
    """What the server says about itself; nothing if the user may not ask."""
    try:
        answer: bytes = await ask(connection, b"INFO")
    except ResponseError:
        return {}
    lines = (line.partition(":") for line in answer.decode("utf-8", "replace").splitlines())
    return {name: value for name, _, value in lines}


async def _check_server(connection: Connection, *, in_cluster: bool) -> None:
    """Check that the server is new enough, and that it is a node of a cluster only if it should be."""
    info = await _info(connection)
    if not info:
        return  # assume the best
    version = info.get("redis_version", "")
    oldest = _OLDEST_IN_CLUSTER if in_cluster else _OLDEST
    if tuple(int(part) for part in version.split(".")[:2]) < oldest:
        what = "channels in a cluster" if in_cluster else "channels"
        raise RedisError(f"it is version {version}, and {what} need {oldest[0]}.{oldest[1]} or newer")
    if info.get("cluster_enabled") == "1" and not in_cluster:
        raise RedisError("it is a node of a cluster: use a URL that starts with redis+cluster://")


async def _check_role(connection: Connection) -> None:
    """Check that the server is a primary."""
    try:
        role = await ask(connection, b"ROLE")
    except ResponseError:  # the user may not run ROLE
        return
    if role[0] != b"master":
        raise RedisError("it is a replica, which cannot be published to: name the primary")


async def _memory(connection: Connection, key: bytes) -> str:
    """The id of the server's memory, as the script `memory` returns it. Scripts are loaded later."""
    new = epoch()
    try:
        known = await ask(connection, b"GET", key)
    except ResponseError as error:  # it is of another type, or the user may not read it
        raise RedisError(f"cannot read its key {key.decode()!r}: {reason(error)}") from error
    if known is None:
        try:
            await ask(connection, b"SETNX", key, new)
        except ResponseError as error:
            if not any(why in str(error) for why in _REFUSALS):
                raise
            new = (await _info(connection)).get("run_id", "")[:8].encode() or new
        # Another process may have been faster. If there is no memory, there is still no id.
        known = await ask(connection, b"GET", key)
    return str((known or new).decode())


async def _check_push(connection: Connection, keys: Keys) -> None:
    """Check that the user may push. Otherwise events would be stored, and arrive half a minute later."""
    try:
        await ask(connection, keys.publish, keys.probe, b"")
    except (AskError, ClusterDownError):
        # Another node has the slot of this name. The server checks rights before slots, so the user may push.
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
    """Run all calls at the same time, and raise the first error when all have ended."""
    # A plain `gather` would raise the first error at once, and leave the other calls running.
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _six(answer: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
    now, kept, end, used, listeners, members = _listed(answer)
    return now, kept, end, used, listeners, members


def _listed(answer: Any) -> list[Any]:
    if not isinstance(answer, list):
        raise TypeError("not a list")
    return answer


def _milliseconds(seconds: float) -> int:
    return math.ceil(min(seconds * 1000, _LONGEST))  # the product may be infinite
