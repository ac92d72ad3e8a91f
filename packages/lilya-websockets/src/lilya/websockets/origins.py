"""Which web pages may connect: a check of `Origin` before your app sees the request.

    from lilya.websockets.origins import OriginGuard

    app = OriginGuard(app, origins=["https://app.example.com"])

A browser lets any page open a WebSocket to any server, and sends your cookies along. It only says which page
it was, in `Origin`. A server that does not look is open to cross-site WebSocket hijacking (CWE-1385).

The rules of this file:

- Values are compared after parsing, never as text and never as patterns. What does not parse is denied. The
  grammar is that of what browsers send, not that of what a URL parser would repair.
- Nothing is guessed. Behind a proxy, the scheme and the host are those that the server reports, or that an
  option names.
- `Sec-Fetch-Site` can deny and never allow: not every browser sends it with a handshake.
- What a client sends reaches the log only through `repr`, shortened, and each value once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any, Final, Literal, NamedTuple

from ._options import checked_flag
from ._websocket import WebSocket
from .observing import explain
from .types import AnyASGIApp, Receive, Scope, Send

__all__ = ["OriginGuard"]

logger: Final = logging.getLogger("lilya.websockets")

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.\-]*")  # RFC 3986 section 3.1, in lower case
# A label as browsers take it: letters, digits and hyphens (RFC 1123 section 2.1), and the underscore.
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_\-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_MAX_HOST: Final = 253  # characters (RFC 1035 section 2.3.4, without the length bytes)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PAGES: Final = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
# Methods that change nothing (RFC 9110 section 9.2.1). Links from other sites must work.
_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
_SAME: Final = frozenset((b"same-origin", b"none"))
# Refusals that are logged, each once, and characters of each value in the log. What a client can choose must
# not fill a disk.
_LOGGED: Final = 256
_SHOWN: Final = 100

_ANY_PORT: Final = -1


class _Place(NamedTuple):
    """A host and a port."""

    host: str
    port: int | None


class _Origin(NamedTuple):
    """A parsed origin (RFC 6454 section 4). The port is `None` where the scheme has no default port."""

    scheme: str
    host: str
    port: int | None


class _Pattern(NamedTuple):
    """A configured origin, or a configured host if the scheme is `None`."""

    scheme: str | None
    host: str
    port: int | None  # `_ANY_PORT`: all of them
    below: bool  # whether it stands for the hosts below `host`, and not for `host` itself

    def covers(self, scheme: str | None, host: str, port: int | None) -> bool:
        if scheme != self.scheme or self.port not in (port, _ANY_PORT):
            return False
        return host.endswith("." + self.host) if self.below else host == self.host


class OriginGuard:
    """An ASGI app that answers 403 to pages of other origins, and passes everything else on to your app.

    It guards WebSocket handshakes, and HTTP requests with a method that may change something, because you
    need both checks to be protected. `GET`, `HEAD`, `OPTIONS` and `TRACE` requests pass if their `Host` is
    one of `hosts`. Scopes of other types pass.

    By default, a page may connect if its scheme, host and port are those of the request.

    Args:
        app: The app to guard, of any framework.
        origins: More origins that may connect, such as `"https://app.example.com"`; `"*"` for all. In
            `"https://*.example.com"`, the `*` stands for one or more labels. In `"http://localhost:*"`, it
            stands for any port. A `*.` needs `lilya-websockets[origins]`, which installs the list of public
            suffixes.
        same_origin: Whether the request's own origin may connect. Default: yes.
        hosts: The host names of your app, such as `"example.com"` or `"localhost:8000"`. A name without a
            port stands for any port. A request with another `Host` is denied, whatever its method, and even
            without an `Origin`. This stops DNS rebinding, which `same_origin` cannot. Default: any host.
        missing: What to do with a request without `Origin`: `"allow"` (default) or `"deny"`. Browsers always
            send it with a handshake, and other programs do not.
        scheme: `"http"` or `"https"`: the scheme that pages use. Set it if a proxy ends TLS and your server
            does not know that. Default: what the server reports.
        forwarded_host: Whether to use `X-Forwarded-Host` instead of `Host`. Set it only if your proxy sets
            the header on each request.
        forwarded_proto: Whether to use `X-Forwarded-Proto` instead of the scope's scheme. Set it only if your
            proxy sets the header on each request.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An origin or a host that no browser sends, `null`, or a wildcard for a public suffix (such
            as `https://*.co.uk`) or an address.
        ImportError: A `*.`, and the list of public suffixes is not installed.

    RFC 6454; RFC 6455 sections 4.2.2 and 10.2.
    """

    def __init__(
        self,
        app: AnyASGIApp,
        *,
        origins: Iterable[str] | Literal["*"] = (),
        same_origin: bool = True,
        hosts: Iterable[str] | None = None,
        missing: Literal["allow", "deny"] = "allow",
        scheme: Literal["http", "https"] | None = None,
        forwarded_host: bool = False,
        forwarded_proto: bool = False,
    ) -> None:
        self.app = app
        self.refused = 0
        """How many requests this guard has denied."""
        self._everybody = origins == "*"
        self._origins = [] if self._everybody else [_configured(text) for text in _listed("origins", origins)]
        self._hosts = None if hosts is None else [_configured_host(text) for text in _listed("hosts", hosts)]
        if missing not in ("allow", "deny"):
            raise ValueError(f"missing must be 'allow' or 'deny', got {missing!r}")
        if scheme is not None and scheme not in _DEFAULT_PORTS:
            raise ValueError(f"scheme must be 'http', 'https' or None, got {scheme!r}")
        self._same_origin = checked_flag("same_origin", same_origin)
        self._missing = missing
        self._scheme = scheme
        self._forwarded_host = checked_flag("forwarded_host", forwarded_host)
        self._forwarded_proto = checked_flag("forwarded_proto", forwarded_proto)
        self._logged: set[tuple[str, str]] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 403, or let the app answer."""
        if scope["type"] in ("websocket", "http"):
            why = self.refusal(scope)
            if why is not None:
                self._note(scope, why)
                explain(scope, why, by="OriginGuard")
                await _forbid(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def refusal(self, scope: Scope) -> str | None:
        """Return why a request is denied, or `None`. The text contains nothing that a client has sent.

        Args:
            scope: An ASGI scope of the types `websocket` or `http`.
        """
        safe = scope["type"] == "http" and scope["method"] in _SAFE
        if safe and self._hosts is None:
            return None
        sent = _headers(scope)
        host = self._host(sent)
        if self._hosts is not None and not (
            isinstance(host, _Place) and any(each.covers(None, *host) for each in self._hosts)
        ):
            return host if isinstance(host, str) else "Host is none of `hosts`"
        if safe:
            return None
        fetch_site = sent.get(b"sec-fetch-site", [])
        elsewhere = any(value.strip().lower() not in _SAME for value in fetch_site)
        values = sent.get(b"origin", [])
        if not values:
            if self._missing == "deny":
                return "there is no Origin"
            return (
                "Sec-Fetch-Site says that the page is another site's"
                if elsewhere and not self._everybody
                else None
            )
        if len(values) > 1:
            return "there is more than one Origin"
        origin = _parsed_origin(values[0].decode("latin-1").lower() if values[0].isascii() else "")
        if origin is None:
            return "Origin is not scheme://host[:port], as browsers send it"
        if self._everybody or any(each.covers(*origin) for each in self._origins):
            return None
        if not self._same_origin:
            return "Origin is none of `origins`"
        if elsewhere:
            return "Sec-Fetch-Site says that the page is another site's"
        return self._difference(origin, host, sent, str(scope.get("scheme") or "ws"))

    def _difference(
        self, origin: _Origin, host: _Place | str, sent: dict[bytes, list[bytes]], scope_scheme: str
    ) -> str | None:
        """In what a page's origin differs from the request's own."""
        if isinstance(host, str):
            return host
        scheme: str | None = self._scheme or _PAGES.get(scope_scheme)
        if self._forwarded_proto and self._scheme is None and (values := sent.get(b"x-forwarded-proto")):
            scheme = _PAGES.get(values[0].decode("latin-1").strip().lower()) if len(values) == 1 else None
            if scheme is None:
                return "X-Forwarded-Proto is not one scheme"
        if scheme is None:
            return "the server reports an unknown scheme"
        port = _DEFAULT_PORTS[scheme] if host.port is None else host.port
        if (origin.host, origin.port) == (host.host, port) and origin.scheme == scheme:
            return None
        if origin.host == host.host and origin.scheme != scheme:
            return (
                f"the page's scheme is not {scheme}, which is the server's; behind a proxy that ends TLS, "
                "have the server read the proxy's headers, or set scheme='https'"
            )
        return "Origin is neither the request's own nor one of `origins`"

    def _host(self, sent: dict[bytes, list[bytes]]) -> _Place | str:
        """The host and port that the request is for, or why there are none."""
        name, values = "Host", sent.get(b"host", [])
        if self._forwarded_host and b"x-forwarded-host" in sent:
            name, values = "X-Forwarded-Host", sent[b"x-forwarded-host"]
        if len(values) != 1:
            return f"there is no {name}" if not values else f"there is more than one {name}"
        place = _parsed_place(values[0].decode("latin-1").lower()) if values[0].isascii() else None
        return place or f"{name} is not host[:port]"

    def _note(self, scope: Scope, why: str) -> None:
        self.refused += 1
        if len(self._logged) == _LOGGED:
            return
        values = _headers(scope).get(b"origin", [])
        shown = ", ".join(_shown(value) for value in values[:2]) or "none"
        if (shown, why) in self._logged:
            return
        self._logged.add((shown, why))
        kind = "a WebSocket" if scope["type"] == "websocket" else "an HTTP request"
        logger.warning("refused %s with Origin %s: %s", kind, shown, why)
        if len(self._logged) == _LOGGED:
            logger.warning("%d different refusals were logged; this guard only counts further ones", _LOGGED)


async def _forbid(scope: Scope, receive: Receive, send: Send) -> None:
    content = b"This origin is not allowed here."
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).deny(403, content.decode())
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _headers(scope: Scope) -> dict[bytes, list[bytes]]:
    """The values of those headers that count here, in order. A one-shot iterable is made re-readable."""
    headers = scope["headers"]
    if not isinstance(headers, (list, tuple)):
        headers = scope["headers"] = list(headers)
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if (lower := bytes(name).lower()) in _WANTED:
            found.setdefault(lower, []).append(bytes(value))
    return found


