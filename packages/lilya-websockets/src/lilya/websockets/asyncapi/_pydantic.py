"""Schemas by pydantic 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema

from ..typed._kinds import name_of
from ..typed._pydantic import discriminated
from ._schemas import Asked, Schema

__all__ = ["schemas"]


class _Generator(GenerateJsonSchema):
    """pydantic's own. What is sent has its defaults in it, which pydantic says only if it is told to."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        if self.mode == "serialization" and field["type"] != "typed-dict-field":
            return field.get("serialization_exclude_if") is None
        return super().field_is_required(field, total)


def schemas(asked: Sequence[Asked], prefix: str) -> tuple[list[Schema], dict[str, Schema]]:
    """The schema of each type, and what they refer to.

    Raises:
        TypeError: There is no schema of a type.
    """
    try:
        found, definitions = TypeAdapter.json_schemas(
            [
                (
                    str(index),
                    "serialization" if each.is_sent else "validation",
                    TypeAdapter(discriminated(each.type)),
                )
                for index, each in enumerate(asked)
            ],
            ref_template=f"{prefix}{{model}}",
            schema_generator=_Generator,
        )
    except (PydanticInvalidForJsonSchema, PydanticUserError) as error:
        names = ", ".join(dict.fromkeys(name_of(each.type) for each in asked))
        raise TypeError(f"pydantic has no JSON Schema of one of {names}: {error}") from error
    by_index = {int(index): schema for (index, _), schema in found.items()}
    return [by_index[index] for index in range(len(asked))], definitions.get("$defs", {})
