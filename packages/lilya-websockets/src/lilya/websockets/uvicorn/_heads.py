"""The heads of HTTP, as text: what the handshake and the HTTP protocol write, and how large a head may be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Final

MAX_HEAD: Final = 65536  # bytes of a request before its empty line, unless uvicorn has a setting for h11


@lru_cache(maxsize=4)
def default_lines(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The lines of the headers that uvicorn has in every response. They change once a second."""
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])


def response(status: int, defaults: Iterable[tuple[bytes, bytes]], lines: bytes, body: bytes) -> bytes:
    """An ordinary response, the last one of a connection."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    head = [f"HTTP/1.1 {status} {phrase}\r\n".encode()]
    head += [default_lines(tuple(defaults)), lines, b"connection: close\r\n"]
    if status in (204, 304):  # these have no body (RFC 9110 section 6.4.1)
        return b"".join((*head, b"\r\n"))
    if b"\ncontent-type: " not in b"\n" + lines:
        head.append(b"content-type: text/plain; charset=utf-8\r\n")
    return b"".join((*head, b"content-length: %d\r\n\r\n" % len(body), body))


def head_of(
    method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]], version: bytes = b"1.1"
) -> bytes:
    """The head of a request, as a parser has taken it apart."""
    lines = [b"%b: %b\r\n" % pair for pair in headers]
    return b"".join((method, b" ", target, b" HTTP/", version, b"\r\n", *lines, b"\r\n"))


TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
# What begins with this is no method, and so no request.
NO_METHOD = re.compile(rb" |[!#$%&'*+\-.^_`|~0-9A-Za-z]*[^!#$%&'*+\-.^_`|~0-9A-Za-z ]").match
END_OF_HEAD = re.compile(rb"\n\r?\n")
VALUE = re.compile(rb"[^\x00\r\n]*")


def header_lines(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The lines of a response, with names in lower case.

    Raises:
        ValueError: A name or a value would be something else on the wire.
    """
    lines = []
    for name, value in pairs:
        # Never the value: it may be a cookie's or a token's.
        if not TOKEN.fullmatch(name):
            raise ValueError(f"{name[:40]!r} cannot be the name of a header: it is not a token (RFC 9110)")
        if not VALUE.fullmatch(value):
            raise ValueError(f"the value of the header {name[:40].decode()!r} holds CR, LF or NUL")
        lines.append(b"%b: %b\r\n" % (name.lower(), value))
    return b"".join(lines)