_WANTED: Final = frozenset(
    (b"origin", b"host", b"sec-fetch-site", b"x-forwarded-host", b"x-forwarded-proto"),
)


def _shown(value: bytes) -> str:
    return repr(value[:_SHOWN].decode("latin-1")) + ("…" if len(value) > _SHOWN else "")


# Parsing. All of these take text in lower case, and return `None` for what no browser sends.


def _parsed_origin(text: str) -> _Origin | None:
    scheme, separator, rest = text.partition("://")
    place = _parsed_place(rest) if separator and _SCHEME.fullmatch(scheme) else None
    if place is None:
        return None
    default = _DEFAULT_PORTS.get(scheme)
    return _Origin(scheme, place.host, default if place.port is None else place.port)


def _parsed_place(text: str) -> _Place | None:
    """host[:port] (RFC 9110 section 7.2), with the host in one form for each address."""
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]")
        if not bracket or "%" in address:  # a zone never leaves its machine (RFC 9844)
            return None
        try:
            host = f"[{IPv6Address(address).compressed}]"
        except AddressValueError:
            return None
        if port and not port.startswith(":"):
            return None
        colon, port = port[:1], port[1:]
    else:
        name, colon, port = text.partition(":")
        if not _is_host(name):
            return None
        host = name
    if not colon:
        return _Place(host, None)
    if not _PORT.fullmatch(port) or int(port) > 65535:
        return None
    return _Place(host, int(port))


