"""Messages by msgspec.

msgspec tells the members of a union apart by the kind of JSON, and structs by their tag. Models that have a
`Literal` instead are told apart here: their payload is read twice, the first time for that field alone.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Union, get_origin

from ._codecs import JSON, Codec, MessagePack, Undecodable
from ._errors import Detail, Details, detail
from ._kinds import (
    discriminator_of,
    is_model,
    is_object,
    is_struct,
    members_of,
    name_in_message,
    name_of,
    nearest,
    untold,
    unwrapped,
)

try:
    import msgspec
except ModuleNotFoundError as error:
    raise ImportError(
        "messages with models of msgspec need msgspec: install lilya-websockets[msgspec]"
    ) from error

__all__ = ["decoder", "details_of", "encoder", "failures", "safe_kinds"]

_JSON: Final = JSON()

failures: Final[tuple[type[Exception], ...]] = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding raises for what is wrong."""

safe_kinds: Final = frozenset(
    {"invalid_tag", "invalid_type", "malformed", "missing", "out_of_range", "too_long"}
)
"""Kinds of errors whose text is msgspec's, and not of the app."""


def decoder(type_: Any, codec: Codec) -> tuple[Callable[[Any], Any], Details]:
    """What makes a message of a payload, and what says what is wrong with one."""
    choice = _choice(type_)
    if not isinstance(codec, (JSON, MessagePack)):
        convert = _converter(type_, choice)

        def decode(payload: Any) -> Any:
            try:
                value = codec.decode(payload)
            except Exception as error:
                raise Undecodable("the message cannot be decoded") from error
            return convert(value)

        return decode, details_of
    if choice is None:
        return _reader(type_, codec), details_of
    name, by_value, rest = choice
    # A `Literal` is of these types; for what else a client may send there is no reader.
    kind: Any = msgspec.defstruct("Kind", [("value", str | int | bool | None, None)], rename={"value": name})
    members = (kind, *rest)
    look = _reader(Union[members], codec)  # noqa: UP007  # made at run time
    readers = {value: _reader(model, codec) for value, model in by_value.items()}

    def read(payload: Any) -> Any:
        seen = look(payload)
        if type(seen) is not kind:
            return seen
        reader = readers.get(seen.value)
        if reader is None:
            raise _Untold(name, seen.value, by_value)
        return reader(payload)

    return read, details_of


def _choice(type_: Any) -> tuple[str, Mapping[Any, Any], list[Any]] | None:
    """The name in messages of the field that tells models apart, the models by value, and the other types.

    `None` if msgspec tells the members of the type apart itself.

    Raises:
        TypeError: Nothing tells them apart.
    """
    members = members_of(type_)
    objects = [member for member in members if is_object(unwrapped(member))]
    if len(objects) < 2 or _are_tagged(objects):
        return None
    models = list(map(unwrapped, objects))
    found = discriminator_of(models) if all(map(is_model, models)) else None
    if found is None:
        more = ", or a tag: `class … (msgspec.Struct, tag=True)`" if any(map(is_struct, objects)) else ""
        raise untold(type_, objects, more)
    field, by_value = found
    names = {name_in_message(model, field, is_sent=False) for model in models}
    if len(names) > 1:
        raise TypeError(
            f"the field {field!r} tells the members of {name_of(type_)} apart, but has several names in "
            f"messages: {', '.join(sorted(names))}"
        )
    return names.pop(), by_value, [member for member in members if member not in objects]


def _are_tagged(objects: list[Any]) -> bool:
    classes = [get_origin(bare := unwrapped(member)) or bare for member in objects]
    return all(is_struct(cls) and cls.__struct_config__.tag is not None for cls in classes)


def _reader(type_: Any, codec: Codec) -> Callable[[Any], Any]:
    """What makes a message of a payload in a format that msgspec reads itself."""
    try:
        if isinstance(codec, JSON):
            return msgspec.json.Decoder(type_).decode
        return msgspec.msgpack.Decoder(type_).decode
    except (TypeError, NameError) as error:  # a name that is not defined yet
        raise TypeError(f"msgspec cannot make messages of {name_of(type_)}: {error}") from error


