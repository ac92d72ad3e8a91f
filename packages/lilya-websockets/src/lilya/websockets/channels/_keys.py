"""The names of a channel's keys, and of its pub/sub channel, on a Redis server.

In a key, the channel's name is percent-encoded, so no name can reach the keys of another channel. The braces
around it put all keys of a channel into one slot of a cluster, as scripts need it. Pub/sub ignores the number
of the database. So the pub/sub channel has this number in its name: otherwise, apps in two databases would
receive each other's events.
"""

from __future__ import annotations

import functools
import itertools
import re
from binascii import crc_hqx
from collections.abc import Callable, Collection, Iterable, Sequence
from secrets import token_hex
from typing import Final, TypeVar
from urllib.parse import quote, unquote

from ._scripts import SCRIPTS, SHARDED, Script

__all__ = ["SLOTS", "Keys", "epoch", "slot_of"]

T = TypeVar("T")

SLOTS: Final = 16_384
_MOST: Final = 10_000
# A name that is its own percent-encoding, as nearly all are. To check is much faster than to encode.
_PLAIN: Final = re.compile(r"[\w.~:/-]*", re.ASCII).fullmatch


class Keys:
    """The keys of all channels with a prefix in a database."""

    def __init__(self, prefix: str, database: int, *, in_cluster: bool = False) -> None:
        self._prefix = quote(prefix, safe="")
        self.in_cluster = in_cluster
        self._scripts = SHARDED if in_cluster else SCRIPTS
        self._tags: dict[int, str] = {}  # by slot, those that `_tag_of` has found
        self._numbers = itertools.count()
        self.publish = b"SPUBLISH" if in_cluster else b"PUBLISH"
        """The command that pushes."""
        self.push = b":push:%d" % database
        """The end of the name of a pub/sub channel. Before it is the key of the channel's events."""
        self.of = functools.lru_cache(maxsize=_MOST)(self._of)
        """Returns the keys of a channel's events and of its state."""

    def slot_of(self, key: bytes) -> int:
        """The slot of a key; 0 if there is no cluster."""
        return slot_of(key) if self.in_cluster else 0

    def memory_of(self, slot: int) -> bytes:
        """The key with the id of the memory that a slot is in.

        In a cluster, each slot has such a key, because each slot can lose its data alone. The key must itself
        be in the slot. So it has the name of a channel that is called by a number and is in this slot.
        """
        tag = self._tag_of(slot) if self.in_cluster else ""
        return self._of(tag)[0] + b":memory"

    def _tag_of(self, slot: int) -> str:
        """A number, as text, for which a channel with this name is in a slot."""
        # Try numbers until one is in the slot, and remember the slots of the others. The first part of the
        # key is always the same, so its checksum is computed once.
        begun = crc_hqx(self.pattern.encode()[1:], 0)
        while slot not in self._tags:
            tag = f"{next(self._numbers):x}"
            self._tags.setdefault(crc_hqx(tag.encode(), begun) % SLOTS, tag)
        return self._tags[slot]

    def together(self, those: list[T], slot: Callable[[T], int]) -> Iterable[list[T]]:
        """Group items by slot, because all keys of a command must be in one slot."""
        by_slot: dict[int, list[T]] = {}
        for each in those:
            by_slot.setdefault(slot(each), []).append(each)
        return by_slot.values()

    @property
    def probe(self) -> bytes:
        """The name of a pub/sub channel without listeners, to check whether the user may push."""
        return self.pushed("") + b":probe"

    @property
    def pattern(self) -> str:
        """The start of all keys, and of the names of all pub/sub channels."""
        return f"{{{self._prefix}:"

    @property
    def any_state(self) -> bytes:
        """The glob-style pattern for `SCAN` that matches the keys of all states."""
        return re.sub(r"([\\*?\[\]^])", r"\\\1", self.pattern).encode() + b"*}:state"

    def channel_of(self, state: bytes) -> str:
        """The channel of a key that `any_state` matches."""
        return unquote(state.decode()[len(self.pattern) : -len("}:state")])

    def pushed(self, channel: str) -> bytes:
        """The name of the pub/sub channel on which a channel's events are pushed."""
        return self._of(channel)[0] + self.push

    def once(self, channel: str, key: str) -> bytes:
        """The key with the id of the event that was published with an idempotency key."""
        return self._of(channel)[0] + b":once:" + quote(key, safe="").encode()

    @property
    def scripts(self) -> Collection[Script]:
        """All scripts."""
        return self._scripts.values()

    def source(self, name: str) -> bytes:
        """The source of a script."""
        return self._scripts[name].source

    def script(self, name: str, keys: Sequence[bytes], *arguments: bytes) -> tuple[bytes, ...]:
        """The parts of the command that runs a script."""
        return (b"EVALSHA", self._scripts[name].sha, b"%d" % len(keys), *keys, *arguments)

    def _of(self, channel: str) -> tuple[bytes, bytes]:
        name = channel if _PLAIN(channel) else quote(channel, safe=":/")
        key = f"{{{self._prefix}:{name}}}".encode()
        return key, key + b":state"


def slot_of(key: bytes) -> int:
    """The slot of a key in a cluster. It depends only on the text in the first braces."""
    return crc_hqx(key[key.index(b"{") + 1 : key.index(b"}")], 0) % SLOTS


def epoch() -> bytes:
    """A random epoch, for a channel that starts a new one."""
    # Not from `random`: an app may have seeded it, with the same seed at each start. If the epoch or the id
    # of the memory were the same after a loss as before, the loss would go unnoticed.
    return token_hex(4).encode()
