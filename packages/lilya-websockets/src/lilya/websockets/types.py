"""Aliases for the ASGI callables and their messages (ASGI spec 3.0, "Applications")."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["ASGIApp", "AnyASGIApp", "Message", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
"""What the server knows of the connection, one per connection."""

Message = MutableMapping[str, Any]
"""One event, with its kind under `"type"`."""

Receive = Callable[[], Awaitable[Message]]
"""Awaits the next event from the server."""

Send = Callable[[Message], Awaitable[None]]
"""Hands an event to the server."""

ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application."""

AnyASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
"""The same of any framework: some have types of their own for the three."""
