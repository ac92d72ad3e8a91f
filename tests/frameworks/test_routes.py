"""`unguarded_routes` over apps of FastAPI, Litestar and Lilya."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from lilya.websockets.origins import OriginGuard
from lilya.websockets.testing import unguarded_routes

if importlib.util.find_spec("litestar") is None:
    pytest.skip("they have an environment of their own: nox -s frameworks", allow_module_level=True)


async def plain(scope: Any, receive: Any, send: Any) -> None: ...


# FastAPI


def user() -> None: ...


def token() -> None: ...


def fastapi_app(**options: Any) -> Any:
    from fastapi import APIRouter, Depends, FastAPI, WebSocket

    async def echo(websocket: WebSocket) -> None: ...

    async def of_user(websocket: WebSocket, who: Any = Depends(user)) -> None: ...  # noqa: B008

    echo.__annotations__["websocket"] = of_user.__annotations__["websocket"] = WebSocket

    def below(who: Any = Depends(user)) -> None: ...  # noqa: B008

    async def of_token(websocket: WebSocket, who: Any = Depends(below)) -> None: ...  # noqa: B008

    of_token.__annotations__["websocket"] = WebSocket
    rooms = APIRouter(prefix="/rooms")
    rooms.websocket("/{room}")(echo)
    rooms.get("/{room}")(lambda: None)
    outer = APIRouter(prefix="/outer")
    outer.include_router(rooms)
    app = FastAPI(**options)
    app.websocket("/echo")(echo)
    app.websocket("/user")(of_user)
    app.websocket("/below")(of_token)
    app.include_router(rooms, prefix="/v1")
    app.include_router(outer)
    app.include_router(rooms, prefix="/v2", dependencies=[Depends(token)])
    sub = FastAPI()
    sub.websocket("/echo")(echo)
    app.mount("/sub", sub)
    app.mount("/own", plain)
    return app


ALL = [
    *("/echo", "/user", "/below", "/v1/rooms/{room}", "/outer/rooms/{room}", "/v2/rooms/{room}"),
    *("/sub/echo", "/own/*"),
]


def test_fastapi() -> None:
    assert unguarded_routes(fastapi_app()) == ALL
    assert unguarded_routes(OriginGuard(fastapi_app())) == []
    guarded = fastapi_app()
    guarded.add_middleware(OriginGuard, origins=["https://example.com"])
    assert unguarded_routes(guarded) == []


def test_fastapi_dependencies() -> None:
    app = fastapi_app()
    left = [path for path in ALL if path not in ("/user", "/below")]
    assert unguarded_routes(app, [user]) == left
    assert unguarded_routes(app, [user, token]) == [path for path in left if not path.startswith("/v2")]


# Litestar


def litestar_app(middleware: Any = (), above: Any = (), of_handler: Any = (), guards: Any = ()) -> Any:
    from litestar import Litestar, Router, asgi, get, websocket
    from litestar.connection import WebSocket

    async def echo(socket: Any) -> None: ...

    echo.__annotations__["socket"] = WebSocket

    def page() -> None: ...

    async def own(scope: Any, receive: Any, send: Any) -> None: ...

    rooms = Router(
        "/rooms", route_handlers=[websocket("/{room:str}")(echo)], middleware=above, guards=list(guards)
    )
    return Litestar(
        route_handlers=[
            get("/", sync_to_thread=False)(page),
            websocket("/echo", middleware=list(of_handler))(echo),
            rooms,
            asgi("/own", is_mount=True, copy_scope=True)(own),
        ],
        middleware=list(middleware),
    )


def test_litestar() -> None:
    from litestar.middleware import DefineMiddleware

    guard = DefineMiddleware(OriginGuard, origins=["https://example.com"])

    def allowed(connection: Any, handler: Any) -> None: ...

    def found(guards: Any = (OriginGuard,), **options: Any) -> list[str]:
        return sorted(unguarded_routes(litestar_app(**options), guards))

    assert found() == ["/echo", "/own/*", "/rooms/{room:str}"]
    assert found(middleware=[guard]) == []
    assert found(middleware=[OriginGuard]) == []
    assert found(above=[guard]) == ["/echo", "/own/*"]
    assert found(of_handler=[guard]) == ["/own/*", "/rooms/{room:str}"]
    assert found(guards=[allowed]) == ["/echo", "/own/*", "/rooms/{room:str}"]
    assert sorted(unguarded_routes(litestar_app(guards=[allowed]), [allowed])) == ["/echo", "/own/*"]
    assert unguarded_routes(OriginGuard(litestar_app())) == []


# Lilya


needs_lilya = pytest.mark.skipif(
    importlib.util.find_spec("lilya.apps") is None,
    reason="Lilya cannot be beside an editable install of ours: nox -s frameworks has it",
)


def lilya_app(middleware: Any = None, of_include: Any = None, of_route: Any = None, **options: Any) -> Any:
    from lilya.apps import ChildLilya, Lilya
    from lilya.routing import Include, Path, WebSocketPath

    from lilya.websockets import WebSocket

    async def echo(websocket: Any) -> None: ...

    echo.__annotations__["websocket"] = WebSocket

    async def page() -> None: ...

    return Lilya(
        routes=[
            Path("/", page),
            WebSocketPath("/echo", echo, middleware=of_route),
            Include("/rooms", routes=[WebSocketPath("/{room}", echo)], middleware=of_include),
            Include("/child", app=ChildLilya(routes=[WebSocketPath("/echo", echo)])),
            Include("/own", app=plain),
        ],
        middleware=middleware,
        **options,
    )


@needs_lilya
def test_lilya() -> None:
    from lilya.middleware import DefineMiddleware

    guard = DefineMiddleware(OriginGuard)
    assert unguarded_routes(lilya_app()) == ["/echo", "/rooms/{room}", "/child/echo", "/own/*"]
    assert unguarded_routes(lilya_app(middleware=[guard])) == []
    assert unguarded_routes(lilya_app(of_include=[guard])) == ["/echo", "/child/echo", "/own/*"]
    assert unguarded_routes(lilya_app(of_route=[guard])) == ["/rooms/{room}", "/child/echo", "/own/*"]
    assert unguarded_routes(OriginGuard(lilya_app())) == []


@needs_lilya
def test_lilya_permissions() -> None:
    from lilya.permissions import DefinePermission

    class Allowed:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    app = lilya_app(permissions=[DefinePermission(Allowed)])
    assert unguarded_routes(app, [Allowed]) == []
    later = lilya_app()
    later.add_permission(Allowed)
    assert unguarded_routes(later, [Allowed]) == []
    assert unguarded_routes(app) == ["/echo", "/rooms/{room}", "/child/echo", "/own/*"]
