"""What a type is, seen from outside: the members of a union, its models, what tells them apart.

Neither pydantic nor msgspec is imported here: a type that is of one of them has imported it already.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Container, Iterator, Mapping
from types import ModuleType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

__all__ = [
    "CallId",
    "Library",
    "ReplyTo",
    "discriminator_of",
    "fields_of",
    "is_model",
    "is_object",
    "is_struct",
    "library_of",
    "marked_fields",
    "members_of",
    "name_in_message",
    "name_of",
    "nearest",
    "untold",
    "unwrapped",
]

Library: TypeAlias = Literal["pydantic", "msgspec"]


@dataclasses.dataclass(frozen=True)
class Mark:
    """What marks a field in an `Annotated`."""

    name: str


CALL_ID: Final = Mark("CallId")
REPLY_TO: Final = Mark("ReplyTo")

CallId: TypeAlias = Annotated[str | None, CALL_ID]
"""The type of the field that identifies a request, `id: CallId = None`. `WebSocket.call` fills it in."""

ReplyTo: TypeAlias = Annotated[str | None, REPLY_TO]
"""The type of the field in an answer that has the id of the request, `reply_to: ReplyTo = None`."""


def name_of(type_: Any) -> str:
    """A type as the app wrote it, as far as that is known."""
    if isinstance(type_, type) and get_origin(type_) is None:
        return type_.__qualname__.rpartition("<locals>.")[2]
    if get_origin(type_) in (Union, UnionType):
        return " | ".join(map(name_of, get_args(type_)))
    return "None" if type_ is None else str(type_).removeprefix("typing.")


# What a `TypedDict` says of its keys, also by `typing_extensions`.
_QUALIFIERS: Final = ("NotRequired", "ReadOnly", "Required")


def _is_wrapped(type_: Any) -> bool:
    origin = get_origin(type_)
    return origin is Annotated or getattr(origin, "_name", None) in _QUALIFIERS


def unwrapped(type_: Any) -> Any:
    """A type without `Annotated`, `NotRequired`, `NewType`, and the name that a `type` statement gave it."""
    while True:
        if _is_wrapped(type_):
            type_ = get_args(type_)[0]
        elif hasattr(type_, "__supertype__"):
            type_ = type_.__supertype__
        elif type(type_).__name__ == "TypeAliasType" and hasattr(type_, "__value__"):
            type_ = type_.__value__
        else:
            return type_


def members_of(type_: Any) -> list[Any]:
    """The members of a union, those of unions in it included; of another type itself."""
    bare = unwrapped(type_)
    if get_origin(bare) not in (Union, UnionType):
        return [type_]
    return [member for argument in get_args(bare) for member in members_of(argument)]


def _library(name: Library) -> ModuleType | None:
    return sys.modules.get(name)


def is_struct(type_: Any) -> bool:
    """Whether it is a class of msgspec."""
    library = _library("msgspec")
    return library is not None and isinstance(type_, type) and issubclass(type_, library.Struct)


def is_pydantic(type_: Any) -> bool:
    """Whether it is a model or a dataclass of pydantic."""
    library = _library("pydantic")
    if library is None or not isinstance(type_, type):
        return False
    return issubclass(type_, library.BaseModel) or hasattr(type_, "__pydantic_validator__")


def is_typed_dict(type_: Any) -> bool:
    """Whether it is a `TypedDict`, that of `typing_extensions` too."""
    return isinstance(type_, type) and issubclass(type_, dict) and hasattr(type_, "__required_keys__")


def is_model(type_: Any) -> bool:
    """Whether it is a class with fields, which is an object in JSON."""
    type_ = get_origin(type_) or type_  # of a generic one
    if is_struct(type_):
        return not type_.__struct_config__.array_like
    if is_pydantic(type_) and hasattr(type_, "model_fields") and "root" in type_.model_fields:
        return any(
            is_object(unwrapped(member)) for member in members_of(type_.model_fields["root"].annotation)
        )
    return is_pydantic(type_) or dataclasses.is_dataclass(type_) or is_typed_dict(type_)


def is_object(type_: Any) -> bool:
    """Whether an object in JSON may be one of these."""
    if type_ in (Any, object):
        return True
    origin = get_origin(type_) or type_
    return is_model(type_) or (isinstance(origin, type) and issubclass(origin, Mapping))


def fields_of(model: Any) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The types of a model's fields, and what they are annotated with; nothing if that is not known yet."""
    bare = get_origin(model) or model
    if is_pydantic(bare) and hasattr(bare, "model_fields"):
        if not bare.__pydantic_complete__:
            bare.model_rebuild(raise_errors=False)
        return {name: (field.annotation, tuple(field.metadata)) for name, field in bare.model_fields.items()}
    try:
        hints = get_type_hints(bare, include_extras=True)
    except Exception:
        return {}
    return {name: (unwrapped(hint), _annotations(hint)) for name, hint in hints.items()}


def _annotations(type_: Any) -> tuple[Any, ...]:
    """What a field's type is annotated with."""
    found: tuple[Any, ...] = ()
    while _is_wrapped(type_):
        type_, *annotations = get_args(type_)
        found += tuple(annotations)
    return found


