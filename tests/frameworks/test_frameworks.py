"""The test client and uvicorn with our protocol over apps of other frameworks, in their own environment."""

from __future__ import annotations

import importlib.util
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import lilya.websockets
from lilya.websockets.testing import AsyncTestClient, TestClient, WebSocketDisconnect

if importlib.util.find_spec("lilya.apps") is None:
    pytest.skip("they have an environment of their own: nox -s frameworks", allow_module_level=True)


def lilya_app() -> Any:
    from lilya.apps import Lilya
    from lilya.routing import WebSocketPath

    from lilya.websockets import WebSocket

    async def echo(websocket: Any) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(f"You said: {text}")

    echo.__annotations__["websocket"] = WebSocket
    return Lilya(routes=[WebSocketPath("/echo", echo)])


def starlette_app() -> Any:
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute

    async def echo(websocket: Any) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(f"You said: {text}")

    return Starlette(routes=[WebSocketRoute("/echo", echo)])


def fastapi_app() -> Any:
    import fastapi

    async def echo(websocket: Any) -> None:
        await websocket.accept()
        while True:  # the disconnect comes out of here, as in FastAPI's own examples
            await websocket.send_text(f"You said: {await websocket.receive_text()}")

    echo.__annotations__["websocket"] = fastapi.WebSocket
    app = fastapi.FastAPI()
    app.websocket("/echo")(echo)
    return app


def litestar_app() -> Any:
    import litestar

    async def echo(socket: Any) -> None:
        await socket.accept()
        while True:
            await socket.send_text(f"You said: {await socket.receive_text()}")

    echo.__annotations__.update({"socket": litestar.WebSocket, "return": None})
    return litestar.Litestar([litestar.websocket("/echo")(echo)])


def quart_app() -> Any:
    from quart import Quart, websocket

    async def echo() -> None:
        while True:
            await websocket.send(f"You said: {await websocket.receive()!s}")

    app = Quart(__name__)
    app.websocket("/echo")(echo)
    return app


@pytest.fixture(params=[lilya_app, starlette_app, fastapi_app, litestar_app])
def app(request: pytest.FixtureRequest) -> Any:
    make: Callable[[], Any] = request.param
    return make()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_lilya_runs_on_this_package() -> None:
    assert "WebSocketDataError" in lilya.websockets.__all__
    from lilya.routing import WebSocket

    assert WebSocket is lilya.websockets.WebSocket


@pytest.mark.anyio
async def test_in_the_event_loop(app: Any) -> None:
    async with AsyncTestClient(app) as client:
        for name in ("one", "two"):
            async with client.websocket_connect("/echo") as session:
                await session.send_text(name)
                assert await session.receive_text() == f"You said: {name}"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_in_a_thread(app: Any, backend: str) -> None:
    with TestClient(app, backend=backend) as client:
        for name in ("one", "two"):
            with client.websocket_connect("/echo") as session:
                session.send_text(name)
                assert session.receive_text() == f"You said: {name}"


@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
def test_an_address_that_is_not_there_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(WebSocketDisconnect), TestClient(make()).websocket_connect("/nowhere"):
        raise AssertionError("not reached")


@contextmanager
def serving(app: Any) -> Iterator[tuple[Any, int]]:
    """uvicorn with our protocol on a free port; it has ended when the block is left."""
    import uvicorn

    from lilya.websockets.uvicorn import HTTPProtocol, WebSocketProtocol

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(app, ws=WebSocketProtocol, http=HTTPProtocol, log_level="critical")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield server, listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize("make", [lilya_app, starlette_app, fastapi_app, litestar_app, quart_app])
def test_over_uvicorn(make: Callable[[], Any]) -> None:
    from websockets.exceptions import ConnectionClosed, InvalidStatus
    from websockets.sync.client import connect

    from lilya.websockets.uvicorn import WebSocketProtocol

    with serving(make()) as (server, port):
        for name in ("one", "x" * 70_000):
            with connect(f"ws://127.0.0.1:{port}/echo", proxy=None) as connection:
                connection.send(name)
                assert connection.recv(timeout=30) == f"You said: {name}"
                assert [type(each) for each in server.server_state.connections] == [WebSocketProtocol]
        with pytest.raises(InvalidStatus) as refused, connect(f"ws://127.0.0.1:{port}/nowhere", proxy=None):
            raise AssertionError("not reached")
        # Lilya's handler fails there, on every server.
        expected = {lilya_app: 500, quart_app: 404}.get(make, 403)
        assert refused.value.response.status_code == expected
        with connect(f"ws://127.0.0.1:{port}/echo", proxy=None) as last:
            last.send("still here")
            assert last.recv(timeout=30) == "You said: still here"
            server.should_exit = True
            with pytest.raises(ConnectionClosed) as closed:
                last.recv(timeout=30)
    assert closed.value.rcvd
    assert closed.value.rcvd.code == 1012
