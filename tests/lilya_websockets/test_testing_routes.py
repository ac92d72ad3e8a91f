"""`unguarded_routes` over Starlette's apps and apps of no framework. Other frameworks: `tests/frameworks`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import make_asgi_app
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

from lilya.websockets.draining import drain
from lilya.websockets.origins import OriginGuard
from lilya.websockets.testing import unguarded_routes


async def page(request: Any) -> None: ...


async def echo(websocket: Any) -> None: ...


async def plain(scope: Any, receive: Any, send: Any) -> None: ...


class Other:
    """A middleware that guards nothing."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class Strict(OriginGuard):
    """A guard of one's own."""


class Counter(BaseHTTPMiddleware):
    """A middleware that sees no WebSocket."""


class Pages(Other):
    """An app of one's own that says that it serves no WebSockets."""

    serves_only_http = True

    def __init__(self) -> None:
        super().__init__(plain)


def shaped(name: str, **attributes: Any) -> Any:
    """An object of a class of that name."""
    made = type(name, (), {})()
    vars(made).update(attributes)
    return made


def routes(*more: Any) -> list[Any]:
    return [Route("/", page), Route("/form", page, methods=["POST"]), WebSocketRoute("/echo", echo), *more]


GUARD = Middleware(OriginGuard)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: Starlette(routes=routes()), ["/echo"]),
        (lambda: Starlette(routes=routes(), middleware=[Middleware(Other), GUARD]), []),
        (lambda: Starlette(routes=routes(), middleware=[Middleware(Strict)]), []),
        (lambda: Starlette(routes=routes(), middleware=[Middleware(Other), Middleware(Counter)]), ["/echo"]),
        (lambda: OriginGuard(Starlette(routes=routes())), []),
        (lambda: Other(OriginGuard(Starlette(routes=routes()))), []),
        (lambda: drain(OriginGuard(Starlette(routes=routes()))), []),
        (lambda: drain(Starlette(routes=routes())), ["/echo"]),
        (lambda: functools.partial(Starlette(routes=routes())), ["/echo"]),
        (lambda: Router(routes=routes()), ["/echo"]),
        (lambda: Router(routes=routes(), middleware=[Middleware(Other), GUARD]), []),
        (lambda: Starlette(routes=routes(WebSocketRoute("/b", echo, middleware=[GUARD]))), ["/echo"]),
        (lambda: Starlette(routes=routes(WebSocketRoute("/b", WebSocketEndpoint))), ["/echo", "/b"]),
        (lambda: Starlette(routes=[Mount("/v1", routes=routes())]), ["/v1/echo"]),
        (lambda: Starlette(routes=[Mount("/v1", routes=routes(), middleware=[GUARD])]), []),
        (lambda: Starlette(routes=[Mount("/v1", Starlette(routes=routes(), middleware=[GUARD]))]), []),
        (lambda: Starlette(routes=[Mount("/a", routes=[Mount("/b", routes=routes())])]), ["/a/b/echo"]),
        (lambda: Starlette(routes=[Mount("/", OriginGuard(plain)), *routes()]), ["/echo"]),
        (lambda: Starlette(routes=[Host("a.example", Router(routes=routes()))]), ["/echo"]),
        (lambda: Starlette(routes=routes(WebSocketRoute("/echo", echo))), ["/echo"]),
        # What cannot be read is not taken for guarded.
        (lambda: plain, ["/*"]),
        (lambda: Other(plain), ["/*"]),
        (lambda: Starlette(routes=[Mount("/socket.io", plain)]), ["/socket.io/*"]),
        (lambda: Starlette(routes=[BaseRoute()]), ["/*"]),
        (lambda: Starlette(routes=[Mount("/static", StaticFiles(directory="."))]), []),
        (lambda: Starlette(routes=[Mount("/metrics", make_asgi_app())]), []),
        (lambda: Starlette(routes=[Mount("/metrics", Other(make_asgi_app()))]), []),
        (lambda: Starlette(routes=[Mount("/metrics", Pages())]), []),
        (lambda: Starlette(routes=[Mount("/legacy", shaped("WSGIMiddleware", app=plain))]), []),
        (lambda: Starlette(routes=[Mount("/admin", shaped("ASGIHandler"))]), []),
    ],
)  # fmt: skip
def test_what_is_found(make: Callable[[], Any], found: list[str]) -> None:
    assert unguarded_routes(make()) == found


def test_an_app_that_has_been_started() -> None:
    for middleware, found in (([], ["/echo"]), ([GUARD], [])):
        app = Starlette(routes=routes(), middleware=middleware)
        app.middleware_stack = app.build_middleware_stack()
        assert unguarded_routes(app) == found


def test_other_guards() -> None:
    app = Starlette(routes=routes(), middleware=[Middleware(Other)])
    assert unguarded_routes(app, [Other]) == []
    assert unguarded_routes(app, [OriginGuard, Other]) == []
    assert unguarded_routes(app, []) == ["/echo"]


def test_routes_in_the_forms_of_other_frameworks() -> None:
    """`tests/frameworks` has the real ones, in an environment of its own."""
    inner = shaped("Dependant", call=echo, dependencies=[])
    dependant = shaped("Dependant", dependencies=[shaped("Dependant", call=page, dependencies=[inner])])
    of_fastapi = WebSocketRoute("/a", echo)
    vars(of_fastapi)["dependant"] = dependant
    context = shaped("_EffectiveRouteContext", starlette_route=of_fastapi)
    other = shaped("_EffectiveRouteContext", starlette_route=None, original_route=of_fastapi)
    nested = shaped("_IncludedRouter", effective_candidates=lambda: [other])
    included = shaped("_IncludedRouter", effective_candidates=lambda: [context, nested])
    app = Starlette(routes=[included])
    assert unguarded_routes(app) == ["/a"]
    assert unguarded_routes(app, [echo]) == []

    layer = shaped("Router", middleware=[], guards=[page])
    handler = shaped("ASGIRouteHandler", fn=Starlette(routes=routes()), ownership_layers=[layer])
    litestar = shaped(
        "Litestar",
        routes=[
            shaped("HTTPRoute", path="/", methods=["GET"], route_handler=handler),
            shaped("WebSocketRoute", path="/b", methods=[], route_handler=handler),
            shaped("ASGIRoute", path="/c", methods=[], route_handler=handler),
        ],
    )
    assert unguarded_routes(litestar) == ["/b", "/c/echo"]
    assert unguarded_routes(litestar, [page]) == []


def test_a_middleware_that_sees_no_websocket_is_no_guard() -> None:
    app = Starlette(routes=routes(), middleware=[Middleware(Counter)])
    with pytest.raises(ValueError, match="Counter is a BaseHTTPMiddleware, which lets every"):
        unguarded_routes(app, [Counter])
