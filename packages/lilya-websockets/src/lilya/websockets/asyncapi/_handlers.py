"""What an app says of its WebSockets: paths, types, parameters, descriptions, who may connect.

No framework is imported: routes and declarations are read from the app's own attributes.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from types import GenericAlias
from typing import (
    Annotated,
    Any,
    Final,
    ForwardRef,
    Literal,
    NamedTuple,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from .._options import checked_flag
from .._routes import Route, websocket_routes
from .._websocket import WebSocket
from ..typed._kinds import Library, unwrapped
from ..typed._typed import Typed

__all__ = ["Conversation", "Parameter", "Scheme", "conversations_of", "describe"]

T = TypeVar("T")

# `{room}` and `{room:int}`; Lilya's may have `<` and `>` instead.
_PARAMETER: Final = re.compile(r"[{<]([A-Za-z_]\w*)(?::([A-Za-z_]\w*))?[}>]")
# What is told of a parameter by its converter in the path, or by its annotation.
_KINDS: Final = {
    "int": "An integer.",
    "float": "A number.",
    "decimal": "A number.",
    "Decimal": "A number.",
    "uuid": "A UUID.",
    "UUID": "A UUID.",
    "date": "A date.",
    "datetime": "A date and a time.",
    "path": "May contain slashes.",
}
_ATTRIBUTE: Final = "__asyncapi__"
_OURS: Final = WebSocket.__module__.rpartition(".")[0]  # this package


@dataclasses.dataclass(frozen=True)
class _Description:
    """What `describe` says."""

    typed: Typed | None
    title: str | None
    tags: tuple[str, ...]
    deprecated: bool


def describe(
    websocket: Any = None, *, title: str | None = None, tags: Iterable[str] = (), deprecated: bool = False
) -> Callable[[T], T]:
    """Describe a handler where its annotations do not.

    A decorator, as `@describe(WebSocket[Say, Said], tags=["chat"])`. Put it below that of the framework.

    Args:
        websocket: `WebSocket[In, Out]` with the types of the messages, or a subclass of it. Default: the one
            with which a parameter of the handler is annotated.
        title: A title. Default: none.
        tags: Tags, beside those of the routers of FastAPI and Litestar.
        deprecated: Whether clients should no longer use it. The decorator `warnings.deprecated` says so,
            too.

    Raises:
        TypeError: It is no `WebSocket` with types, or another argument of another type.
    """
    if isinstance(tags, str):
        raise TypeError(f"tags must be a list of strings, got {tags!r}: write [{tags!r}]")
    tags = tuple(tags)
    for tag in tags:
        if not isinstance(tag, str):
            raise TypeError(f"tags must be a list of strings, got {tag!r} in it")
    if title is not None and not isinstance(title, str):
        raise TypeError(f"title must be a string, got {title!r}")
    typed = None if websocket is None else _typed_of(websocket)
    if websocket is not None and typed is None:
        raise TypeError(f"describe takes a WebSocket[In, Out], got {websocket!r}")
    description = _Description(typed, title, tags, checked_flag("deprecated", deprecated))

    def decorate(handler: T) -> T:
        setattr(handler, _ATTRIBUTE, description)
        return handler

    return decorate


class Parameter(NamedTuple):
    """A parameter of the handshake: in the query, a header or a cookie."""

    name: str
    type: Any
    """The annotation, with constraints and the description in it."""
    library: Library
    """The one that knows its schema."""
    required: bool
    description: str = ""
    reads_as_header: bool = False
    """Whether the fields of a model are headers: FastAPI reads `x-token` for `x_token` then."""


class Scheme(NamedTuple):
    """A security scheme that is needed."""

    name: str
    described: dict[str, Any]
    """As OpenAPI has it."""
    scopes: tuple[str, ...] = ()


@dataclasses.dataclass
class Conversation:
    """What is known of one WebSocket of an app."""

    address: str
    typed: Typed | None = None
    title: str | None = None
    description: str = ""
    tags: list[str] = dataclasses.field(default_factory=list)
    deprecated: str | None = None
    """Why clients should no longer use it; empty if that is all that is said."""
    parameters: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    query: list[Parameter] = dataclasses.field(default_factory=list)
    headers: list[Parameter] = dataclasses.field(default_factory=list)
    cookies: list[Parameter] = dataclasses.field(default_factory=list)
    security: list[list[Scheme]] = dataclasses.field(default_factory=list)
    """Alternatives, each of which is all that is needed."""


def conversations_of(app: Any) -> list[Conversation]:
    """The WebSockets of an app, or of a mapping of paths to handlers, in their order.

    Raises:
        TypeError: The routes of the app cannot be read, or the mapping has something else than paths.
        ValueError: A path of the mapping does not start with a slash.
    """
    if isinstance(app, Mapping):
        for path in app:
            if not isinstance(path, str):
                raise TypeError(f"a mapping must have paths such as '/chat', got {path!r}")
            if not path.startswith("/"):
                raise ValueError(f"a path must start with a slash, such as '/chat', got {path!r}")
        return [_conversation(path, handler, None) for path, handler in app.items()]
    found: dict[str, Conversation] = {}
    for route in websocket_routes(app):
        if route.is_readable:
            if not any(getattr(node, "include_in_schema", None) is False for node in _nodes(route)):
                conversation = _conversation(route.path, _endpoint(route.around[-1]), route)
                found.setdefault(conversation.address, conversation)  # the first one is called
        elif route.path == "/*":
            raise TypeError(
                f"cannot read the routes of {app!r}: it is no app of FastAPI, Starlette, Litestar or Lilya. "
                "Name its handlers, as in {'/chat': chat}"
            )
    return list(found.values())


def _endpoint(route: Any) -> Any:
    """The function or the class that a route calls."""
    of_litestar = getattr(route, "route_handler", None)
    if of_litestar is not None:
        return of_litestar.fn
    return getattr(route, "endpoint", None) or getattr(route, "handler", None)


def _nodes(route: Route) -> Iterator[Any]:
    """Everything that says something of a route: it, and the routers and layers around it."""
    for node in route.around:
        yield node
        for name in ("router", "original_router", "include_context"):
            if (inner := getattr(node, name, None)) is not None:
                yield inner
    yield from getattr(getattr(route.around[-1], "route_handler", None), "ownership_layers", ())


def _conversation(path: str, handler: Any, route: Route | None) -> Conversation:
    said = getattr(handler, _ATTRIBUTE, None)
    while isinstance(handler, functools.partial):
        handler = handler.func
        said = said or getattr(handler, _ATTRIBUTE, None)
    said = said or _Description(None, None, (), False)
    nodes = [] if route is None else list(_nodes(route))
    dependants = list(_dependants(getattr(route.around[-1], "dependant", None))) if route else []
    hints = _hints(handler, wanted=said.typed is None)
    typed = said.typed or _typed_of(handler) or _first_typed(hints.values())
    for dependant in dependants:
        typed = typed or _first_typed(_hints(dependant.call, wanted=False).values())
    conversation = Conversation(
        address=_PARAMETER.sub(lambda found: f"{{{found[1]}}}", path) or "/",
        typed=typed,
        title=said.title,
        description=_doc(handler),
        tags=_tags(nodes, said.tags),
        deprecated=_deprecated(handler, said, nodes),
        query=_shown(field for each in dependants for field in each.query_params),
        headers=_shown(field for each in dependants for field in each.header_params),
        cookies=_shown(field for each in dependants for field in each.cookie_params),
        security=_security(dependants),
    )
    fields = {field.alias: field.field_info for each in dependants for field in each.path_params}
    if route is not None and (of_litestar := getattr(route.around[-1], "route_handler", None)) is not None:
        fields |= _add_of_litestar(conversation, of_litestar, {name for name, _ in _PARAMETER.findall(path)})
        conversation.security = _security_of_litestar(route.around)
    for name, converter in _PARAMETER.findall(path):
        field = fields.get(name)
        annotation = getattr(field, "annotation", None) if name not in hints else hints[name]
        conversation.parameters[name] = _parameter(annotation, converter, field)
    return conversation


def _parameter(annotation: Any, converter: str, field: Any) -> dict[str, Any]:
    """A parameter in a path."""
    annotation = unwrapped(annotation)
    values: Iterable[Any] = ()
    if get_origin(annotation) is Literal:
        values = get_args(annotation)
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        values = [each.value for each in annotation]
    kind = converter or getattr(annotation, "__name__", "")
    description = getattr(field, "description", None)
    if not description or kind == "path":  # which clients have to know, and no type says
        description = " ".join(filter(None, (description, _KINDS.get(kind))))
    described: dict[str, Any] = {
        "description": description,
        "enum": [str(value) for value in values],
        "examples": [str(value) for value in getattr(field, "examples", None) or ()],
    }
    return {key: value for key, value in described.items() if value}


def _tags(nodes: list[Any], more: Iterable[str]) -> list[str]:
    found = [
        tag.value if isinstance(tag, Enum) else tag
        for node in nodes
        if isinstance(tags := getattr(node, "tags", None), (list, tuple))
        for tag in tags
    ]
    return list(dict.fromkeys([*(tag for tag in found if isinstance(tag, str)), *more]))


def _deprecated(handler: Any, said: _Description, nodes: list[Any]) -> str | None:
    if isinstance(reason := getattr(handler, "__deprecated__", None), str):  # PEP 702
        return reason
    if said.deprecated or any(getattr(node, "deprecated", None) is True for node in nodes):
        return ""
    return None


def _doc(handler: Any) -> str:
    """The docstring of a handler; not the one of its base class, nor that of `WebSocket`."""
    if isinstance(handler, type) and issubclass(handler, WebSocket) and handler.__module__.startswith(_OURS):
        return ""
    doc = getattr(handler, "__doc__", None)
    return inspect.cleandoc(doc).strip() if isinstance(doc, str) else ""


# Types


def _typed_of(candidate: Any) -> Typed | None:
    """The types of a `WebSocket[In, Out]`.

    Raises:
        TypeError: They have names in them that are not resolved, or type variables.
    """
    bare: Any = unwrapped(candidate)
    origin: Any = bare.__origin__ if isinstance(bare, GenericAlias) else object
    if issubclass(origin, WebSocket):  # its names were in quotes
        bare = origin[get_args(bare)]
        if isinstance(bare, GenericAlias):
            raise TypeError(f"the types of {bare} are not known: use describe(WebSocket[In, Out])")
    if not isinstance(bare, GenericAlias) and isinstance(bare, type) and issubclass(bare, WebSocket):
        typed: Typed | None = bare._typed
        return typed
    return None


def _first_typed(candidates: Iterable[Any]) -> Typed | None:
    return next(filter(None, map(_typed_of, candidates)), None)


def _hints(handler: Any, *, wanted: bool) -> dict[str, Any]:
    """The annotations of a handler's parameters, as far as they can be resolved.

    Raises:
        TypeError: The one of a WebSocket with types is wanted, and cannot be.
    """
    if not (inspect.isfunction(handler) or inspect.ismethod(handler)):
        return {}
    try:
        return get_type_hints(handler, include_extras=True)
    except Exception as error:  # whatever an annotation raises
        found = {}
        for number, (name, annotation) in enumerate(handler.__annotations__.items()):
            if not isinstance(annotation, str):
                found[name] = annotation
            # The first one is the WebSocket's, whatever the class is called there.
            elif wanted and ("WebSocket[" in annotation or (number == 0 and "[" in annotation)):
                raise TypeError(
                    f"cannot resolve the annotation {annotation!r} of {handler.__qualname__}: {error}. "
                    "Import its names outside of TYPE_CHECKING, or use describe(WebSocket[In, Out])"
                ) from error
        return found


# FastAPI


def _dependants(dependant: Any) -> Iterator[Any]:
    """A handler of FastAPI and all that it depends on, each once."""
    if dependant is not None:
        yield dependant
        for each in dependant.dependencies:
            yield from _dependants(each)


def _shown(fields: Iterable[Any]) -> list[Parameter]:
    """Parameters, each once, without those that are not to be in a schema.

    Raises:
        TypeError: FastAPI has taken an annotation that it cannot resolve for a parameter.
    """
    by_name = {field.alias: field for field in fields if field.field_info.include_in_schema}
    for name, field in by_name.items():
        if isinstance(unresolved := field.field_info.annotation, ForwardRef):
            raise TypeError(
                f"cannot resolve the annotation {unresolved.__forward_arg__!r}, so FastAPI takes {name!r} "
                "for a parameter of the query. Import its names outside of TYPE_CHECKING"
            )
    return [
        Parameter(
            name,
            Annotated[field.field_info.annotation, field.field_info],
            "pydantic",
            field.field_info.is_required(),
            field.field_info.description or "",
            getattr(field.field_info, "convert_underscores", False) is True,
        )
        for name, field in by_name.items()
    ]


def _security(dependants: list[Any]) -> list[list[Scheme]]:
    """Security schemes of FastAPI, also those that are called for nothing but the check.

    One that does not raise by itself is an alternative. One that does is needed, whatever else there is.
    """
    needed: list[Scheme] = []
    either: list[Scheme] = []
    for each in dependants:
        scheme = each.call
        if hasattr(scheme, "scheme_name") and hasattr(scheme, "model"):
            scopes = (
                *(getattr(each, "parent_oauth_scopes", None) or ()),
                *(getattr(each, "own_oauth_scopes", None) or getattr(each, "security_scopes", None) or ()),
            )
            described = scheme.model.model_dump(by_alias=True, exclude_none=True, mode="json")
            found = Scheme(scheme.scheme_name, described, tuple(dict.fromkeys(scopes)))
            listed = needed if getattr(scheme, "auto_error", True) else either
            if found not in listed:
                listed.append(found)
    return [needed] if needed else [[scheme] for scheme in either]


# Litestar

# What its handlers can take besides parameters.
_RESERVED: Final = {"socket", "state", "headers", "cookies", "query", "scope", "request", "body", "data"}
# What Litestar's `Parameter` says of values that msgspec has in its `Meta`, too.
_CONSTRAINTS: Final = (
    "gt",
    "ge",
    "lt",
    "le",
    "multiple_of",
    "min_length",
    "max_length",
    "pattern",
    "description",
)


def _add_of_litestar(conversation: Conversation, handler: Any, in_path: set[str]) -> dict[str, Any]:
    """Add the parameters of a handler, and of the dependencies that it uses.

    Returns:
        What is said of those in the path, by name.
    """
    provided: dict[str, Any] = {}
    for layer in handler.ownership_layers:
        provided |= getattr(layer, "dependencies", None) or {}
    said: dict[str, Any] = {}
    seen = set(_RESERVED)
    waiting = [handler.parsed_fn_signature]
    while waiting:
        for name, field in waiting.pop().parameters.items():
            if name in seen:
                continue
            seen.add(name)
            told = field.kwarg_definition
            if name in in_path:
                said[name] = told
            elif name in provided:
                waiting.append(provided[name].parsed_fn_signature)
            elif getattr(told, "include_in_schema", told is None) and not any(
                map(_is_dependency, field.metadata)
            ):
                _add_parameter(conversation, name, field, told)
    return said


def _is_dependency(mark: Any) -> bool:
    """Whether Litestar's mark says that it is a dependency, here one that nobody provides."""
    return type(mark).__name__ == "Dependency"


