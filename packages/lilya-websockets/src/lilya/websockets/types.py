"""Aliases for the ASGI callables and their messages (ASGI spec 3.0, "Applications"), and the type variables
of `WebSocket[In, Out]`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # with defaults, which `typing` has from Python 3.13 on

    In = TypeVar("In", covariant=True, default=Any)
    Out = TypeVar("Out", contravariant=True, default=In)
else:
    from typing import TypeVar

    In = TypeVar("In", covariant=True)
    Out = TypeVar("Out", contravariant=True)

__all__ = ["ASGIApp", "AnyASGIApp", "In", "Message", "Out", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
"""What the server knows about a connection. Each connection has its own scope."""

Message = MutableMapping[str, Any]
"""One event, with its kind under `"type"`."""

Receive = Callable[[], Awaitable[Message]]
"""Awaits the next event from the server."""

Send = Callable[[Message], Awaitable[None]]
"""Passes an event to the server."""

ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application."""

AnyASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
"""The same of any framework: some have types of their own for the three."""
