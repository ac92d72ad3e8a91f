"""What a channel is called at a Redis server.

Keys hold the channel's name percent-encoded: no name can leave its place, and the braces around it put all
keys of one channel into one slot of a cluster. What its events are pushed on has the number of the database
in its name, because pushes know no databases.
"""

from __future__ import annotations

import functools
import itertools
import random
import re
from binascii import crc_hqx
from collections.abc import Callable, Collection, Iterable, Sequence
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
        self._tags: dict[int, str] = {}  # by slot, as far as they are found
        self._numbers = itertools.count()
        self.publish = b"SPUBLISH" if in_cluster else b"PUBLISH"
        """The command that pushes."""
        self.push = b":push:%d" % database
        """What follows the key of a channel's events in the name of what they are pushed on."""
        self.of = functools.lru_cache(maxsize=_MOST)(self._of)
        """The keys of a channel's events and of its state."""

    def slot_of(self, key: bytes) -> int:
        """The slot of one of these keys. There is one if there is no cluster."""
        return slot_of(key) if self.in_cluster else 0

    def memory_of(self, slot: int) -> bytes:
        """The key that only tells which memory a slot is in.

        In a cluster each slot has its own, because each can lose its memory alone. The name of one is as that
        of a channel that is called by a number and is in the slot.
        """
        tag = self._tag_of(slot) if self.in_cluster else ""
        return self._of(tag)[0] + b":memory"

    def _tag_of(self, slot: int) -> str:
        begun = crc_hqx(self.pattern.encode()[1:], 0)
        while slot not in self._tags:
            tag = f"{next(self._numbers):x}"
            self._tags.setdefault(crc_hqx(tag.encode(), begun) % SLOTS, tag)
        return self._tags[slot]

    def together(self, those: list[T], slot: Callable[[T], int]) -> Iterable[list[T]]:
        """Those that one command can be about."""
        by_slot: dict[int, list[T]] = {}
        for each in those:
            by_slot.setdefault(slot(each), []).append(each)
        return by_slot.values()

    @property
    def probe(self) -> bytes:
        """Something that a process may push to and that nobody listens to."""
        return self.pushed("") + b":probe"

    @property
    def pattern(self) -> str:
        """What the names of all keys and pushes begin with."""
        return f"{{{self._prefix}:"

    @property
    def any_state(self) -> bytes:
        """What all keys of states match, in the language of Redis for that."""
        return re.sub(r"([\\*?\[\]^])", r"\\\1", self.pattern).encode() + b"*}:state"

    def channel_of(self, state: bytes) -> str:
        """The channel of a key that `any_state` matches."""
        return unquote(state.decode()[len(self.pattern) : -len("}:state")])

    def pushed(self, channel: str) -> bytes:
        """What a channel's events are pushed on."""
        return self._of(channel)[0] + self.push

    def once(self, channel: str, key: str) -> bytes:
        """What holds the id of the event that was published with an idempotency key."""
        return self._of(channel)[0] + b":once:" + quote(key, safe="").encode()

    @property
    def scripts(self) -> Collection[Script]:
        """All of them."""
        return self._scripts.values()

    def source(self, name: str) -> bytes:
        """What a script is made of."""
        return self._scripts[name].source

    def script(self, name: str, keys: Sequence[bytes], *arguments: bytes) -> tuple[bytes, ...]:
        """The parts of the command that runs a script."""
        return (b"EVALSHA", self._scripts[name].sha, b"%d" % len(keys), *keys, *arguments)

    def _of(self, channel: str) -> tuple[bytes, bytes]:
        name = channel if _PLAIN(channel) else quote(channel, safe=":/")
        key = f"{{{self._prefix}:{name}}}".encode()
        return key, key + b":state"


def slot_of(key: bytes) -> int:
    """The slot of a key in a cluster, by what is in its first braces."""
    return crc_hqx(key[key.index(b"{") + 1 : key.index(b"}")], 0) % SLOTS


def epoch() -> bytes:
    """What a channel takes for its epoch if it begins one."""
    return b"%08x" % random.getrandbits(32)
