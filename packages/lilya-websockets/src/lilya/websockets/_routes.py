"""The WebSocket routes of an app of FastAPI, Starlette, Litestar or Lilya.

Nothing is run and no framework is imported: routes, mounts and wrappers are read from the app's own
attributes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import MethodType
from typing import Any, Final, NamedTuple

__all__ = ["Route", "class_names", "inner_app", "websocket_routes"]

_WEBSOCKET: Final = {"WebSocketRoute", "WebSocketPath"}  # Starlette, FastAPI and Litestar; Lilya
# Those of HTTP only. Routes of Starlette, FastAPI and Lilya that have `methods` are, too. The last two are
# adapters for WSGI (Starlette's, a2wsgi's) and Django's handler.
_HTTP: Final = {"HTTPRoute", "StaticFiles", "_FrontendRouteGroup", "WSGIMiddleware", "ASGIHandler"}
# Modules whose apps are functions, and serve HTTP only: `make_asgi_app()`.
_HTTP_MODULES: Final = {"prometheus_client.asgi"}


class Route(NamedTuple):
    """One route, or a mounted app whose routes cannot be read."""

    path: str
    """The whole path, in the framework's own spelling; of an app that cannot be read, with `/*`."""
    around: tuple[Any, ...]
    """What a request passes on its way, the outermost first: apps, middleware, routers, mounts, the route."""
    is_readable: bool
    """Whether it is a route. Otherwise it is an app of no framework known here."""


def websocket_routes(app: Any) -> Iterator[Route]:
    """The WebSocket routes of an app, in the order in which they are declared.

    Args:
        app: The app as you serve it. ASGI middleware around it has to keep the app it wraps in the attribute
            `app`.

    Returns:
        Routes, and mounted apps that cannot be read. What serves HTTP only is left out.
    """
    return _below(app, "", ())


def _below(app: Any, path: str, around: tuple[Any, ...]) -> Iterator[Route]:
    """What can be reached through an app."""
    if class_names(app) & _HTTP or getattr(app, "__module__", None) in _HTTP_MODULES:
        return
    if getattr(app, "serves_only_http", False):  # as the page of a document, or an app of one's own
        return
    around = (*around, app)
    if isinstance(routes := getattr(app, "routes", None), (list, tuple)):
        for route in routes:
            yield from _through(route, path, around)
    elif (inner := inner_app(app)) is not None:
        yield from _below(inner, path, around)
    else:
        yield Route(f"{path}/*", around, False)


def _through(route: Any, path: str, around: tuple[Any, ...]) -> Iterator[Route]:
    """The same of a route."""
    if hasattr(route, "effective_candidates"):  # FastAPI's include_router
        for candidate in route.effective_candidates():
            actual = getattr(candidate, "starlette_route", None) or getattr(
                candidate, "original_route", candidate
            )
            yield from _through(actual, path, (*around, route))
        return
    names = class_names(route)
    path += getattr(route, "path", "")
    handler = getattr(route, "route_handler", None)  # Litestar's
    if names & _HTTP or (handler is None and hasattr(route, "methods")):
        return
    around = (*around, route)
    if names & _WEBSOCKET:
        yield Route(path, around, True)
    else:  # a mount, a host, an ASGI handler of Litestar, or a kind of route that nobody here knows
        app = inner_app(route) if handler is None else handler.fn
        yield from _below(app, path.rstrip("/"), around)


def class_names(node: Any) -> set[str]:
    """The names of a node's classes."""
    return {each.__name__ for each in type(node).__mro__}


def inner_app(node: Any) -> Any:
    """The app that a middleware, a mount or a partial wraps; `None` if there is none."""
    inner = node.func if isinstance(node, functools.partial) else getattr(node, "app", None)
    return None if isinstance(inner, MethodType) and inner.__self__ is node else inner
