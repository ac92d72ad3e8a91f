"""What is known of single servers and no message of theirs says. The page *Servers* lists all differences.

Servers are recognized by their scopes, which middleware passes on. Their callables, which middleware wraps,
are looked at only for what is theirs: the transport below a connection, the state of a worker, a `receive`
that loses nothing. None of this is needed for a message.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from .types import Message, Receive, Scope, Send

__all__ = [
    "GRACE",
    "Line",
    "is_loss",
    "is_stop",
    "line_of",
    "ready_of",
    "waker_of",
    "warn_of_dropped_headers",
]

# Seconds for finding out what a failed send means. Servers have the disconnect at hand by then.
GRACE: Final = 0.2


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


class Line(NamedTuple):
    """The connection below a WebSocket, where the server gives access to it."""

    is_held: Callable[[], bool]
    """Whether the server, when told to stop, would still wait for the client."""
    abort: Callable[[], object]
    """Drops the connection at once. Does nothing if it is gone."""
    frees_senders: bool
    """Whether a `send` that waits for the client ends with the conversation, without being cancelled."""


def line_of(send: Send, end: Mapping[str, Any] | None) -> Line | None:
    """The connection below a WebSocket; `None` if the server gives no access to it.

    Args:
        send: The server's own.
        end: The server's extension `lilya.websocket.end`, if it has it.
    """
    if end is not None and "connection" in end:
        connection = end["connection"]
        return Line(connection.is_open, connection.abort, frees_senders=True)
    # In uvicorn's own protocols, `send` is a method of the protocol, which has an asyncio transport. These
    # protocols close the transport without waiting for the client: what they wait for is its buffer.
    transport: Any = getattr(getattr(send, "__self__", None), "transport", None)
    size = getattr(transport, "get_write_buffer_size", None)
    return None if size is None else Line(lambda: size() > 0, transport.abort, frees_senders=False)


def is_stop(interruption: BaseException, send: Send) -> bool:
    """Whether what interrupts an app comes from a server that stops, rather than from the app itself.

    Of the servers that cancel, two can be told from anybody else: uvicorn by its words, and hypercorn by the
    state of its worker, if `send` is its own.
    """
    if isinstance(interruption, (KeyboardInterrupt, SystemExit)):
        return True
    if any("timeout graceful shutdown exceeded" in str(argument) for argument in interruption.args):
        return True
    stream: Any = getattr(send, "__self__", None)
    return type(stream).__module__ == "hypercorn.protocol.ws_stream" and bool(
        stream.context.terminated.is_set()
    )


# Modules of servers on asyncio whose `receive`, cancelled anywhere, loses no message and can be called again.
# It waits for nothing but the protocol's `queue`, and `send` for nothing but its `writable`.
_KNOWN: Final = {
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "uvicorn.protocols.websockets.wsproto_impl",
}


def waker_of(receive: Receive) -> Callable[[], None] | None:
    """What makes a `receive` return that waits, if this one is known to lose nothing when it is cancelled.

    It returns a `websocket.disconnect` then, unless a message has just come. `None` for every other, that of
    middleware too, which may lose one.
    """
    protocol = _known(receive, "receive")
    queue = getattr(protocol, "queue", None)
    if queue is None:
        return None

    def wake() -> None:
        if queue.empty():
            queue.put_nowait({"type": "websocket.disconnect", "code": 1006})

    return wake


def ready_of(send: Send) -> Callable[[], bool] | None:
    """What tells whether a `websocket.send` would be written at once now, and raise nothing.

    `None` if that is not known of this `send`.
    """
    protocol = _known(send, "send")
    writable = getattr(protocol, "writable", None)
    transport = getattr(protocol, "transport", None)
    if writable is None or transport is None:
        return None
    # However these servers end, they close the transport at once.
    return lambda: writable.is_set() and not transport.is_closing()


def _known(method: object, name: str) -> object:
    """The server's side of a connection, if the method is its own, and it is one of those that are known."""
    protocol = getattr(method, "__self__", None)
    known = type(protocol).__module__ in _KNOWN and getattr(method, "__name__", "") == name
    return protocol if known else None
