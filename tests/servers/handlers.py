"""The app that every server runs: one handler for each path, in a block (`/block/…`) or by hand (`/hand/…`).

What a handler sees goes to the test through a Unix socket, one JSON object for each event.
"""

from __future__ import annotations

import json
import os
import socket
import warnings
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio

from lilya.websockets import WebSocket, WebSocketDisconnect, _servers
from lilya.websockets.observing import End, ObservedConnection, Observer, Refusal, observe
from lilya.websockets.origins import OriginGuard
from lilya.websockets.types import Receive, Scope, Send

SECRET = "xyzzy-what-no-peer-may-see"
CHUNK = b"x" * 65536
MUCH = 3 * 2**20  # bytes after which a server that stops a handler at all is about to
MOST = 48 * 2**20  # bytes that a handler sends to a client that does not read; then it gives up
SENDS = 200  # of a handler by hand that only sends; then it gives up
SHORT = 0.3  # seconds of a time limit that is to pass

Note = Callable[..., None]
Body = Callable[[WebSocket, Note], Awaitable[None]]

notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notes.connect(os.environ["LILYA_SERVERS_NOTES"])

# What holds a handler until the test lets it go, by the test's number.
gates: dict[str, anyio.Event] = {}


def say(number: str, event: str, **fields: Any) -> None:
    notes.send(json.dumps({"number": number, "event": event, **fields}).encode())


def end_of(websocket: WebSocket) -> dict[str, Any]:
    return {"by": websocket.closed_by, "code": websocket.close_code, "reason": websocket.close_reason}


# What is done while the WebSocket is open. Each gets what notes an event


async def returns(websocket: WebSocket, note: Note) -> None:
    await websocket.receive_text()


async def raises(websocket: WebSocket, note: Note) -> None:
    await websocket.receive_text()
    raise ValueError(SECRET)


async def raises_in_group(websocket: WebSocket, note: Note) -> None:
    await websocket.receive_text()

    async def fail() -> None:
        raise ValueError(SECRET)

    async with anyio.create_task_group() as group:
        group.start_soon(fail)
        group.start_soon(anyio.sleep_forever)


async def closes(websocket: WebSocket, note: Note) -> None:
    await websocket.receive_text()
    await websocket.close(4000, "été")


async def reads(websocket: WebSocket, note: Note) -> None:
    """Receives until the end."""
    received = []
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            data = message.get("text")
            received.append(data if data is not None else f"{len(message['bytes'])} bytes")
    finally:
        note("received", data=received)


async def feeds(websocket: WebSocket, note: Note) -> None:
    """Only sends, and learns of the end from that."""
    for _ in range(SENDS):
        await websocket.send_text("news")
        await anyio.sleep(0.01)
    note("given up")


async def sleeps(websocket: WebSocket, note: Note) -> None:
    await anyio.sleep_forever()


async def waits(websocket: WebSocket, note: Note) -> None:
    await websocket.wait_disconnected()


async def echoes(websocket: WebSocket, note: Note) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") is not None:
            await websocket.send_text(message["text"])
        else:
            await websocket.send_bytes(message["bytes"])


async def holds(number: str, websocket: WebSocket, note: Note) -> None:
    """Receives nothing until it is let go, and then everything."""
    await gates.setdefault(number, anyio.Event()).wait()
    count = 0
    async for data in websocket.iter_bytes():
        count += data == CHUNK
    note("received", data=count)


async def pours(websocket: WebSocket, note: Note, *, limit: float | None = SHORT) -> None:
    """Sends to a client that does not read."""
    sent = 0
    try:
        while sent < MOST:
            await websocket.send_bytes(CHUNK, timeout=limit)
            sent += len(CHUNK)
            if limit is None and sent == MUCH:
                note("much")
    except TimeoutError:
        note("blocked", sent=sent)
        return
    note("never blocked", sent=sent)


BODIES: dict[str, Body] = {
    "returns": returns,
    "raises": raises,
    "raises-in-group": raises_in_group,
    "cancelled": sleeps,
    "closes": closes,
    "reads": reads,
    "feeds": feeds,
    "sleeps": sleeps,
    "sleeps-on": sleeps,
    "waits": waits,
    "echoes": echoes,
    "too-big": reads,
    "too-many": reads,
    "idle": reads,
    "heartbeat": reads,
    "pours": pours,
    "pours-on": partial(pours, limit=None),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "sleeps": {"cancel_on_disconnect": True},
    "too-big": {"max_message_size": 1000},
    "too-many": {"max_messages_per_second": 10},
    "idle": {"idle_timeout": SHORT},
    "heartbeat": {"heartbeat": SHORT},
}


