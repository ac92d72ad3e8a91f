"""The ASGI extensions that the core uses and the protocol for uvicorn announces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from .types import Message, Receive, Scope, Send

DENIAL: Final = "websocket.http.response"
"""ASGI's own: an HTTP response instead of an accepted connection. The types of its messages begin so, too."""

PREPARED: Final = "lilya.websocket.prepared"
"""One message to many connections, which the server frames once."""

END: Final = "lilya.websocket.end"
"""The server tells the end of a connection at once, counts what comes, and keeps what was not received."""


class Counts:
    """Messages that were received and sent since something began, and the bytes of their payloads.

    Text counts as UTF-8.
    """

    __slots__ = ("bytes_received", "bytes_sent", "messages_received", "messages_sent")

    def __init__(self) -> None:
        self.messages_received = self.bytes_received = self.messages_sent = self.bytes_sent = 0


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


class Counting(NamedTuple):
    """What a server with `END` offers a block."""

    watch: Callable[[Callable[[Message], object]], object]
    """Tells the end."""
    connection: Any
    """Counts what comes, and knows when a send is written at once."""


def counting_of(scope: Scope, receive: Receive, send: Send) -> Counting | None:
    """What there is for a block without a reader, if `watch_of` finds something, and more than it needs."""
    watch = watch_of(scope, receive, send)
    if watch is None:
        return None
    connection = scope["extensions"][END].get("connection")
    found = hasattr(connection, "count") and hasattr(connection, "is_ready")
    return Counting(watch, connection) if found else None


def _owner(method: object) -> object:
    return getattr(method, "__self__", None)
