"""Sets and keys whose hashes a client can choose.

Python hashes strings with a secret of the process, and numbers without. Values of the same hash are compared
one by one: 8,000 chosen UUIDs in 320 KB keep the event loop busy for seconds, and twice as many four times as
long. So a message is limited in length if its type has a set of such values, or a dictionary with such keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any, Final, Literal, get_args, get_origin
from uuid import UUID

from ._kinds import Library, fields_of, is_model, members_of, unwrapped

__all__ = ["LONGEST", "TooLong", "longest"]

LONGEST: Final = 16_384
"""Bytes or characters of such a message: they take less than a tenth of a second."""

_EACH: Final = 100  # of them for each value that the app allows, where the library counts values at the end
_CHOSEN: Final = (int, complex, Decimal, Fraction, UUID)
_HASHED: Final = 2**61 - 1  # integers below it have hashes of their own


class TooLong(ValueError):
    """A message with such values is longer than it may be."""


def longest(type_: Any, library: Library) -> int | None:
    """How long a message of this type may be; `None` for no limit."""
    return min(_limits(type_, (), library, []), default=None)


def _limits(type_: Any, annotations: tuple[Any, ...], library: Library, seen: list[Any]) -> Iterator[int]:
    for member in members_of(type_):
        bare = unwrapped(member)
        origin = get_origin(bare) or bare
        arguments = get_args(bare)
        if origin is Literal or bare in seen:
            continue
        if is_model(bare):
            seen.append(bare)
            for field, more in fields_of(bare).values():
                yield from _limits(field, more, library, seen)
        elif isinstance(origin, type) and (
            (issubclass(origin, Set) and _is_chosen(arguments[0] if arguments else Any, []))
            # The keys of an object in JSON are strings, until a type makes something else of them.
            or (
                issubclass(origin, Mapping)
                and arguments
                and arguments[0] is not Any
                and _is_chosen(arguments[0], [])
            )
        ):
            most = _said("max_length", (*annotations, *_annotations(member)))
            if not most:
                yield LONGEST
            elif library == "msgspec":  # which counts when all of them are there
                yield max(LONGEST, min(most) * _EACH)
        for argument in arguments:
            yield from _limits(argument, (), library, seen)


def _is_chosen(type_: Any, seen: list[Any]) -> bool:
    """Whether a client can find many values of one hash among those of a type."""
    for member in members_of(type_):
        bare = unwrapped(member)
        origin = get_origin(bare) or bare
        if origin in (Any, object):
            return True
        if not isinstance(origin, type) or bare in seen or issubclass(origin, (bool, Enum)):
            continue
        if origin is int:
            annotations = _annotations(member)
            above = (*_said("lt", annotations), *_said("le", annotations))
            below = (*_said("gt", annotations), *_said("ge", annotations))
            if not (above and below and min(above) < _HASHED and max(below) > -_HASHED):
                return True
        elif issubclass(origin, _CHOSEN):
            return True
        elif is_model(bare):
            if any(_is_chosen(field, [*seen, bare]) for field, _ in fields_of(bare).values()):
                return True
        elif issubclass(origin, (tuple, frozenset)) and any(
            _is_chosen(each, seen) for each in get_args(bare) or (Any,) if each is not ...
        ):
            return True
    return False


def _annotations(type_: Any) -> list[Any]:
    """What a type is annotated with, that of pydantic's `Field` included."""
    found = list(getattr(type_, "__metadata__", ()))
    return found + [each for field in found for each in getattr(field, "metadata", None) or ()]


def _said(name: str, annotations: Any) -> list[Any]:
    """The bounds of one kind."""
    return [bound for each in annotations if (bound := getattr(each, name, None)) is not None]
