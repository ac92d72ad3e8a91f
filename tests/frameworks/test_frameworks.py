"""The test client over apps of other frameworks, in an environment of their own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest

import lilya.websockets
from lilya.websockets.testing import AsyncTestClient, TestClient, WebSocketDisconnect

if importlib.util.find_spec("litestar") is None:
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
