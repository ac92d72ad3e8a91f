"""JSON Schema of types, as AsyncAPI 3.0 has it: draft 7, with what is named in `components`.

The generators of the types' own libraries make the schemas. Here they become one set: two classes of the same
name get different names, and keywords of later drafts become those of draft 7.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

from ..typed._kinds import Library

__all__ = ["Asked", "Schema", "component_of", "is_data", "schemas_of"]

Schema = Any
"""A dictionary, or `True` or `False`."""

_PREFIX: Final = "#/components/schemas/"
_ONE: Final = (
    *("items", "additionalItems", "additionalProperties", "contains", "propertyNames"),
    *("not", "if", "then", "else"),
)
_MANY: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED: Final = ("properties", "patternProperties")
_OF_LIBRARY: Final = re.compile(r"(?:pydantic|msgspec)\.\w+")
_SCHEMAS: Final = {*_ONE, *_MANY, *_NAMED, "$ref"}  # keywords with schemas, or of one


class Asked(NamedTuple):
    """A type whose schema is wanted."""

    type: Any
    library: Library
    is_sent: bool
    """Whether the app sends it. What is optional for who sends may always be there for who receives."""
    required: str | None = None
    """The field that tells messages apart: it has to be in a message, whatever its default is."""


def schemas_of(asked: Sequence[Asked]) -> tuple[list[Schema], dict[str, Schema]]:
    """The schema of each type, and what these refer to, by name.

    Raises:
        TypeError: A library has no schema of a type.
    """
    found: dict[int, Schema] = {}
    components: dict[str, Schema] = {}
    for library in sorted({each.library for each in asked}):
        mine = [index for index, each in enumerate(asked) if each.library == library]
        make = import_module(f"._{library}", __package__).schemas
        schemas, named = make([asked[index] for index in mine], _PREFIX)
        rename = {name: f"{library}.{name}" if name in components else name for name in named}
        for index, schema in zip(mine, schemas, strict=True):
            found[index] = _referring(schema, rename)
        components |= {rename[name]: _referring(schema, rename) for name, schema in named.items()}
    _require(asked, found, components)
    merged = _merged(components)
    short = _shortened({merged.get(name, name) for name in components})
    names = {name: short[merged.get(name, name)] for name in components}
    named = {names[name]: _draft7(_referring(schema, names)) for name, schema in components.items()}
    return (
        [_draft7(_referring(found[index], names)) for index in range(len(asked))],
        dict(sorted(named.items())),
    )


def component_of(schema: Schema) -> str | None:
    """The name that a schema refers to; `None` if it is none that only refers."""
    if isinstance(schema, dict) and schema.keys() == {"$ref"}:
        return str(schema["$ref"]).removeprefix(_PREFIX)
    return None


def _require(asked: Sequence[Asked], found: dict[int, Schema], components: dict[str, Schema]) -> None:
    """Say of the fields that tell messages, and members of other unions, apart that they have to be there."""

    def require(schema: Schema, name: object) -> None:
        schema = components[schema["$ref"].removeprefix(_PREFIX)] if "$ref" in schema else schema
        if name in schema.get("properties", {}) and name not in schema.get("required", ()):
            schema["required"] = [name, *schema.get("required", ())]

    def require_in_union(schema: dict[str, Any]) -> dict[str, Any]:
        if isinstance(told := schema.get("discriminator"), dict):
            for member in (*schema.get("oneOf", ()), *schema.get("anyOf", ())):
                require(member, told.get("propertyName"))
        return schema

    for index, each in enumerate(asked):
        require(found[index], each.required)
    for schema in [*found.values(), *components.values()]:
        _each(schema, require_in_union)


def _merged(components: dict[str, Schema]) -> dict[str, str]:
    """New names of what pydantic has twice, as input and as output, and is the same in both.

    Two recursive models are the same if they are so for as long as all that they refer to is.
    """
    same = {
        name.removesuffix("-Input")
        for name in components
        if name.endswith("-Input") and f"{name.removesuffix('-Input')}-Output" in components
    }
    same -= components.keys()
    while True:
        names = {f"{name}-{kind}": name for name in same for kind in ("Input", "Output")}
        differ = {
            name
            for name in same
            if _ordered(components[f"{name}-Input"], names) != _ordered(components[f"{name}-Output"], names)
        }
        if not differ:
            return names
        same -= differ


def _shortened(names: set[str]) -> dict[str, str]:
    """Names without modules, which are nobody's business. Libraries tell models of one name apart by them."""
    found: dict[str, str] = {}
    taken: dict[str, str] = {}
    counts = Counter(map(_last, {_bare(name) for name in names}))
    for name in sorted(names, key=lambda name: (_bare(name) != _last(name), name)):
        bare, last = _bare(name), _last(name)
        # pydantic's have `__` in them, which a model's own name may have, too.
        if "." not in bare and counts[last] < 2:
            last = bare
        if bare not in taken:
            number = 1
            while (numbered := last if number == 1 else f"{last}_{number}") in taken.values():
                number += 1
            taken[bare] = numbered
        found[name] = taken[bare] + name[len(bare) :]
    return found


