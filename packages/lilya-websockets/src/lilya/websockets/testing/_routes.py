"""Which WebSocket routes of an app are reachable without passing a guard.

Nothing is run and no framework is imported: routes and middleware are read from the app's own attributes.
What cannot be read is reported, never taken for guarded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from .._routes import inner_app, websocket_routes
from ..origins import OriginGuard

__all__ = ["unguarded_routes"]

_HTTP_ONLY: Final = "BaseHTTPMiddleware"
# Where Starlette and FastAPI, Lilya, and Litestar list what stands before an app, a router or a route.
_LISTS: Final = (
    *("user_middleware", "custom_middleware", "middleware"),
    *("custom_permissions", "permissions", "guards"),
)
# How an entry of such a list names the class that it makes.
_NAMES: Final = ("cls", "middleware", "permission", "func")


def unguarded_routes(app: Any, guards: Collection[Any] = (OriginGuard,)) -> list[str]:
    """Return the WebSocket routes of an app that have no guard.

        def test_every_websocket_is_guarded() -> None:
            assert unguarded_routes(app) == []

    It knows FastAPI, Starlette, Litestar and Lilya, their routers, mounts and middleware, and ASGI middleware
    that keeps the app it wraps in the attribute `app`.

    Args:
        app: The app as you serve it, middleware around it included.
        guards: What counts as a guard: classes of ASGI middleware, dependencies of FastAPI, guards of
            Litestar. Each one is enough. Default: `OriginGuard`.

    Returns:
        Their paths. A mounted app of another framework is listed as its path with `/*`, because its routes
        cannot be read. If it serves no WebSockets, set its attribute `serves_only_http` to `True`. Static
        files, the metrics of `prometheus_client` and WSGI apps need no attribute.

    Raises:
        ValueError: A guard that never sees a WebSocket, such as Starlette's `BaseHTTPMiddleware`.
    """
    for guard in guards:
        if isinstance(guard, type) and _HTTP_ONLY in {each.__name__ for each in guard.__mro__}:
            raise ValueError(f"{guard.__name__} is a {_HTTP_ONLY}, which lets every WebSocket through unseen")
    guarded = _Guards(tuple(guards))
    return list(
        dict.fromkeys(
            route.path for route in websocket_routes(app) if not any(map(guarded.stands_at, route.around))
        )
    )


class _Guards:
    def __init__(self, guards: tuple[Any, ...]) -> None:
        self.guards = guards

    def stands_at(self, node: Any) -> bool:
        """Whether a guard stands before what is behind an app or a route."""
        return self.guarded(node) or self.guarded_by_handler(node)

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
        wrapper = getattr(node, "middleware_stack", None) or inner_app(node)
        while wrapper is not None and not hasattr(wrapper, "routes"):
            if self.is_guard(wrapper):
                return True
            wrapper = inner_app(wrapper)
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


def _entries(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else ()
