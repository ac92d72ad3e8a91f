"""How a connection ends in each framework, in a block and by hand, before accept and after: one end."""

# No `from __future__ import annotations`: the frameworks resolve the names of what a function defines.

import importlib.util
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="they have an environment of their own: nox -s tests")

from lilya.websockets import WebSocket, WebSocketDisconnect

from .running import SERVERS, Running, running

Body = Callable[[], Awaitable[None]]


class Left(Exception):
    """What a test asks for."""


class Scenario:
    """What the handlers of all frameworks do; `raises` makes the exceptions of the framework."""

    def __init__(self, **raises: Callable[[], Exception]) -> None:
        self.raises: dict[str, Callable[[], Exception]] = {"error": lambda: ValueError("secret"), **raises}
        self.seen: list[tuple[str, int]] = []

    async def run(self, websocket: WebSocket, how: str, when: str, what: str) -> None:
        if when == "before" and what in self.raises:
            raise self.raises[what]()
        if when == "before":
            await websocket.close(4002)
            return
        if how == "block":
            async with websocket:
                await self.body(websocket, what)
        else:
            await websocket.accept()
            try:
                await self.body(websocket, what)
            except WebSocketDisconnect as left:
                self.seen.append(("left", left.code))
                return
        if what in ("leave", "lost"):
            assert websocket.close_code is not None
            self.seen.append((str(websocket.closed_by), websocket.close_code))

    async def body(self, websocket: WebSocket, what: str) -> None:
        if what in self.raises:
            raise self.raises[what]()
        if what == "close":
            await websocket.close(4002, "bye")
            return
        await websocket.send_text("here")
        while True:
            await websocket.receive_text()


def fastapi_app() -> tuple[Any, Scenario]:
    from fastapi import FastAPI, HTTPException, WebSocketException

    from lilya.websockets.fastapi import WebSocket

    scenario = Scenario(code=lambda: WebSocketException(4007, "why"), deny=lambda: HTTPException(401, "who?"))
    app = FastAPI()

    @app.websocket("/{how}/{when}/{what}")
    async def handler(websocket: WebSocket, how: str, when: str, what: str) -> None:
        await scenario.run(websocket, how, when, what)

    return app, scenario


def fastapi_by_hand_app() -> tuple[Any, Scenario]:
    """Without our module: over FastAPI's object, and its callables."""
    import fastapi
    from fastapi import FastAPI, HTTPException, WebSocketException

    scenario = Scenario(code=lambda: WebSocketException(4007, "why"), deny=lambda: HTTPException(401, "who?"))
    app = FastAPI()

    @app.websocket("/{how}/{when}/{what}")
    async def handler(theirs: fastapi.WebSocket, how: str, when: str, what: str) -> None:
        websocket = WebSocket(theirs.scope, theirs.receive, theirs.send)
        await scenario.run(websocket, how, when, what)

    return app, scenario


def starlette_app() -> tuple[Any, Scenario]:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException, WebSocketException

    from lilya.websockets.starlette import WebSocket, WebSocketRoute

    scenario = Scenario(code=lambda: WebSocketException(4007, "why"), deny=lambda: HTTPException(401, "who?"))

    async def handler(websocket: WebSocket) -> None:
        await scenario.run(websocket, **websocket.path_params)

    return Starlette(routes=[WebSocketRoute("/{how}/{when}/{what}", handler)]), scenario


def starlette_endpoint_app() -> tuple[Any, Scenario]:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException, WebSocketException

    from lilya.websockets.starlette import WebSocket, WebSocketEndpoint, WebSocketRoute

    scenario = Scenario(code=lambda: WebSocketException(4007, "why"), deny=lambda: HTTPException(401, "who?"))

    class Handler(WebSocketEndpoint):
        async def on_connect(self, websocket: WebSocket) -> None:
            await scenario.run(websocket, **websocket.path_params)
            raise Left

        async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
            raise AssertionError("not reached")

    async def left(websocket: Any, error: Exception) -> None:
        pass

    routes = [WebSocketRoute("/{how}/{when}/{what}", Handler)]
    return Starlette(routes=routes, exception_handlers={Left: left}), scenario


