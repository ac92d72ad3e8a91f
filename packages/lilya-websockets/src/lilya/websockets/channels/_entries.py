"""What lies in a stream, and what of it is an event: pure functions, from the bytes of Redis to ours."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from ._backend import NO_WISHES, Event, Gap, Id, Wishes

__all__ = ["Standing", "decoded", "encoded", "event_of", "floor_of", "is_lasting", "items_after"]

# How a payload begins, for text and for bytes; with wishes it is a capital.
_TEXT: Final = (b"s", b"S")
_BYTES: Final = (b"b", b"B")


class Standing(NamedTuple):
    """A channel, as the server tells of it together with some entries."""

    now: int
    """The server's time, in milliseconds."""

    end: Id | None
    """Its newest event; `None` if nothing is known of the channel."""

    entries: list[Any]
    ended: bool
    """Whether there are no more entries than these."""

    first: Id | None
    """The oldest entry, with the epoch of the channel. Only from a read."""

    before: Id | None
    """The newest entry that is not after the position that was read from. Only from a read."""

    @classmethod
    def of(cls, answer: Any) -> Standing:
        """From the answer of the scripts `history` and `read`."""
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
        """Whether a position of this life of the channel is none of its history any more."""
        if self.end is None or self.end.seq <= at.seq:
            return self.end != at
        if self.before == at:
            return False
        # The event is kept no longer; or it has never been, and others have its number and its time.
        if self.before is not None and self.before.seq >= at.seq:
            return True
        following = _id_of(self.entries[0][0], at.epoch) if self.entries else None
        return following is not None and following.seq <= at.seq

    @property
    def begin(self) -> Id | None:
        """The position before everything that is kept, if anything is."""
        return self.first and self.first._replace(seq=max(self.first.seq - 1, 0))


def _id_of(raw: bytes, epoch: str) -> Id | None:
    if not raw:
        return None
    ms, seq = raw.split(b"-")
    return Id(int(ms), int(seq), epoch)


def encoded(data: str | bytes, wishes: Wishes) -> tuple[bytes, bytes]:
    """The kind of an event, and its payload: its data, behind what its readers have to know."""
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
    """What stands before the data, and the data.

    Raises:
        ValueError: It is no payload of this kind.
    """
    if kind in (b"s", b"b"):
        return {}, payload
    if kind not in (b"S", b"B"):
        raise ValueError("an unknown kind")
    size, _, rest = payload.partition(b" ")
    told = json.loads(rest[: int(size)])
    if not isinstance(told, dict) or len(rest) < int(size):
        raise ValueError("not an object of this length")
    return told, rest[int(size) :]


def _event(channel: str, text: str, kind: bytes, payload: bytes) -> tuple[Id, Event]:
    """An event, and its id both as a value and, in the event, as the text that it came as."""
    id = Id.parse(text)
    if kind == b"s":  # nearly always
        return id, Event(channel, text, payload.decode())
    told, data = _parted(kind, payload)
    exclude, key = told.get("exclude"), told.get("idempotency_key")
    if not isinstance(key, str):
        key = None
    return id, Event(channel, text, data.decode() if kind in _TEXT else data, exclude, key)


def event_of(channel: str, pushed: bytes) -> tuple[Id, Event] | None:
    """A pushed message, `<id> <kind><payload>`, as the event that it holds, if it does."""
    try:
        text, _, rest = pushed.partition(b" ")
        return _event(channel, text.decode(), rest[:1], rest[1:])
    except ValueError:
        return None


def floor_of(raw: bytes, fields: Any, now: int, max_age: float | None) -> int:
    """The newest event that history does not give any more, as far as one entry of a stream says; 0 for none.

    Args:
        raw: The entry's id.
        fields: Its fields.
        now: The server's time, in milliseconds.
        max_age: Milliseconds for which an event is kept that says nothing else, if there is a limit.
    """
    ms, seq = map(int, raw.split(b"-"))
    told: dict[str, Any] = {}
    try:
        if fields[1][8:9] in (b"S", b"B"):
            told, _ = _parted(fields[1][8:9], fields[3])
        age = told["max_age"] * 1000 if "max_age" in told else max_age
        floor = seq - int(told["history"]) if "history" in told else 0
    except (IndexError, TypeError, ValueError):  # no event of ours
        return 0
    return seq if age is not None and ms < now - age else max(floor, 0)


def is_lasting(fields: Any) -> bool:
    """Whether an entry of a stream sets no limit to what history gives, other than the usual ones."""
    try:
        told, _ = _parted(fields[1][8:9], fields[3])
    except (IndexError, TypeError, ValueError):  # no event of ours
        return True
    return not told.keys() & {"history", "max_age"}


def decoded(channel: str, raw: bytes, fields: Any) -> tuple[Id, Event] | None:
    """An entry of a stream as the event that it holds, if it does."""
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
    """The events of a channel from a position on, and the gaps between them.

    Args:
        channel: The channel's name.
        at: The position.
        entries: What comes after it in the stream.
        begins: Whether the channel had no event at the position, so that the first one of any life follows.

    Returns:
        The items, the position after them, and the ids of the entries that hold no event of ours.
    """
    items: list[Event | Gap] = []
    strange = []
    for raw, fields in entries:
        found = decoded(channel, raw, fields)
        if found is None:
            strange.append(raw)
            ms, seq = raw.split(b"-")
            if int(seq) == at.seq + 1 and not begins:  # one of ours, and damaged
                before, at = at, Id(int(ms), int(seq), at.epoch)
                items.append(Gap(channel, str(before), str(at)))
            continue
        id, event = found
        if id.seq != at.seq + 1 or (id.epoch != at.epoch and not begins):
            items.append(Gap(channel, str(at), str(id._replace(seq=id.seq - 1))))
        items.append(event)
        at, begins = id, False
    return items, at, strange
