"""The interface of a backend, which stores the events and members of channels, and the values it works with.

A backend knows nothing about subscribers, sockets and outboxes. It stores events in order, returns the events
after a position, and stores members until they expire. `Channels` does the rest, once for all backends.

The rules of a backend:

- **Order.** The events of a channel have one order, which is the same for all readers in all processes.
- **Position.** The id of an event is also the position just after it. Ids are opaque to users, and have the
  form of `Id`: `Channels` compares them with `order_of`, and the client for browsers by number and epoch. No
  id is used twice, not even after events were lost.
- **Acknowledged is kept.** When `publish` returns, the event is in the history. Each reader gets it, or a
  `Gap` in its place.
- **Watch, then read.** When `watch` returns, everything that is published from then on will be read. After
  that, a reader asks for the history, sets the channel's position to its end, and calls `wake`.
- **One owner of positions.** The positions belong to the reader. A backend keeps none of its own. It compares
  events with the positions at the moment when it returns them.
- **Nothing is skipped silently.** If the history does not reach back to a position, `history` returns
  `complete=False`, and `read` returns a `Gap`. The same holds for an event that cannot be decoded, and for a
  position of another epoch or of another channel.
- **Channel names are data.** Any `str` that encodes to UTF-8 is possible, and no name may reach the keys of
  another channel, of the members, or of another app. Names, and `exclude`, may start with a NUL: `Channels`
  has channels of its own. If your broker's text cannot contain a NUL, store them as bytes.
- **One event loop.** A backend is started, used and stopped on one event loop. `publish`, `history`, `watch`
  and the methods for members are called by many tasks at once, `read` by one at a time.
- **Cancelling** a method leaves nothing behind. A cancelled `publish` may have published. A cancelled `watch`
  is undone by `unwatch`. A cancelled `read` has lost nothing, because the next one gets the same positions.
"""

from __future__ import annotations

import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import anyio

from .._messages import dumps, encode_json, loads, size_of_text
from .._options import checked_count, checked_number

__all__ = [
    "CONTROL",
    "NO_WISHES",
    "WINDOW",
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
    "channel_of",
    "checked_name",
    "checked_prefix",
    "checked_text_key",
    "checked_wishes",
    "in_parts",
    "is_presence",
    "json_text",
    "presence_event",
    "presence_of",
]


class ChannelsError(Exception):
    """The base of errors that are not a mistake of the caller."""


class BrokerError(ChannelsError):
    """The broker is unavailable, or refuses a command. The message says why. Treat the call as not done."""


@dataclass(frozen=True, slots=True)
class Event:
    """What was published to a channel.

    Args:
        channel: The channel's name.
        id: Its position in the channel. Pass it as `since`.
        data: What was published, as `str` or `bytes`.
        exclude: The receivers that do not get it: those that joined with this `key`, or, if it starts with a
            NUL, the one with this `id`. `None`: everybody gets it.
        idempotency_key: The key that it was published with, or `None`.
    """

    channel: str
    id: str
    data: str | bytes
    exclude: str | None = None
    idempotency_key: str | None = None

    def json(self) -> Any:
        """The data decoded as JSON, as `publish_json` encodes it.

        Raises:
            ValueError: The data is not JSON, or is nested too deep.
        """
        return _from_json(self.data if isinstance(self.data, str) else self.data.decode())


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
    """Where to continue: the id of the channel's newest event, even if it is not among these events."""

    lasting: bool = True
    """Whether none of these events was published with `history` or `max_age`. Such events may expire at any
    time, so they are not shared with later readers."""


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
        """What the app says about it, decoded.

        Raises:
            ValueError: It is nested too deep to be decoded here.
        """
        return _from_json(self.info)


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a channel, for operators. A value is `None` if the backend does not know it.

    Args:
        channel: The channel's name.
        members: The number of members.
        events: The number of events that are kept.
        newest: The id of the newest event, even if it is no longer kept.
        age: Seconds since that event was published.
        bytes: The memory that the channel takes, in bytes.
        listeners: The number of processes that listen to it.
        lags: For each process that answered, by its name, the seconds until it had passed on everything that
            was published before the question. Processes that did not answer are missing.
        behind: The number of events that the slowest of them still has to fetch.
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
        """The lag of the slowest process that answered, in seconds; `None` if no process answered."""
        return max(self.lags.values(), default=None)

    @property
    def silent(self) -> int:
        """The number of processes that listen and did not answer."""
        return max((self.listeners or 0) - len(self.lags), 0)