def library_of(type_: Any) -> Library | None:
    """The library that a type is of, in it or in what it is made from; `None` if any will do.

    Raises:
        TypeError: It is of both.
    """
    found = dict(_traces(type_, set()))
    if len(found) > 1:
        raise TypeError(
            f"{name_of(type_)} is made from types of pydantic and of msgspec, such as "
            f"{name_of(found['pydantic'])} and {name_of(found['msgspec'])}. Take those of one library"
        )
    return next(iter(found), None)


def _traces(type_: Any, seen: set[int]) -> Iterator[tuple[Library, Any]]:
    """By library, something of it in a type."""
    if id(type_) in seen:
        return
    seen.add(id(type_))
    if get_origin(type_) is Annotated:
        for metadata in get_args(type_)[1:]:
            yield from _source(type(metadata), type_)
    bare = unwrapped(type_)
    if get_origin(bare) is Literal:
        return
    yield from _source(get_origin(bare) or bare, bare)
    for argument in get_args(bare):
        yield from _traces(argument, seen)
    if is_model(bare):
        for field, annotations in fields_of(bare).values():
            for annotation in annotations:
                yield from _source(type(annotation), bare)
            yield from _traces(field, seen)


_OF: Final[dict[str, Library]] = {
    "pydantic": "pydantic",
    "pydantic_core": "pydantic",
    "annotated_types": "pydantic",
    "msgspec": "msgspec",
}


def _source(cls: Any, type_: Any) -> Iterator[tuple[Library, Any]]:
    """The library of a class, if it is of one."""
    if is_struct(cls):
        yield "msgspec", type_
    elif is_pydantic(cls):
        yield "pydantic", type_
    else:
        library = _OF.get(str(getattr(cls, "__module__", "")).partition(".")[0])
        if library:
            yield library, type_


def name_in_message(model: Any, field: str, *, is_sent: bool) -> str:
    """The name that a field has in messages.

    Args:
        model: A model that has the field.
        field: Its name in Python.
        is_sent: Whether the client is sent the message. Aliases of pydantic may differ by direction.
    """
    bare = get_origin(model) or model
    if is_struct(bare):
        return str(dict(zip(bare.__struct_fields__, bare.__struct_encode_fields__, strict=True))[field])
    found = getattr(bare, "__pydantic_fields__", {}).get(field)
    alias: Any = found and (found.serialization_alias if is_sent else found.validation_alias)
    if hasattr(alias, "choices"):  # of several names, the first
        alias = alias.choices[0]
    return alias if isinstance(alias, str) else field


def nearest(cls: type, classes: Container[type]) -> type | None:
    """The class itself if it is one of some classes, or else the nearest base that is one."""
    return next((base for base in cls.__mro__ if base in classes), None)


def discriminator_of(models: list[Any]) -> tuple[str, dict[Any, Any]] | None:
    """The first field that is a `Literal` in all models and has other values in each, and who has which."""
    shared = [_literals_of(model) for model in models]
    for name in shared[0]:
        by_value: dict[Any, Any] = {}
        count = 0
        for model, literals in zip(models, shared, strict=True):
            for value in literals.get(name, ()):
                by_value[value] = model
                count += 1
        if len(by_value) == count and all(literals.get(name) for literals in shared):
            return name, by_value
    return None


def _literals_of(model: Any) -> dict[str, tuple[Any, ...]]:
    return {
        name: get_args(bare)
        for name, (field, _) in fields_of(model).items()
        if get_origin(bare := unwrapped(field)) is Literal
    }


def marked_fields(type_: Any, mark: Mark) -> dict[type, str]:
    """By the class of messages, the field that is marked; of a `TypedDict`, that is `dict`.

    Raises:
        TypeError: Several `TypedDict` have it by different names.
    """
    found: dict[type, str] = {}
    for member in members_of(type_):
        model = unwrapped(member)
        if is_model(model):
            for name, (_, annotations) in fields_of(model).items():
                if any(annotation is mark for annotation in annotations):
                    bare = get_origin(model) or model
                    cls = dict if is_typed_dict(bare) else bare
                    if found.setdefault(cls, name) != name:  # only dictionaries have a class in common
                        raise TypeError(
                            f"the fields of the type {mark.name} must have one name in every TypedDict of "
                            f"{name_of(type_)}, got {found[cls]!r} and {name!r}"
                        )
    return found


def is_open(type_: Any) -> bool:
    """Whether it has a type variable or a name in it that is not known yet."""
    if isinstance(type_, (str, TypeVar)) or type(type_).__name__ == "ForwardRef":
        return True
    if get_origin(type_) is Literal:
        return False
    if get_origin(type_) is Annotated:
        return is_open(get_args(type_)[0])
    return any(map(is_open, get_args(type_)))


def untold(type_: Any, objects: list[Any], more: str = "") -> TypeError:
    """Nothing tells the members of a union apart."""
    return TypeError(
        f"nothing tells the members of {name_of(type_)} apart: {', '.join(map(name_of, objects))} are all "
        "objects in JSON. Give each of them a field of the same name with a `Literal` of its own, such as "
        f'`type: Literal["{name_of(objects[0]).lower()}"]`{more}'
    )
