"""Where a client's token is, and whether it is the right one.

    from lilya.websockets.tokens import bearer_token, token_matches

    token = bearer_token(websocket)  # Authorization: Bearer …
    token = bearer_token(websocket, subprotocol="bearer")  # or new WebSocket(url, ["bearer", token])

Programs send `Authorization`. A browser cannot add headers to a WebSocket, so there are four other places.
Each has its own risks, and is read only if you name it.

The rules of this file:

- Two tokens in one place are none: servers, proxies and apps differ about which of them counts.
- No token is in an exception, a log line or a `repr`.
- Nothing here says that a token is valid, except `token_matches`, and its time does not depend on how much of
  a token is right.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator
from typing import Any, Final, Protocol

from ._websocket import WebSocket
from .datastructures import QueryParam, parse_cookies
from .exceptions import WebSocketDataError
from .observing import explain
from .types import Scope

__all__ = ["bearer_token", "first_message_token", "token_matches"]

# RFC 6750 section 2.1. The scheme's name has no case (RFC 9110 section 11.1).
_BEARER: Final = re.compile(rb"bearer +([A-Za-z0-9\-._~+/]+=*)", re.IGNORECASE)
_LONGEST: Final = 8192  # characters of a first message


class HasScope(Protocol):
    """A WebSocket or a request of any ASGI framework."""

    @property
    def scope(self) -> Any: ...


def bearer_token(
    websocket: HasScope | Scope,
    *,
    subprotocol: str | None = None,
    query: str | None = None,
    cookie: str | None = None,
) -> str | None:
    """Return the token that a client sent with its handshake, from `Authorization: Bearer`.

    The other places are read only if you name them, in the order of the arguments. Nothing is verified.

    With `subprotocol="bearer"`, a browser calls `new WebSocket(url, ["bearer", token])`. Accept with
    `accept(websocket.select_subprotocol(["bearer"]))`. A browser closes the connection if you accept none of
    the subprotocols that it offered, and you must never send back the token itself.

    Args:
        websocket: A WebSocket of this package or of any ASGI framework, a request, or a scope.
        subprotocol: The subprotocol before the token, such as `"bearer"`. A token in this place consists of
            letters, digits and ``!#$%&'*+-.^_`|~``: a JWT does, standard base64 does not.
        query: The name of a query parameter. Servers and proxies log it: use tokens that expire in seconds.
        cookie: The name of a cookie. Browsers send it for every page that connects: use `OriginGuard`, too.

    Returns:
        The token, never `""`, or `None` if there is no token, or more than one in the same place.

    RFC 6750 section 2; RFC 6455 section 4.1.
    """
    scope: Any = getattr(websocket, "scope", None)
    if scope is None:
        scope = websocket
    headers = scope.get("headers")
    if isinstance(headers, Iterator):  # which could be read only once
        headers = scope["headers"] = list(headers)
    sent: dict[bytes, list[bytes]] = {}
    for name, value in headers or ():
        sent.setdefault(bytes(name).lower(), []).append(bytes(value))
    fields = sent.get(b"authorization", [])
    found = _BEARER.fullmatch(fields[0].strip(b" \t")) if len(fields) == 1 else None
    token = found[1].decode("ascii") if found else None
    if not token and subprotocol is not None:
        token = _after(subprotocol, scope.get("subprotocols") or ())
    if not token and query is not None:
        values = QueryParam(scope.get("query_string")).getall(query, [])
        token = values[0] if len(values) == 1 else None
    if not token and cookie is not None:
        token = _cookie(cookie, [value.decode("latin-1") for value in sent.get(b"cookie", [])])
    if not token:
        explain(scope, "no token was found")
        return None
    return token


def _after(name: str, offered: Any) -> str | None:
    """What a client offered next after a subprotocol, if it offered that once."""
    listed = list(offered)
    if listed.count(name) != 1:
        return None
    return next(iter(listed[listed.index(name) + 1 :]), None)


def _cookie(name: str, headers: list[str]) -> str | None:
    """A cookie's value, if there is one of that name. Pages of subdomains can add another one."""
    cookies = [part for header in headers for part in header.split(";")]
    named = [part for part in cookies if part.partition("=")[0].strip() == name]
    return parse_cookies(named[0]).get(name) if len(named) == 1 else None


async def first_message_token(websocket: WebSocket, within: float = 5.0) -> str | None:
    """Return the token that a client sends as its first message, a text message with only the token.

    Accept the connection before this call. Such a token is not logged, and every client can send it. But
    until the token comes, the client is already connected and counts in your limits. If you get `None`,
    close with 1008. This needs AnyIO. Cancelling it loses no message.

    Args:
        websocket: The WebSocket, accepted.
        within: Seconds to wait, 0 or more. Default: 5.

    Returns:
        The token, never `""`, or `None` if no message came in time, or if it was empty, binary, or longer
        than 8,192 characters.

    Raises:
        WebSocketDisconnect: The client left.
        WebSocketRuntimeError: Not accepted yet.
    """
    try:
        token = await websocket.receive_text(within)
    except (TimeoutError, WebSocketDataError):
        token = ""
    if 0 < len(token) <= _LONGEST:
        return token
    explain(websocket, "no token came as the first message")
    return None


def token_matches(token: str | None, *expected: str) -> bool:
    """Return whether a token is one of the expected ones.

    The time that this takes depends only on the lengths and the number of the tokens.

    Args:
        token: What the client sent. `None` never matches.
        expected: The valid tokens, such as the current key and the previous one.

    Raises:
        TypeError: An expected token is not a `str`. Its value is not shown.
        ValueError: An expected token is `""`, because a missing setting must not let everybody in.
    """
    right = False
    for each in expected:
        if not isinstance(each, str):
            raise TypeError(f"an expected token must be str, got {type(each).__name__}")
        if not each:
            raise ValueError("an expected token must not be empty")
        right |= token is not None and hmac.compare_digest(_encoded(token), _encoded(each))
    return right


def _encoded(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")  # never raises, and keeps what differs apart