async def noted(number: str, websocket: WebSocket, run: Callable[[], Awaitable[None]]) -> None:
    """Run a handler, and note how it ended."""
    left = "quietly"
    try:
        await run()
    except BaseException as error:
        while isinstance(inner := getattr(error, "exceptions", None), tuple):
            error = inner[0]
        left = type(error).__name__
        if isinstance(error, WebSocketDisconnect):
            left += f" {error.code}"
        raise
    finally:
        say(number, "ended", left=left, **end_of(websocket))


def body_of(name: str, number: str) -> Body:
    return partial(holds, number) if name == "holds" else BODIES[name]


async def in_block(name: str, number: str, websocket: WebSocket) -> None:
    note = partial(say, number)
    async with websocket.open(**OPTIONS.get(name, {}), close_timeout=SHORT):
        note("open")
        await body_of(name, number)(websocket, note)


async def by_hand(name: str, number: str, websocket: WebSocket) -> None:
    note = partial(say, number)
    await websocket.accept()
    note("open")
    await body_of(name, number)(websocket, note)


async def cancelled(run: Callable[[], Awaitable[None]], websocket: WebSocket, number: str) -> None:
    """Have a handler cancelled, and not by the server."""
    async with anyio.create_task_group() as group:
        group.start_soon(noted, number, websocket, run)
        await gates.setdefault(number, anyio.Event()).wait()
        group.cancel_scope.cancel()


async def accepting(name: str, number: str, websocket: WebSocket) -> None:
    """What is done instead of opening, or with it."""
    if name == "deny":
        await websocket.deny(401, "Sign in first.", {"X-A": "b"})
    elif name == "refuse":
        await websocket.close()
    elif name == "raise":
        raise ValueError(SECRET)
    elif name == "headers":
        _servers._warned.clear()  # once in a process, and this one runs it more than once
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            async with websocket.open("chat", {"X-A": "b"}):
                pass
        if caught:
            say(number, f"warned by {', '.join(warning.category.__name__ for warning in caught)}")


async def let_in(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    await websocket.close()


CASES = Path(__file__).parents[1] / "lilya_websockets" / "origin_cases.json"
# By the case's number: its guard, and the scheme of its server.
guards = {
    str(case["id"]): (OriginGuard(let_in, **case["config"]), case["scheme"])
    for case in json.loads(CASES.read_text(encoding="utf-8"))["cases"]
    if case["expect"] != "error"
}


def number_of(scope: Scope) -> str:
    number: str
    (number,) = parse_qs(scope["query_string"].decode())["number"]
    return number


# The same paths below this one, with an observer around the handlers.
OBSERVED = "/observed"


class Witness(Observer):
    """Tells the test what observers are told, under a number of its own: it may come late."""

    def _say(self, connection: ObservedConnection, event: str, **fields: Any) -> None:
        say(f"{number_of(connection.scope)} observed", event, **fields)

    def opened(self, connection: ObservedConnection) -> None:
        self._say(connection, "opened")

    def refused(self, connection: ObservedConnection, refusal: Refusal) -> None:
        self._say(connection, "refused", by=refusal.by, code=refusal.status, failed=refusal.failed)

    def ended(self, connection: ObservedConnection, end: End) -> None:
        self._say(connection, "ended", by=end.by, code=end.code, failed=end.failed)


async def lifespan(receive: Receive, send: Send) -> None:
    for answer in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{answer}.complete"})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    if scope["path"].startswith(OBSERVED):
        await observed({**scope, "path": scope["path"].removeprefix(OBSERVED)}, receive, send)
    else:
        await handle(scope, receive, send)


async def handle(scope: Scope, receive: Receive, send: Send) -> None:
    number = number_of(scope)
    _, way, name = scope["path"].split("/")
    if way == "origin":
        # None of the servers here has TLS; the scheme is said as uvicorn says that of a proxy.
        guard, scheme = guards[name]
        await guard({**scope, "scheme": scheme}, receive, send)
        return
    websocket = WebSocket(scope, receive, send)
    if way == "release":
        gates.setdefault(number, anyio.Event()).set()
        await websocket.close()
    elif way == "accepting":
        await noted(number, websocket, partial(accepting, name, number, websocket))
    elif name == "cancelled":
        run = partial(in_block if way == "block" else by_hand, name, number, websocket)
        await cancelled(run, websocket, number)
    else:
        run = partial(in_block if way == "block" else by_hand, name, number, websocket)
        await noted(number, websocket, run)


observed = observe(handle, Witness())
