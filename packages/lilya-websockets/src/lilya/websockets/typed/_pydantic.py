"""Messages by pydantic 2."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Final, Union, get_args, get_origin

from ._codecs import JSON, Codec, MessagePack, Undecodable
from ._errors import CLASS_TEXTS, MOST, Detail, Details, detail, too_many
from ._kinds import discriminator_of, is_model, is_object, members_of, name_of, nearest, untold, unwrapped

try:
    from pydantic import Field, PydanticUserError, TypeAdapter, ValidationError
    from pydantic.errors import PydanticUndefinedAnnotation
    from pydantic_core import core_schema, from_json, to_jsonable_python
except ModuleNotFoundError as error:
    raise ImportError(
        "messages with models of pydantic need pydantic 2: install lilya-websockets[pydantic]"
    ) from error

_CONTAINERS: Final = (list, tuple, dict, set, frozenset, Sequence, Mapping)

__all__ = ["decoder", "details_of", "discriminated", "encoder", "failures", "safe_kinds"]

failures: Final[tuple[type[Exception], ...]] = (ValueError, RecursionError)
"""What decoding raises for what is wrong."""

safe_kinds: Final = {"malformed", "too_long", "too_many_errors", *get_args(core_schema.ErrorType)} - {
    "value_error",
    "assertion_error",
}
"""Kinds of errors whose text is pydantic's, and not of the app."""

_OPTIONS: Final[dict[str, Any]] = {"by_alias": True, "warnings": "error"}


def decoder(type_: Any, codec: Codec) -> tuple[Callable[[Any], Any], Details]:
    """What makes a message of a payload, and what says what is wrong with one."""
    validator = _adapter(discriminated(type_), type_).validator
    if isinstance(codec, JSON):
        return validator.validate_json, partial(details_of, read=from_json)

    def decode(payload: Any) -> Any:
        try:
            value = codec.decode(payload)
        except Exception as error:
            raise Undecodable("the message cannot be decoded") from error
        return validator.validate_python(value)

    return decode, partial(details_of, read=codec.decode)


def encoder(type_: Any, codec: Codec) -> Callable[[Any], str | bytes]:
    """What makes a payload of a message."""
    adapter = _adapter(discriminated(type_), type_)
    # Those that are known by their class, and that write themselves: a subclass only what it has from there.
    models = {
        model: model.__pydantic_serializer__
        for member in members_of(type_)
        if hasattr(model := unwrapped(member), "__pydantic_serializer__")
    }
    others = len(models) < len(members_of(type_))
    # A dataclass of the standard library is one of a kind, too, but has nothing of pydantic's.
    classes: tuple[Any, ...] = tuple(
        bare
        for member in members_of(type_)
        if dataclasses.is_dataclass(bare := get_origin(unwrapped(member)) or unwrapped(member))
        and bare not in models
    )

    def serializer_for(message: Any) -> Any:
        nearest_model = nearest(type(message), models)
        if nearest_model is not None:
            return models[nearest_model]
        if others and isinstance(message, classes):
            return adapter.serializer
        if others and not hasattr(message, "__pydantic_serializer__"):
            try:
                adapter.validator.validate_python(message, strict=True)
            except ValidationError as error:
                raise TypeError(
                    f"a message must be {name_of(type_)}, got {type(message).__name__}: {error}"
                ) from error
            return adapter.serializer
        raise TypeError(f"a message must be {name_of(type_)}, got {type(message).__name__}")

    if isinstance(codec, JSON):
        binary = codec.binary

        def encode(message: Any) -> str | bytes:
            serializer = models.get(type(message)) or serializer_for(message)
            encoded: bytes = serializer.to_json(message, by_alias=True, warnings="error")
            return encoded if binary else encoded.decode()

    elif isinstance(codec, MessagePack):
        from msgspec import msgpack

        packed = msgpack.Encoder(enc_hook=to_jsonable_python).encode

        def encode(message: Any) -> str | bytes:
            serializer = models.get(type(message)) or serializer_for(message)
            return packed(serializer.to_python(message, **_OPTIONS))

    else:

        def encode(message: Any) -> str | bytes:
            serializer = models.get(type(message)) or serializer_for(message)
            return codec.encode(serializer.to_python(message, mode="json", **_OPTIONS))

    return encode


