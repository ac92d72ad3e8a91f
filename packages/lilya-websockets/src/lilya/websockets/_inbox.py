"""What has come in a block and was not received yet, and the limits of what may come.

The rules of this file:

- Nothing here awaits, and nothing knows an event loop: the clock is given. Who waits for what is in
  `_reader.py`.
- The clock is asked only if a limit needs it: a look at it costs as much as the rest of a message.
- What is kept is in order: messages, errors of the server, and last the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from .types import Message

__all__ = ["Breach", "Inbox", "Limits", "kind_of", "size_of"]


class Limits(NamedTuple):
    """What an app says about messages that it has not received, and the defaults of that."""

    messages: int = 64
    """That may wait; 0 drops all."""
    bytes: int = 1_048_576
    """That may wait; one message more may make them more."""
    size: int | None = None
    """The bytes of one message."""
    rate: float | None = None
    """Messages per second, on average, and as many at once, at least one."""
    idle: float | None = None
    """Seconds without a message."""


class Breach(NamedTuple):
    """A limit that was passed: how to close for it."""

    code: int
    reason: str
    ended: str
    """In the words of an exception."""


class Inbox:
    """What waits for the app, within limits.

    Args:
        limits: What the app allows.
        clock: The current time, in seconds.
    """

    __slots__ = ("_clock", "_held", "_limits", "_timed", "_tokens", "items", "last", "paused_at")

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._timed = limits.idle is not None or limits.rate is not None
        self._held = 0
        self._tokens = 0.0 if limits.rate is None else max(limits.rate, 1.0)
        self.items: deque[tuple[Any, int]] = deque()
        """What waits, with its size."""
        self.last = clock()
        """When the last message came, or when nobody kept one from coming any more."""
        self.paused_at: float | None = None
        """Since when the server is not asked, because there is no room."""

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be asked for."""
        limits = self._limits
        return (len(self.items) >= limits.messages or self._held >= limits.bytes) and limits.messages > 0

    def admit(self, size: int) -> Breach | None:
        """Count a message of this size. Return the limit that it exceeds, if any."""
        limits = self._limits
        elapsed = 0.0
        if self._timed:
            before, self.last = self.last, self._clock()
            elapsed = self.last - before
        if limits.size is not None and size > limits.size:
            return Breach(1009, "message too big", f"a message had more than {limits.size} bytes")
        if limits.rate is not None:
            full = max(limits.rate, 1.0)
            if self._tokens < full:
                self._tokens = min(full, self._tokens + elapsed * limits.rate)
            if self._tokens < 1.0:
                return Breach(
                    1008,
                    "too many messages",
                    f"the client sent more than {limits.rate:g} messages per second",
                )
            self._tokens -= 1.0
        return None

    def keep(self, item: Any, size: int = 0) -> None:
        """Let something wait behind what waits already."""
        self.items.append((item, size))
        self._held += size

    def take(self) -> Any:
        """The first of what waits; an error is raised.

        Raises:
            IndexError: Nothing waits.
        """
        item, size = self.items.popleft()
        self._held -= size
        if isinstance(item, BaseException):
            raise item
        return item

    def clear(self) -> None:
        """Drop what waits."""
        self.items.clear()
        self._held = 0

    def pause(self) -> None:
        """The server is not asked from now on, because there is no room."""
        self.paused_at = self._clock()

    def resume(self) -> None:
        """It is asked again. What came meanwhile is read at once, and was not sent at once."""
        now = self._clock()
        if self._limits.rate is not None and self.paused_at is not None:
            self._tokens += (now - self.paused_at) * self._limits.rate
        self.last = now  # the silence was the app's
        self.paused_at = None

    def silent_since(self) -> float:
        """Since when the client has sent nothing, although it could."""
        return self.last if self.paused_at is None else self._clock()


def kind_of(message: Message) -> Any:
    """The `type` of a message; `None` for what is no message, which is for the app's receive to refuse."""
    try:
        return message["type"]
    except (KeyError, TypeError):
        return None


def size_of(message: Message) -> int:
    """The bytes of a message's payload, text as UTF-8."""
    text = message.get("text")
    if isinstance(text, str):
        return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    data = message.get("bytes")
    return len(data) if isinstance(data, (bytes, bytearray, memoryview)) else 0
