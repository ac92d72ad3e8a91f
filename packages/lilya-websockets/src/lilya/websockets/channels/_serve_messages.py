"""The messages of the subprotocol between a client and `serve`: reading and writing them.

Pure functions. An invalid message raises `Refused`, whose text says what was expected and what was received.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

from .._messages import PreparedMessage, dumps, encode_json, loads
from ._backend import Event, Gap, Member, checked_name, checked_text_key, json_text
from ._outbox import Dropped, Item

__all__ = [
    "SUBPROTOCOL",
    "Join",
    "Leave",
    "Ping",
    "Publish",
    "Refused",
    "Request",
    "encoder_for",
    "error_for",
    "fields_of",
    "member_of",
    "once",
    "read",
    "writable",
]

SUBPROTOCOL: Final = "lilya.channels.v1"
"""The subprotocol that `serve` speaks, with its version."""

_ONCE: Final = f"{SUBPROTOCOL} "
_LONGEST: Final = 128  # the most characters in a key, and in the id of a request: clients choose these
_LONGEST_ID: Final = 128  # the most characters in the id of an event
_ECHOED: Final = 1024  # the most characters in a channel's name, and in a field that an error repeats
_ACTIONS: Final = ("join", "leave", "publish", "request", "ping")


class Refused(Exception):
    """What a client asks for is refused. Raise it in a function that you give to `serve`.

    Args:
        message: Why, for people: the client gets it.
        code: Why, for programs. Default: `"forbidden"`.

    Raises:
        TypeError: One of the two is not a `str`.
    """

    def __init__(self, message: str, code: str = "forbidden") -> None:
        for name, value in (("message", message), ("code", code)):
            if not isinstance(value, str):
                raise TypeError(f"the {name} of Refused must be str, got {type(value).__name__}")
        super().__init__(message, code)
        self.message = message
        self.code = code

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


# From clients


class Join(NamedTuple):
    """Join a channel."""

    channel: str
    since: str | None
    history: int
    latest: bool
    presence: bool | str


class Leave(NamedTuple):
    """Leave a channel."""

    channel: str


class Publish(NamedTuple):
    """Publish to a channel that was joined. `size` is that of the whole message, in bytes."""

    channel: str
    key: str
    data: Any
    size: int


class Request(NamedTuple):
    """Ask the app. `size` is that of the whole message, in bytes."""

    id: str
    data: Any
    size: int


class Ping(NamedTuple):
    """See whether the server answers."""


FromClient: TypeAlias = Join | Leave | Publish | Request | Ping


def read(text: str, *, max_size: int, max_history: int) -> tuple[FromClient | Refused, dict[str, str | int]]:
    """Read a message from a client.

    Args:
        text: The message.
        max_size: The most bytes in it. A larger message is not parsed.
        max_history: The most events of the history that a client may begin with.

    Returns:
        The message, or the reason why it is refused; and the fields that an error has to repeat, so that the
        client knows to which message it belongs.
    """
    message: Any = None
    try:
        # A character has at least one byte. So encode only messages that are not ASCII and not too long
        # already.
        size = len(text)
        if size <= max_size and not text.isascii():
            size = len(text.encode())
        if size > max_size:
            refused = Refused(f"a message must have at most {max_size} bytes, got {size}", "too_large")
            return refused, {"size": size}  # the client recognizes the message by its size
        try:
            message = _decode(text)
        except RecursionError:
            raise _invalid("a message must not be nested so deep") from None
        except ValueError as error:
            raise _invalid(f"a message must be JSON: {error}") from None
        if not isinstance(message, dict):
            raise _invalid(f'a message must be an object with a "type", got {_shown(message)}')
        return _read(message, max_history, size), fields_of(message)
    except Refused as refused:
        return refused, fields_of(message)


def _finite(text: str) -> float:
    """Parse a number with a fraction or an exponent. Python reads `1e999` as infinity, which is not JSON."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is not a finite number")
    return number


_decode: Final = json.JSONDecoder(parse_float=_finite, parse_constant=_finite).decode


def fields_of(message: object) -> dict[str, str | int]:
    """The fields of a message that an `error` repeats, if they are valid and not too long."""
    if not isinstance(message, dict):
        return {}
    kind = message.get("type")
    fields: dict[str, str | int] = {"action": kind} if isinstance(kind, str) and kind in _ACTIONS else {}
    for name in ("channel", "key", "id"):
        value = message.get(name)
        if isinstance(value, str) and len(value) <= _ECHOED:
            fields[name] = value
    return fields


def _read(message: dict[str, Any], max_history: int, size: int) -> FromClient:
    kind = message.get("type")
    if kind == "join":
        return _read_join(message, max_history)
    if kind == "leave":
        return Leave(_name(message))
    if kind == "publish":
        return Publish(_name(message), _short(message, "key"), _data(message), size)
    if kind == "request":
        return Request(_short(message, "id"), _data(message), size)
    if kind == "ping":
        return Ping()
    raise _invalid(f'"type" must be one of join, leave, publish, request and ping, got {_shown(kind)}')


