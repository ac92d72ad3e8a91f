"""A document as text: JSON, and YAML without a library for it.

JSON is valid YAML 1.2, but people who ask for YAML want to read it. This emitter uses a small subset that
parsers of YAML 1.1 and 1.2 read alike: block mappings and lists, the scalars of JSON, plain words that no
version takes for another type, and literal blocks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["to_json", "to_yaml"]

# Words that some version of YAML takes for another type. Everything else that it takes for one starts with a
# digit, a sign, a dot or a mark.
_TAKEN: Final = {"false", "n", "no", "null", "off", "on", "true", "y", "yes"}
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
# What a YAML stream may not hold as it is, or takes for the end of a line.
_UNPRINTABLE: Final = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
# Text that a literal block holds as it is: the first line is neither empty nor indented, and nothing but `\n`
# ends a line.
_BLOCK: Final = re.compile(
    "[^\\s\x00-\x1f][^\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]*"
)


def to_json(document: Any) -> str:
    """The document as JSON, with an end of line."""
    return _escaped(json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2)) + "\n"


def to_yaml(document: Any) -> str:
    """The document as YAML, with an end of line."""
    return "\n".join(_lines(document, "")) + "\n"


def _lines(value: Any, indent: str) -> Iterator[str]:
    """A mapping or a list that is not empty, or a scalar; each line indented."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _entry(f"{indent}{_scalar(key)}:", item, f"{indent}  ")
    elif isinstance(value, list) and value:
        for item in value:
            if isinstance(item, dict) and item:
                first, *rest = _lines(item, f"{indent}  ")
                yield f"{indent}- {first.lstrip(' ')}"
                yield from rest
            else:
                yield from _entry(f"{indent}-", item, f"{indent}  ")
    else:
        yield f"{indent}{_scalar(value)}"


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    """What a key or a dash has behind it, or below."""
    if isinstance(value, (dict, list)) and value:
        yield head
        yield from _lines(value, indent)
    elif isinstance(value, str) and "\n" in value and value[-1] not in " \n" and _BLOCK.fullmatch(value):
        yield f"{head} |-"
        for line in value.split("\n"):
            yield f"{indent}{line}" if line else ""
    else:
        yield f"{head} {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _WORD.fullmatch(value) and value.lower() not in _TAKEN:
        return value
    if isinstance(value, float):
        # YAML 1.1 wants a point in the number, also in one with an exponent.
        text = json.dumps(value, allow_nan=False)
        mantissa, exponent, power = text.partition("e")
        return text if "." in mantissa else f"{mantissa}.0{exponent}{power}"
    return _escaped(json.dumps(value, ensure_ascii=False))


def _escaped(text: str) -> str:
    """JSON in which nothing stands that not every parser and encoder takes."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
