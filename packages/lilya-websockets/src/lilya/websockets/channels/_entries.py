"""The entries of a stream and the messages that are pushed, as events and histories. Nothing here awaits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from ._backend import NO_WISHES, Event, Gap, History, Id, Wishes

__all__ = ["Pages", "Standing", "encoded", "event_of", "items_after"]

# The kinds of events, for text and for bytes. The capitals are for payloads that begin with wishes, as JSON.
_TEXT: Final = (b"s", b"S")
_BYTES: Final = (b"b", b"B")


class Standing(NamedTuple):
    """The state of a channel, and a page of its entries: the answer of the scripts `history` and `read`."""

    now: int
    """The server's time, in milliseconds."""

    end: Id | None
    """The id of the newest event; `None` if the channel has no state."""

    entries: list[Any]
    ended: bool
    """Whether there are no more entries than these."""

    first: Id | None
    """The oldest entry, with the epoch of the channel. Only in the answer of `read`."""

    before: Id | None
    """The newest entry that is not after the position that was read from. Only in the answer of `read`."""

    @classmethod
    def of(cls, answer: Any) -> Standing:
        """Parse an answer."""
        if not isinstance(answer, list):
            raise TypeError(f"not a list: {answer!r:.80}")
        now = int(answer[0])
        if len(answer) == 1:
            return cls(now, None, [], True, None, None)
        _, epoch, ms, seq, entries, ended, *rest = answer
        end = Id(int(ms), int(seq), epoch.decode())
        first, before = (_id_of(raw, end.epoch) for raw in rest or (b"", b""))
        return cls(now, end, entries, bool(ended), first, before)

    def is_elsewhere(self, at: Id) -> bool:
        """Whether a position of the channel's epoch is of another branch, from before a failover.

        An event may be missing at the position for two reasons: it was trimmed, or it never existed on this
        branch. Within a branch, times and numbers have the same order. So if an entry before the position has
        at least its number, or if an entry after it has at most its number, the position is of another
        branch. For the position 7 at time 200, an event 7 at time 150 shows this, and so does an event 6 at
        time 210.
        """
        if self.before == at:
            return False  # the event is there, whatever the state says
        if self.end is None or self.end.seq <= at.seq:
            return self.end != at
        if self.before is not None and self.before.seq >= at.seq:
            return True
        following = _id_of(self.entries[0][0], at.epoch) if self.entries else None
        return following is not None and following.seq <= at.seq

    @property
    def begin(self) -> Id | None:
        """The position before the oldest entry, if there is one."""
        return self.first and self.first._replace(seq=max(self.first.seq - 1, 0))


def _id_of(raw: bytes, epoch: str) -> Id | None:
    if not raw:
        return None
    ms, seq = raw.split(b"-")
    return Id(int(ms), int(seq), epoch)


def encoded(data: str | bytes, wishes: Wishes) -> tuple[bytes, bytes]:
    """The kind of an event, and its payload: the data, after the wishes if there are any.

    With wishes, the payload is `<length of the JSON> <JSON><data>`.
    """
    payload = data.encode() if isinstance(data, str) else data
    if wishes is NO_WISHES:  # nearly always
        return (_TEXT if isinstance(data, str) else _BYTES)[0], payload
    told = {
        name: value
        for name, value in zip(
            ("exclude", "idempotency_key", "history", "max_age"),
            (wishes.exclude, wishes.idempotency_key, wishes.history, wishes.max_age),
            strict=True,
        )
        if value is not None
    }
    kind = (_TEXT if isinstance(data, str) else _BYTES)[bool(told)]
    if not told:
        return kind, payload
    head = json.dumps(told).encode()
    return kind, b"%d %b%b" % (len(head), head, payload)


def _parted(kind: bytes, payload: bytes) -> tuple[dict[str, Any], bytes]:
    """The wishes and the data of a payload.

    Raises:
        ValueError: It is not a payload of this kind.
    """
    if kind in (b"s", b"b"):
        return {}, payload
    if kind not in (b"S", b"B"):
        raise ValueError("an unknown kind")
    size, _, rest = payload.partition(b" ")
    try:
        told = json.loads(rest[: int(size)])
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(told, dict) or len(rest) < int(size):
        raise ValueError("not an object of this length")
    return told, rest[int(size) :]


