"""The history of a channel, shared by all who join it at about the same time.

After an outage, hundreds of clients come back to one channel, and each wants what it has missed. The history
of the first one is kept for a while. The next ones are given the part that they want, and the backend is
only asked for what is newer. All of them get the same objects, so each event is encoded once. A history with
events that have asked for a `history` or a `max_age` is not shared, because they may be over by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import anyio

from ._backend import Backend
from ._outbox import Entry

__all__ = ["Recalled", "Recent"]

# Seconds after which a history that nobody has asked for is let go, and bytes of one that is kept at most.
_KEPT: Final = 10.0
_LARGEST: Final = 8_388_608


class Recalled(NamedTuple):
    """What `Backend.history` found, as entries for outboxes."""

    entries: Sequence[Entry]
    ids: Sequence[str]
    complete: bool
    position: str
    lasting: bool = True


class _Window:
    """A part of a channel's history, without a hole, up to a position."""

    def __init__(self, since: str | None, found: Recalled) -> None:
        self.entries: list[Entry] = []
        self.size = 0
        self.position = found.position
        # By position, how many entries are not after it.
        self.places: dict[str, int] = {} if since is None else {since: 0}
        self.used_at = anyio.current_time()
        self._extend(found, 0)

    def takes(self, base: str, newer: Recalled) -> bool:
        """Add what was found after the end that it had before; whether that could be done."""
        if newer.position in self.places:
            return True  # somebody else was faster
        if self.position in newer.ids:
            self._extend(newer, newer.ids.index(self.position) + 1)
        elif self.position == base:
            self._extend(newer, 0)
        else:
            return False
        return True

    def _extend(self, found: Recalled, begin: int) -> None:
        for entry, id in zip(found.entries[begin:], found.ids[begin:], strict=True):
            self.entries.append(entry)
            self.size += entry.size
            self.places[id] = len(self.entries)
        self.places[found.position] = len(self.entries)
        self.position = found.position

    def between(self, since: str, position: str) -> list[Entry]:
        return self.entries[self.places[since] : self.places[position]]


class Recent:
    """Histories that were asked for lately."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._windows: dict[str, _Window] = {}
        self._asking: dict[str, anyio.Event] = {}  # channels of which somebody asks for a history

    async def history(self, name: str, *, last: int, since: str | None) -> Recalled:
        """See `Backend.history`."""
        if since is None:
            return await self._ask(name, last, None)
        window = self._windows.get(name)
        if window is None or since not in window.places:
            asking = self._asking.get(name)
            if asking is None:
                return await self._first(name, since)
            await asking.wait()
            window = self._windows.get(name)
        if window is None or since not in window.places:
            return await self._ask(name, 0, since)
        window.used_at = anyio.current_time()
        # It is of the same life and branch as the position. Whether that is still so, this answer shows.
        base = window.position
        newer = await self._ask(name, 0, base)
        if not (newer.complete and newer.lasting) or not window.takes(base, newer):
            self._forget(name, window)
            return await self._ask(name, 0, since)
        if window.size > _LARGEST:
            self._forget(name, window)
        return Recalled(window.between(since, newer.position), (), True, newer.position)

    async def _first(self, name: str, since: str) -> Recalled:
        asking = self._asking[name] = anyio.Event()
        try:
            found = await self._ask(name, 0, since)
        finally:
            del self._asking[name]
            asking.set()
        window = _Window(since if found.complete else None, found)
        if found.lasting and window.entries and window.size <= _LARGEST:
            self._windows[name] = window
        return found

    async def _ask(self, name: str, last: int, since: str | None) -> Recalled:
        found = await self._backend.history(name, last=last, since=since)
        ids = [event.id for event in found.events]
        return Recalled(list(map(Entry.of, found.events)), ids, *found[1:])

    def _forget(self, name: str, window: _Window) -> None:
        if self._windows.get(name) is window:
            del self._windows[name]

    async def run(self) -> None:
        """Let go what nobody asks for any more, for ever."""
        while True:
            await anyio.sleep(_KEPT / 2)
            oldest = anyio.current_time() - _KEPT
            for name, window in list(self._windows.items()):
                if window.used_at < oldest:
                    self._forget(name, window)
