"""Which WebSocket routes of an app are reachable without passing a guard.

Nothing is run and no framework is imported: routes and middleware are read from the app's own attributes.
What cannot be read is reported, never taken for guarded.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator
from types import MethodType
from typing import Any, Final

from ..origins import OriginGuard

__all__ = ["unguarded_routes"]

_WEBSOCKET: Final = {"WebSocketRoute", "WebSocketPath"}  # Starlette, FastAPI and Litestar; Lilya
# Those of HTTP only. Routes of Starlette, FastAPI and Lilya that have `methods` are, too.
_HTTP: Final = {"HTTPRoute", "StaticFiles", "_FrontendRouteGroup"}
_HTTP_ONLY: Final = "BaseHTTPMiddleware"
# Where Starlette and FastAPI, Lilya, and Litestar list what stands before an app, a router or a route.
_LISTS: Final = (
    *("user_middleware", "custom_middleware", "middleware"),
    *("custom_permissions", "permissions", "guards"),
)
# How an entry of such a list names the class that it makes.
_NAMES: Final = ("cls", "middleware", "permission", "func")


def unguarded_routes(app: Any, guards: Collection[Any] = (OriginGuard,)) -> list[str]:
    """The WebSocket routes of an app that no guard stands before.

        def test_every_websocket_is_guarded() -> None:
            assert unguarded_routes(app) == []

    It knows FastAPI, Starlette, Litestar and Lilya, their routers, mounts and middleware, and ASGI middleware
    that keeps the app it wraps in the attribute `app`.

    Args:
        app: The app as you serve it, middleware around it included.
        guards: What counts as a guard: classes of ASGI middleware, dependencies of FastAPI, guards of
            Litestar. Each one is enough. Default: `OriginGuard`.

    Returns:
        Their paths. A mounted app that is none of these frameworks' is listed as its path with `/*`, because
        its routes cannot be read.

    Raises:
        ValueError: A guard that never sees a WebSocket, such as Starlette's `BaseHTTPMiddleware`.
    """
    for guard in guards:
        if isinstance(guard, type) and _HTTP_ONLY in {each.__name__ for each in guard.__mro__}:
            raise ValueError(f"{guard.__name__} is a {_HTTP_ONLY}, which lets every WebSocket through unseen")
    return list(dict.fromkeys(_Walk(tuple(guards)).below(app, "")))


class _Walk:
    def __init__(self, guards: tuple[Any, ...]) -> None:
        self.guards = guards

    def below(self, app: Any, path: str) -> Iterator[str]:
        """What can be reached through an app without a guard."""
        if self.guarded(app) or _names(app) & _HTTP:
            return
        if isinstance(routes := getattr(app, "routes", None), (list, tuple)):
            for route in routes:
                yield from self.through(route, path)
        elif (inner := _inner(app)) is not None:
            yield from self.below(inner, path)
        else:
            yield f"{path}/*"

    def through(self, route: Any, path: str) -> Iterator[str]:
        """The same of a route."""
        if hasattr(route, "effective_candidates"):  # FastAPI's include_router
            for candidate in route.effective_candidates():
                actual = getattr(candidate, "starlette_route", None) or getattr(
                    candidate, "original_route", candidate
                )
                yield from self.through(actual, path)
            return
        names = _names(route)
        path += getattr(route, "path", "")
        handler = getattr(route, "route_handler", None)  # Litestar's
        if names & _HTTP or (handler is None and hasattr(route, "methods")):
            return
        if self.guarded(route) or self.guarded_by_handler(route):
            return
        if names & _WEBSOCKET:
            yield path
        else:  # a mount, a host, an ASGI handler of Litestar, or a kind of route that nobody here knows
            app = _inner(route) if handler is None else handler.fn
            yield from self.below(app, path.rstrip("/"))

    def guarded(self, node: Any) -> bool:
        """Whether an app, or what wraps it, is a guard or lists one."""
        if self.is_guard(node) or any(
            self.is_guard(entry)
            for each in (node, getattr(node, "router", None))
            for name in _LISTS
            for entry in _entries(getattr(each, name, None))
        ):
            return True
        # A router wraps its own method in its middleware; so does a route in that of the route.
        wrapper = getattr(node, "middleware_stack", None) or _inner(node)
        while wrapper is not None and not hasattr(wrapper, "routes"):
            if self.is_guard(wrapper):
                return True
            wrapper = _inner(wrapper)
        return False

    def guarded_by_handler(self, route: Any) -> bool:
        """Whether a dependency of FastAPI, or a layer of Litestar around the handler, is a guard."""
        waiting = list(getattr(getattr(route, "dependant", None), "dependencies", ()))
        while waiting:
            dependant = waiting.pop()
            if self.is_guard(dependant.call):
                return True
            waiting += dependant.dependencies
        layers = getattr(getattr(route, "route_handler", None), "ownership_layers", ())
        return any(self.guarded(layer) for layer in layers)

    def is_guard(self, candidate: Any) -> bool:
        for name in _NAMES:
            inner = candidate if isinstance(candidate, type) else getattr(candidate, name, None)
            if inner is not None and self._is_one(inner):
                return True
        return self._is_one(candidate)

    def _is_one(self, candidate: Any) -> bool:
        return any(
            candidate is guard
            or (isinstance(guard, type) and isinstance(candidate, guard))
            or (isinstance(guard, type) and isinstance(candidate, type) and issubclass(candidate, guard))
            for guard in self.guards
        )


def _names(node: Any) -> set[str]:
    return {each.__name__ for each in type(node).__mro__}


def _inner(node: Any) -> Any:
    """The app that a middleware, a mount or a partial wraps; `None` if there is none."""
    inner = node.func if isinstance(node, functools.partial) else getattr(node, "app", None)
    return None if isinstance(inner, MethodType) and inner.__self__ is node else inner


def _entries(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else ()
