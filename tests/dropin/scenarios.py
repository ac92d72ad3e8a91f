"""What the page *With Lilya* says is different, as conversations whose outcome is a value.

Run as a script, on Lilya's own `websockets.py` instead of this package: prints the outcomes as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import site
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def use_lilyas_own() -> None:
    """Have Lilya run on its own module, which lies beside this package."""
    places = [Path(folder) / "lilya" / "websockets.py" for folder in site.getsitepackages()]
    place = next(path for path in places if path.is_file())
    spec = importlib.util.spec_from_file_location("lilya.websockets", place)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["lilya.websockets"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


async def converse(app: Any, *events: Any, lost: bool = False) -> list[Any]:
    """What an app sends to a client that does this; `lost`: what it sends after the accept fails."""
    incoming = iter([{"type": "websocket.connect"}, *events])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(incoming)

    async def send(message: Any) -> None:
        if lost and sent:
            raise ConnectionResetError("the client is gone")
        sent.append({key: getattr(value, "value", value) for key, value in message.items()})

    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "root_path": ""}
    await app(scope, receive, send)
    return sent


def app_of(handler: Any, **options: Any) -> Any:
    from lilya.apps import Lilya
    from lilya.routing import WebSocketPath

    return Lilya(routes=[WebSocketPath("/", handler, **options)])


GONE = {"type": "websocket.disconnect", "code": 1001, "reason": "off"}


async def the_wrong_kind() -> Any:
    """What a handler that asks for text gets of a binary message, and of the text after it."""
    got: list[str] = []

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        try:
            await websocket.receive_text()
        except Exception as error:
            got.append(type(error).__name__)
        got.append(await websocket.receive_text())

    await converse(
        app_of(handler),
        {"type": "websocket.receive", "bytes": b"\0"},
        {"type": "websocket.receive", "text": "go on"},
    )
    return got


async def a_lost_client() -> Any:
    """What `send_text` raises when the server says that the client is gone."""
    got: list[str] = []

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        try:
            await websocket.send_text("hello?")
        except Exception as error:
            got.append(type(error).__name__)

    await converse(app_of(handler), lost=True)
    return got


async def how_it_ended() -> Any:
    """What is known of the end after a loop."""
    got: list[Any] = []

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            pass
        got.append(getattr(websocket, "close_code", "unknown"))

    await converse(app_of(handler), GONE)
    return got[0]


async def a_generators_cleanup() -> Any:
    """When the code after a dependency's `yield` runs."""
    from lilya.dependencies import Provide, Provides

    log: list[str] = []

    async def pooled() -> Any:
        try:
            yield "session"
        finally:
            log.append("given back")

    async def handler(websocket: Any, session: Any = Provides()) -> None:
        await websocket.accept()
        await websocket.close()
        log.append("closed")

    await converse(app_of(handler, dependencies={"session": Provide(pooled)}))
    log.append("app ended")
    gc.collect()
    await asyncio.sleep(0)  # the event loop ends what was left to the garbage collector
    return log


async def a_dependency_that_sends() -> Any:
    """Whether a dependency can use its own WebSocket once the handler has accepted."""
    from lilya.dependencies import Provide, Provides

    got: list[str] = []

    async def kept(request: Any) -> Any:
        return request

    async def handler(websocket: Any, kept: Any = Provides()) -> None:
        await websocket.accept()
        try:
            await kept.send_text("hello")
            got.append("sent")
        except Exception as error:
            got.append(type(error).__name__)

    await converse(app_of(handler, dependencies={"kept": Provide(kept)}))
    return got


async def a_dependency_that_accepts() -> Any:
    """What a handler gets after its dependency has accepted."""
    from lilya.dependencies import Provide, Provides

    got: list[str] = []

    async def accepted(request: Any) -> Any:
        await request.accept()
        return True

    async def handler(websocket: Any, accepted: Any = Provides()) -> None:
        try:
            got.append(await websocket.receive_text())
        except Exception as error:
            got.append(type(error).__name__)

    await converse(
        app_of(handler, dependencies={"accepted": Provide(accepted)}),
        {"type": "websocket.receive", "text": "hello"},
    )
    return got


async def no_session() -> Any:
    """What `websocket.session` raises without its middleware."""
    got: list[str] = []

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        try:
            _ = websocket.session
        except Exception as error:
            got.append(type(error).__name__)

    await converse(app_of(handler))
    return got


async def an_exception_that_leaves_the_handler() -> Any:
    """What Lilya sends then."""

    async def handler(websocket: Any) -> None:
        await websocket.accept()
        raise LookupError("no such room")

    return (await converse(app_of(handler)))[-1]


def scenarios() -> Iterator[Callable[[], Any]]:
    """All of the above."""
    for name, value in list(globals().items()):
        if asyncio.iscoroutinefunction(value) and name != "converse":
            yield value


def outcomes() -> dict[str, Any]:
    """The outcome of each, by name."""
    return {scenario.__name__: asyncio.run(scenario()) for scenario in scenarios()}


if __name__ == "__main__":
    use_lilyas_own()
    print(json.dumps(outcomes()))  # noqa: T201 - the process that started this reads it
