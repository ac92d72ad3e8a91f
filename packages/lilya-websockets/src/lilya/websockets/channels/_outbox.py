"""The items that wait for one receiver, the limits of this, and what happens when they are reached.

Nothing here awaits. `put` is called for each receiver of each event, so its cost is most of the cost of a
broadcast.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args
from uuid import uuid4

from .._messages import PreparedMessage, size_of_text
from ._backend import ChannelsError, Event, Gap, Member, channel_of, json_text

__all__ = [
    "Dropped",
    "Encode",
    "Entry",
    "Form",
    "Item",
    "Outbox",
    "OutboxFull",
    "Policy",
    "Presence",
    "checked_policy",
    "presence_in",
]

# The most entries, and the most bytes in them, for a receiver that is joining, whatever its own limits are.
# All receivers share the entries.
_JOINING: Final = (10_000, 16_777_216)

Policy: TypeAlias = Literal["close", "drop_oldest", "drop_newest"]


@dataclass(frozen=True, slots=True)
class Dropped:
    """Events are missing here, because the outbox was full. They may still be in the history.

    Args:
        count: The number of missing events.
    """

    count: int


@dataclass(frozen=True, slots=True)
class Presence:
    """A member has joined or left a channel.

    Args:
        type: Whether the member joined or left.
        member: The member.
        sockets: The number of members with the same `key` that are in the channel after that. A member
            without a key counts alone.
    """

    type: Literal["join", "leave"]
    member: Member
    sockets: int

    @property
    def channel(self) -> str:
        """The channel's name."""
        return self.member.channel

    @property
    def of_person(self) -> bool:
        """Whether the person has joined or left: this was the first or the last socket with its key."""
        return self.sockets == (1 if self.type == "join" else 0)


def presence_in(event: Event) -> Presence:
    """The join or leave in an event of the channel that `presence_of` names.

    Raises:
        KeyError, TypeError, ValueError: The event is not a join or a leave.
    """
    told = event.json()
    kind, id = told["type"], told["id"]
    if kind not in ("join", "leave") or not isinstance(id, str):
        raise ValueError(f"neither a join nor a leave: {str(event.data)[:80]}")
    # Events of versions without `key` have neither of the two.
    key, sockets = told.get("key"), told.get("sockets", int(kind == "join"))
    if not (key is None or isinstance(key, str)) or not isinstance(sockets, int):
        raise ValueError(f"neither a key nor a count: {str(event.data)[:80]}")
    return Presence(kind, Member(channel_of(event.channel), id, json_text(told["info"]), key), sockets)


Item: TypeAlias = Event | Gap | Dropped | Presence
"""What a receiver can get."""

Encode: TypeAlias = Callable[[Any], "str | bytes | None"]
"""Returns the message for an item, or `None` for no message."""

Form: TypeAlias = tuple[Encode, tuple[str, ...]]
"""How messages are made for a socket: the encoder, and the ASGI extensions. Sockets with equal forms get the
same messages."""


class OutboxFull(ChannelsError):
    """A subscription has ended because its outbox was full. No event before that is missing.

    Args:
        positions: The last event that you got of each channel. Pass it as `since` to another subscription.
    """

    def __init__(self, positions: dict[str, str]) -> None:
        super().__init__(positions)
        self.positions = positions

    def __str__(self) -> str:
        return (
            "the subscription has ended: its outbox is full, because its events were not taken as fast as "
            "they came. Subscribe again with `since=error.positions`, with a larger outbox, or with a policy "
            "that drops"
        )


class Entry:
    """An item in outboxes. All outboxes with the item have the same object."""

    __slots__ = ("_messages", "item", "size", "source")

    def __init__(self, item: Item, size: int = 0, source: Event | Gap | None = None) -> None:
        self.item = item
        self.size = size
        self.source = source  # the item that the backend has returned; `None` if it was added in this process
        self._messages: dict[Encode, PreparedMessage | None] | None = None

    @classmethod
    def of(cls, event: Event) -> Entry:
        data = event.data
        size = len(data) if isinstance(data, bytes) else size_of_text(data)
        return cls(event, size, event)

    def message_for(self, form: Form) -> dict[str, Any] | None:
        """The message for sockets with a form. The item is encoded once for each encoder."""
        encode, extensions = form
        if self._messages is None:
            self._messages = {}
        if encode not in self._messages:
            data = encode(self.item)
            self._messages[encode] = None if data is None else PreparedMessage(data)
        message = self._messages[encode]
        return None if message is None else message.message_for(extensions)


