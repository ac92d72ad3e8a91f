"""Schemas by msgspec."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..typed._kinds import name_of
from ._schemas import Asked, Schema

__all__ = ["schemas"]


def schemas(asked: Sequence[Asked], prefix: str) -> tuple[list[Schema], dict[str, Schema]]:
    """The schema of each type, and what they refer to.

    Raises:
        TypeError: There is no schema of a type.
    """
    types = [each.type for each in asked]
    try:
        found, components = msgspec.json.schema_components(types, ref_template=f"{prefix}{{name}}")
    except TypeError as error:
        names = ", ".join(dict.fromkeys(map(name_of, types)))
        raise TypeError(f"msgspec has no JSON Schema of one of {names}: {error}") from error
    return list(found), components
