"""The opening handshake (RFC 6455 section 4.2): a request in, a verdict out. It knows no transport.

The rules of this file:

- `read` takes the head of a request apart, if no HTTP parser has done so before. `agreed` judges it: it gives
  what both sides have agreed on, or raises a `Refusal`, which has the answer.
- It is strict where two parsers could read a head differently: every line ends with CRLF, no line is folded
  (RFC 9112 section 5.2), names are tokens, and values hold no control characters but tabs.
- A handshake has no body. One that announces a body is refused: no byte of it can then be taken for a frame.
- Every rule stands beside its section. A test compares the verdicts on mutated requests with those of the
  `websockets` library, and lists each difference with its reason.
- No text made here contains anything that a client has sent.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha1
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS
from websockets.server import ServerProtocol

from ._deflate import DEFLATE
from ._heads import TOKEN, header_lines

__all__ = ["MAX_LINE_LENGTH", "Agreement", "Ends", "Refusal", "Request", "agreed", "answer_lines", "read"]


class Refusal(Exception):
    """Why a request is not a handshake: the status of the answer, and header lines that go with it.

    The reason is for the body of the answer. Nothing that the client has sent is in it.
    """

    def __init__(self, status: int, reason: str, lines: bytes = b"") -> None:
        super().__init__(status, reason, lines)
        self.status = status
        self.reason = reason
        self.lines = lines


class Request(NamedTuple):
    """The head of a request. Names of headers are in lower case, and values are stripped."""

    method: bytes
    target: bytes
    version: str
    """`1.1`, as in `HTTP/1.1`."""
    headers: list[tuple[bytes, bytes]]


class Window(NamedTuple):
    """What the two sides agreed on for permessage-deflate (RFC 7692 section 7.1)."""

    remote_no_context_takeover: bool
    local_no_context_takeover: bool
    remote_max_window_bits: int
    local_max_window_bits: int


class Ends(NamedTuple):
    """The two ends of a connection, as a scope has them."""

    server: tuple[str, int | None] | None
    client: tuple[str, int] | None
    secure: bool
    """Whether it is one over TLS."""


class Agreement(NamedTuple):
    """What the two sides have agreed on, and what an app is told of the request."""

    answer: bytes
    """The first lines of the 101."""
    deflate: Window | None
    raw_path: bytes
    query_string: bytes
    headers: list[tuple[bytes, bytes]]
    subprotocols: list[str]

    def scope(self, root_path: str, asgi_version: str, ends: Ends, **rest: Any) -> dict[str, Any]:
        """The scope for an app.

        Args:
            root_path: uvicorn's setting.
            asgi_version: uvicorn's, for this app.
            ends: Of the connection.
            rest: The other keys of the scope.
        """
        path = self.raw_path.decode()
        if "%" in path:
            path = unquote(path)
        return {
            "type": "websocket",
            "asgi": {"version": asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if ends.secure else "ws",
            "server": ends.server,
            "client": ends.client,
            "root_path": root_path,
            "path": root_path + path,
            "raw_path": root_path.encode("ascii") + self.raw_path,
            "query_string": self.query_string,
            "headers": self.headers,
            "subprotocols": self.subprotocols,
            **rest,
        }


# What a field value may hold (RFC 9110 section 5.5): not CR, LF, NUL, or another control character but a tab.
VISIBLE: Final = bytes((9, *range(32, 127), *range(128, 256)))
TOKENS: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def read(head: bytes) -> Request:
    """Take a head apart (RFC 9112 sections 3 and 5).

    Args:
        head: All lines, without the empty one.

    Raises:
        Refusal: It is not the head of a request, or has too many lines or too long ones.
    """
    line, *lines = head.split(b"\r\n")
    if len(head) > MAX_LINE_LENGTH:
        if len(line) > MAX_LINE_LENGTH:
            raise Refusal(414, f"the request line is longer than {MAX_LINE_LENGTH} bytes")
        if any(len(line) > MAX_LINE_LENGTH for line in lines):
            raise Refusal(431, f"a header line is longer than {MAX_LINE_LENGTH} bytes")
    # Without what is allowed, nothing but the line ends may be left, in this order.
    if head.translate(None, VISIBLE) != b"\r\n" * len(lines):
        raise Refusal(400, "invalid character in the request")
    first = line.split(b" ")
    if len(first) != 3 or not first[2].startswith(b"HTTP/"):
        raise Refusal(400, "invalid request line")
    try:
        pairs = [line.split(b":", 1) for line in lines]
        headers = [(name.lower(), value.strip(b" \t")) for name, value in pairs]
    except ValueError:  # no colon
        raise Refusal(400, "invalid header line") from None
    names = [name for name, _ in headers]
    # A blank before the colon, or at the beginning of a folded line, is no part of a token.
    if b"" in names or b"".join(names).translate(None, TOKENS):
        raise Refusal(400, "invalid header name")
    return Request(first[0], first[1], first[2][5:].decode("latin-1"), headers)


# A target in origin-form, printable ASCII without `#` (RFC 9112 section 3.2.1; a fragment is never sent, RFC
# 9110 section 7.1), and one in absolute-form (section 3.2.2).
ORIGIN: Final = re.compile(rb"/[!\"$-~]*").fullmatch
ABSOLUTE: Final = re.compile(rb"(?:https?|wss?)://([^/?]+)((?:[/?][!\"$-~]*)?)", re.IGNORECASE).fullmatch
# An authority without user information (RFC 3986 section 3.2). `Host` may also be empty (RFC 9110 section
# 7.2).
AUTHORITY: Final = re.compile(
    rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]*|\[[A-Za-z0-9\-._~!$&'()*+,;=:]+\])(?::[0-9]*)?"
).fullmatch
KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==").fullmatch  # base64 of 16 bytes

# More than one of these can only be read differently by different recipients.
SINGLE: Final = frozenset((b"host", b"origin", b"sec-websocket-key", b"sec-websocket-version"))

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ANSWER: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)


def agreed(
    method: bytes, target: bytes, version: str, headers: list[tuple[bytes, bytes]], deflate: bool
) -> Agreement:
    """Judge a request as a handshake (RFC 6455 section 4.2.1), and answer it (section 4.2.2).

    Args:
        method: As in `Request`, like the next three.
        target: Whatever the client has sent.
        version: See above.
        headers: Not changed.
        deflate: Whether permessage-deflate may be negotiated.

    Raises:
        Refusal: It is not a handshake, or one that cannot be answered with 101.
    """
    if len(headers) > MAX_NUM_HEADERS:
        raise Refusal(431, f"more than {MAX_NUM_HEADERS} header lines")
    fields = dict(headers)
    if len(fields) != len(headers):
        fields = combined(headers)
    get = fields.get

    # 1. A GET request of HTTP/1.1 or higher; a higher one has its own way (RFC 8441).
    if method != b"GET":
        raise Refusal(405, "a WebSocket handshake is a GET request", b"allow: GET\r\n")
    if version != "1.1":
        raise Refusal(505 if version == "1.0" else 400, "a WebSocket handshake needs HTTP/1.1")
    host = get(b"host")
    if not ORIGIN(target):
        target, host, headers = absolute(target, host, headers)
    # 2. One valid `Host` (also RFC 9112 section 3.2).
    if host is None or not AUTHORITY(host):
        raise Refusal(400, f"{'missing' if host is None else 'invalid'} Host header")
    # No body (RFC 9112 section 6).
    if b"transfer-encoding" in fields or get(b"content-length", b"0") != b"0":
        raise Refusal(400, "a WebSocket handshake has no body")
    # 3. and 4. `Upgrade` is `websocket`, and nothing else; `Connection` contains `Upgrade`, in any case.
    upgrade, connection = get(b"upgrade", b""), get(b"connection", b"")
    if upgrade != b"websocket" and [each.lower() for each in elements(upgrade)] != [b"websocket"]:
        raise Refusal(426, "the Upgrade header must be websocket", b"upgrade: websocket\r\n")
    if connection != b"Upgrade" and b"upgrade" not in [each.lower() for each in tokens(connection)]:
        raise Refusal(426, "the Connection header must contain Upgrade", b"upgrade: websocket\r\n")
    # 5. A key of 16 bytes.
    key = get(b"sec-websocket-key", b"")
    if not KEY(key):
        raise Refusal(400, f"{'invalid' if key else 'missing'} Sec-WebSocket-Key header")
    # 6. Version 13. Of another one, the answer says which it would take (section 4.4).
    if get(b"sec-websocket-version") != b"13":
        if b"sec-websocket-version" in fields:
            raise Refusal(
                426, "the version must be 13", b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"
            )
        raise Refusal(400, "missing Sec-WebSocket-Version header")
    # 8. Subprotocols are tokens (section 4.1, 10); the app chooses.
    offered = get(b"sec-websocket-protocol")
    subprotocols = [] if offered is None else [token.decode() for token in tokens(offered)]
    # 9. Extensions.
    accepted, window = NOTHING
    if deflate and (offer := get(b"sec-websocket-extensions")) is not None:
        # The bounds are those of what is kept.
        outcome = negotiated(offer) if len(offer) <= 256 else negotiated.__wrapped__(offer)
        if outcome is None:
            raise Refusal(400, "invalid Sec-WebSocket-Extensions header")
        accepted, window = outcome

    # Section 4.2.2, 5.4.
    digest = b2a_base64(sha1(key + GUID, usedforsecurity=False).digest())
    raw_path, _, query_string = target.partition(b"?")
    answer = b"%b%b\r\n%b" % (ANSWER, digest[:-1], accepted)
    return Agreement(answer, window, raw_path, query_string, headers, subprotocols)


def combined(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The values of each header, as one (RFC 9110 section 5.3)."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in fields:
            if name in SINGLE:
                raise Refusal(400, f"more than one {name.decode()} header")
            value = b"%b, %b" % (fields[name], value)
        fields[name] = value
    return fields


def absolute(
    target: bytes, host: bytes | None, headers: list[tuple[bytes, bytes]]
) -> tuple[bytes, bytes | None, list[tuple[bytes, bytes]]]:
    """Read a target in absolute-form (RFC 9112 section 3.2.2).

    Its authority takes the place of that in `Host`, which must be there all the same.
    """
    match = ABSOLUTE(target)
    if match is None or host is None:
        raise Refusal(400, "invalid target" if match is None else "missing Host header")
    authority, target = match.groups()
    if not target.startswith(b"/"):
        target = b"/" + target  # an empty path (RFC 9110 section 4.2.3)
    return target, authority, [(name, authority if name == b"host" else value) for name, value in headers]


def elements(value: bytes) -> list[bytes]:
    """The elements of a list. Empty ones are ignored (RFC 9110 section 5.6.1)."""
    return [element for each in value.split(b",") if (element := each.strip(b" \t"))]


def tokens(value: bytes) -> list[bytes]:
    """The elements of a list of tokens, at least one."""
    found = elements(value)
    if not found or not all(map(TOKEN.fullmatch, found)):
        raise Refusal(400, "invalid list of tokens in a header")
    return found


NOTHING: Final[tuple[bytes, Window | None]] = (b"", None)


@lru_cache(maxsize=64)
def negotiated(offer: bytes) -> tuple[bytes, Window | None] | None:
    """Answer an offer of extensions (RFC 6455 section 9.1, RFC 7692 section 7.1).

    Clients of one kind offer the same, so that the answers are remembered.

    Returns:
        The header line and what it means, both empty if nothing was accepted; `None` if it is not an offer.
    """
    protocol = ServerProtocol(extensions=[DEFLATE])
    try:
        line, accepted = protocol.process_extensions(
            Headers([("Sec-WebSocket-Extensions", offer.decode("latin-1"))])
        )
    except InvalidHandshake:
        return None
    if not accepted:
        return NOTHING
    # It brings contexts of zlib with it, which are not to be kept.
    each: Any = accepted[0]
    window = Window(*(getattr(each, field) for field in Window._fields))
    return b"Sec-WebSocket-Extensions: %b\r\n" % str(line).encode(), window


# Those of the handshake itself, and those that would announce a body, which a 101 does not have (RFC 9110
# sections 7.6.1, 7.8, 8.6 and RFC 9112 section 6.1).
RESERVED: Final = frozenset((b"connection", b"content-length", b"transfer-encoding", b"upgrade"))


def answer_lines(headers: Iterable[tuple[bytes, bytes]], subprotocol: str | None) -> bytes:
    """The lines that the app adds to the 101.

    Raises:
        ValueError: Something cannot be sent, or is not the app's to send.
    """
    headers = list(headers)
    lines = header_lines(headers)
    for name, _ in headers:
        if (name := name.lower()) in RESERVED or name.startswith(b"sec-websocket-"):
            raise ValueError(f"the header {name.decode()!r} of 'websocket.accept' is the server's to send")
    if subprotocol:
        if not TOKEN.fullmatch(subprotocol.encode()):
            raise ValueError("the subprotocol of 'websocket.accept' is not a token (RFC 9110 section 5.6.2)")
        lines += b"sec-websocket-protocol: %b\r\n" % subprotocol.encode()
    return lines