def _read_join(message: dict[str, Any], max_history: int) -> Join:
    since, history = message.get("since"), message.get("history", 0)
    latest, presence = message.get("latest", False), message.get("presence", False)
    if since is not None and not (isinstance(since, str) and len(since) <= _LONGEST_ID):
        raise _invalid(f'"since" must be the id of an event, got {_shown(since)}')
    if type(history) is not int or not 0 <= history <= max_history:
        raise _invalid(f'"history" must be an integer from 0 to {max_history}, got {_shown(history)}')
    if not isinstance(latest, bool):
        raise _invalid(f'"latest" must be true or false, got {_shown(latest)}')
    if latest and history:
        raise _invalid(f'"latest" is the newest event alone: leave out "history", got {history}')
    if not isinstance(presence, bool) and presence != "keys":
        raise _invalid(f'"presence" must be true, false or "keys", got {_shown(presence)}')
    return Join(_name(message), since, history, latest, presence)


def _name(message: dict[str, Any]) -> str:
    try:
        name = checked_name(message.get("channel"))
        if len(name) <= _ECHOED:
            return name
    except (TypeError, ValueError):
        pass
    raise _invalid(
        f'"channel" must be text of 1 to {_ECHOED} characters that does not start with a NUL, '
        f"got {_shown(message.get('channel'))}"
    )


def _short(message: dict[str, Any], name: str) -> str:
    value = message.get(name)
    try:
        if len(checked_text_key(name, value)) <= _LONGEST:
            return str(value)
    except (TypeError, ValueError):
        pass
    raise _invalid(f'"{name}" must be text of 1 to {_LONGEST} characters, got {_shown(value)}')


def _data(message: dict[str, Any]) -> Any:
    if "data" not in message:
        raise _invalid(f'"{message["type"]}" must have "data", which may be null')
    return message["data"]


def _invalid(text: str) -> Refused:
    return Refused(text, "invalid")


def _shown(value: object) -> str:
    """A received value for an error text, as JSON, and shortened."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    text = json.dumps(value[:40] if isinstance(value, str) else value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def once(person: str | None, key: str) -> str:
    """The idempotency key of a client's publish. It differs from those of other persons and of the app."""
    return f"{_ONCE}{json.dumps([person, key])}"


def _key_of(event: Event) -> str | None:
    """The client's key of an event that a client has published, otherwise `None`. It undoes `once`."""
    told = event.idempotency_key or ""
    if not told.startswith(_ONCE):
        return None
    try:
        _, key = loads(told.removeprefix(_ONCE))
    except (RecursionError, TypeError, ValueError):
        return None  # a key of the app that starts like one of ours
    return key if isinstance(key, str) else None


# To clients


def writable(data: Any) -> str:
    """Encode a value from the app or from a client as JSON text.

    Raises:
        Refused: The value is nested too deep, which a client can cause.
        TypeError, ValueError: The value cannot be encoded as JSON.
    """
    try:
        return json_text(data)
    except ValueError as error:
        if isinstance(error.__cause__, RecursionError):
            raise _invalid('"data" must not be nested so deep') from None
        raise


def error_for(refused: Refused, fields: Mapping[str, str | int]) -> dict[str, Any]:
    """The answer to a refused message."""
    return {"type": "error", "code": refused.code, "message": refused.message, **fields}


def member_of(member: Member) -> dict[str, Any]:
    """A member as clients see it."""
    told = {"id": member.id, "info": member.json()}
    return told if member.key is None else {**told, "key": member.key}


class Encoder:
    """Makes the messages for a channel's items. `Channels.join` calls it once for all sockets.

    Args:
        channel: The channel's name.
    """

    __slots__ = ("__weakref__", "_channel", "_last", "_name")

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._name = _text(channel)
        self._last = PreparedMessage("")

    def __call__(self, item: Item) -> str:
        if isinstance(item, Event):
            id, payload = _text(item.id), _payload(item.data)
            key = _key_of(item)
            keyed = "" if key is None else f'"key":{_text(key)},'
            return f'{{"type":"event","channel":{self._name},"id":{id},{keyed}{payload}}}'
        told: dict[str, Any]
        if isinstance(item, Gap):
            told = {"type": "gap", "channel": self._channel, "since": item.since, "id": item.id}
        elif isinstance(item, Dropped):
            told = {"type": "dropped", "channel": self._channel, "count": item.count}
        else:
            told = {
                "type": "presence",
                "channel": self._channel,
                "event": item.type,
                "member": member_of(item.member),
                "sockets": item.sockets,
            }
        return _text(told)

    def prepared(self, text: str) -> PreparedMessage:
        """Prepare a message of this encoder, so that it is framed once for many clients in a row."""
        if self._last.data is not text:
            self._last = PreparedMessage(text)
        return self._last


_encoders: Final[WeakValueDictionary[str, Encoder]] = WeakValueDictionary()


def encoder_for(channel: str) -> Encoder:
    """The encoder of a channel, the same for all clients. It is kept only while a client uses it."""
    encoder = _encoders.get(channel)
    if encoder is None:
        encoder = _encoders[channel] = Encoder(channel)
    return encoder


def _payload(data: str | bytes) -> str:
    """The field with an event's data: `data` if it is JSON, otherwise `text` or `bytes`."""
    if isinstance(data, bytes):
        return f'"bytes":"{b64encode(data).decode()}"'
    try:
        loads(data)
    except (RecursionError, ValueError):
        return f'"text":{_text(data)}'
    return f'"data":{data}'


def _text(value: Any) -> str:
    encoded = encode_json(value, dumps)
    return encoded if isinstance(encoded, str) else encoded.decode()
