"""What is known of the frameworks around an app, in this place only.

The rules of this file:

- Nothing is imported from a framework. A class is looked up by name in a module that is loaded already: an
  exception of a class whose module was never loaded does not exist.
- An exception is known by its class, never by its attributes: `SystemExit`, `urllib`'s `HTTPError` and the
  errors of gRPC have a `code`, too.
- All of this is looked at when an exception is under way, and at no other time.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

from ._messages import checked_close, checked_headers, checked_status
from .exceptions import WebSocketDisconnect
from .types import Message, Scope

__all__ = ["below", "close_of", "denial_of", "end_of", "is_handled", "losses"]

_Names = tuple[tuple[str, str], ...]

# Raised by an app to close with a code. FastAPI's is Starlette's.
_CLOSING: Final[_Names] = (
    ("starlette.exceptions", "WebSocketException"),
    ("lilya.exceptions", "WebSocketException"),
    ("litestar.exceptions", "WebSocketException"),
)
# Raised by an app to answer with an HTTP status.
_DENYING: Final[_Names] = (
    ("starlette.exceptions", "HTTPException"),
    ("lilya.exceptions", "HTTPException"),
    ("litestar.exceptions", "HTTPException"),
)
# Raised by a framework's own object when the client has left. Litestar's is one that closes, too.
_LEAVING: Final[_Names] = (
    ("starlette.websockets", "WebSocketDisconnect"),
    ("litestar.exceptions", "WebSocketDisconnect"),
)
# A group of exceptions is of this class as soon as each of them is an `Exception`. Before Python 3.11 it is
# the backport's, which AnyIO brings, and without AnyIO nobody has it.
_GROUPS: Final[_Names] = (("builtins", "ExceptionGroup"), ("exceptiongroup", "ExceptionGroup"))
_LITESTARS: Final[_Names] = (("litestar.exceptions", "LitestarException"),)
# Where a framework keeps the handlers of exceptions for what is inside of it: by class, and by status.
_HANDLERS: Final = ("starlette.exception_handlers", "lilya.exception_handlers")


def losses() -> tuple[type[Exception], ...]:
    """What `receive` and `send` raise when the client has left: the server's `OSError`, or a framework's own.

    For an `except` clause, which looks at it only when something was raised.
    """
    return (OSError, WebSocketDisconnect, *_loaded(_LEAVING))


def end_of(loss: Exception) -> Message:
    """The end that one of `losses` tells of."""
    if isinstance(loss, OSError):
        return {"code": 1006}
    # Litestar has no reason, and describes the exception instead.
    return {"code": getattr(loss, "code", None), "reason": getattr(loss, "reason", None)}


def close_of(error: BaseException | None) -> tuple[int, str] | None:
    """The close code and the reason that an exception carries; `None` if it has none that may be sent.

    A group carries those of its first exception, if each of them is such an exception.
    """
    if isinstance(error, _loaded(_GROUPS)):
        group: Any = error
        codes = [close_of(inner) for inner in group.exceptions]
        return None if None in codes else codes[0]
    if not isinstance(error, _loaded(_CLOSING)) or isinstance(error, losses()):
        return None
    reason = getattr(error, "reason", None)
    try:
        # Litestar calls it the detail.
        return checked_close(getattr(error, "code", None), reason or getattr(error, "detail", None))
    except (TypeError, ValueError):
        return None


def denial_of(error: BaseException) -> tuple[int, str, list[tuple[bytes, bytes]]] | None:
    """The status, the text and the headers of an `HTTPException`; `None` if it is none that may be sent."""
    if not isinstance(error, _loaded(_DENYING)):
        return None
    carried: Any = error
    headers: Mapping[Any, Any] = carried.headers or {}
    try:
        fields = checked_headers(headers, of_handshake=False)
        return checked_status(carried.status_code), str(carried.detail or ""), fields
    except (TypeError, ValueError):
        return None


def is_handled(scope: Scope, error: BaseException) -> bool:
    """Whether a framework around the app has a handler for an exception that says how to end a connection."""
    for key in _HANDLERS:
        handlers = scope.get(key)
        if isinstance(handlers, tuple) and any(cls in handlers[0] for cls in type(error).__mro__):
            return True
    return "litestar_app" in scope and isinstance(error, _loaded(_LITESTARS))


def below(method: Any) -> Any:
    """What a framework's `receive` calls for each message, if it does nothing else that could wait.

    Starlette's, which is FastAPI's, looks at the message and keeps a state: cancelled, it has lost nothing
    that what is below it has not lost. Of everything else, and so of middleware, nothing is known: it is
    returned itself. By the file of its code: what somebody has put in its place may take its name, too.
    """
    module = sys.modules.get("starlette.websockets")
    code = getattr(getattr(method, "__func__", None), "__code__", None)
    if code is None or module is None or (code.co_filename, code.co_name) != (module.__file__, "receive"):
        return method
    return getattr(method.__self__, "_receive", method)


def _loaded(names: _Names) -> tuple[type[Exception], ...]:
    """Those of the classes that are there."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in names)
    return tuple(cls for cls in found if isinstance(cls, type) and issubclass(cls, Exception))