def _is_host(name: str) -> bool:
    """Whether it is a domain name or an IPv4 address; a dot at the end makes another name of it."""
    labels = name.removesuffix(".").split(".")
    if len(name) > _MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        return False
    # Browsers send an address in one form only (URL Standard, "ends in a number").
    return not _NUMBER.fullmatch(labels[-1]) or _is_ipv4(name)


def _is_ipv4(name: str) -> bool:
    try:
        IPv4Address(name)
    except AddressValueError:
        return False
    return True


# What is configured


def _listed(name: str, values: Any) -> list[str]:
    if isinstance(values, (str, bytes)):
        raise TypeError(f"{name} must be a list of strings, got {values!r}; write [{values!r}]")
    listed = list(values)
    for value in listed:
        if not isinstance(value, str):
            raise TypeError(f"{name} must contain strings, got {value!r}")
    return listed


def _configured(text: str) -> _Pattern:
    wanted = "write scheme://host[:port], such as 'https://app.example.com'"
    if text.lower() == "null":
        raise ValueError("'null' cannot be listed: every sandboxed page and every file has this origin")
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise ValueError(f"the origin {text!r} has no scheme: {wanted}")
    _check_case(text, text)
    if not _SCHEME.fullmatch(scheme):
        raise ValueError(f"the origin {text!r} has an invalid scheme: {wanted}")
    return _pattern(text, scheme, rest, _DEFAULT_PORTS.get(scheme), f"origin {text!r}", wanted)


