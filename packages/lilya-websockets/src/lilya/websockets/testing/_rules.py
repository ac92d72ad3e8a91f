"""What an app may send, as data and pure functions.

As strict as the strictest server: what one of them refuses is refused here (ASGI spec, "WebSocket"; RFC
6455). What none of them minds is a warning: `tolerated`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

from ..types import Message
from ._errors import show

__all__ = ["DENIAL", "LEGAL", "Stage", "illegal", "malformed", "tolerated"]

DENIAL: Final = "websocket.http.response"


class Stage(Enum):
    """How far the app has come with its side of a connection."""

    CONNECTING = "before accept, close or a denial"
    OPEN = "on an accepted connection"
    DENYING = "within a denial response"
    ENDED = "after the app's own end of the session"


# The stage after a message.
LEGAL: Final[dict[Stage, dict[str, Stage]]] = {
    Stage.CONNECTING: {
        "websocket.accept": Stage.OPEN,
        "websocket.close": Stage.ENDED,
        f"{DENIAL}.start": Stage.DENYING,
    },
    Stage.OPEN: {"websocket.send": Stage.OPEN, "websocket.close": Stage.ENDED},
    Stage.DENYING: {f"{DENIAL}.body": Stage.DENYING},  # `ENDED` with the last part
    Stage.ENDED: {},
}


def illegal(message: Message, stage: Stage) -> str | None:
    """Why a well-formed message must not be sent at this stage, or `None`."""
    if message["type"] in LEGAL[stage]:
        return None
    expected = " or ".join(map(repr, LEGAL[stage])) or "nothing"
    return f"illegal message {stage.value}: expected {expected}; the app sent {show(message)}"


def malformed(message: object, offered: Sequence[str] = (), *, denials: bool = True) -> str | None:
    """What is wrong with the form of a message from an app, or `None`.

    Args:
        message: What the app gave to `send`.
        offered: The subprotocols that the client offered.
        denials: Whether the scope has the extension for denial responses.
    """
    if not isinstance(message, dict):
        problem: str | None = f"a message is a dict, not {type(message).__name__}"
    elif message.get("type") not in _CHECKS:
        problem = f"the type is one of {', '.join(sorted(_CHECKS))}, not {message.get('type')!r}"
    elif message["type"].startswith(DENIAL) and not denials:
        problem = f"the scope has no extension {DENIAL!r}"
    else:
        problem = _CHECKS[message["type"]](message, offered)
    return problem and f"malformed message: {problem}; the app sent {show(message)}"


def tolerated(message: Message, stage: Stage) -> Message | None:
    """What a malformed message means if no server minds it, or `None` if one does.

    A close before accept is HTTP 403: nobody sends its reason. FastAPI's is a list when it refuses a request.
    """
    if stage is not Stage.CONNECTING or message.get("type") != "websocket.close":
        return None
    rest = {**message, "reason": None}
    return None if _bad_close(rest, ()) else rest


def _bad_accept(message: Message, offered: Sequence[str]) -> str | None:
    subprotocol = message.get("subprotocol")
    if subprotocol is not None and subprotocol not in offered:
        return f"the subprotocol is one of those offered, {list(offered)}, or None, not {subprotocol!r}"
    return _bad_headers(message.get("headers", ()), b"sec-websocket-protocol")


def _bad_send(message: Message, offered: Sequence[str]) -> str | None:
    text, data = message.get("text"), message.get("bytes")
    if (text is None) == (data is None):
        return "exactly one of 'text' and 'bytes' is present and not None"
    if data is not None:
        return None if isinstance(data, bytes) else f"'bytes' is a bytes, not {type(data).__name__}"
    if not isinstance(text, str):
        return f"'text' is a str, not {type(text).__name__}"
    return None if _is_utf8(text) else "'text' encodes to UTF-8 and has no lone surrogates"


def _bad_close(message: Message, offered: Sequence[str]) -> str | None:
    code, reason = message.get("code", 1000), message.get("reason")
    # RFC 6455, section 7.4, and the IANA registry of close codes
    sendable = type(code) is int and (1000 <= code <= 1014 or 3000 <= code <= 4999)
    if not sendable or code in (1004, 1005, 1006):
        return f"'code' is 1000-1003, 1007-1014 or 3000-4999, not {code!r}"
    if reason is None:
        return None
    if not isinstance(reason, str):
        return f"'reason' is a str or None, not {type(reason).__name__}"
    if not _is_utf8(reason):
        return "'reason' encodes to UTF-8 and has no lone surrogates"
    size = len(reason.encode())
    return None if size <= 123 else f"'reason' has at most 123 bytes, not {size}"


def _bad_start(message: Message, offered: Sequence[str]) -> str | None:
    status = message.get("status")
    if type(status) is not int or not 200 <= status <= 599:
        return f"'status' is an int from 200 to 599, not {status!r}"
    return _bad_headers(message.get("headers", ()), None)


def _bad_body(message: Message, offered: Sequence[str]) -> str | None:
    body, more = message.get("body", b""), message.get("more_body", False)
    if not isinstance(body, bytes):
        return f"'body' is a bytes, not {type(body).__name__}"
    return None if isinstance(more, bool) else f"'more_body' is a bool, not {more!r}"


def _bad_headers(headers: object, forbidden: bytes | None) -> str | None:
    if not isinstance(headers, list | tuple):
        return f"'headers' is a list of pairs of bytes, not {type(headers).__name__}"
    for header in headers:
        if not (
            isinstance(header, list | tuple)
            and len(header) == 2
            and all(isinstance(part, bytes) for part in header)
        ):
            return f"a header is a pair of bytes, not {header!r}"
        name, value = header
        if not name or not _TOKEN.issuperset(name):
            return f"a header name is a lower-case token, not {name!r}"
        if any(byte in b"\r\n\0" for byte in value):
            return f"a header value has no CR, LF or NUL: {value!r}"
        if name == forbidden:
            return f"the header {name.decode()} is set by the key 'subprotocol'"
    return None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_TOKEN: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")  # RFC 9110, 5.6.2
_CHECKS: Final[dict[str, Callable[[Message, Sequence[str]], str | None]]] = {
    "websocket.accept": _bad_accept,
    "websocket.send": _bad_send,
    "websocket.close": _bad_close,
    f"{DENIAL}.start": _bad_start,
    f"{DENIAL}.body": _bad_body,
}
