"""Messages by pydantic 2."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final, Union, cast, get_args, get_origin

from ._codecs import JSON, Codec, MessagePack, Undecodable
from ._errors import CLASS_TEXTS, MOST, Detail, detail, too_many
from ._kinds import discriminator_of, is_model, is_object, members_of, name_of, untold, unwrapped

try:
    from pydantic import Field, PydanticUserError, TypeAdapter, ValidationError
    from pydantic.errors import PydanticUndefinedAnnotation
    from pydantic_core import core_schema, to_jsonable_python
except ModuleNotFoundError as error:
    raise ImportError(
        "messages with models of pydantic need pydantic 2: install lilya-websockets[pydantic]"
    ) from error

__all__ = ["decoder", "details_of", "encoder", "failures", "safe_kinds"]

failures: Final[tuple[type[Exception], ...]] = (ValueError, RecursionError)
"""What decoding raises for what is wrong."""

safe_kinds: Final = {"malformed", "too_many_errors", *get_args(core_schema.ErrorType)} - {
    "value_error",
    "assertion_error",
}
"""Kinds of errors whose text is pydantic's, and not of the app."""

_OPTIONS: Final[dict[str, Any]] = {"by_alias": True, "warnings": "error"}


def decoder(type_: Any, codec: Codec) -> tuple[Callable[[Any], Any], Callable[[Exception], list[Detail]]]:
    """What makes a message of a payload, and what says what is wrong with one."""
    annotated, tags = _discriminated(type_)
    validator = _adapter(annotated, type_).validator
    details = partial(details_of, tags=tags)
    if isinstance(codec, JSON):
        return validator.validate_json, details

    def decode(payload: Any) -> Any:
        try:
            value = codec.decode(payload)
        except Exception as error:
            raise Undecodable("the message cannot be decoded") from error
        return validator.validate_python(value)

    return decode, details


def encoder(type_: Any, codec: Codec) -> Callable[[Any], str | bytes]:
    """What makes a payload of a message."""
    adapter = _adapter(_discriminated(type_)[0], type_)
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
        for model, serializer in models.items():
            if isinstance(message, model):
                return serializer
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


def details_of(error: Exception, tags: frozenset[Any]) -> list[Detail]:
    """What is wrong, in the form of `WebSocketDataError.errors()`."""
    if not isinstance(error, ValidationError):
        return [detail((), "malformed" if isinstance(error, Undecodable) else "invalid", str(error))]
    if error.error_count() > MOST:
        return [too_many(error.error_count())]
    return [
        detail(
            # Which of the models it was taken for is no part of the message.
            found["loc"][1:] if found["loc"] and found["loc"][0] in tags else found["loc"],
            found["type"],
            CLASS_TEXTS.get(found["type"], found["msg"]),
        )
        for found in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def _adapter(annotated: Any, type_: Any) -> TypeAdapter[Any]:
    try:
        adapter = TypeAdapter(annotated)
        adapter.rebuild(raise_errors=True)
    except (PydanticUndefinedAnnotation, PydanticUserError) as error:
        raise TypeError(f"pydantic cannot make messages of {name_of(type_)}: {error}") from error
    return adapter


def _discriminated(type_: Any) -> tuple[Any, frozenset[Any]]:
    """A type whose models are told apart by a field, and the values of that field.

    Raises:
        TypeError: Nothing tells them apart.
    """
    if get_origin(type_) is Annotated and any(
        getattr(annotation, "discriminator", None) is not None for annotation in get_args(type_)[1:]
    ):
        return type_, frozenset()
    members = members_of(type_)
    objects = [member for member in members if is_object(unwrapped(member))]
    if len(objects) < 2:
        return type_, frozenset()
    models = [unwrapped(member) for member in objects]
    found = discriminator_of(models) if all(map(is_model, models)) else None
    if found is None:
        raise untold(type_, objects)
    field, by_value = found
    union: Any = Annotated[Union[tuple(objects)], Field(discriminator=field)]  # noqa: UP007  # made at run time
    rest = [member for member in members if member not in objects]
    tags = frozenset(str(getattr(value, "value", value)) for value in by_value) | frozenset(by_value)
    told = (union, *rest)
    return cast(Any, Union[told]), tags  # noqa: UP007
