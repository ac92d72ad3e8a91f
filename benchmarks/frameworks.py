"""What this package costs in other frameworks, beside the framework's own class, in processor instructions.

    python3 noxfile.py -s bench -- frameworks            counted by valgrind: minutes, and no noise
    python3 noxfile.py -s bench -- frameworks --write    what the page *Performance* shows

A whole app of the framework runs in process, over a server that is two functions. A connection is all of it:
routing, what is injected, accepting, and the client's leaving. A message is one received and one sent. What
the server itself costs is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from benchmarks import _instructions
from benchmarks._report import ROOT

FIGURES = ROOT / "docs" / "performance" / "frameworks.json"
FRAMEWORKS = ("fastapi", "starlette", "litestar", "quart")
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


def measured() -> dict[str, dict[str, dict[str, float]]]:
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for framework in FRAMEWORKS:
        for case, (few, many) in COUNTS.items():
            for cls in CLASSES:

                def command(
                    count: int, framework: str = framework, cls: str = cls, case: str = case
                ) -> list[str]:
                    return ["-m", "benchmarks.frameworks", "--once", framework, cls, case, str(count)]

                found = _instructions.per_operation(command, few, many)
                figures.setdefault(framework, {}).setdefault(case, {})[cls] = round(found)
            own, ours = (figures[framework][case][cls] for cls in CLASSES)
            print(
                f"{framework:10} {case:10} own {own:9,.0f}  ours {ours:9,.0f}  {ours / own:.2f}", flush=True
            )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--once", nargs=4, metavar=("FRAMEWORK", "CLASS", "CASE", "COUNT"))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if arguments.once:
        once(arguments.once)
        return
    figures = measured()
    if arguments.write:
        packages = (*FRAMEWORKS, "lilya-websockets")
        FIGURES.write_text(
            json.dumps(
                {
                    "python": platform.python_version(),
                    "versions": {name: version(name) for name in packages},
                    "instructions": figures,
                },
                indent=2,
            )
            + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
