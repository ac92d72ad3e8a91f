"""What this package costs in other frameworks, beside the framework's own class.

    python3 noxfile.py -s bench -- frameworks         instructions, counted by valgrind: half an hour
    python3 noxfile.py -s bench -- frameworks --time  processor time, the least of 40 rounds: a minute

A whole app of the framework runs in process, over a server that is two functions. A connection is all of it:
routing, what is injected, accepting, one message each way, and the client's leaving. A message is one
received and one sent. What the server itself costs is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from typing import Any

from benchmarks import _instructions

FRAMEWORKS = ("fastapi", "fastapi_depends", "starlette", "litestar", "quart")
CLASSES = ("own", "ours")
# How many of each are run for the two counts, see `_instructions`.
COUNTS = {"connection": (100, 300), "message": (200, 1200)}


def fastapi(ours: bool) -> Any:
    import fastapi

    from lilya.websockets.fastapi import WebSocket

    app = fastapi.FastAPI()

    async def echo(websocket: Any) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except fastapi.WebSocketDisconnect:
            pass

    echo.__annotations__["websocket"] = WebSocket if ours else fastapi.WebSocket
    app.websocket("/rooms/{room}")(echo)
    return app


def fastapi_depends(ours: bool) -> Any:
    """FastAPI's own class comes from a dependency, too, as this package's always does."""
    import fastapi as framework

    if ours:
        return fastapi(ours)
    app = framework.FastAPI()

    async def dependency(websocket: Any) -> Any:
        return websocket

    dependency.__annotations__["websocket"] = framework.WebSocket

    async def echo(websocket: Any = framework.Depends(dependency)) -> None:  # noqa: B008
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except framework.WebSocketDisconnect:
            pass

    app.websocket("/rooms/{room}")(echo)
    return app


def starlette(ours: bool) -> Any:
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocketDisconnect

    from lilya.websockets.starlette import WebSocketRoute as OurRoute

    async def echo(websocket: Any) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect:
            pass

    return Starlette(routes=[(OurRoute if ours else WebSocketRoute)("/rooms/{room}", echo)])


def litestar(ours: bool) -> Any:
    import litestar
    from litestar.exceptions import WebSocketDisconnect

    from lilya.websockets.litestar import WebSocket, websocket

    async def echo(socket: Any) -> None:
        await socket.accept()
        try:
            while True:
                await socket.send_text(await socket.receive_text())
        except WebSocketDisconnect:
            pass

    echo.__annotations__.update({"socket": WebSocket if ours else litestar.WebSocket, "return": None})
    return litestar.Litestar([(websocket if ours else litestar.websocket)("/rooms/{room:str}")(echo)])


def quart(ours: bool) -> Any:
    from quart import Quart
    from quart import websocket as own

    from lilya.websockets.quart import WebSocketDisconnect, init_app, websocket

    app = Quart(__name__)
    if ours:
        init_app(app)

    async def echo(room: str) -> None:
        if not ours:
            while True:
                await own.send(await own.receive())
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect:
            pass

    app.websocket("/rooms/<room>")(echo)
    return app


def scope() -> dict[str, Any]:
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "root_path": "",
        "path": "/rooms/blue",
        "raw_path": b"/rooms/blue",
        "query_string": b"token=abc123",
        "subprotocols": [],
        "state": {},
        "extensions": {"websocket.http.response": {}},
        "headers": [(b"host", b"127.0.0.1:8000"), (b"sec-websocket-version", b"13")],
    }


async def run(app: Any, connections: int, messages: int) -> None:
    """Serve clients, one after the other, of which each says so much, hears as much, and leaves."""
    for _ in range(connections):
        await serve(app, messages)


async def serve(app: Any, messages: int) -> None:
    """Serve one client."""
    came = sent = 0
    heard = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal came
        came += 1
        if came == 1:
            return {"type": "websocket.connect"}
        if came <= messages + 1:
            return {"type": "websocket.receive", "text": "hello"}
        await heard.wait()  # Quart reads ahead, and cancels its handler at the end
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: dict[str, Any]) -> None:
        nonlocal sent
        sent += message["type"] == "websocket.send"
        if sent == messages:
            heard.set()

    await app(scope(), receive, send)
    if sent != messages:
        raise RuntimeError(f"the client was to hear {messages} messages, and heard {sent}")


def once(arguments: list[str]) -> None:
    """What is counted: so many of one case."""
    framework, cls, case, count = arguments
    make: Callable[[bool], Any] = globals()[framework]
    connections, messages = (int(count), 1) if case == "connection" else (1, int(count))
    asyncio.run(run(make(cls == "ours"), connections, messages))


def show(framework: str, case: str, figures: list[float], unit: str) -> None:
    own, ours = figures
    print(
        f"{framework:15} {case:10} own {own:11,.2f}  ours {ours:11,.2f} {unit}  {ours / own:.2f}", flush=True
    )


def count() -> None:
    """Count instructions."""
    for framework in FRAMEWORKS:
        for case, (few, many) in COUNTS.items():
            found = []
            for cls in CLASSES:
                arguments = ["-m", "benchmarks.frameworks", "--once", framework, cls, case]

                def command(number: int, arguments: list[str] = arguments) -> list[str]:
                    return [*arguments, str(number)]

                found.append(_instructions.per_operation(command, few, many))
            show(framework, case, found, "instructions")


async def clock(rounds: int) -> None:
    """Take the time: the least, because whatever else the machine does only adds to it."""
    for framework in FRAMEWORKS:
        make: Callable[[bool], Any] = globals()[framework]
        apps = [make(cls == "ours") for cls in CLASSES]
        for case, (connections, messages) in {"connection": (20, 1), "message": (1, 1000)}.items():
            least = [float("inf")] * len(apps)
            for _ in range(rounds):
                for number, app in enumerate(apps):
                    start = time.process_time()
                    await run(app, connections, messages)
                    taken = (time.process_time() - start) / (connections * messages)
                    least[number] = min(least[number], taken * 1e6)
            show(framework, case, least, "µs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--once", nargs=4, metavar=("FRAMEWORK", "CLASS", "CASE", "COUNT"))
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    if arguments.once:
        once(arguments.once)
    elif arguments.time:
        asyncio.run(clock(arguments.rounds))
    else:
        count()


if __name__ == "__main__":
    main()
