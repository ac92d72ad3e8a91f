"""What keeps the events of channels and who is in them: the interface, and the values that go through it.

A backend knows nothing of subscribers, sockets and outboxes. It keeps events in order, gives them back from a
position on, and keeps members until their time is over. `Channels` does the rest, once for every backend.

The rules of a backend:

- **Order.** The events of a channel have one order, the same for every reader in every process.
- **Position.** The id of an event is also the position just after it. An id is opaque to users; `order_of` is
  the only thing that `Channels` asks of one.
- **Acknowledged is kept.** When `publish` returns, the event is in the history, and every reader will be
  given it, or a `Gap` in its place.
- **Watched, then read.** When `watch` returns, whatever is published from then on will be read. A reader asks
  for the history after that, sets the channel's position to where it ends, and calls `wake`.
- **One owner of positions.** The positions are the reader's. A backend keeps none of its own: it compares
  what has come with them at the moment at which it gives it.
- **Nothing is skipped silently.** Where history does not reach back to a position, `history` says so by
  `complete=False`, and `read` by a `Gap`. So does an event that cannot be decoded. A position of another life
  of the channel, or of another channel, is none that history reaches back to.
- **Channel names are data.** Any `str` that encodes to UTF-8 may come, and no name may reach the keys of
  another channel, of the members, or of another prefix.
- **One event loop.** A backend is started, used and stopped on one event loop. `publish`, `history`, `watch`
  and the methods of presence are called by many tasks at once, `read` by one at a time.
- **Cancelling** any method leaves nothing behind. A cancelled `publish` may have published; a cancelled
  `watch` is undone by `unwatch`; a cancelled `read` has lost nothing, because the next one is given the same
  positions.
"""

from __future__ import annotations

import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import anyio

from .._messages import dumps, encode_json, loads
from .._options import checked_count, checked_number

__all__ = [
    "Backend",
    "BrokerError",
    "ChannelsError",
    "Event",
    "Gap",
    "History",
    "Id",
    "Member",
    "Status",
    "Wishes",
    "presence_event",
    "presence_of",
]


class ChannelsError(Exception):
    """Channels failed, and the caller made no mistake."""


class BrokerError(ChannelsError):
    """The broker cannot be reached, or refuses. The message says why. Treat the call as not done."""


@dataclass(frozen=True, slots=True)
class Event:
    """What was published.

    Args:
        channel: The channel's name.
        id: Its position in the channel. Pass it as `since`.
        data: What was published, with the same type.
        exclude: The receivers that do not get it: those that joined with this `key`, or a single one, by a
            name that begins with a NUL. `None`: all get it.
        idempotency_key: The key that it was published with, if any.
    """

    channel: str
    id: str
    data: str | bytes
    exclude: str | None = None
    idempotency_key: str | None = None

    def json(self) -> Any:
        """The data decoded as JSON, as `publish_json` encodes it.

        Raises:
            ValueError: The data is not JSON.
        """
        return loads(self.data if isinstance(self.data, str) else self.data.decode())


@dataclass(frozen=True, slots=True)
class Gap:
    """Events of a channel are missing here, and are no longer available.

    Args:
        channel: The channel's name.
        since: The position after which events are missing.
        id: The position to continue from. The next event comes after it.
    """

    channel: str
    since: str
    id: str


class History(NamedTuple):
    """What `Backend.history` found."""

    events: Sequence[Event]
    """In order."""

    complete: bool
    """Whether nothing is missing between `since` and the first of the events."""

    position: str
    """Where to read on: the id of the channel's newest event, in these events or not."""

    lasting: bool = True
    """Whether none of these events has asked for a `history` or a `max_age` of its own. What has may be over
    at any time, so it is not given to others who ask a little later."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a channel.

    Args:
        channel: The channel's name.
        id: Unique among all processes.
        info: What the app says about it, as JSON text.
        key: The person. Sockets with the same key belong to one person. `None`: a person with one socket.
    """

    channel: str
    id: str
    info: str
    key: str | None = None

    def json(self) -> Any:
        """What the app says about it, decoded."""
        return loads(self.info)


