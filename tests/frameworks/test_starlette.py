"""Starlette with `lilya.websockets.starlette`: two imports are changed, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint as StarlettesEndpoint
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.testclient import TestClient as StarlettesClient
from starlette.websockets import WebSocket as StarlettesWebSocket

from lilya.websockets import WebSocketClose
from lilya.websockets.starlette import WebSocket, WebSocketDisconnect, WebSocketEndpoint, WebSocketRoute
from lilya.websockets.testing import TestClient as OurClient

Client = Callable[..., Any]


@pytest.fixture(params=[StarlettesClient, OurClient], ids=["starlette", "ours"])
def client(request: pytest.FixtureRequest) -> Client:
    make: Client = request.param
    return make


def said(client: Any, path: str) -> Any:
    with client.websocket_connect(path) as session:
        return session.receive_json()


async def room(websocket: WebSocket, greeting: str = "hello") -> None:
    assert type(websocket) is WebSocket
    async with websocket:
        number = websocket.path_params["number"]
        await websocket.send_json([greeting, number, str(websocket.url_path_for("room", number=7).path)])


class Methods:
    async def room(self, websocket: WebSocket) -> None:
        await room(websocket, "method")


def test_a_function_a_partial_and_a_method(client: Client) -> None:
    app = Starlette(
        routes=[
            WebSocketRoute("/rooms/{number:int}", room),
            WebSocketRoute("/partial/{number:int}", partial(room, greeting="partial"), name="partial"),
            WebSocketRoute("/method/{number:int}", Methods().room, name="method"),
        ]
    )
    assert said(client(app), "/rooms/3") == ["hello", 3, "/rooms/7"]
    assert said(client(app), "/partial/3") == ["partial", 3, "/rooms/7"]
    assert said(client(app), "/method/3") == ["method", 3, "/rooms/7"]


def test_names_middleware_and_mounts(client: Client) -> None:
    passed: list[str] = []

    class Noting:
        def __init__(self, app: Any, mark: str) -> None:
            self.app, self.mark = app, mark

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            passed.append(f"{self.mark} {scope.get('endpoint') is room}")
            await self.app(scope, receive, send)

    route = WebSocketRoute("/{number:int}", room, name="room", middleware=[Middleware(Noting, mark="route")])
    app = Starlette(routes=[Mount("/sub", routes=[route])], middleware=[Middleware(Noting, mark="app")])
    assert route.name == "room"
    assert WebSocketRoute("/", room).name == "room"
    assert WebSocketRoute("/", room).endpoint is room
    assert app.url_path_for("room", number=7) == "/sub/7"
    with client(app).websocket_connect("/sub/3"):
        pass
    assert passed == ["app False", "route True"]


def test_what_is_no_function_is_an_app(client: Client) -> None:
    class Theirs(StarlettesEndpoint):
        async def on_connect(self, websocket: StarlettesWebSocket) -> None:
            assert type(websocket) is StarlettesWebSocket
            await websocket.accept()
            await websocket.send_json("theirs")

    app = Starlette(routes=[WebSocketRoute("/theirs", Theirs), WebSocketRoute("/app", WebSocketClose())])
    assert said(client(app), "/theirs") == "theirs"
    with pytest.raises(Exception) as refused:  # noqa: PT011 - each client has a class of its own
        client(app).websocket_connect("/app").__enter__()
    assert "WebSocket" in type(refused.value).__name__


class Noting(WebSocketEndpoint):
    ended: list[int] = []  # noqa: RUF012
    encoding = "json"

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        assert type(websocket) is WebSocket
        if data == "fail":
            raise ValueError(data)
        if data == "close":
            await websocket.close(4002)
        else:
            await websocket.send_json(data)

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        self.ended.append(close_code)


def test_an_endpoint(client: Client) -> None:
    app = Starlette(routes=[WebSocketRoute("/", Noting)])
    Noting.ended.clear()
    with client(app).websocket_connect("/") as session:
        session.send_json(["a"])
        assert session.receive_json() == ["a"]
        session.close(4001)
    with client(app).websocket_connect("/") as session:
        session.send_json("close")
        assert session.receive()["code"] == 4002
    with pytest.raises(ValueError, match="fail"), client(app).websocket_connect("/") as session:
        session.send_json("fail")
        session.receive()
    assert Noting.ended == [4001, 4002, 1011]


def test_an_endpoint_that_does_nothing(client: Client) -> None:
    app = Starlette(routes=[WebSocketRoute("/", WebSocketEndpoint)])
    with client(app).websocket_connect("/") as session:
        session.send_text("nobody listens")


def test_binary_where_text_is_wanted_is_closed_as_by_starlette() -> None:
    class Text(WebSocketEndpoint):
        encoding = "text"

    app = Starlette(routes=[WebSocketRoute("/", Text)])
    with pytest.raises(RuntimeError, match="got bytes"), OurClient(app).websocket_connect("/") as session:
        session.send_bytes(b"")
        assert session.receive()["code"] == 1003


def test_in_a_handler_that_takes_starlettes(client: Client) -> None:
    from starlette.routing import WebSocketRoute as StarlettesRoute

    seen: list[int] = []

    async def handler(theirs: StarlettesWebSocket) -> None:
        websocket = WebSocket.wrap(theirs)
        await theirs.accept()
        try:
            await websocket.receive_text()
        except WebSocketDisconnect as left:
            seen.append(left.code)

    app = Starlette(routes=[StarlettesRoute("/", handler)])
    with client(app).websocket_connect("/") as session:
        session.close(4001)
    assert seen == [4001]


class Full(Exception):
    pass


class Fails(WebSocketEndpoint):
    async def on_connect(self, websocket: WebSocket) -> None:
        await fails(websocket)


async def fails(websocket: WebSocket) -> None:
    async with websocket:
        raise Full


@pytest.mark.parametrize("endpoint", [fails, Fails])
def test_a_handler_of_exceptions_makes_no_second_end(endpoint: Any) -> None:
    handled: list[str] = []

    async def full(websocket: StarlettesWebSocket, error: Exception) -> None:
        await websocket.close(4013)
        handled.append("closed")

    app = Starlette(routes=[WebSocketRoute("/", endpoint)], exception_handlers={Full: full})
    with OurClient(app).websocket_connect("/") as session:
        assert session.receive()["code"] == 1011
    assert handled == ["closed"]