def litestar_app() -> tuple[Any, Scenario]:
    from litestar import Litestar
    from litestar.exceptions import NotAuthorizedException, WebSocketException
    from litestar.params import FromPath

    from lilya.websockets.litestar import WebSocket, websocket

    scenario = Scenario(
        code=lambda: WebSocketException(detail="why", code=4007), deny=lambda: NotAuthorizedException()
    )

    @websocket("/{how:str}/{when:str}/{what:str}")
    async def handler(
        socket: WebSocket, how: FromPath[str], when: FromPath[str], what: FromPath[str]
    ) -> None:
        if what == "deny":  # what a guard does
            await socket.deny(401, "who?")
        await scenario.run(socket, how, when, what)

    return Litestar([handler]), scenario


def quart_app() -> tuple[Any, Scenario]:
    from quart import Quart, Response
    from werkzeug.exceptions import HTTPException

    from lilya.websockets.quart import init_app, websocket

    scenario = Scenario(deny=lambda: HTTPException(response=Response("who?", 401)))
    app = Quart(__name__)
    init_app(app)

    @app.websocket("/<how>/<when>/<what>")
    async def handler(how: str, when: str, what: str) -> None:
        await scenario.run(WebSocket.wrap(websocket), how, when, what)

    return app, scenario


def django_app() -> tuple[Any, Scenario]:
    """Beside Django there is nothing around a handler but the dispatcher."""
    from django.urls import path, resolve

    scenario = Scenario()
    patterns = (path("<how>/<when>/<what>", scenario.run),)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            match = resolve(scope["path"], patterns)
            websocket = WebSocket(scope, receive, send)
            if match.kwargs["what"] == "deny":
                await websocket.deny(401, "who?")
            else:
                await match.func(websocket, **match.kwargs)

    return app, scenario


def lilya_app(**options: Any) -> tuple[Any, Scenario]:
    from lilya.apps import Lilya
    from lilya.exceptions import WebSocketException
    from lilya.routing import WebSocketPath

    scenario = Scenario(code=lambda: WebSocketException(code=4007, reason="why"))

    async def handler(websocket: Any) -> None:
        if websocket.path_params["what"] == "deny":
            await websocket.deny(401, "who?")
        else:
            await scenario.run(websocket, **websocket.path_params)

    handler.__annotations__["websocket"] = WebSocket
    return Lilya(routes=[WebSocketPath("/{how}/{when}/{what}", handler)], **options), scenario


def lilya_with_middleware_app() -> tuple[Any, Scenario]:
    from lilya.middleware import DefineMiddleware

    from lilya.websockets.lilya import ErrorsToServer

    return lilya_app(middleware=[DefineMiddleware(ErrorsToServer)])


APPS: dict[str, Callable[[], tuple[Any, Scenario]]] = {
    "fastapi": fastapi_app,
    "fastapi by hand": fastapi_by_hand_app,
    "starlette": starlette_app,
    "starlette endpoint": starlette_endpoint_app,
    "litestar": litestar_app,
    "quart": quart_app,
    "django": django_app,
}
if importlib.util.find_spec("lilya.apps") is not None:
    APPS["lilya"] = lilya_app
    APPS["lilya with middleware"] = lilya_with_middleware_app

# uvicorn's default says so whenever an app ends without a 101, whatever it answered.
NOISE = "ASGI callable returned without completing handshake."