def _converter(type_: Any, choice: tuple[str, Mapping[Any, Any], list[Any]] | None) -> Callable[[Any], Any]:
    """What makes a message of what JSON can hold, or of a message."""
    if choice is None:
        _reader(type_, _JSON)  # which says what is wrong with the type
        return lambda value: msgspec.convert(value, type_)
    name, by_value, rest = choice
    others = tuple(rest)

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            said = value.get(name)
            model = by_value.get(said) if isinstance(said, (str, int)) else None
            if model is None:
                raise _Untold(name, said, by_value)
            return msgspec.convert(value, model)
        if others:
            return msgspec.convert(value, Union[others])  # noqa: UP007
        raise msgspec.ValidationError(f"Expected `object`, got `{type(value).__name__}`")

    return convert


class _Untold(ValueError):
    """The field that tells models apart is not there, or has another value."""

    def __init__(self, name: str, value: Any, values: Iterable[Any]) -> None:
        self.details = (
            detail((name,), "missing", "Field required")
            if value is None
            else detail((name,), "invalid_tag", f"Expected one of {', '.join(map(repr, values))}")
        )
        super().__init__(f"{self.details['msg']} - at `$.{name}`")


def encoder(type_: Any, codec: Codec) -> Callable[[Any], str | bytes]:
    """What makes a payload of a message."""
    convert = _converter(type_, _choice(type_))
    bare = [get_origin(member) or member for member in map(unwrapped, members_of(type_))]
    exact = frozenset(
        cls for cls in bare if isinstance(cls, type) and (is_struct(cls) or dataclasses.is_dataclass(cls))
    )
    others = len(exact) < len(bare)

    def checked(message: Any) -> Any:
        cls = nearest(type(message), exact)
        if cls is not None:  # of a subclass only what the class has
            return msgspec.convert(message, cls, from_attributes=True)
        if others:
            try:
                return convert(message)
            except (msgspec.ValidationError, _Untold) as error:
                raise TypeError(
                    f"a message must be {name_of(type_)}, got {type(message).__name__}: {error}"
                ) from error
        raise TypeError(f"a message must be {name_of(type_)}, got {type(message).__name__}")

    if isinstance(codec, JSON):
        in_json, binary = msgspec.json.Encoder().encode, codec.binary

        def encode(message: Any) -> str | bytes:
            encoded = in_json(message if type(message) in exact else checked(message))
            return encoded if binary else encoded.decode()

    elif isinstance(codec, MessagePack):
        packed = msgspec.msgpack.Encoder().encode

        def encode(message: Any) -> str | bytes:
            return packed(message if type(message) in exact else checked(message))

    else:

        def encode(message: Any) -> str | bytes:
            value = message if type(message) in exact else checked(message)
            return codec.encode(msgspec.to_builtins(value))

    return encode


_PLACE: Final = re.compile(r"(.*) - at `(?:key in )?\$(.*)`", re.DOTALL).fullmatch
_MISSING: Final = re.compile(r"Object missing required field `(.*)`", re.DOTALL).fullmatch
_PART: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[\.\.\.\]")


def details_of(error: Exception, payload: Any) -> list[Detail]:
    """What is wrong, in the form of `WebSocketDataError.errors()`. msgspec tells the first error only."""
    if isinstance(error, _Untold):
        return [error.details]
    if not isinstance(error, msgspec.ValidationError):
        kind = "malformed" if isinstance(error, (msgspec.DecodeError, Undecodable)) else "invalid"
        return [detail((), kind, str(error))]
    text, place = str(error), ""
    if error.__cause__ is not None:
        return [detail((), "value_error", text)]  # what the app's own code says, a `__post_init__` as a rule
    if found := _PLACE(text):
        text, place = found[1], found[2]
    loc: list[Any] = [part[1] or (int(part[2]) if part[2] else "[...]") for part in _PART.finditer(place)]
    if found := _MISSING(text):
        loc.append(found[1])
        return [detail(loc, "missing", "Field required")]
    if "out of range" in text:
        return [detail(loc, "out_of_range", text)]
    return [detail(loc, "invalid_tag" if text.startswith("Invalid value") else "invalid_type", text)]
