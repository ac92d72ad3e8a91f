"""How a connection ends in other frameworks, over uvicorn: one end, and no complaint that is none."""

from __future__ import annotations

import importlib.util
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lilya.websockets import WebSocket

if importlib.util.find_spec("litestar") is None:
    pytest.skip("they have an environment of their own: nox -s tests", allow_module_level=True)

OURS = "lilya.websockets.uvicorn:WebSocketProtocol"


async def body(websocket: WebSocket, exception: Any) -> None:
    """A block, as the path says."""
    path = websocket.scope["path"].rpartition("/")[2]
    async with websocket:
        await websocket.send_text("hello")
        if path == "closes":
            raise exception
        if path == "fails":
            raise ValueError("a secret")
        await websocket.receive_text()


def lilya_app() -> Any:
    from lilya.apps import Lilya
    from lilya.exceptions import WebSocketException
    from lilya.routing import WebSocketPath

    async def handler(websocket: Any) -> None:
        await body(websocket, WebSocketException(4007, "why"))

    handler.__annotations__["websocket"] = WebSocket
    return Lilya(routes=[WebSocketPath("/{what}", handler)])


def starlette_app() -> Any:
    from starlette.applications import Starlette
    from starlette.exceptions import WebSocketException
    from starlette.routing import WebSocketRoute

    async def handler(websocket: Any) -> None:
        await body(
            WebSocket(websocket.scope, websocket.receive, websocket.send), WebSocketException(4007, "why")
        )

    return Starlette(routes=[WebSocketRoute("/{what}", handler)])


def fastapi_app() -> Any:
    import fastapi

    async def handler(websocket: Any) -> None:
        await body(
            WebSocket(websocket.scope, websocket.receive, websocket.send),
            fastapi.WebSocketException(4007, "why"),
        )

    handler.__annotations__["websocket"] = fastapi.WebSocket
    app = fastapi.FastAPI()
    app.websocket("/{what}")(handler)
    return app


def fastapi_dependency_app() -> Any:
    """The block is a dependency, and what is raised is thrown into it."""
    import fastapi

    async def adapt(websocket: Any) -> Any:
        async with WebSocket(websocket.scope, websocket.receive, websocket.send) as block:
            yield block

    adapt.__annotations__["websocket"] = fastapi.WebSocket

    async def handler(what: str, websocket: Any = fastapi.Depends(adapt)) -> None:  # noqa: B008
        await websocket.send_text("hello")
        if what == "closes":
            raise fastapi.WebSocketException(4007, "why")
        if what == "fails":
            raise ValueError("a secret")
        await websocket.receive_text()

    app = fastapi.FastAPI()
    app.websocket("/{what}")(handler)
    return app


def litestar_app() -> Any:
    import litestar
    from litestar.exceptions import WebSocketException

    async def handler(socket: Any) -> None:
        await body(
            WebSocket(socket.scope, socket.receive, socket.send), WebSocketException(detail="why", code=4007)
        )

    handler.__annotations__.update({"socket": litestar.WebSocket, "return": None})
    return litestar.Litestar([litestar.websocket("/{what:str}")(handler)])


APPS = [starlette_app, fastapi_app, fastapi_dependency_app, litestar_app]
if importlib.util.find_spec("lilya.apps") is not None:  # nox -s frameworks
    APPS.insert(0, lilya_app)


@contextmanager
def serving(app: Any, protocol: Any) -> Iterator[str]:
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, ws=protocol, log_config=None, log_level="info"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive()


class Complaints(logging.Handler):
    """The exceptions that were logged, or the words, each by what it came from."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        while error is not None and error.__context__ is not None:
            error = error.__context__
        self.seen.add(repr(error) if error else record.getMessage())


@pytest.fixture
def complaints() -> Iterator[set[str]]:
    # At these loggers, because frameworks configure the root's handlers anew.
    handler = Complaints()
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "lilya.websockets", "asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler.seen
    for logger in loggers:
        logger.removeHandler(handler)


def end_of(address: str) -> tuple[int, str] | None:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    with connect(address, proxy=None) as connection:
        assert connection.recv(timeout=30) == "hello"
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=30)
    return (closed.value.rcvd.code, closed.value.rcvd.reason) if closed.value.rcvd else None


@pytest.mark.parametrize("protocol", ["auto", OURS], ids=["uvicorn", "ours"])
@pytest.mark.parametrize("make", APPS)
def test_an_exception_that_says_how_to_close(
    make: Callable[[], Any], protocol: str, complaints: set[str]
) -> None:
    with serving(make(), protocol) as address:
        assert end_of(f"{address}/closes") == (4007, "why")
    assert complaints == set()


@pytest.mark.parametrize("protocol", ["auto", OURS], ids=["uvicorn", "ours"])
@pytest.mark.parametrize("make", APPS)
def test_a_bug(make: Callable[[], Any], protocol: str, complaints: set[str]) -> None:
    with serving(make(), protocol) as address:
        assert end_of(f"{address}/fails") == (1011, "")
    # Lilya and Litestar close once more, which the server refuses; that is chained to the bug, and is no end.
    assert complaints == {"ValueError('a secret')"}


@pytest.mark.parametrize("protocol", ["auto", OURS], ids=["uvicorn", "ours"])
@pytest.mark.parametrize("make", APPS)
@pytest.mark.parametrize("how", ["closes", "is lost"])
def test_a_client_that_leaves(how: str, make: Callable[[], Any], protocol: str, complaints: set[str]) -> None:
    from websockets.sync.client import connect

    with serving(make(), protocol) as address:
        for _ in range(5):
            with connect(f"{address}/stays", proxy=None) as connection:
                assert connection.recv(timeout=30) == "hello"
                if how == "is lost":
                    connection.socket.shutdown(socket.SHUT_RDWR)
    assert complaints == set()
