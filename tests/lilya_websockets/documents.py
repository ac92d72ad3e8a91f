"""What holds of every AsyncAPI document. `nox -s asyncapi` asks the AsyncAPI project's own parser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

KEY = re.compile(r"[A-Za-z0-9._-]+")
# Keywords of drafts after draft 7, and OpenAPI's.
LATER = {"$defs", "prefixItems", "unevaluatedProperties", "dependentRequired", "minContains"}
# Whose values are data.
DATA = {"default", "const", "enum", "examples"}
FIELDS = {"asyncapi", "info", "servers", "channels", "operations", "components"}


def problems(document: dict[str, Any]) -> list[str]:
    """What is wrong with a document; each line says where."""
    return [*_problems(document)]


def _problems(document: dict[str, Any]) -> Iterator[str]:
    if json.loads(json.dumps(document, allow_nan=False)) != document:
        yield "it is not what JSON can hold"
    if not document.keys() <= FIELDS or document.get("asyncapi") != "3.0.0":
        yield f"top level: {sorted(document)}"
    if not {"title", "version"} <= document["info"].keys():
        yield "info has no title or no version"
    for where, reference in references(document):
        if resolve(document, reference) is None:
            yield f"{where}: {reference} leads nowhere"
    for name, server in document.get("servers", {}).items():
        if not server.get("host") or server.get("protocol") not in ("ws", "wss"):
            yield f"server {name}: {server}"
    addresses = [channel["address"] for channel in document.get("channels", {}).values()]
    for name, channel in document.get("channels", {}).items():
        if not channel["address"].startswith("/"):
            yield f"channel {name}: {channel['address']} is no path"
        if set(re.findall(r"\{(\w+)\}", channel["address"])) != channel.get("parameters", {}).keys():
            yield f"channel {name}: its parameters are not those in {channel['address']}"
        if not re.fullmatch(r"[^<>?#]*", channel["address"]) or ":" in channel["address"]:
            yield f"channel {name}: {channel['address']} has a converter"
    if len(set(addresses)) != len(addresses):
        yield f"two channels have one address: {addresses}"
    for name, operation in document.get("operations", {}).items():
        if operation["action"] not in ("send", "receive"):
            yield f"operation {name}: {operation['action']}"
        for part in (operation, operation.get("reply")):
            for message in (part or {}).get("messages", ()):
                if not message["$ref"].startswith(f"{operation['channel']['$ref']}/messages/"):
                    yield f"operation {name}: {message} is not of its channel"
    for kind, components in document.get("components", {}).items():
        for name in components:
            if not KEY.fullmatch(name):
                yield f"components/{kind}: {name!r} is no key"
    for where, schema in schemas(document):
        if LATER & schema.keys() or isinstance(schema.get("discriminator"), dict):
            yield f"{where}: {sorted(schema)} is not draft 7"
        if "$ref" in schema and len(schema) > 1:
            yield f"{where}: what stands beside a reference is ignored"


def references(node: Any, where: str = "#") -> Iterator[tuple[str, str]]:
    """All references, and where they are."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield where, node["$ref"]
        for key, value in node.items():
            yield from references(value, f"{where}/{key}")  # in data, too: parsers look there
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from references(value, f"{where}/{index}")


def resolve(document: Any, reference: str) -> Any:
    """What a reference leads to; `None` if it leads nowhere."""
    place = document
    for part in reference.removeprefix("#/").split("/"):
        place = place.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(place, dict) else None
    return place


def schemas(document: Any) -> Iterator[tuple[str, Any]]:
    """All schemas, those in schemas as well, and where they are."""
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        yield from _within(schema, f"schema {name}")
    for key, channel in document.get("channels", {}).items():
        for name, message in channel.get("messages", {}).items():
            yield from _within(message["payload"], f"payload of {key}/{name}")
        for name, schema in channel.get("bindings", {}).get("ws", {}).items():
            if name in ("query", "headers"):
                yield from _within(schema, f"{name} of {key}")


def _within(schema: Any, where: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(schema, dict):
        return
    yield where, schema
    for key, value in schema.items():
        if key in ("properties", "patternProperties"):
            for name, each in value.items():
                yield from _within(each, f"{where}/{name}")
        elif key not in DATA:
            for each in value if isinstance(value, list) else [value]:
                yield from _within(each, f"{where}/{key}")
