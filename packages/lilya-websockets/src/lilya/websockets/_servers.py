"""What is known of single servers, and told by no message of theirs. The page *Servers* has all that differs.

The servers are known by their scopes, which middleware hands on, and not by their callables, which it wraps.
All of this is looked at in rare cases only: headers that go with `accept`, and the end.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, Final

from .types import Message, Scope

__all__ = ["is_loss", "warn_of_dropped_headers"]


def _is_granian(scope: Scope) -> bool:
    # The extension is one of HTTP. A port is an `int` elsewhere, as the ASGI spec wants it.
    return "http.response.pathsend" in (scope.get("extensions") or ()) and isinstance(_port(scope), str)


def _is_daphne(scope: Scope) -> bool:
    # Nobody else says so little. Its addresses are lists, those of most others tuples.
    return (
        scope.get("asgi") == {"version": "3.0"}
        and "scheme" not in scope
        and "extensions" not in scope
        and isinstance(scope.get("client"), list)
    )


def _port(scope: Scope) -> Any:
    client = scope.get("client")
    return client[1] if isinstance(client, (tuple, list)) and len(client) == 2 else None


# Those that drop the headers of `websocket.accept`.
_DROPPING: Final = {"granian": _is_granian, "daphne": _is_daphne}

_warned: set[str] = set()


def warn_of_dropped_headers(scope: Scope, headers: list[tuple[bytes, bytes]]) -> None:
    """Warn, once in a process, if the server will drop the headers of an acceptance.

    Warns:
        RuntimeWarning: It will. What is lost are the headers alone: the acceptance counts.
    """
    for server, is_it in _DROPPING.items():
        if server not in _warned and is_it(scope):
            _warned.add(server)
            names = ", ".join(sorted({name.decode() for name, _ in headers}))
            warnings.warn(
                f"{server} sends no headers with accept(): the client does not get {names}. Send what it "
                "says in a message, set cookies in an HTTP response before the WebSocket, or use another "
                "server",
                RuntimeWarning,
                stacklevel=3,
            )


def is_loss(scope: Scope, message: Message) -> bool:
    """Whether a `websocket.disconnect` with 1005 means that the connection was lost (1006).

    uvicorn says 1005 for both. Where the client has closed, it adds the frame's reason, also an empty one.
    """
    return (
        "reason" not in message
        and "uvicorn" in sys.modules
        and (scope.get("asgi") or {}).get("spec_version") == "2.4"
    )