class Counting:
    """An app, and the ends that it sends to the server."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.ends: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def counted(message: Any) -> None:
            if message["type"] in ("websocket.close", "websocket.http.response.start"):
                self.ends.append(message["type"])
            await send(message)

        await self.app(scope, receive, counted if scope["type"] == "websocket" else send)


class Served:
    """An app on a server."""

    def __init__(self, name: str, app: Counting, scenario: Scenario, server: Running) -> None:
        self.name = name
        self.app = app
        self.scenario = scenario
        self.server = server

    def clear(self) -> None:
        self.app.ends.clear()
        self.scenario.seen.clear()
        self.server.log.lines.clear()

    @property
    def lines(self) -> list[str]:
        return [line for line in self.server.log.lines if line != NOISE]


@pytest.fixture(
    scope="module",
    params=[(name, ws) for name in APPS for ws in SERVERS],
    ids=lambda param: f"{param[0]}-{'ours' if '.' in param[1] else 'default'}",
)
def serving(request: pytest.FixtureRequest) -> Any:
    name, ws = request.param
    app, scenario = APPS[name]()
    counting = Counting(app)
    with running(counting, ws) as server:
        yield Served(name, counting, scenario, server)


@pytest.fixture
def served(serving: Served) -> Served:
    serving.clear()
    return serving


def skip_without(served: Served, what: str) -> None:
    if what not in served.scenario.raises:
        pytest.skip(f"{served.name} has no such exception")


@pytest.mark.parametrize("how", ["block", "hand"])
def test_a_code_after_accept(served: Served, how: str) -> None:
    skip_without(served, "code")
    assert served.server.end_of(f"/{how}/after/code") == [(4007, "why")]
    served.server.settle()
    assert (served.app.ends, served.lines) == (["websocket.close"], [])


def test_a_code_before_accept(served: Served) -> None:
    skip_without(served, "code")
    assert served.server.end_of("/hand/before/code") == [403]
    served.server.settle()
    assert (served.app.ends, served.lines) == (["websocket.close"], [])


def test_a_denial_before_accept(served: Served) -> None:
    assert served.server.end_of("/hand/before/deny") == [401]
    served.server.settle()
    assert (served.app.ends, served.lines) == (["websocket.http.response.start"], [])


def test_a_close_before_accept(served: Served) -> None:
    assert served.server.end_of("/hand/before/close") == [403]
    served.server.settle()
    assert (served.app.ends, served.lines) == (["websocket.close"], [])


@pytest.mark.parametrize("how", ["block", "hand"])
def test_a_close_after_accept(served: Served, how: str) -> None:
    assert served.server.end_of(f"/{how}/after/close") == [(4002, "bye")]
    served.server.settle()
    assert (served.app.ends, served.lines) == (["websocket.close"], [])


def test_an_error_in_a_block(served: Served) -> None:
    assert served.server.end_of("/block/after/error") == [(1011, "")]
    served.server.settle()
    if served.name == "lilya":
        return  # it closes once more, which its middleware of ours prevents: see the page With Lilya
    assert served.app.ends == ["websocket.close"]
    # Told once, by the framework or the server; Litestar keeps it to itself unless it is told to log.
    expected = [] if served.name == "litestar" else ["ValueError"]
    assert [line.rpartition(" ")[2] for line in served.lines] == expected


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_error_by_hand(served: Served, when: str) -> None:
    """Without a block the framework or the server closes, as each does."""
    if served.name == "lilya":
        pytest.skip(
            "it closes with the code 500 and swallows the error, which its middleware of ours prevents"
        )
    end = served.server.end_of(f"/hand/{when}/error")
    served.server.settle()
    errors = [line.rpartition(" ")[2] for line in served.lines]
    if served.name == "litestar":
        assert (end, errors) == ([403 if when == "before" else (4500, "Internal Server Error")], [])
    else:
        # uvicorn's own protocol drops the connection of an app that failed.
        assert end in ([[500]] if when == "before" else [[(1011, "")], [(1006, "")]])
        assert errors == ["ValueError"]
    assert len(served.app.ends) == (served.name in ("litestar", "quart"))


@pytest.mark.parametrize("how", ["block", "hand"])
def test_a_client_that_leaves(served: Served, how: str) -> None:
    with served.server.connect(f"/{how}/after/leave") as client:
        assert client.recv() == "here"
        client.close(4001, "off")
    served.server.settle()
    assert served.scenario.seen == [("client" if how == "block" else "left", 4001)]
    assert (served.app.ends, served.lines) == ([], [])


@pytest.mark.parametrize("how", ["block", "hand"])
def test_a_client_that_is_lost(served: Served, how: str) -> None:
    with served.server.connect(f"/{how}/after/lost") as client:
        assert client.recv() == "here"
        client.socket.shutdown(socket.SHUT_RDWR)  # without a close frame
    served.server.settle()
    assert served.scenario.seen == [("network" if how == "block" else "left", 1006)]
    assert (served.app.ends, served.lines) == ([], [])
