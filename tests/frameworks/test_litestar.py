"""Litestar with `lilya.websockets.litestar`: two imports are changed, and the rest goes on."""

# No `from __future__ import annotations`: Litestar cannot resolve the names of what a function defines.

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("litestar", reason="they have an environment of their own: nox -s tests")

from litestar import Controller, Litestar, Router, websocket_listener
from litestar import WebSocket as LitestarsWebSocket
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotAuthorizedException
from litestar.exceptions import WebSocketDisconnect as LitestarsDisconnect
from litestar.params import FromCookie, FromHeader, FromPath, FromQuery
from litestar.testing import TestClient as LitestarsClient

import lilya.websockets
from lilya.websockets.litestar import WebSocket, WebSocketClosed, WebSocketDisconnect, websocket
from lilya.websockets.testing import TestClient as OurClient

Client = Callable[..., Any]


@pytest.fixture(params=[LitestarsClient, OurClient], ids=["litestar", "ours"])
def client(request: pytest.FixtureRequest) -> Client:
    make: Client = request.param
    return make


def said(client: Client, app: Any, path: str, **options: Any) -> Any:
    with client(app) as started, started.websocket_connect(path, **options) as session:
        return session.receive_json()


def test_parameters_of_each_kind(client: Client) -> None:
    @websocket("/rooms/{room:int}")
    async def handler(
        socket: WebSocket,
        room: FromPath[int],
        limit: FromQuery[int],
        token: FromHeader[str],
        session: FromCookie[str],
    ) -> None:
        async with socket:
            await socket.send_json([room, limit, token, session])

    headers = {"token": "t", "cookie": "session=s"}
    assert said(client, Litestar([handler]), "/rooms/7?limit=2", headers=headers) == [7, 2, "t", "s"]


def test_what_is_known_of_the_request_is_litestars(client: Client) -> None:
    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        app.state.pool = "a pool"
        yield

    @websocket("/{room:str}", name="room", opt={"color": "blue"})
    async def handler(socket: WebSocket, room: FromPath[str]) -> None:
        scope: Any = socket.scope
        theirs = LitestarsWebSocket[Any, Any, Any](scope)
        for name in ("url", "base_url", "path_params", "cookies", "client", "app"):
            assert getattr(socket, name) == getattr(theirs, name), name
        for name in ("headers", "query_params", "state"):
            assert type(getattr(socket, name)) is type(getattr(theirs, name)), name
        assert dict(socket.headers) == dict(theirs.headers)
        assert socket.query_params.dict() == theirs.query_params.dict()
        assert socket["path"] == "/blue"
        assert socket.route_handler.opt["color"] == "blue"
        async with socket:
            await socket.send_json([socket.url_for("room", room="x"), socket.app.state.pool])

    found = said(client, Litestar([handler], lifespan=[lifespan]), "/blue?a=1&a=2")
    assert found[0].endswith("/x")
    assert found[1] == "a pool"


def test_dependencies_guards_controllers_and_routers_get_one_object(client: Client) -> None:
    seen: list[Any] = []

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: Any) -> None:
        seen.append(connection)

    async def given(socket: WebSocket) -> AsyncIterator[str]:
        seen.append(socket)
        yield "given"
        seen.append(socket.close_code)

    class Rooms(Controller):
        path = "/rooms"

        @websocket("/one", guards=[guard], dependencies={"one": Provide(given)})
        async def one(self, socket: WebSocket, one: NamedDependency[str]) -> None:
            seen.append(socket)
            async with socket:
                await socket.send_json(one)

    assert said(client, Litestar([Router("/api", route_handlers=[Rooms])]), "/api/rooms/one") == "given"
    assert isinstance(seen[0], WebSocket)
    assert isinstance(seen[0], LitestarsWebSocket)
    assert seen == [seen[0], seen[0], seen[0], 1000]
    assert WebSocket.wrap(seen[0]) is seen[0]


def test_middleware_is_around_it(client: Client) -> None:
    passed: list[str] = []

    def noting(app: Any) -> Any:
        async def around(scope: Any, receive: Any, send: Any) -> None:
            async def noted(message: Any) -> None:
                passed.append(message["type"])
                await send(message)

            await app(scope, receive, noted)

        return around

    @websocket("/", middleware=[noting])
    async def handler(socket: WebSocket) -> None:
        async with socket:
            await socket.send_json("here")

    assert said(client, Litestar([handler]), "/") == "here"
    assert passed[:2] == ["websocket.accept", "websocket.send"]  # Litestar's client may be gone by then


def test_models_are_encoded_as_by_litestar(client: Client) -> None:
    @dataclass
    class Person:
        name: str

    @websocket("/")
    async def handler(socket: WebSocket) -> None:
        async with socket:
            await socket.send_json(Person("ann"))

    assert said(client, Litestar([handler]), "/") == {"name": "ann"}