@dataclass(frozen=True, slots=True)
class Status:
    """How a channel is doing, for an operator. `None` is what the backend cannot tell.

    Args:
        channel: The channel's name.
        members: How many members it has.
        events: How many events are kept.
        newest: The id of the newest event, kept or not.
        age: Seconds since that event was published.
        bytes: The memory that the channel takes.
        listeners: How many processes listen to it.
        lags: By name, the processes that have answered, and the seconds until each of them had handed out
            everything that was published before it was asked. A listener that is missing here did not answer.
        behind: How many events the slowest of them still has to fetch.
    """

    channel: str
    members: int | None = None
    events: int | None = None
    newest: str | None = None
    age: float | None = None
    bytes: int | None = None
    listeners: int | None = None
    lags: Mapping[str, float] = field(default_factory=dict)
    behind: int = 0

    @property
    def lag(self) -> float | None:
        """Seconds that the slowest of the processes that have answered is behind; `None` if none has."""
        return max(self.lags.values(), default=None)

    @property
    def silent(self) -> int:
        """How many processes listen and have not answered."""
        return max((self.listeners or 0) - len(self.lags), 0)


_PRESENCE: Final = "\0presence:"


def presence_of(channel: str) -> str:
    """The companion of a channel, in which its joins and leaves are events.

    Names of users never start with a NUL, so this one is nobody's. `presence_event` makes the data of its
    events.
    """
    return _PRESENCE + channel


def is_presence(name: str) -> bool:
    """Whether a name is that of a companion."""
    return name.startswith(_PRESENCE)


def channel_of(companion: str) -> str:
    """The channel of a companion, see `presence_of`."""
    return companion.removeprefix(_PRESENCE)


CONTROL: Final = "\0control"
"""What all processes are told to do are events in this channel. Users cannot name it."""


def checked_name(name: object) -> str:
    """The name of a channel, as users may give it.

    Raises:
        TypeError: Not a `str`.
        ValueError: Empty, with a NUL at its beginning, or not to be encoded as UTF-8.
    """
    return checked_text_key("a channel's name", name)


def json_text(value: Any) -> str:
    """A value as JSON text.

    Raises:
        TypeError: The value, or one in it, has no JSON form.
        ValueError: `NaN`, an infinity, a reference cycle, or nesting too deep.
    """
    encoded = encode_json(value, dumps)
    return encoded if isinstance(encoded, str) else encoded.decode()


def presence_event(kind: Literal["join", "leave"], member: Member, sockets: int) -> str:
    """The data of an event in the companion of a channel.

    It is `{"type": "join" or "leave", "id": the member's, "info": what the app says about it, "key": the
    member's, "sockets": …}`.

    Args:
        kind: What the member has done.
        member: Who.
        sockets: How many members with its key are in the channel after that; without a key, 1 or 0.
    """
    id, key = json.dumps(member.id), json.dumps(member.key)
    return f'{{"type":"{kind}","id":{id},"info":{member.info},"key":{key},"sockets":{sockets}}}'


class Wishes(NamedTuple):
    """What a publisher asks for besides publishing. The defaults ask for nothing."""

    exclude: str | None = None
    """See `Event.exclude`."""

    idempotency_key: str | None = None
    """If something was published to this channel with this key in the last five minutes, nothing is."""

    history: int | None = None
    """So many of the channel's events, this one included, are kept from now on; no more than the backend
    keeps anyway."""

    max_age: float | None = None
    """Seconds that this event is kept, instead of those of the backend. Then it goes, with all before it."""