def in_parts(members: Iterable[Member], most: int, most_bytes: int) -> Iterator[list[Member]]:
    """Divide members into parts, in order.

    Args:
        members: The members.
        most: The most members in a part.
        most_bytes: The most bytes in the infos and keys of a part. A single member may have more.
    """
    part: list[Member] = []
    held = 0
    for member in members:
        size = size_of_text(member.info) + size_of_text(member.key or "")
        if part and (len(part) >= most or held + size > most_bytes):
            yield part
            part, held = [], 0
        part.append(member)
        held += size
    if part:
        yield part


_PRESENCE: Final = "\0presence:"


def presence_of(channel: str) -> str:
    """The name of the channel that carries the joins and leaves of another channel.

    It starts with a NUL, so no user can choose this name. `presence_event` makes the data of its events.
    """
    return _PRESENCE + channel


def is_presence(name: str) -> bool:
    """Whether a name is one that `presence_of` has returned."""
    return name.startswith(_PRESENCE)


def channel_of(companion: str) -> str:
    """The channel whose joins and leaves a companion carries. It undoes `presence_of`."""
    return companion.removeprefix(_PRESENCE)


CONTROL: Final = "\0control"
"""The channel with the events that tell all processes to do something. Users cannot choose this name."""


def checked_name(name: object) -> str:
    """Check the name of a channel.

    Raises:
        TypeError: The name is not a `str`.
        ValueError: The name is empty, starts with a NUL, or cannot be encoded as UTF-8.
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


def _from_json(text: str) -> Any:
    """Decode JSON text.

    Raises:
        ValueError: It is not JSON, or is nested too deep.
    """
    try:
        return loads(text)
    except RecursionError as error:
        # How deep it may be depends on the call stack. So text that one process could encode may be too deep
        # for another one to decode.
        raise ValueError("the JSON is nested too deep") from error


def presence_event(kind: Literal["join", "leave"], member: Member, sockets: int) -> str:
    """The data of a join or a leave, for the channel that `presence_of` names.

    It is `{"type": "join" or "leave", "id": the member's, "info": what the app says about it, "key": the
    member's, "sockets": …}`.

    Args:
        kind: Whether the member joins or leaves.
        member: The member.
        sockets: The number of members with its key that are in the channel after that; without a key, 1 or 0.
    """
    id, key = json.dumps(member.id), json.dumps(member.key)
    return f'{{"type":"{kind}","id":{id},"info":{member.info},"key":{key},"sockets":{sockets}}}'


class Wishes(NamedTuple):
    """The options of a publish. The defaults change nothing."""

    exclude: str | None = None
    """See `Event.exclude`."""

    idempotency_key: str | None = None
    """If an event was published to this channel with this key in the last five minutes, publish nothing."""

    history: int | None = None
    """The number of events to keep in the channel from now on, this one included; at most as many as the
    backend keeps by default."""

    max_age: float | None = None
    """The seconds to keep this event, instead of the backend's. All events before it expire with it. So an
    event is kept until its own time or the time of a later event is over, whichever comes first."""


def checked_text_key(name: str, value: object) -> str:
    """Check a name or a key that the app has chosen.

    Raises:
        TypeError: The value is not a `str`.
        ValueError: The value is empty, starts with a NUL, or cannot be encoded as UTF-8.
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


