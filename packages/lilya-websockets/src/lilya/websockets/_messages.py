"""What may stand in a message: checks and encodings of payloads, close arguments, headers, JSON.

Pure functions. A wrong argument is a `TypeError` or a `ValueError` here, before any state moved and before
the server saw anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterable, Mapping
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]  # missing in typeshed
from typing import Any, Final, NoReturn

from ._extensions import PREPARED
from .types import Message

__all__ = [
    "PreparedMessage",
    "checked_bytes",
    "checked_close",
    "checked_headers",
    "checked_payload",
    "checked_status",
    "checked_subprotocol",
    "checked_text",
    "describe",
    "describe_argument",
    "dumps",
    "encode_json",
    "loads",
    "size_of_text",
]


# Payloads

"""The ASGI extension by which a server says that it keeps frames in a message's `prepared`."""


def size_of_text(text: str) -> int:
    """The bytes of a text as UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def checked_text(data: object) -> str:
    """The text of a message, a `str` that encodes to UTF-8 (RFC 6455 section 5.6).

    Raises:
        TypeError: Not a `str`.
        ValueError: It holds a lone surrogate.
    """
    if not isinstance(data, str):
        raise TypeError(f"text must be str, got {describe_argument(data)}")
    try:
        data.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text must encode to UTF-8, but character {error.start} is the lone surrogate "
            f"{data[error.start]!r}"
        ) from None
    return data


def checked_bytes(data: object) -> bytes:
    """The payload of a binary message, exactly `bytes`; other bytes-like objects are copied.

    Raises:
        TypeError: Not bytes-like.
    """
    if type(data) is bytes:
        return data
    try:
        view = memoryview(data)  # type: ignore[arg-type]  # whatever has a buffer, and that is the question
    except TypeError:
        raise TypeError(
            f"binary data must be bytes-like, got {_kind(data)}"
            + (": encode it, or use send_text" if isinstance(data, str) else "")
        ) from None
    return view.tobytes()


def checked_payload(message: Message) -> dict[str, str | bytes]:
    """The payload of a raw `websocket.send`: exactly one of `text` and `bytes` (ASGI spec, "Send").

    Raises:
        TypeError: The payload is of another type.
        ValueError: Both, or neither.
    """
    text, data = message.get("text"), message.get("bytes")
    if (text is None) is (data is None):
        came = "neither" if text is None else "both"
        raise ValueError(f"a websocket.send carries exactly one of 'text' and 'bytes', got {came}")
    return {"text": checked_text(text)} if data is None else {"bytes": checked_bytes(data)}


class PreparedMessage:
    """One message for many connections. It is checked once, and servers that support it frame it only once.

    Args:
        data: Text that encodes to UTF-8, or bytes-like; may be empty. Objects other than `bytes` are copied.

    Raises:
        TypeError: Neither `str` nor bytes-like.
        ValueError: Text with a lone surrogate.
    """

    __slots__ = ("_data", "_frames", "_key")

    def __init__(self, data: str | bytes | bytearray | memoryview) -> None:
        self._key = "text" if isinstance(data, str) else "bytes"
        self._data: str | bytes = checked_text(data) if isinstance(data, str) else checked_bytes(data)
        self._frames: dict[str, Any] = {}  # the server's, in which it keeps what it made of this message

    def __repr__(self) -> str:
        return f"<PreparedMessage with {describe({self._key: self._data})}>"

    @property
    def data(self) -> str | bytes:
        """What is sent: `str` as text, `bytes` as binary data."""
        return self._data

    def message_for(self, extensions: Container[str]) -> dict[str, Any]:
        """A new `websocket.send` for a connection whose server has these extensions."""
        message: dict[str, Any] = {"type": "websocket.send", self._key: self._data}
        if PREPARED in extensions:
            message["prepared"] = self._frames
        return message


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


def describe_argument(data: object) -> str:
    """What was given instead of text, and what would have been right."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return f"{_kind(data)}: decode it, or use send_bytes"
    if isinstance(data, (dict, list, int, float)):
        return f"{_kind(data)}: use send_json"
    return _kind(data)


