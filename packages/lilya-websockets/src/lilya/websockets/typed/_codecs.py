"""Codecs: what a message is on the wire, and in which kind of message."""

from __future__ import annotations

from typing import Any

from .._messages import dumps, encode_json, loads
from .._options import checked_flag

__all__ = ["JSON", "Codec", "MessagePack", "Undecodable"]


class Undecodable(ValueError):
    """A codec cannot read what the client sent; its own exception is the cause."""


class Codec:
    """Converts messages to and from a wire format. Subclass it for a format of your own.

    `decode` returns, and `encode` takes, what JSON can hold: dictionaries with `str` as keys, lists, `str`,
    numbers, `bool` and `None`. The library of the models converts between these values and models.
    """

    binary: bool = False
    """`True` for binary messages, `False` for text messages."""

    content_type: str = "application/octet-stream"
    """The media type of the format, for AsyncAPI documents. It is not sent over a connection."""

    def decode(self, data: Any) -> Any:
        """Read a message of the client.

        Args:
            data: The payload, `bytes` if `binary`, else `str`.

        Raises:
            Exception: Any exception means that the client's message is invalid.
        """
        raise NotImplementedError(f"{type(self).__name__} must define decode(data)")

    def encode(self, value: Any) -> str | bytes:
        """Write a message for the client.

        Args:
            value: What JSON can hold.

        Returns:
            The payload, `bytes` if `binary`, else `str`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define encode(value)")


class JSON(Codec):
    """JSON (RFC 8259), the default.

    Args:
        binary: Whether to use binary messages instead of text messages.

    Raises:
        TypeError: `binary` is not a bool.
    """

    content_type = "application/json"

    def __init__(self, *, binary: bool = False) -> None:
        self.binary = checked_flag("binary", binary)

    def decode(self, data: str | bytes) -> Any:
        return loads(data if isinstance(data, str) else str(data, "utf-8"))

    def encode(self, value: Any) -> str | bytes:
        text = str(encode_json(value, dumps))
        return text.encode() if self.binary else text


class MessagePack(Codec):
    """MessagePack, in binary messages; needs msgspec, also for models of other libraries.

    Raises:
        ImportError: msgspec is not installed.
    """

    binary = True
    content_type = "application/msgpack"

    def __init__(self) -> None:
        try:
            from msgspec import msgpack
        except ModuleNotFoundError as error:
            raise ImportError("MessagePack needs msgspec: install lilya-websockets[msgspec]") from error
        self._decode = msgpack.Decoder().decode
        self._encode = msgpack.Encoder().encode

    def decode(self, data: bytes) -> Any:
        return self._decode(data)

    def encode(self, value: Any) -> bytes:
        return self._encode(value)
