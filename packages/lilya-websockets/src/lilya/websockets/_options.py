"""What an app chooses when it opens a block, checked; and the checks of numbers that other rooms use, too.

The rules of this file:

- Only `checked_options` makes `Options`, so nothing has to check them again.
- `DEFAULTS` are what `async with websocket` takes: a connection without options pays for no checks.
"""

from __future__ import annotations

import sys
from typing import Final, NamedTuple

from ._inbox import Limits
from ._messages import checked_bytes, checked_close, checked_text
from .types import Message

__all__ = [
    "DEFAULTS",
    "Heartbeat",
    "Options",
    "checked_count",
    "checked_flag",
    "checked_number",
    "checked_options",
]


class Heartbeat(NamedTuple):
    """What is sent to a client to be answered, and when."""

    period: float
    """Seconds from one to the next."""
    message: Message
    limit: float
    """Seconds for the answer."""


class Options(NamedTuple):
    """The options of a block. Their defaults are those of `WebSocket.open`, which explains them."""

    cancels: bool = False
    """Whether the end cancels the body."""
    limits: Limits = Limits()
    idle_code: int = 1001
    heartbeat: Heartbeat | None = None
    close_timeout: float = 1.0

    @property
    def need_reader(self) -> bool:
        """Whether one of them is about messages that the app has not received."""
        return self.limits != DEFAULTS.limits or self.heartbeat is not None


DEFAULTS: Final = Options()


def checked_options(
    *,
    cancel_on_disconnect: bool,
    idle_timeout: float | None,
    idle_code: int,
    heartbeat: float | None,
    heartbeat_message: str | bytes,
    heartbeat_timeout: float | None,
    max_message_size: int | None,
    max_messages_per_second: float | None,
    buffer_messages: int,
    buffer_bytes: int,
    close_timeout: float,
) -> Options:
    """The options of a block, from the arguments of `WebSocket.open`.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An argument out of range.
    """
    checked_flag("cancel_on_disconnect", cancel_on_disconnect)
    idle = _checked_period("idle_timeout", idle_timeout)
    idle_code, _ = checked_close(idle_code, None)
    period = _checked_period("heartbeat", heartbeat)
    message: Message = {"type": "websocket.send"}
    if isinstance(heartbeat_message, str):
        message["text"] = checked_text(heartbeat_message)
    else:
        message["bytes"] = checked_bytes(heartbeat_message)
    answer = _checked_period("heartbeat_timeout", heartbeat_timeout)
    size = None if max_message_size is None else checked_count("max_message_size", max_message_size)
    rate = _checked_period("max_messages_per_second", max_messages_per_second)
    limits = Limits(
        checked_count("buffer_messages", buffer_messages),
        checked_count("buffer_bytes", buffer_bytes, least=1),
        size,
        rate,
        idle,
    )
    return Options(
        cancel_on_disconnect,
        limits,
        idle_code,
        None if period is None else Heartbeat(period, message, period if answer is None else answer),
        checked_number("close_timeout", close_timeout),
    )


def checked_flag(name: str, value: object) -> bool:
    """`True` or `False`, and nothing that merely counts as one of them."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be bool, got {type(value).__name__}")
    return value


def checked_number(name: str, value: object, *, least: float | None = None) -> float:
    """A number above zero, or not below `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    # NaN compares with nothing.
    if not (value > 0 if least is None else value >= least):
        raise ValueError(f"{name} must be {'above' if least is None else 'at least'} 0, got {value!r}")
    return min(value, sys.float_info.max)  # there are larger integers, which no clock takes


def checked_count(name: str, value: object, *, least: int = 0) -> int:
    """An integer not below `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


def _checked_period(name: str, value: float | None) -> float | None:
    return None if value is None else checked_number(name, value)