def _event(channel: str, text: str, kind: bytes, payload: bytes) -> tuple[Id, Event]:
    """The parsed id of an event, and the event, with its id as text."""
    id = Id.parse(text)
    if kind == b"s":  # nearly always
        return id, Event(channel, text, payload.decode())
    told, data = _parted(kind, payload)
    exclude, key = told.get("exclude"), told.get("idempotency_key")
    # Other programs publish, too, and may have written anything.
    if not isinstance(exclude, str):
        exclude = None
    if not isinstance(key, str):
        key = None
    return id, Event(channel, text, data.decode() if kind in _TEXT else data, exclude, key)


def event_of(channel: str, pushed: bytes) -> tuple[Id, Event] | None:
    """The event in a pushed message, `<id> <kind><payload>`; `None` if there is none."""
    try:
        text, _, rest = pushed.partition(b" ")
        return _event(channel, text.decode(), rest[:1], rest[1:])
    except ValueError:
        return None


def floor_of(raw: bytes, fields: Any, now: int, max_age: float | None) -> int:
    """The number of the newest event that `history` leaves out because of one entry; 0 for none.

    An entry that has expired hides itself and all events before it. An entry with `history` hides the events
    that are more than so many back from it. The highest of these numbers, over all entries, counts.

    Args:
        raw: The entry's id.
        fields: The entry's fields.
        now: The server's time, in milliseconds.
        max_age: The milliseconds to keep an event without a `max_age` of its own; `None` for no limit.
    """
    ms, seq = map(int, raw.split(b"-"))
    told: dict[str, Any] = {}
    try:
        if fields[1][8:9] in (b"S", b"B"):
            told, _ = _parted(fields[1][8:9], fields[3])
        age = told["max_age"] * 1000 if "max_age" in told else max_age
        floor = seq - int(told["history"]) if "history" in told else 0
        return seq if age is not None and ms < now - age else max(floor, 0)
    except (IndexError, OverflowError, TypeError, ValueError):  # not one of our events, or not our wishes
        return 0


def is_lasting(fields: Any) -> bool:
    """Whether an entry was published without `history` and `max_age`."""
    try:
        told, _ = _parted(fields[1][8:9], fields[3])
    except (IndexError, TypeError, ValueError):  # not one of our events
        return True
    return not told.keys() & {"history", "max_age"}


def decoded(channel: str, raw: bytes, fields: Any) -> tuple[Id, Event] | None:
    """The event in an entry of a stream; `None` if there is none."""
    try:
        header_name, header, data_name, data = fields
        if (header_name, data_name) != (b"h", b"d"):
            return None
        return _event(channel, f"{raw.decode()}-{header[:8].decode()}", header[8:9], data)
    except (TypeError, ValueError):
        return None


def items_after(
    channel: str, at: Id, entries: Iterable[tuple[bytes, Any]], *, begins: bool
) -> tuple[list[Event | Gap], Id, list[bytes]]:
    """The events of a channel after a position, and the gaps between them.

    Args:
        channel: The channel's name.
        at: The position.
        entries: The entries of the stream after the position.
        begins: Whether the channel had no event at the position. Then event 1 of any epoch follows it.

    Returns:
        The items, the position after them, and the ids of the entries that are not our events.
    """
    items: list[Event | Gap] = []
    strange = []
    for raw, fields in entries:
        found = decoded(channel, raw, fields)
        if found is None:
            strange.append(raw)
            ms, seq = raw.split(b"-")
            if int(seq) == at.seq + 1 and not begins:
                # It has the next number, so it is one of our events, but damaged: a gap in its place. Entries
                # of other programs are skipped.
                before, at = at, Id(int(ms), int(seq), at.epoch)
                items.append(Gap(channel, str(before), str(at)))
            continue
        id, event = found
        if id.seq != at.seq + 1 or (id.epoch != at.epoch and not begins):
            items.append(Gap(channel, str(at), str(id._replace(seq=id.seq - 1))))
        items.append(event)
        at, begins = id, False
    return items, at, strange


