"""How the messages of a `WebSocket[In, Out]` are decoded and encoded; made once for a type."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, get_args

from .._messages import describe, dumps, encode_json
from ..exceptions import WebSocketDataError
from ._codecs import JSON, Codec
from ._errors import answer_of, detail
from ._hashes import TooLong, longest
from ._kinds import CALL_ID, REPLY_TO, Library, library_of, marked_fields, name_of

__all__ = ["Typed", "chosen_library", "encoded"]

_TEXT: Final = JSON()


class Typed:
    """How messages are decoded and encoded.

    Args:
        received: The type of what the client sends.
        sent: The type of what it is sent.
        codec: What messages are on the wire.
        library: The library that validates; `None` for the one that the types are of.

    Raises:
        ImportError: The library is not installed.
        TypeError: It cannot make messages of a type, or nothing tells the members of a union apart.
    """

    def __init__(
        self, received: Any, sent: Any, codec: Codec | None = None, library: Library | None = None
    ) -> None:
        self.received = received
        self.sent = sent
        self.codec = codec = _TEXT if codec is None else codec
        self.library = library
        self.key = "bytes" if codec.binary else "text"
        self.libraries = (chosen_library(received, library), chosen_library(sent, library))
        """The libraries that validate what is received, and what is sent."""
        reads = _module(self.libraries[0])
        self.decode, self._details_of = reads.decoder(received, codec)
        most = longest(received, self.libraries[0])
        if most is not None:
            self.decode = _limited(self.decode, most)
        self._safe_kinds = reads.safe_kinds
        self.failures: tuple[type[Exception], ...] = reads.failures
        """What `decode` raises about a payload that is wrong."""
        self.encode = _module(self.libraries[1]).encoder(sent, codec)
        self.ids = marked_fields(sent, CALL_ID)
        self.replies = marked_fields(received, REPLY_TO)

    @cached_property
    def swapped(self) -> Typed:
        """The same for the client's side."""
        return Typed(self.sent, self.received, self.codec, self.library)

    @property
    def is_json_text(self) -> bool:
        """Whether messages are JSON in text messages."""
        return type(self.codec) is JSON and not self.codec.binary

    @cached_property
    def decode_sent(self) -> Callable[[str], Any]:
        """What makes a message to the client of its JSON text."""
        decode: Callable[[str], Any] = _module(self.libraries[1]).decoder(self.sent, _TEXT)[0]
        return decode

    def refused(
        self, payload: Any, error: Exception, message_type: str = "websocket.receive"
    ) -> WebSocketDataError:
        """What to raise about a payload that cannot be decoded."""
        message = {"type": message_type, self.key: payload}
        if isinstance(error, RecursionError):
            error = ValueError("the message is nested too deep")
        if isinstance(error, TooLong):
            details = [detail((), "too_long", str(error))]
        else:
            details = self._details_of(error, payload)
        first = details[0]
        place = ".".join(map(str, first["loc"]))
        return WebSocketDataError(
            message,
            f"expected {name_of(self.received)}, got {describe(message)}: {first['msg']}"
            + (f", at {place}" if place else ""),
            details,
        )

    def answer(self, error: WebSocketDataError) -> str | bytes:
        """What tells the client that its message was wrong."""
        details = error.errors()
        if details[0]["type"] == "wrong_kind":
            kind = "binary" if self.codec.binary else "text"
            return self.codec.encode(
                answer_of([{**details[0], "msg": f"Expected a {kind} message"}], ("wrong_kind",))
            )
        return self.codec.encode(answer_of(details, self._safe_kinds))


def _limited(decode: Callable[[Any], Any], most: int) -> Callable[[Any], Any]:
    def limited(payload: Any) -> Any:
        if len(payload) > most:
            raise TooLong(
                f"A message of this type may have {most:,} characters or bytes, and has {len(payload):,}"
            )
        return decode(payload)

    return limited


def chosen_library(type_: Any, chosen: Library | None = None) -> Library:
    """The library that serves a type: its own, the one that is chosen, or one that is installed.

    Raises:
        ImportError: The type is of no library, and none is installed.
        TypeError: The type is of a library that is not the chosen one.
    """
    library = library_of(type_)
    if chosen is not None:
        if library not in (None, chosen):
            raise TypeError(f"{name_of(type_)} is of {library}, and cannot be served by {chosen}")
        return chosen
    if library is not None:
        return library
    installed: list[Library] = [each for each in get_args(Library) if find_spec(each)]
    if not installed:
        raise ImportError(
            "typed messages need pydantic 2 or msgspec: install lilya-websockets[pydantic] or "
            "lilya-websockets[msgspec]"
        )
    return installed[0]


def _module(library: Library) -> Any:
    return import_module(f"._{library}", __package__)


@lru_cache(maxsize=256)
def _encoder_of(cls: Any) -> Any:
    return _module(chosen_library(cls)).encoder(cls, _TEXT)


def encoded(message: Any) -> str:
    """A message as JSON text, by the library of its class.

    Raises:
        TypeError: It, or a value in it, has no JSON form.
        ValueError: A value in it cannot be encoded.
    """
    if isinstance(message, (dict, list, str, int, float)) or message is None:
        return str(encode_json(message, dumps))
    cls: Any = type(message)
    text: str = _encoder_of(cls)(message)
    return text