def details_of(error: Exception, payload: Any, read: Callable[[Any], Any]) -> list[Detail]:
    """What is wrong, in the form of `WebSocketDataError.errors()`."""
    if not isinstance(error, ValidationError):
        return [detail((), "malformed" if isinstance(error, Undecodable) else "invalid", str(error))]
    if error.error_count() > MOST:
        return [too_many(error.error_count())]
    listed = error.errors(include_url=False, include_context=False, include_input=False)
    message = read(payload) if any(found["loc"] for found in listed) else None
    return [
        detail(
            _place(message, found["loc"], found["type"] == "missing"),
            found["type"],
            _nameless(found["type"], found["msg"]),
        )
        for found in listed
    ]


# An enum's member, `<Colour.RED: 'red'>`, and the app's function that tells the members of a union apart.
_MEMBER: Final = re.compile(r"<[\w.]+: ([^<>]*)>")
_FUNCTION: Final = re.compile(r" (?:found using|using discriminator) \w+\(\)")
_LONGEST: Final = 1000  # characters that are looked at, of texts that are cut later


def _nameless(kind: str, text: str) -> str:
    """A text of pydantic without the names that classes, enums and functions have in the app."""
    if kind in CLASS_TEXTS:
        return CLASS_TEXTS[kind]
    if kind == "literal_error" or kind.startswith("union_tag_"):
        return _FUNCTION.sub("", _MEMBER.sub(r"\1", text[:_LONGEST]))
    return text


def _place(message: Any, loc: tuple[int | str, ...], is_missing: bool) -> list[int | str]:
    """The place in the message. pydantic also says which member of a union it tried, by names of classes."""
    place: list[int | str] = []
    for number, part in enumerate(loc):
        try:
            message = message[part]
        except (LookupError, TypeError):
            if not is_missing or number + 1 < len(loc):
                continue
        place.append(part)
    return place


def _adapter(annotated: Any, type_: Any) -> TypeAdapter[Any]:
    try:
        adapter = TypeAdapter(annotated)
        adapter.rebuild(raise_errors=True)
    except (PydanticUndefinedAnnotation, PydanticUserError) as error:
        raise TypeError(f"pydantic cannot make messages of {name_of(type_)}: {error}") from error
    return adapter


def discriminated(type_: Any) -> Any:
    """A type whose models are told apart by a field, in lists and the like as well.

    Raises:
        TypeError: Nothing tells them apart.
    """
    origin, arguments = get_origin(type_), get_args(type_)
    if origin is Annotated:
        if _is_told(type_):
            return type_
        annotated: Any = (discriminated(arguments[0]), *arguments[1:])
        return Annotated[annotated]
    if origin in _CONTAINERS:
        return origin[tuple(map(discriminated, arguments))]
    members = members_of(type_)
    objects = [member for member in members if is_object(unwrapped(member))]
    if len(members) < 2:
        return type_
    rest = [discriminated(member) for member in members if member not in objects]
    if len(objects) < 2:
        told = (*objects, *rest)
        return Union[told]  # noqa: UP007  # made at run time
    for argument in get_args(unwrapped(type_)):
        if _is_told(argument) and len(members_of(argument)) >= len(objects):  # all of them are in it
            told = (argument, *rest)
            return Union[told]  # noqa: UP007
    models = [unwrapped(member) for member in objects]
    found = discriminator_of(models) if all(map(is_model, models)) else None
    if found is None:
        raise untold(type_, objects)
    union: Any = Annotated[Union[tuple(objects)], Field(discriminator=found[0])]  # noqa: UP007
    told = (union, *rest)
    return Union[told]  # noqa: UP007


def _is_told(type_: Any) -> bool:
    """Whether the app says itself what tells the members of a union apart."""
    return get_origin(type_) is Annotated and any(
        getattr(annotation, "discriminator", None) is not None for annotation in get_args(type_)[1:]
    )