def _bare(name: str) -> str:
    """A name without what pydantic adds for one direction."""
    return name.removesuffix("-Input").removesuffix("-Output")


def _last(name: str) -> str:
    """The name of the class itself; with that of its library, if both have one of that name."""
    bare = _bare(name)
    return bare if _OF_LIBRARY.fullmatch(bare) else re.split(r"\.|__+", bare)[-1] or bare


def _ordered(schema: Schema, names: dict[str, str]) -> Schema:
    schema = _referring(schema, names)
    return {**schema, "required": sorted(schema.get("required", ()))}


def _referring(schema: Schema, names: dict[str, str]) -> Schema:
    """A schema that refers by other names."""

    def refer(schema: dict[str, Any]) -> dict[str, Any]:
        if isinstance(target := schema.get("$ref"), str):
            name = target.removeprefix(_PREFIX)
            return {**schema, "$ref": f"{_PREFIX}{names.get(name, name)}"}
        return schema

    return _each(schema, refer)


def _draft7(schema: Schema) -> Schema:
    """A schema in the words of draft 7."""
    return _each(schema, _in_draft7)


def _in_draft7(schema: dict[str, Any]) -> dict[str, Any]:
    schema = {key: value for key, value in schema.items() if key in _SCHEMAS or is_data(value)}
    # OpenAPI's. The schemas in `oneOf` have a constant each, which says as much.
    if isinstance(schema.get("discriminator"), dict):
        del schema["discriminator"]
    if "prefixItems" in schema:
        rest = schema.pop("items", None)
        schema["items"] = schema.pop("prefixItems")
        if rest is not None:
            schema["additionalItems"] = rest
    # What stands beside a reference is ignored.
    if "$ref" in schema and len(schema) > 1:
        schema = {"allOf": [{"$ref": schema.pop("$ref")}], **schema}
    return schema


def is_data(value: Any) -> bool:
    """Whether a document can hold a value: JSON has a form of it, and it does not look like a reference."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):  # infinity, bytes, and what an app adds to its schemas
        return False
    return not _holds_reference(value)


def _holds_reference(value: Any) -> bool:
    if isinstance(value, dict):
        return isinstance(value.get("$ref"), str) or any(map(_holds_reference, value.values()))
    return isinstance(value, list) and any(map(_holds_reference, value))


def _each(schema: Schema, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Schema:
    """A copy of a schema, in which each schema is changed. Values, such as defaults, stay as they are."""
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, dict):
            made[key] = {name: _each(each, change) for name, each in value.items()}
        elif key in _MANY and isinstance(value, list):
            made[key] = [_each(each, change) for each in value]
        elif key in _ONE:
            made[key] = _each(value, change)
        else:
            made[key] = value
    return change(made)