def test_litestars_own_ways_of_sending_and_receiving(client: Client) -> None:
    states: list[str] = []

    @websocket("/")
    async def handler(socket: WebSocket) -> None:
        states.append(socket.connection_state)
        await socket.send_data("accepted by it")
        states.append(socket.connection_state)
        await socket.send_data(await socket.receive_data(mode="text"), mode="binary")
        await socket.send_data(await socket.receive_data(mode="binary"))
        await socket.send_msgpack(await socket.receive_msgpack())
        async for text in socket.iter_data("text"):
            await socket.send_text(text)
        states.append(socket.connection_state)

    with client(Litestar([handler])) as started, started.websocket_connect("/") as session:
        assert session.receive_text() == "accepted by it"
        session.send_text("a")
        assert session.receive_bytes() == b"a"
        session.send_bytes(b"b")
        assert session.receive_text() == "b"
        session.send_bytes(b"\x01")
        assert session.receive_bytes() == b"\x01"
        session.send_text("c")
        assert session.receive_text() == "c"
        session.close()
    assert states == ["init", "connect", "disconnect"]


def test_a_receive_accepts_too(client: Client) -> None:
    @websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.send_json(await socket.receive_data(mode="text"))

    with client(Litestar([handler])) as started, started.websocket_connect("/") as session:
        session.send_text("a")
        assert session.receive_json() == "a"


def test_accept_has_both_names_of_the_subprotocol(client: Client) -> None:
    @websocket("/{name:str}")
    async def handler(socket: WebSocket, name: FromPath[str]) -> None:
        await socket.accept(**{name: "chat"})
        await socket.send_json(socket.accepted_subprotocol)
        await socket.close()

    for name in ("subprotocol", "subprotocols"):
        assert said(client, Litestar([handler]), f"/{name}", subprotocols=["chat"]) == "chat"


def test_listeners_stay(client: Client) -> None:
    @websocket_listener("/theirs")
    async def theirs(data: str) -> str:
        return data.upper()

    @websocket_listener("/ours", websocket_class=WebSocket)
    async def ours(data: str) -> str:
        return data.upper()

    with client(Litestar([theirs, ours])) as started:
        for path in ("/theirs", "/ours"):
            with started.websocket_connect(path) as session:
                session.send_text("a")
                assert session.receive_text() == "A"


def test_the_exceptions_are_both() -> None:
    for error in (WebSocketDisconnect(4000, "why"), WebSocketClosed(4000, "why", "send", "it is over")):
        assert isinstance(error, LitestarsDisconnect)
        assert isinstance(error, lilya.websockets.WebSocketDisconnect)
        assert (error.code, error.reason, error.detail) == (4000, "why", "why")
        assert "4000" in str(error)
    assert isinstance(error, lilya.websockets.WebSocketClosed)
    assert WebSocketDisconnect(4000).reason == ""


def test_litestars_except_clause_holds(client: Client) -> None:
    seen: list[int] = []

    @websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        try:
            await socket.receive_text()
        except LitestarsDisconnect as left:
            seen.append(left.code)

    with client(Litestar([handler])) as started, started.websocket_connect("/") as session:
        session.close(4001)
    assert seen == [4001]


def test_a_guard_that_denies() -> None:
    async def guard(connection: Any, _: Any) -> None:
        await connection.deny(401, "Sign in.", {"www-authenticate": "Bearer"})
        raise NotAuthorizedException

    @websocket("/", guards=[guard])
    async def handler(socket: WebSocket) -> None:
        raise AssertionError("not reached")

    with OurClient(Litestar([handler])) as started, pytest.raises(Exception) as refused:  # noqa: PT011
        started.websocket_connect("/").__enter__()
    assert refused.value.status_code == 401  # type: ignore[attr-defined]
    assert refused.value.text == "Sign in."  # type: ignore[attr-defined]


def test_a_close_after_the_client_has_left_goes_nowhere() -> None:
    @websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive_text()  # and the disconnect goes to Litestar, which closes

    with OurClient(Litestar([handler])) as started, started.websocket_connect("/") as session:
        session.close(4001)


def test_over_litestars_own_object() -> None:
    from litestar import websocket as litestars

    @litestars("/")
    async def handler(socket: LitestarsWebSocket) -> None:  # type: ignore[type-arg]
        ours = lilya.websockets.WebSocket.wrap(socket)
        await socket.accept()
        await ours.send_text(await socket.receive_text())
        await ours.close(4002)
        await socket.close()
        assert ours.close_code == 4002

    with OurClient(Litestar([handler])) as started, started.websocket_connect("/") as session:
        session.send_text("a")
        assert session.receive_text() == "a"
        assert session.receive()["code"] == 4002