def checked_prefix(prefix: object) -> str:
    """Check the start of all keys.

    Raises:
        TypeError: The prefix is not a `str`.
        ValueError: The prefix is empty.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be str, got {type(prefix).__name__}")
    if not prefix:
        raise ValueError("prefix must not be empty")
    return prefix


def checked_wishes(
    exclude: str | None, idempotency_key: str | None, history: int | None, max_age: float | None
) -> Wishes:
    """Check the options of a publish.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An argument out of range.
    """
    if exclude is None and idempotency_key is None and history is None and max_age is None:
        return NO_WISHES
    # With a NUL at the start, it is the `id` of a receiver.
    if exclude is not None and not (isinstance(exclude, str) and exclude[:1] == "\0"):
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
"""The seconds for which an idempotency key is known. The script `wished` on Redis has the same number."""


_ID: Final = re.compile(r"(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,17})-([0-9a-f]{8})", re.ASCII).fullmatch


class Id(NamedTuple):
    """An id, as text `1764106141000-42-9f3c01d2`.

    Within an epoch, times and numbers rise in the order of the channel. If the clock goes backwards, use the
    time of the event before again. Our backends count without holes, so a missing number is a gap. A backend
    that finds gaps otherwise may have holes.
    """

    ms: int
    """When it was published, in milliseconds since 1970; 0 in the position before the first event."""

    seq: int
    """The number of the event in its epoch, 1 or more; 0 before the first."""

    epoch: str
    """Eight hexadecimal digits that change when the history of the channel is lost. They may differ between
    channels."""

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}-{self.epoch}"

    @classmethod
    def parse(cls, text: object) -> Id:
        """Parse an id.

        Raises:
            TypeError: The id is not a `str`.
            ValueError: The id is invalid.
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
    """Where events and members are kept. Subclass it for another broker, and pass an instance to `Channels`.

    A backend takes its options in `__init__`, such as how many events it keeps. `__init__` does not connect,
    and needs no event loop. An invalid option raises `TypeError` or `ValueError` there. `Channels` passes
    none of its own options on.
    """

    ready: anyio.Event
    """Set while the broker can be reached. It is a new event in an outage, and exists from `start` on."""

    @abstractmethod
    async def start(self) -> None:
        """Connect. If this fails or is cancelled, it leaves nothing behind, and can be called again.

        Raises:
            BrokerError: The broker is unavailable, or refuses.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Disconnect. `read` is cancelled before this. Afterwards, only `start` may be called."""

    @abstractmethod
    async def publish(self, channel: str, data: str | bytes, wishes: Wishes = NO_WISHES) -> str:
        """Append an event to a channel, and return its id. When it returns, the event is kept.

        Readers get an `Event` with this data, as the same type, and with the `exclude` and `idempotency_key`
        of the options.

        Args:
            channel: The channel's name.
            data: The data of the event.
            wishes: The publisher's options. Its `history` and `max_age` only change what the method `history`
                returns: a reader that is behind still gets every event.

        Returns:
            The event's id. If its idempotency key was used before, the id of the event published with it.

        Raises:
            BrokerError: The event could not be kept within the time limit.
        """

    @abstractmethod
    async def history(self, channel: str, *, last: int = 0, since: str | None = None) -> History:
        """Return the events that a channel has kept.

        Args:
            channel: The channel's name. It may not have had an event yet.
            last: The number of newest events to return, 0 for none.
            since: Return all events after this position instead, and ignore `last`. If some of them are no
                longer kept, or if the position belongs to another epoch, return all events that are kept, and
                `complete=False`.

        Returns:
            The events, and the position at their end. Without `since`, `complete` is true. If the channel has
            not had an event yet, the position is one before its first event. From there, `read` returns that
            event, and no `Gap`.

        Raises:
            ValueError: `since` is not an id of this backend.
            BrokerError: The broker does not answer within the time limit.
        """

    @abstractmethod
    async def watch(self, channels: Collection[str]) -> None:
        """Start to receive what is published to some channels. Watching a channel again costs nothing.

        Args:
            channels: The names of the channels.

        Raises:
            BrokerError: The broker refuses, or does not answer within the time limit. The channels may still
                be watched, until `unwatch`.
        """

    @abstractmethod
    def unwatch(self, channels: Collection[str]) -> None:
        """Stop receiving what is published to some channels. They no longer have a position."""

    @abstractmethod
    async def read(self, positions: Mapping[str, str]) -> Sequence[Event | Gap]:
        """Wait for events after the positions, and return them.

        An outage of the broker is not an error: `read` waits until the broker is back, and continues from the
        positions.

        Args:
            positions: The channels to read, which are all watched, and the position up to which each was
                read. All calls get the same mapping. It changes between the calls and while one waits, and
                `wake` is called after a channel was added.

        Returns:
            Events and gaps, at most some hundred, those of each channel in order. The id of a channel's last
            item is its new position. After a `wake`, the result may be empty.
        """

    @abstractmethod
    def wake(self, channel: str | None = None) -> None:
        """Make the waiting or the next `read` check a position again.

        Args:
            channel: The channel that has a position now: the end of its history, read after `watch`. `None`:
                check all channels, also for events that were already received and come after their positions.
        """

    @abstractmethod
    async def appear(self, members: Collection[Member], ttl: float) -> None:
        """Store members for some seconds from now, or keep stored members for longer.

        This is called once for each member that joins, and every third of `ttl` for all members of this
        process. Publish a join event to `presence_of(member.channel)` for each member that was not stored.

        Args:
            members: The members.
            ttl: Seconds after which a member expires if it does not appear again.

        Raises:
            BrokerError: The broker does not answer within the time limit.
        """

    @abstractmethod
    async def vanish(self, members: Collection[Member]) -> None:
        """Remove members. Publish exactly one leave event for each member that was stored.

        Raises:
            BrokerError: The broker does not answer within the time limit.
        """

    @abstractmethod
    async def members(self, channel: str) -> Sequence[Member]:
        """Return the members of a channel in the order in which they joined, without expired ones.

        Expired members are removed first, as in `reap`. Somebody who joins or leaves meanwhile may be in the
        list or not.

        Raises:
            BrokerError: The broker does not answer within the time limit.
        """

    @abstractmethod
    async def reap(self, channels: Collection[str]) -> None:
        """Remove the expired members of these channels.

        Publish exactly one leave event for each of them, however many processes do this.

        Raises:
            BrokerError: The broker does not answer within the time limit.
        """

    async def count(self, channel: str, *, keys: bool = False) -> int:
        """Return the number of members of a channel. Override it if that is cheaper than listing them.

        Args:
            channel: The channel's name.
            keys: Count members with the same key once.

        Raises:
            BrokerError: The broker does not answer within the time limit.
        """
        members = await self.members(channel)
        return len({member.key or f"\0{member.id}" for member in members} if keys else members)

    async def names(self) -> Collection[str]:
        """Return the channels that have events or members, for operators. This may take long.

        Leave out names that start with a NUL, which users do not know.

        Raises:
            BrokerError: The broker does not answer within the time limit, or this backend does not know.
        """
        raise BrokerError(f"{type(self).__name__} cannot tell which channels there are")

    async def status(self, channels: Collection[str], within: float) -> Sequence[Status]:
        """Return the state of channels, in the given order. Override it if the backend knows more.

        It changes nothing.

        Args:
            channels: The names of the channels.
            within: Seconds to wait for the answers of processes that listen.

        Raises:
            BrokerError: The broker does not answer within the time limit.
        """
        return [Status(channel, await self.count(channel)) for channel in channels]

    def order_of(self, id: str) -> tuple[int, int]:
        """Return a key that sorts the ids and positions of a channel.

        The position before the first event sorts before all events. The id of a `Gap` sorts between the
        position before it and the next event. If it sorts before that position, `Channels` takes the events
        after the gap for new ones, although it has had events with higher ids: a broker has lost its newest
        events.

        Raises:
            ValueError: The id is not one of this backend.
        """
        ms, seq, _ = Id.parse(id)
        return ms, seq

    def order_in_time(self, id: str) -> tuple[int, int]:
        """Return a key that sorts ids of a channel also if the channel has lost its events in between.

        Override it if `order_of` sorts a position without an event, such as the end of a gap, before
        everything else.

        Raises:
            ValueError: The id is not one of this backend.
        """
        return self.order_of(id)
