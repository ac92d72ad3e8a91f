"""`WebSocket[In, Out]`: makes a class of it, once for the same types."""

from __future__ import annotations

from functools import lru_cache
from types import GenericAlias
from typing import Any

from .._websocket import WebSocket
from ._kinds import is_open, name_of
from ._methods import TypedWebSocket
from ._typed import Typed

__all__ = ["with_types"]


def with_types(cls: Any, types: Any) -> Any:
    """A subclass whose messages have types. For types that are not known yet, only an annotation.

    Args:
        cls: `WebSocket`, or a subclass.
        types: `In` and `Out`, or what is both.

    Raises:
        ImportError: The library of the types is not installed.
        TypeError: There are other than one or two types, no messages can be made of them, or the class has
            types already.
    """
    if not isinstance(types, tuple):
        types = (types, types)
    if len(types) != 2:
        raise TypeError(f"{cls.__name__}[In, Out] takes one type or two, got {len(types)}")
    if cls._typed is not None:
        raise TypeError(f"{cls.__name__} has types already")
    if any(map(is_open, types)):
        return GenericAlias(cls, types)
    if types == (Any, Any):
        return cls
    try:
        return _made(cls, *types)
    except TypeError:
        if _are_hashable(types):
            raise
        return _made.__wrapped__(cls, *types)


def _are_hashable(types: tuple[Any, ...]) -> bool:
    try:
        hash(types)
    except TypeError:  # an `Annotated` may have anything in it
        return False
    return True


@lru_cache(maxsize=1024)
def _made(cls: type[WebSocket], received: Any, sent: Any) -> type[WebSocket]:
    names = name_of(received) if sent is received else f"{name_of(received)}, {name_of(sent)}"
    bases = (TypedWebSocket,) if cls is WebSocket else (cls, TypedWebSocket)
    return type(
        f"{cls.__name__}[{names}]",
        bases,
        {"__module__": cls.__module__, "__doc__": cls.__doc__, "_typed": Typed(received, sent)},
    )
