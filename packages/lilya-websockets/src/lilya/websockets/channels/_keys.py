"""What a channel is called at a Redis server.

Keys hold the channel's name percent-encoded: no name can leave its place, and the braces around it put all
keys of one channel into one slot of a cluster. What its events are pushed on has the number of the database
in its name, because pushes know no databases.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, unquote

from ._scripts import SCRIPTS

__all__ = ["Keys"]

_MOST: Final = 10_000


class Keys:
    """The keys of all channels with a prefix in a database."""

    def __init__(self, prefix: str, database: int) -> None:
        self._prefix = quote(prefix, safe="")
        self.push = b":push:%d" % database
        """What follows the key of a channel's events in the name of what they are pushed on."""
        self.of = functools.lru_cache(maxsize=_MOST)(self._of)
        """The keys of a channel's events and of its state."""

    @property
    def memory(self) -> bytes:
        """The key that only tells which memory this is."""
        return self._of("")[0] + b":memory"

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

    def script(self, name: str, keys: Sequence[bytes], *arguments: bytes) -> tuple[bytes, ...]:
        """The parts of the command that runs a script."""
        return (b"EVALSHA", SCRIPTS[name].sha, b"%d" % len(keys), *keys, *arguments)

    def _of(self, channel: str) -> tuple[bytes, bytes]:
        key = f"{{{self._prefix}:{quote(channel, safe=':/')}}}".encode()
        return key, key + b":state"


def epoch() -> bytes:
    """What a channel takes for its epoch if it begins one."""
    return b"%08x" % random.getrandbits(32)