def describe(message: object) -> str:
    """An ASGI message in a few words for an error: its type and what it carries, never all of it."""
    if not isinstance(message, Mapping):
        return f"{_kind(message)} instead of a message"
    text, data = message.get("text"), message.get("bytes")
    if text is not None:
        return f"text ({_extract(text)})"
    if data is not None:
        return f"binary data ({_extract(data)})"
    return "neither text nor binary data"


def _extract(payload: Any) -> str:
    shown = repr(payload[:40]) if isinstance(payload, (str, bytes)) else _kind(payload)
    return shown if not hasattr(payload, "__len__") or len(payload) <= 40 else f"{shown}…"


# Close

_SENDABLE: Final = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
_REASON_LIMIT: Final = 123  # a control frame holds 125 bytes, two of them are the code (RFC 6455 section 5.5)


def checked_close(code: object, reason: object) -> tuple[int, str]:
    """The arguments of a close frame (RFC 6455 sections 5.5.1 and 7.4; registered codes to 1014).

    Raises:
        TypeError: The code is no `int`, or the reason neither `str` nor `None`.
        ValueError: An endpoint must not send the code, or the reason is longer than 123 bytes of UTF-8.
    """
    if type(code) is int and code in _SENDABLE and reason is None:
        return code, ""
    if not isinstance(code, int):
        raise TypeError(f"a close code must be int, got {_kind(code)}")
    if code not in _SENDABLE:  # `True` is 1, and not in it either
        raise ValueError(
            f"a close code must be 1000-1003, 1007-1014 or 3000-4999, got {code!r}"
            + (": it only reports, and is never sent" if code in (1005, 1006, 1015) else "")
        )
    if reason is None:
        return int(code), ""
    if not isinstance(reason, str):
        raise TypeError(f"a close reason must be str or None, got {_kind(reason)}")
    reason = checked_text(reason)
    size = len(reason.encode())
    if size > _REASON_LIMIT:
        raise ValueError(f"a close reason must be at most 123 bytes of UTF-8, got {size}")
    return int(code), reason


# Headers

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch  # RFC 9110 section 5.6.2
_VALUE: Final = re.compile(rb"[^\r\n\0]*").fullmatch
# What a 101 may not carry beside `sec-websocket-*`: the fields of the handshake itself, and those that would
# announce a body (RFC 9110 sections 7.6.1, 7.8 and 8.6, RFC 9112 section 6.1).
_OF_THE_HANDSHAKE: Final = frozenset((b"connection", b"content-length", b"transfer-encoding", b"upgrade"))


def checked_headers(headers: object, *, of_handshake: bool) -> list[tuple[bytes, bytes]]:
    """Response headers as ASGI wants them: pairs of `bytes`, names lower-cased, in the order given.

    Args:
        headers: Pairs, or a mapping; names and values `bytes`, or `str` that encodes to latin-1.
        of_handshake: Whether they go with `accept`, where `sec-websocket-*`, `connection`, `upgrade`,
            `content-length` and `transfer-encoding` belong to the server.

    Raises:
        TypeError: Not pairs of `bytes` or `str`.
        ValueError: A name that is not a token (RFC 9110 section 5.1), a value with CR, LF or NUL, or a name
            that is the server's to send.
    """
    if isinstance(headers, Mapping):
        headers = headers.items()
    if isinstance(headers, (str, bytes)) or not isinstance(headers, Iterable):
        raise TypeError(f"headers must be pairs or a mapping, got {_kind(headers)}")
    checked = []
    for pair in headers:
        try:
            if isinstance(pair, str):
                raise TypeError  # two characters would do for a pair
            name, value = pair
        except (TypeError, ValueError):
            raise TypeError(f"a header must be a pair of name and value, got {_kind(pair)}") from None
        name = _header_bytes("name", name).lower()
        value = _header_bytes("value", value)
        if not _TOKEN(name):
            raise ValueError(f"a header name must be a token (RFC 9110), got {_extract(name)}")
        if not _VALUE(value):
            # Never the value: it may be a cookie's or a token's.
            raise ValueError(f"the value of the header {_extract(name.decode())} must not hold CR, LF or NUL")
        if of_handshake and (name.startswith(b"sec-websocket-") or name in _OF_THE_HANDSHAKE):
            raise ValueError(
                f"the header {_extract(name.decode())} is the server's to send"
                + (": use accept(subprotocol=...)" if name == b"sec-websocket-protocol" else "; leave it out")
            )
        checked.append((name, value))
    return checked