def checked_text_key(name: str, value: object) -> str:
    """A key of the app's choice.

    Raises:
        TypeError: Not a `str`.
        ValueError: Empty, with a NUL at its beginning, or not to be encoded as UTF-8.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} must encode to UTF-8, got {value[:80]!r}") from None
    if not value or value[0] == "\0":
        raise ValueError(f"{name} must not be empty or start with a NUL, got {value[:80]!r}")
    return value


def checked_wishes(
    exclude: str | None, idempotency_key: str | None, history: int | None, max_age: float | None
) -> Wishes:
    """What a publisher asks for.

    Raises:
        TypeError: An argument of another type.
        ValueError: An argument out of range.
    """
    if exclude is None and idempotency_key is None and history is None and max_age is None:
        return NO_WISHES
    if exclude is not None and not (isinstance(exclude, str) and exclude[:1] == "\0"):  # an id of ours
        checked_text_key("exclude", exclude)
    if idempotency_key is not None:
        checked_text_key("idempotency_key", idempotency_key)
    return Wishes(
        exclude,
        idempotency_key,
        None if history is None else min(checked_count("history", history), sys.maxsize),
        None if max_age is None else checked_number("max_age", max_age),
    )


NO_WISHES: Final = Wishes()
WINDOW: Final = 300.0
"""Seconds for which the key of a publish is known."""


_ID: Final = re.compile(r"(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,17})-([0-9a-f]{8})", re.ASCII).fullmatch


class Id(NamedTuple):
    """An id as both of our backends write it: `1764106141000-42-9f3c01d2`.

    `seq` has no holes within an epoch, so a hole in what was read is a gap. Time does not go backwards: where
    the clock does, the time of the event before is taken again. So both, time and number, are in the order of
    the channel, and history can be trimmed by either.
    """

    ms: int
    """When it was published, in milliseconds since 1970; 0 in the position before the first event."""

    seq: int
    """The number of the event in its epoch, from 1; 0 before the first."""

    epoch: str
    """Which life of the channel, eight hexadecimal digits: another one after its history was lost. Before the
    first event, which memory of the broker."""

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}-{self.epoch}"

    @classmethod
    def parse(cls, text: object) -> Id:
        """An id from its text.

        Raises:
            TypeError: Not a `str`.
            ValueError: It is none.
        """
        if not isinstance(text, str):
            raise TypeError(f"an event's id must be str, got {type(text).__name__}")
        match = _ID(text)
        if match is None:
            raise ValueError(
                f"an event's id looks like '1764106141000-42-9f3c01d2', got {text[:80]!r}: "
                "take the id of an event or of a gap, or a subscription's position"
            )
        return cls(int(match[1]), int(match[2]), match[3])


class Backend(ABC):
    """Where events and members are kept. Subclass it for another broker.

    A backend takes its options in `__init__`, which neither connects nor needs an event loop. `Channels`
    makes its own by the scheme of the URL, and hands on what it is given: `RedisBackend(url, history=1000,
    max_age=None, prefix="lilya", **options)`. A wrong option is a `TypeError` or a `ValueError` there.
    """

    ready: anyio.Event
    """Set while the broker can be reached; another one, not set, while it cannot. There from `start` on."""

    @abstractmethod
    async def start(self) -> None:
        """Connect. Cancelled or failed, nothing is left behind, and it can be started again.

        Raises:
            BrokerError: The broker is not there, or refuses.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Disconnect. Nothing is called after it but `start`. A `read` was cancelled before."""

    @abstractmethod
    async def publish(self, channel: str, data: str | bytes, wishes: Wishes = NO_WISHES) -> str:
        """Append an event to a channel, and return its id. When it returns, the event is kept.

        Args:
            channel: The channel's name.
            data: What is published.
            wishes: What else the publisher asks for. `history` and `max_age` are about what `history` gives:
                a reader that is behind gets every event all the same.

        Returns:
            The event's id. If its idempotency key is known, that of the event that was published with it.

        Raises:
            BrokerError: It could not be kept within the time limit.
        """

    @abstractmethod
    async def history(self, channel: str, *, last: int = 0, since: str | None = None) -> History:
        """What a channel has kept.

        Args:
            channel: The channel's name; it may have had no event yet.
            last: How many of the newest events to give, 0 for none.
            since: Give all events after this position instead; `last` is not used. If they are not all kept,
                or the position belongs to another epoch, give all that are kept, and `complete=False`.

        Returns:
            The events, and the position at their end. Without `since`, `complete` is true.

        Raises:
            ValueError: `since` is no id of this backend.
            BrokerError: The broker does not answer within the time limit.
        """

    @abstractmethod
    async def watch(self, channels: Collection[str]) -> None:
        """Begin to see what is published in some channels. Those that are watched already cost nothing.

        Args:
            channels: Their names.

        Raises:
            BrokerError: The broker refuses, or does not answer within the time limit. The channels may be
                watched nevertheless, until `unwatch`.
        """

    @abstractmethod
    def unwatch(self, channels: Collection[str]) -> None:
        """Watch some channels no longer. They have no position any more."""

    @abstractmethod
    async def read(self, positions: Mapping[str, str]) -> Sequence[Event | Gap]:
        """Wait until there is something after one of the positions, and give it.

        It never fails because the broker is away: it waits until that is back, and goes on from the
        positions.

        Args:
            positions: The channels to read, all of them watched, and where each of them was read up to. It is
                the same mapping at each call, changed between the calls and while one waits; `wake` is called
                after a channel was added.

        Returns:
            Events and gaps, those of a channel in order, and at most some hundred. The position of a channel
            is the id of the last of them. After a `wake`, it may be empty.
        """

    @abstractmethod
    def wake(self, channel: str | None = None) -> None:
        """Make the `read` that waits, or the next one, look at a position anew.

        Args:
            channel: The channel that has a position now: where its history ended when that was read after
                `watch`. `None`: look at all, and whether something comes after them that was given already.
        """

    @abstractmethod
    async def appear(self, members: Collection[Member], ttl: float) -> None:
        """Keep members for so many seconds from now; those who are kept already, for longer.

        Called once for each who joins, and every third of `ttl` for all of this process. Who was not there
        gets a join event in `presence_of(member.channel)`.

        Args:
            members: Who is there.
            ttl: Seconds after which a member is gone, if it does not appear again.

        Raises:
            BrokerError: The broker does not answer within the time limit.
        """

    @abstractmethod
    async def vanish(self, members: Collection[Member]) -> None:
        """Remove members. Who was there gets a leave event, one in all.

        Raises:
            BrokerError: The broker does not answer within the time limit.
        """

    @abstractmethod
    async def members(self, channel: str) -> Sequence[Member]:
        """Who is in a channel, in the order of joining. Those whose time is over are removed first, as in
        `reap`.

        Raises:
            BrokerError: The broker does not answer within the time limit.
        """

    @abstractmethod
    async def reap(self, channels: Collection[str]) -> None:
        """Remove the members of these channels whose time is over. Each gets a leave event, one in all
        processes.

        Raises:
            BrokerError: The broker does not answer within the time limit.
        """

    async def count(self, channel: str, *, keys: bool = False) -> int:
        """How many are in a channel. Override it where that is cheaper than to list them.

        Args:
            channel: The channel's name.
            keys: Count members with the same key as one.

        Raises:
            BrokerError: The broker does not answer within the time limit.
        """
        members = await self.members(channel)
        return len({member.key or f"\0{member.id}" for member in members} if keys else members)

    async def names(self) -> Collection[str]:
        """The channels that have events or members, for who looks into a broker. It may take long.

        Raises:
            BrokerError: The broker does not answer within the time limit; or this backend cannot tell.
        """
        raise BrokerError(f"{type(self).__name__} cannot tell which channels there are")

    async def status(self, channels: Collection[str], within: float) -> Sequence[Status]:
        """How channels are doing, in the order in which they are given. Override it where more can be told.

        It changes nothing.

        Args:
            channels: Their names.
            within: Seconds in which processes that listen must answer.

        Raises:
            BrokerError: The broker does not answer within the time limit.
        """
        return [Status(channel, await self.count(channel)) for channel in channels]

    def order_of(self, id: str) -> tuple[int, int]:
        """What orders the ids of a channel.

        Raises:
            ValueError: It is no id of this backend.
        """
        ms, seq, _ = Id.parse(id)
        return ms, seq