class Outbox:
    """The items that wait for one receiver.

    Args:
        policy: What to do when it is full.
        max_messages: The most items that may wait, at least 1.
        max_bytes: The most bytes of data that may wait. A single event may have more.
    """

    __slots__ = (
        "backlog",
        "by_key",
        "dropped",
        "entries",
        "held",
        "id",
        "idle",
        "joining",
        "key",
        "max_bytes",
        "max_messages",
        "more",
        "over",
        "policy",
        "sent",
    )

    def __init__(self, policy: Policy, max_messages: int, max_bytes: int) -> None:
        self.policy = policy
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        # The events of the history, which come before all others. The receiver has asked for them, so they do
        # not count towards the limits: otherwise, a long history would close a socket before it starts.
        self.backlog: deque[Entry] = deque()
        self.entries: deque[Entry] = deque()
        self.held = 0  # the bytes in `entries`
        self.idle = False  # the owner waits, and `arrived` is to be called for the next entry
        self.more = False  # if false, nothing waits: one flag is cheaper to check than two deques
        self.over = False  # detached: nothing is put into it any more
        self.joining = False  # its history is being read, so the owner cannot take anything yet
        # The two values by which publishers can exclude it: a unique id, and a key that the app has chosen.
        self.id = f"\0{uuid4().hex}"
        self.key: str | None = None
        self.by_key = False  # it gets only the joins and leaves of persons
        self.dropped = 0
        self.sent = 0

    def takes(self, item: Item) -> bool:
        """Whether an item is for this receiver."""
        if isinstance(item, Presence):
            return not self.by_key or item.of_person
        exclude = item.exclude if isinstance(item, Event) else None
        return exclude is None or exclude not in (self.id, self.key)

    @property
    def pending(self) -> int:
        """The number of items that wait."""
        return len(self.backlog) + len(self.entries)

    def put(self, entry: Entry) -> None:
        """Append an entry, or apply the policy if it does not fit. An empty outbox takes any entry."""
        entries = self.entries
        if (
            (len(entries) >= self.max_messages or self.held + entry.size > self.max_bytes)
            and entries
            and not self._makes_room(entry)
        ):
            return
        entries.append(entry)
        self.more = True
        self.held += entry.size
        if self.idle:
            self.idle = False
            self.arrived()

    def take(self) -> Entry | None:
        """The next entry. If there is none, `arrived` is called for the next one."""
        if self.backlog:
            return self.backlog.popleft()
        if self.entries:
            entry = self.entries.popleft()
            self.held -= entry.size
            return entry
        self.idle = True
        self.more = False
        return None

    def begin(self) -> None:
        """Note that the owner can take items now.

        What came until now does not count towards the limits, as the history does not: the owner is not slow.
        """
        self.joining = False
        self.backlog.extend(self.entries)
        self.entries.clear()
        self.held = 0

    def clear(self) -> None:
        """Drop all items that wait."""
        self.dropped += self.pending
        self.backlog.clear()
        self.entries.clear()
        self.held = 0

    def _makes_room(self, entry: Entry) -> bool:
        """Apply the policy. Returns whether the entry that did not fit can be appended now."""
        entries = self.entries
        most, bytes_at_most = _JOINING
        if self.joining and len(entries) < most and self.held + entry.size <= bytes_at_most:
            return True
        if self.policy == "close":
            self.full()
            return False
        if self.policy == "drop_newest":
            # One extra entry marks the place of the dropped events. It counts them, and has no bytes.
            last = entries[-1]
            if isinstance(last.item, Dropped):
                last.item = Dropped(last.item.count + 1)
            else:
                entries.append(Entry(Dropped(1)))
            self._count(1)
            return False
        # `drop_oldest`: the mark is the first entry. Take it out, drop events until the new one fits, and put
        # back a mark with the new count.
        count = 0
        if isinstance(entries[0].item, Dropped):
            count = entries.popleft().item.count  # type: ignore[union-attr]  # just looked at
        before = count
        while entries and (len(entries) >= self.max_messages or self.held + entry.size > self.max_bytes):
            self.held -= entries.popleft().size
            count += 1
        entries.appendleft(Entry(Dropped(count)))
        if count > before:
            self._count(count - before)
        return True

    def _count(self, count: int) -> None:
        self.dropped += count
        self.lost(count)

    # Overridden by subclasses

    def arrived(self) -> None:
        """React to the entry that the owner waits for."""

    def full(self) -> None:
        """React to a full outbox if the policy is to close."""

    def lost(self, count: int) -> None:
        """React to dropped events."""

    def stopped(self) -> None:
        """React to the stop of the channels."""


_POLICIES: Final = get_args(Policy)


def checked_policy(policy: object) -> Policy:
    """Check the name of a policy.

    Raises:
        ValueError: There is no such policy.
    """
    if policy not in _POLICIES:
        raise ValueError(f"a policy is one of {', '.join(map(repr, _POLICIES))}, got {policy!r}")
    return policy  # type: ignore[return-value]  # just looked at