def _configured_host(text: str) -> _Pattern:
    _check_case(text, text)
    wanted = "write host[:port], such as 'example.com' or 'localhost:8000'"
    return _pattern(text, None, text, _ANY_PORT, f"host {text!r}", wanted)


def _check_case(text: str, shown: str) -> None:
    if not text.isascii():
        try:
            scheme, separator, rest = text.rpartition("://")
            name, colon, port = rest.partition(":")
            sent = scheme + separator + name.encode("idna").decode() + colon + port
            hint = f": write {sent!r}, as browsers do"
        except UnicodeError:
            hint = ""
        raise ValueError(f"{shown!r} contains characters that are not ASCII{hint}")
    if text != text.lower():
        raise ValueError(f"{shown!r} contains upper case, which browsers never send: write {text.lower()!r}")


def _pattern(
    text: str, scheme: str | None, rest: str, default: int | None, what: str, wanted: str
) -> _Pattern:
    below, any_port = rest.startswith("*."), rest.endswith(":*")
    place = _parsed_place(rest.removeprefix("*.").removesuffix(":*"))
    if place is None or (any_port and place.port is not None):
        raise ValueError(f"the {what} is invalid: {wanted}")
    if below:
        _check_wildcard(place.host, what)
    port = _ANY_PORT if any_port else default if place.port is None else place.port
    return _Pattern(scheme, place.host, port, below)


def _check_wildcard(host: str, what: str) -> None:
    """Refuse a wildcard under which strangers can have names."""
    if host.startswith("[") or _is_ipv4(host):
        raise ValueError(f"the {what} has a wildcard before an address, below which there is nothing")
    if host == "localhost":  # and all below it are this machine (RFC 6761 section 6.3)
        return
    try:
        from publicsuffixlist import PublicSuffixList
    except ModuleNotFoundError as error:
        raise ImportError(
            "a wildcard needs the list of public suffixes: install lilya-websockets[origins]"
        ) from error
    if PublicSuffixList().is_public(host.removesuffix(".")):
        raise ValueError(
            f"the {what} has a wildcard for all of {host!r}, where anybody can register: list the hosts"
        )