def _header_bytes(part: str, value: object) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode("latin-1")
        except UnicodeEncodeError:
            raise ValueError(f"a header {part} must encode to latin-1") from None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"a header {part} must be bytes or str, got {_kind(value)}")


def checked_subprotocol(subprotocol: object, offered: Iterable[str]) -> str:
    """The subprotocol to accept (RFC 6455 section 4.2.2: one that the client offered).

    Raises:
        TypeError: Not a `str`.
        ValueError: Not a token, or not offered.
    """
    if not isinstance(subprotocol, str):
        raise TypeError(f"a subprotocol must be str or None, got {_kind(subprotocol)}")
    offered = list(offered)
    if subprotocol not in offered:
        raise ValueError(
            f"a subprotocol must be one that the client offered, got {_extract(subprotocol)}; "
            # Not which: some clients send their token as one, since browsers have no other header for it.
            + (f"it offered {len(offered)} others" if offered else "it offered none")
        )
    # What a client offers need not be a token, and an accepted one becomes a header.
    if not subprotocol.isascii() or not _TOKEN(subprotocol.encode()):
        raise ValueError(f"a subprotocol must be a token (RFC 9110), got {_extract(subprotocol)}")
    return subprotocol


def checked_status(status: object) -> int:
    """The status of a denial response.

    Raises:
        TypeError: Not an `int`.
        ValueError: Not 200 to 599. 101 would be an acceptance, and no other 1xx ends the handshake.
    """
    if not isinstance(status, int):
        raise TypeError(f"the status of a denial response must be int, got {_kind(status)}")
    if not 200 <= status <= 599:
        raise ValueError(f"the status of a denial response must be 200 to 599, got {status}")
    return int(status)


# JSON (RFC 8259)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# A reference cycle need not be looked for: it is nested too deep, and `encode_json` says so.
_encoder: Final = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
)


def _encoding(make_encoder: Any) -> Callable[[Any], str]:
    """`_encoder.encode`, less what it makes anew for every call, which costs more than a small message.

    Args:
        make_encoder: The compiled encoder's class; `None` where there is none, and then nothing is saved.
    """
    if make_encoder is None:
        return _encoder.encode
    # The arguments that `JSONEncoder.iterencode` gives it.
    parts_of = make_encoder(None, _encoder.default, encode_basestring, None, ":", ",", False, False, False)

    def encode(data: Any) -> str:
        return "".join(parts_of(data, 0))

    return encode


dumps: Final[Callable[[Any], str | bytes]] = _encoding(c_make_encoder)
_decoder: Final = json.JSONDecoder(parse_constant=_refuse_constant)
_scan: Final = _decoder.scan_once  # type: ignore[attr-defined]  # missing in typeshed


def loads(text: str) -> Any:
    """Decode JSON text.

    Raises:
        ValueError: Not JSON; `NaN` and the infinities are none (RFC 8259 section 6). An integer too long.
        RecursionError: Nested too deep.
    """
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        return _decoder.decode(text)  # blanks before the value, or no value: the decoder says where
    # The decoder looks for blanks on either side with a regular expression. Most messages have none.
    return value if end == len(text) else _decoder.decode(text)


_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def encode_json(data: object, encode: Any) -> str | bytes:
    """A value as JSON text that encodes to UTF-8.

    Args:
        data: The value.
        encode: The encoder, `dumps` or its replacement; may return `str` or `bytes`.

    Raises:
        TypeError: The value, or a value in it, has no JSON form.
        ValueError: NaN or an infinity, a reference cycle, or nesting too deep.
    """
    try:
        encoded = encode(data)
    except RecursionError as error:
        raise ValueError("the data is nested too deep for JSON, or holds itself") from error
    except ValueError as error:
        if str(error).startswith("Out of range float"):  # newer versions of Python say more
            raise ValueError("the data holds NaN or an infinity, which JSON does not have") from error
        raise
    if type(encoded) is not str or encoded.isascii():
        return encoded  # type: ignore[no-any-return]
    # A lone surrogate can only stand in a JSON string, and there its escape means the same. So an echo can
    # send what it received: JSON may hold the escape, and UTF-8 must not hold the character.
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", encoded)