def _add_parameter(conversation: Conversation, name: str, field: Any, told: Any) -> None:
    kind = type(told).__name__
    listed, name = conversation.query, getattr(told, "query", None) or getattr(told, "name", None) or name
    for place, parameters in (("header", conversation.headers), ("cookie", conversation.cookies)):
        # The name of Litestar's older `Parameter`, or the class that tells the place.
        if (alias := getattr(told, place, None)) or kind == f"{place.title()}Parameter":
            listed, name = parameters, alias or name
    description = getattr(told, "description", None) or ""
    type_ = _with_meta(field.annotation, told)
    listed.append(Parameter(name, type_, "msgspec", field.is_required, description))


def _with_meta(annotation: Any, told: Any) -> Any:
    """A type with what Litestar's `Parameter` says of it; anything, if msgspec does not know it."""
    import msgspec  # Litestar needs it

    meta = {name: value for name in _CONSTRAINTS if (value := getattr(told, name, None)) is not None}
    for type_ in (Annotated[annotation, msgspec.Meta(**meta)], annotation):
        try:
            msgspec.json.schema(type_)
        except Exception:  # whatever it raises for a type of somebody else
            continue
        return type_
    return Any


def _security_of_litestar(around: tuple[Any, ...]) -> list[list[Scheme]]:
    """What the app's configuration of OpenAPI says, which authentication middleware of Litestar adds to."""
    config = next(filter(None, (getattr(node, "openapi_config", None) for node in around)), None)
    described: dict[str, Any] = {}
    components = getattr(config, "components", None) or ()
    for each in components if isinstance(components, list) else [components]:
        for name, scheme in (getattr(each, "security_schemes", None) or {}).items():
            described[name] = scheme.to_schema()
    return [
        [Scheme(name, described[name], tuple(scopes)) for name, scopes in each.items()]
        for each in getattr(config, "security", None) or ()
        if all("type" in described.get(name, ()) for name in each)  # and is no reference
    ]
