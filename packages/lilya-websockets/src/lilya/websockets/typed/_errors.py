"""What is wrong with a message, in a form that is the same for every library, and in one for the client."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any, Final, TypeAlias

__all__ = ["CLASS_TEXTS", "MOST", "Detail", "Details", "answer_of", "detail", "too_many"]

Detail: TypeAlias = dict[str, Any]
"""`loc`: where, as a tuple of names and indices; `type`: the kind of error; `msg`: the text."""

Details: TypeAlias = Callable[[Exception, Any], list[Detail]]
"""Says what is wrong with a payload by what decoding it raised."""

MOST: Final = 100
"""Errors that are listed, at most."""

_LONGEST: Final = 200  # characters of a text, and of each part of a place
_DEEPEST: Final = 20  # parts of a place
_ANSWERED: Final = 10  # errors in an answer

# Texts of pydantic that name a class of the app.
CLASS_TEXTS: Final[dict[str, str]] = dict.fromkeys(
    (
        "dataclass_exact_type",
        "dataclass_type",
        "is_instance_of",
        "is_subclass_of",
        "model_attributes_type",
        "model_type",
    ),
    "Input should be an object",
)


def detail(loc: Sequence[Any], kind: str, text: str) -> Detail:
    """One error, each part of it within bounds."""
    return {
        "loc": tuple(part if isinstance(part, int) else _cut(str(part)) for part in loc[:_DEEPEST]),
        "type": kind,
        "msg": _cut(text),
    }


def too_many(count: int) -> Detail:
    """Instead of more errors than anybody reads."""
    return detail((), "too_many_errors", f"The message has {count} errors")


def answer_of(details: Sequence[Detail], safe_kinds: Container[str]) -> dict[str, Any]:
    """The answer to a message that is wrong. What the app's own validators say stays here."""
    return {
        "type": "error",
        "errors": [
            {
                "loc": list(each["loc"]),
                "type": each["type"] if each["type"] in safe_kinds else "invalid",
                "msg": each["msg"] if each["type"] in safe_kinds else "Invalid value",
            }
            for each in details[:_ANSWERED]
        ],
    }


def _cut(text: str) -> str:
    text = text if text.isprintable() and text.isascii() else text.encode("utf-8", "replace").decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
