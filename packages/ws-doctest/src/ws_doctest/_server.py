"""The server process of the replays over a real wire: uvicorn, and a line to the process that
started it.

Started by `multiprocessing`, on Linux as a fork of a process that has imported what the examples import. It
connects back to a port, and the two speak JSON lines: it reports the port it serves on, and each handler's
end with its traceback; it is told which app to start up and to shut down, and that time has passed, and asked
where a handler waits. When the line breaks, the process ends: whatever became of the gate, no server is left
behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvicorn

from ws_doctest import _apps
from ws_doctest._asgi import (
    ASGIApp,
    Lifespan,
    Message,
    Receive,
    Scope,
    Send,
    describe_frames,
    frames_of,
)
from ws_doctest._clock import ManualLoop


class Stage:
    """The app that every connection to this server meets: the one which was put on last.

    An app is started up when it is put on, and shut down when it leaves, as uvicorn does it with an app of
    its own: ``lifespan="auto"``.
    """

    def __init__(self, line: socket.socket, root: Path, implementation: str) -> None:
        self.line = line
        self.implementation = implementation
        self.root = root
        self.lock = threading.Lock()
        self.loop: ManualLoop
        self.server: Server
        self.example: Path | None = None
        self.code: _apps.Code | None = None  # if it stands in a page
        self.disconnect = "error"
        self.loaded: ASGIApp | None = None
        self.state: dict[str, Any] = {}
        self.life: asyncio.Task[None] | None = None
        self.leaving = asyncio.Event()
        self.connection = 0  # the number of the next one
        self.events = 0  # what apps have done that a client may see
        self.told = 0  # how many of these the gate knew of when it last let the time pass
        self.handlers: dict[int, Coroutine[Any, Any, None]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.main_thread = threading.get_ident()

    def report(self, **message: object) -> None:
        """Send one message to the gate."""
        data = json.dumps(message).encode() + b"\n"
        with self.lock:
            self.line.sendall(data)

    def listen(self) -> None:
        """Obey the gate until it is gone; in a thread, so that no handler can keep it from that."""
        with self.line.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                if "run" in message:
                    self.example = Path(message["example"])
                    self.code = None
                    if message["source"] is not None:
                        self.code = _apps.Code(self.example, message["source"], message["above"])
                    self.disconnect = message["disconnect"]
                    self.handlers.clear()
                    self.loop.call_soon_threadsafe(self.put_on, message["run"], message["limit"])
                elif "leave" in message:
                    self.loop.call_soon_threadsafe(self.leaving.set)
                elif "connection" in message:
                    self.connection = message["connection"]
                    self.report(expecting=self.connection)
                elif "at_rest" in message:
                    self.loop.call_soon_threadsafe(self.start, self.rest())
                elif "advance" in message:
                    self.loop.call_soon_threadsafe(self.start, self.advance(message["advance"]))
                elif "where" in message:
                    self.report(where=self.where(message["where"]))
        os._exit(0)  # whatever the handlers are doing, nobody is interested any more

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task, and hold it: the event loop does not."""
        task = self.loop.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def put_on(self, run: int, limit: float) -> None:
        """Start the example up; one that has not left before is thrown out."""
        if self.life is not None:
            self.life.cancel()
        self.leaving = asyncio.Event()
        self.loaded = None
        self.life = self.start(self.live(run, limit, self.leaving))

    async def live(self, run: int, limit: float, leaving: asyncio.Event) -> None:
        """Be there from the startup of the example to its shutdown."""
        assert self.example is not None  # it came with the run
        problem: str | None
        try:
            app = _apps.load_app(self.root, self.code or self.example)
        except Exception as exc:
            problem = "the app cannot be loaded:\n" + _apps.describe_error(exc, self.root)
            self.report(staged=run, problem=problem)
            return
        problem = None
        lifespan = Lifespan(app, limit)
        try:
            started = await lifespan.start()
        except Exception as exc:
            self.report(staged=run, problem=_apps.describe_lifespan_error(exc, self.root))
            return
        self.loaded, self.state = app, lifespan.state
        self.report(staged=run, problem=None)
        failure: BaseException | None = None
        try:
            await leaving.wait()
        except BaseException as exc:
            failure = exc
            raise
        finally:
            if started:
                try:
                    await lifespan.stop(failure)
                except Exception as exc:
                    problem = _apps.describe_lifespan_error(exc, self.root)
        self.report(left=run, problem=problem)

    async def rest(self) -> None:
        """Tell when there is nothing more that the app can do of itself."""
        await _apps.at_rest()
        self.report(at_rest=True)

    async def advance(self, seconds: float) -> None:
        """Let the time pass until an app does something that a client may see, for so many seconds at most.

        Where something may come from elsewhere, no time passes but the real one.
        """
        passed = 0.0
        while passed < seconds:
            await _apps.at_rest()
            if self.events != self.told or self.loop.has_threads or self.has_sockets:
                break
            wait = self.loop.next_timer()
            wait = seconds - passed if wait is None else min(wait, seconds - passed)
            self.loop.skipped += wait
            passed += wait
        self.told = self.events
        self.report(advanced=passed)

    @property
    def has_sockets(self) -> bool:
        """Whether there are more sockets than those of uvicorn, such as one to a broker."""
        known = (
            1 + len(self.server.servers) + len(self.server.server_state.connections)
        )  # 1: what wakes the loop
        return len(self.loop._selector.get_map()) > known  # type: ignore[attr-defined]

    def where(self, connection: int) -> str:
        """Say where a handler is: in a line that runs, or at the await it is suspended at."""
        handler = self.handlers.get(connection)
        if (handler is None and not connection) or getattr(handler, "cr_running", False):
            running = sys._current_frames()[self.main_thread]
            frames = [frame for frame, _ in traceback.walk_stack(running)][::-1]
            return describe_frames(frames, self.root, self.example) + " (it blocks the event loop)"
        if handler is None:
            return "no handler: the connection did not reach the app"
        return describe_frames(frames_of(handler), self.root, self.example)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app on stage, and report its end."""
        app, connection = self.loaded, self.connection
        if scope["type"] == "http" and app is not None:
            scope["state"] = dict(self.state)
            await app(scope, receive, send)
            return
        if scope["type"] != "websocket" or app is None:
            raise RuntimeError(f"nothing is on stage for a connection of type {scope['type']!r}")
        scope["state"] = dict(self.state)
        if self.implementation == "websockets":
            send = _denials_whole(send)
        hand_over = send

        async def sending(message: Message) -> None:
            self.events += 1
            await hand_over(message)

        # As the server's own method: some look whether `receive` and `send` are of one object.
        sending.__self__ = getattr(hand_over, "__self__", None)  # type: ignore[attr-defined]

        async def handle() -> None:
            await app(scope, receive, sending)

        self.handlers[connection] = handler = handle()
        try:
            try:
                await handler
            finally:
                self.events += 1
        except BaseException as exc:
            if _apps.is_disconnect(exc) and _apps.may_end_by_disconnect(app, self.disconnect):
                self.report(ended=connection, error=None)
                return
            error = "the handler raised an exception:\n" + _apps.describe_error(exc, self.root)
            self.report(ended=connection, error=error)
            raise
        self.report(ended=connection, error=None)


def _denials_whole(send: Send) -> Send:
    """Hold a denial back until its body is complete.

    The deprecated implementation answers with whatever body it has when its event loop comes round: an app
    that awaits anything between the head and the end of a denial loses the rest. That is a known fault of
    this server, not of the page; handed over at once, the denial arrives whole.
    """
    head: list[Message] = []
    body = bytearray()

    async def sending(message: Message) -> None:
        if message["type"] == "websocket.http.response.start":
            head.append(message)
        elif message["type"] == "websocket.http.response.body" and head:
            body.extend(message.get("body", b""))
            if not message.get("more_body", False):
                await send(head[0])
                await send({"type": "websocket.http.response.body", "body": bytes(body)})
        else:
            await send(message)

    return sending


class Server(uvicorn.Server):
    """Reports when it serves."""

    def __init__(self, config: uvicorn.Config, stage: Stage) -> None:
        super().__init__(config)
        self.stage = stage

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then report the port."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ManualLoop)  # as main() made it
        self.stage.loop, self.stage.server = loop, self
        await super().startup(sockets)
        self.stage.report(port=self.servers[0].sockets[0].getsockname()[1])

    async def main_loop(self) -> None:
        """Serve until the process ends: uvicorn's own looks ten times a second whether it shall."""
        await asyncio.Event().wait()


def main(implementation: str, port: str, root: str, output: str) -> None:
    """Serve until the gate is gone.

    Args:
        implementation: of WebSockets, the value of uvicorn's ``--ws``.
        port: of the gate.
        root: the project's root, where the process runs.
        output: the file for what it prints.
    """
    # An interrupt at the terminal is the gate's to handle; it ends this process in an orderly way.
    if hasattr(os, "setsid"):
        os.setsid()
    os.chdir(root)
    sys.path[:0] = [] if root in sys.path else [root]
    with open(output, "ab", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    # uvicorn warns that one of the implementations is deprecated. That is why it is tested, not
    # news to a reader.
    warnings.simplefilter("ignore")
    line = socket.create_connection(("127.0.0.1", int(port)))
    stage = Stage(line, Path(root), implementation)
    config = uvicorn.Config(
        stage.app,
        host="127.0.0.1",
        port=0,
        ws=implementation,
        interface="asgi3",
        lifespan="off",
        ws_ping_interval=None,  # a clock that is advanced leaves a client no time for its pong
        ws_ping_timeout=None,
        server_header=False,
        date_header=False,
        log_level="warning",
    )
    threading.Thread(target=stage.listen, daemon=True).start()
    loop = ManualLoop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(Server(config, stage).serve())