class Pages:
    """The pages of a channel's history, which are read from the newest event back.

    In pages, so that no script runs for long. The first one says where the channel ends. Events that are
    published while the other pages are read come after that end, and by the subscription.

    Args:
        channel: The channel's name.
        after: The position after which events are wanted, or `None` for the newest ones.
        last: The number of events that are wanted without a position.
        kept: The most events in a history.
        max_age: See `floor_of`.
    """

    def __init__(
        self, channel: str, after: Id | None, last: int, *, kept: int, max_age: float | None
    ) -> None:
        self._channel = channel
        self._after = after
        self._kept = kept
        self._max_age = max_age
        # With a position, one more than is returned: the event at the position. It shows whether the position
        # is of this branch, see `_is_in`.
        self._wanted = min(last, kept) if after is None else kept + 1
        self._before = b"+"
        self._now = 0
        self.end: Id | None = None
        """The newest event when the first page was read; `None` if the channel was empty."""
        self._found: list[tuple[Id, Event]] = []  # the newest first
        self._floor = 0  # events up to this number have expired, by their own `max_age` or a later `history`
        self._lasting = True
        self._same = after is not None  # the position is of this epoch and branch, as far as is known yet

    @property
    def next_page(self) -> tuple[bytes, bytes, bytes, bytes]:
        """The arguments of the script `history` that say which page is needed next."""
        epoch, seq = b"", b"0"
        if self._same and self._after is not None:
            epoch, seq = self._after.epoch.encode(), b"%d" % self._after.seq
        return b"%d" % self._wanted, epoch, seq, self._before

    def add(self, page: Standing) -> bool:
        """Add a page. Returns whether another one is needed."""
        if self.end is None:
            self.end, self._now = page.end, page.now
        if page.end is None or self.end is None or page.end.epoch != self.end.epoch:
            return False  # the channel is empty, or it began again between two pages
        events = (decoded(self._channel, raw, fields) for raw, fields in page.entries)
        self._found += [pair for pair in events if pair is not None]
        for raw, fields in page.entries:
            self._floor = max(self._floor, floor_of(raw, fields, self._now, self._max_age))
        self._lasting = self._lasting and all(is_lasting(fields) for _, fields in page.entries)
        self._wanted -= len(page.entries)
        if self._same and self._after is not None:
            if not _is_in(self._after, self.end, self._found):
                self._same = False  # the position is of no use: go on until all kept events are read
            elif self._found and self._found[-1][0].seq <= self._after.seq:
                return False  # the pages have reached the position
        if page.ended or self._wanted <= 0:
            return False
        self._before = b"(" + page.entries[-1][0]
        return True

    def history(self, memory: str, *, expire: int) -> History:
        """The events after the position that have not expired, and whether any are missing.

        Args:
            memory: The id of the server's memory, if the channel is empty, or was at the position.
            expire: The milliseconds after which a channel that nobody watches expires.
        """
        after, end = self._after, self.end
        position = end or Id(self._now, 0, memory)
        first = max(self._floor, after.seq if after is not None and self._same else 0) + 1
        events = [
            event for id, event in reversed(self._found) if id.epoch == position.epoch and id.seq >= first
        ]
        events = events[max(len(events) - self._kept, 0) :]
        if after is None:
            complete = True
        elif self._same and end is not None:
            # Numbers have no holes, so this many events were published after the position.
            complete = len(events) == end.seq - after.seq
        else:
            # Another epoch or branch. Nothing is missing only if the channel was empty at the position, and
            # all its events since are here: numbers 1 to `position.seq`. If the position is older than
            # `expire`, this is unknown: the channel may have had events, and may have expired with them.
            was_empty = not after.seq and after.epoch == memory and self._now - after.ms < expire
            complete = was_empty and len(events) == position.seq
        return History(events, complete, str(position), self._lasting)


def _is_in(after: Id, end: Id, found: list[tuple[Id, Event]]) -> bool:
    """Whether a position can be of this history, by the newest events that were found.

    Within one branch, times and numbers have the same order. Suppose that a process has seen event 7 of time
    200, and the primary dies. The new primary had only events up to 6, and its clock is behind: it gives out
    event 7 again, at time 150. By the number alone, the old position would seem to be of this history, and
    the new event 7 would be skipped without a gap.
    """
    if after.epoch != end.epoch or after.seq > end.seq or (after.seq == end.seq and after.ms != end.ms):
        return False
    # The event with the position's number must have its time, and later events must not be older.
    return all(
        id.ms == after.ms if id.seq == after.seq else id.ms >= after.ms
        for id, _ in found
        if id.seq >= after.seq and id.epoch == end.epoch
    )
