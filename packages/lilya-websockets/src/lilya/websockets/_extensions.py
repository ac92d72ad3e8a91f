"""The ASGI extensions that the core uses and the protocol for uvicorn announces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .types import Message, Receive, Scope, Send

DENIAL: Final = "websocket.http.response"
"""ASGI's own: an HTTP response instead of an accepted connection. The types of its messages begin so, too."""

PREPARED: Final = "lilya.websocket.prepared"
"""One message to many connections, which the server frames once."""

END: Final = "lilya.websocket.end"
"""The server tells the end of a connection at once, and keeps what was not received."""


def watch_of(
    scope: Scope, receive: Receive, send: Send
) -> Callable[[Callable[[Message], object]], object] | None:
    """What tells the end by `END`, if both callables are the server's own.

    Middleware with callables of its own may hold another conversation, and the server does not know how that
    ends.
    """
    extension = (scope.get("extensions") or {}).get(END)
    if extension is None:
        return None
    watch: Any = extension["watch"]
    # By identity: middleware may hand on one of the two, and wrap the other.
    owner = _owner(watch)
    return watch if owner is not None and owner is _owner(receive) and owner is _owner(send) else None


def _owner(method: object) -> object:
    return getattr(method, "__self__", None)
