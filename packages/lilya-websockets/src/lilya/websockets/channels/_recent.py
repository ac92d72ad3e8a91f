"""The history of a channel, shared by all receivers that join it at about the same time.

After an outage, hundreds of clients come back to one channel, and each wants the events that it has missed.
If each read the history from the broker, 500 clients with 1,000 events of 1 kB would read 500 MB, and hold as
many copies. So the history that the first client reads is kept for a while, as a window. Each other client
gets the part of it that comes after its own position, and the backend is only asked for newer events. All get
the same objects, so each event is encoded once.

For example, the first client comes back at event 100 and reads 101 to 600. The next one comes back at 350. It
gets 351 to 600 from the window, and asks the backend only for what comes after 600.

A history with events that were published with `history` or `max_age` is not shared, because they may have
expired when the next client comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import anyio

from ._backend import Backend
from ._outbox import Entry

__all__ = ["Recalled", "Recent"]

# The seconds after which a window that nobody has used is dropped, and the most bytes in a window.
_KEPT: Final = 10.0
_LARGEST: Final = 8_388_608


class Recalled(NamedTuple):
    """The result of `Backend.history`, as entries for outboxes."""

    entries: Sequence[Entry]
    ids: Sequence[str]
    complete: bool
    position: str
    lasting: bool = True


class _Window:
    """A part of a channel's history without holes, up to a position.

    It serves clients whose position is in `places`: the position from which the window was read, if nothing
    was missing after it, or the id of an event in the window. Ids are compared as text, with their time and
    epoch, so a position of another epoch or branch is never among them.
    """

    def __init__(self, since: str | None, found: Recalled) -> None:
        self.entries: list[Entry] = []
        self.size = 0
        self.position = found.position  # where the window ends
        # By position, the index of the first entry after it.
        self.places: dict[str, int] = {} if since is None else {since: 0}
        self.used_at = anyio.current_time()
        self._extend(found, 0)

    def takes(self, base: str, newer: Recalled) -> bool:
        """Extend the window by what was found after `base`, its end at that time. Returns whether it fits.

        Several clients ask at the same time, and their answers may arrive in any order. So the window may
        have grown since `base`.
        """
        if newer.position in self.places:
            return True  # another client's answer had all of this
        if self.position in newer.ids:
            # Another client's answer had a part of this: add the rest.
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
    """The windows of channels whose history was read lately."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._windows: dict[str, _Window] = {}
        self._asking: dict[str, anyio.Event] = {}  # by channel, set when the first read has ended

    async def history(self, name: str, *, last: int, since: str | None) -> Recalled:
        """See `Backend.history`."""
        if since is None:
            return await self._ask(name, last, None)
        window = self._windows.get(name)
        if window is None or since not in window.places:
            # The first client reads, and the others wait for it. If all of them read at once, there would be
            # nothing to share when it is needed most.
            asking = self._asking.get(name)
            if asking is None:
                return await self._first(name, since)
            await asking.wait()
            window = self._windows.get(name)
        if window is None or since not in window.places:
            # The read has failed, or this position is older than the window: read without sharing.
            return await self._ask(name, 0, since)
        window.used_at = anyio.current_time()
        # The window has the events up to `base`. Ask for the rest even if there is none: the answer also
        # shows whether the channel still is in the same epoch and branch. Without that, a window from before
        # a failover would be handed out as if nothing had happened.
        base = window.position
        newer = await self._ask(name, 0, base)
        if not (newer.complete and newer.lasting) or not window.takes(base, newer):
            self._forget(name, window)
            return await self._ask(name, 0, since)
        if window.size > _LARGEST:
            self._forget(name, window)
        return Recalled(window.between(since, newer.position), (), True, newer.position)

    async def _first(self, name: str, since: str) -> Recalled:
        """Read a history for a new window, while others wait for it."""
        asking = self._asking[name] = anyio.Event()
        try:
            found = await self._ask(name, 0, since)
        finally:
            # The others run only after the next `await`, so they see the window that is made below.
            del self._asking[name]
            asking.set()
        # If the history does not reach back to `since`, another client with the same position must not be
        # served from the window: it would not get the gap.
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
        """Drop windows that nobody uses any more, for ever."""
        while True:
            await anyio.sleep(_KEPT / 2)
            oldest = anyio.current_time() - _KEPT
            for name, window in list(self._windows.items()):
                if window.used_at < oldest:
                    self._forget(name, window)
