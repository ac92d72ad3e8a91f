"""Replays in memory: a transcript's session over the test client's strict server, on asyncio or trio."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio

from ws_doctest import _apps, _asgi
from ws_doctest._asgi import (
    ASGIApp,
    Lifespan,
    LoopThread,
    MemoryConnection,
    Message,
    Scope,
    WebSocketTimeout,
)
from ws_doctest._clock import backend_options
from ws_doctest._replay import Outcome, Seen, record, replay, visible_headers
from ws_doctest._watch import Reach, Remains
from ws_doctest.transcript import (
    DROPPED,
    NO_CODE,
    Accept,
    Bytes,
    Close,
    Connect,
    Deny,
    Request,
    Response,
    Text,
    Transcript,
    Wait,
)

# What a reader sees who runs the example alone: uvicorn's default address.
HOST = "127.0.0.1:8000"
FIRST_PORT = 50000  # of a client; the next one has the next


def websocket_scope(
    request: Connect,
    extra: Mapping[str, Any] | None = None,
    *,
    port: int = FIRST_PORT,
    state: Mapping[str, Any] | None = None,
) -> Scope:
    """Return the scope of a connection, as uvicorn on its default address would make it."""
    return _asgi.websocket_scope(
        request.path,
        subprotocols=request.subprotocols,
        headers=request.headers,
        base_url=f"ws://{HOST}",
        client=("127.0.0.1", port),
        state=state,
        scope=extra,
    )


class MemorySession:
    """One connection to an app, without a network."""

    def __init__(
        self,
        app: ASGIApp,
        scope: Scope,
        root: Path,
        example: Path | None,
        must_open: bool = True,
        disconnect: str = "error",
    ) -> None:
        self.may_leave = _apps.may_end_by_disconnect(app, disconnect)
        self.connection = MemoryConnection(app, scope)
        self.root = root
        self.example = example
        self.must_open = must_open
        self.opened = False
        self.denial: Deny | None = None
        self.limit = 0.0  # the player's own is enough here

    def time(self) -> float:
        """Return the app's time."""
        return anyio.current_time()

    async def send(self, data: str | bytes) -> None:
        """Send one frame."""
        key = "text" if isinstance(data, str) else "bytes"
        self.connection.send({"type": "websocket.receive", key: data})
        await anyio.lowlevel.checkpoint()

    async def close(self, code: int | None, reason: str) -> None:
        """Send a close frame, which the server answers at once."""
        await anyio.lowlevel.checkpoint()
        self.connection.close(code or NO_CODE, reason)

    async def receive(self) -> Seen | None:
        """Return the next thing to see."""
        while True:
            message = await self.connection.receive()
            if message is None:
                return self._end()
            seen = self._seen(message)
            if seen is not None:
                return seen

    async def settled(self) -> list[Seen | None]:
        """Wait until the handler waits for the client, or has ended; return what there is to see."""
        await _apps.at_rest()
        await self.connection.settled()
        seen: list[Seen | None] = []
        while True:
            try:
                message = self.connection.receive_nowait()
            except anyio.WouldBlock:
                return seen
            shown = self._end() if message is None else self._seen(message)
            if message is None or shown is not None:
                seen.append(shown)
            if message is None or isinstance(shown, Close | Deny):
                return seen

    async def ended(self) -> str | None:
        """Wait for the handler's end."""
        await self.connection.task.ended.wait()
        problems = list(self.connection.violations)
        error = self.connection.task.error
        if error is not None and self.may_leave and self.connection.gone and _apps.is_disconnect(error):
            error = None
        if not self.must_open and not self.connection.answered:
            problems.clear()
        if error is not None:
            problems.append("the handler raised an exception:\n" + _apps.describe_error(error, self.root))
        return "\n".join(problems) or None

    async def where(self) -> str:
        """Say where the handler is waiting."""
        place = self.connection.where(self.root, self.example)
        # An app may swallow the error and wait for ever.
        return "\n".join([place, *self.connection.violations])

    def _seen(self, message: Message) -> Seen | None:
        """What a client sees of a message; ``None`` while there is more to come of a denial."""
        kind = message["type"]
        if kind == "websocket.accept":
            self.opened = True
            return Accept(message.get("subprotocol"), _visible(message))
        if kind == "websocket.send":
            text = message.get("text")
            return Bytes(message["bytes"]) if text is None else Text(text)
        if kind == "websocket.close":
            if not self.opened:
                return Deny(403)
            return Close(message.get("code", 1000), message.get("reason") or "")
        if self.denial is None:
            self.denial = Deny(message["status"], _visible(message))
            return None
        self.denial = replace(self.denial, body=self.denial.body + message.get("body", b""))
        return None if message.get("more_body", False) else self.denial

    def _end(self) -> Seen | None:
        if self.connection.gone:
            return None
        if self.opened or self.denial is not None:
            return Close(DROPPED)
        return Deny(500, (), b"Internal Server Error")


@asynccontextmanager
async def connect(
    app: ASGIApp,
    scope: Scope,
    root: Path,
    example: Path | None = None,
    must_open: bool = True,
    disconnect: str = "error",
) -> AsyncIterator[MemorySession]:
    """Open a connection to ``app``; leaving cancels a handler that is still running.

    Args:
        app: the app.
        scope: what `websocket_scope` made.
        root: the project's root, to shorten paths in messages.
        example: the app's file, preferred when saying where it waits.
        must_open: whether an app that neither accepts nor denies is at fault.
        disconnect: whether the exception of a disconnect is a normal end; see `may_end_by_disconnect`.
    """
    session = MemorySession(app, scope, root, example, must_open, disconnect)
    await session.connection.start()
    try:
        yield session
    finally:
        await session.connection.stop(0)


class MemoryStage:
    """An app that has started up.

    Args:
        app: the app.
        state: what its lifespan has left for the connections.
        root: the project's root, to shorten paths in messages.
        example: the app's file, preferred when saying where it waits.
        disconnect: whether the exception of a disconnect is a normal end; see `may_end_by_disconnect`.
    """

    def __init__(
        self, app: ASGIApp, state: Mapping[str, Any], root: Path, example: Path, disconnect: str = "error"
    ) -> None:
        self.disconnect = disconnect
        self.app = app
        self.state = state
        self.root = root
        self.example = example
        self.connections = 0

    def connect(self, request: Connect) -> AbstractAsyncContextManager[MemorySession]:
        """Open a connection."""
        port = FIRST_PORT + self.connections
        self.connections += 1
        scope = websocket_scope(request, port=port, state=self.state)
        return connect(self.app, scope, self.root, self.example, disconnect=self.disconnect)

    async def at_rest(self) -> None:
        """Wait until the app can do nothing more of itself."""
        await _apps.at_rest()

    async def ask(self, request: Request, limit: float) -> tuple[Response, str | None]:
        """Make a request over HTTP; return the whole response, and what went wrong in the app."""
        path, _, query = request.path.partition("?")
        headers = [(b"host", HOST.encode())] if "host" not in dict(request.headers) else []
        headers += [(name.encode(), value.encode("latin-1")) for name, value in request.headers]
        if request.body:
            headers.append((b"content-length", str(len(request.body)).encode()))
        self.connections += 1
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", FIRST_PORT + self.connections - 1),
            "server": ("127.0.0.1", 8000),
            "state": dict(self.state),
        }
        sent: list[Message] = []
        body: list[Message] = [{"type": "http.request", "body": request.body, "more_body": False}]
        done = anyio.Event()

        async def receive() -> Message:
            if body:
                return body.pop()
            await done.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            await anyio.lowlevel.checkpoint()
            kind = message["type"]
            if kind != ("http.response.body" if sent else "http.response.start") or done.is_set():
                raise RuntimeError(f"the app sent {kind!r} out of turn")
            sent.append(message)
            if kind == "http.response.body" and not message.get("more_body", False):
                done.set()

        try:
            with anyio.fail_after(limit):
                await self.app(scope, receive, send)
        except TimeoutError:
            raise
        except Exception as exc:
            problem = f"the app raised an exception for {request.method} {request.path}:\n"
            return Response(500, (), b"Internal Server Error"), problem + _apps.describe_error(exc, self.root)
        if not done.is_set():
            problem = f"the app has not answered {request.method} {request.path}"
            return Response(500, (), b"Internal Server Error"), problem
        content = b"".join(message.get("body", b"") for message in sent[1:])
        shown = b"" if request.method == "HEAD" else content
        return Response(sent[0]["status"], _visible(sent[0]), shown), None


def _visible(message: Message) -> tuple[tuple[str, str], ...]:
    headers: Sequence[tuple[bytes, bytes]] = message.get("headers") or ()
    return visible_headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])


def run_replay(
    app: Callable[[], ASGIApp],
    script: Transcript,
    root: Path,
    example: Path,
    *,
    backend: str,
    limit: float,
    update: bool = False,
    reach: Reach | None = None,
    disconnect: str = "error",
) -> Outcome:
    """Replay a transcript in memory.

    Args:
        app: makes the app, freshly loaded.
        script: the transcript.
        root: the project's root.
        example: the app's file.
        backend: ``asyncio`` or ``trio``.
        limit: seconds that one step may take.
        update: note everything that comes, whatever the transcript says.
        reach: where to note what of the code is run.
        disconnect: whether the exception of a disconnect is a normal end; see `may_end_by_disconnect`.
    """
    outcome = Outcome()

    async def main() -> Outcome:
        with reach.watching() if reach else nullcontext():
            return await play(
                app, script, root, example, limit=limit, outcome=outcome, update=update, disconnect=disconnect
            )

    # Each step has its own limits within, up to three where there are several clients; only a handler that
    # blocks the event loop gets past those.
    limit_of_all = limit * ((3 if script.steps[0].name else 1) * len(script.steps) + 4)
    # Where a thread works meanwhile, the time that is waited for really passes.
    limit_of_all += sum(step.event.seconds or 0.0 for step in script.steps if isinstance(step.event, Wait))
    result = run_in_thread(main, backend, limit_of_all, root, example)
    if not isinstance(result, Outcome):
        line = script.steps[min(len(outcome.steps), len(script.steps) - 1)].line
        return Outcome(problem=f"{script.name}:{line}: {result}", broken_off=True)
    return result


def replay_for(pipe: Any, root: Path, files: set[Path]) -> None:
    """Be a process that replays in memory what is asked for, until nobody asks, or a handler hangs.

    Args:
        pipe: to the gate.
        root: the project's root.
        files: those of which the gate wants to know what is run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt at the terminal is the gate's to handle
    reach = Reach(files)
    with suppress(EOFError):
        while (asked := pipe.recv()) is not None:
            script, example, backend, limit, disconnect, traces = asked
            outcome = run_replay(
                partial(_apps.load_app, root, example),
                script,
                root,
                example.path if isinstance(example, _apps.Code) else example,
                backend=backend,
                limit=limit,
                reach=reach if traces else None,
                disconnect=disconnect,
            )
            pipe.send((outcome, *reach.taken()))
            if outcome.broken_off:
                break


async def play(
    app: Callable[[], ASGIApp],
    script: Transcript,
    root: Path,
    example: Path,
    *,
    limit: float,
    outcome: Outcome,
    update: bool = False,
    disconnect: str = "error",
) -> Outcome:
    """Start an app up, replay a transcript, shut the app down, and look for what it leaves behind.

    Args:
        app: makes the app, freshly loaded.
        script: the transcript.
        root: the project's root.
        example: the app's file.
        limit: seconds that one step may take.
        outcome: where to note what is seen, for somebody who watches.
        update: note everything that comes, whatever the transcript says.
        disconnect: whether the exception of a disconnect is a normal end; see `may_end_by_disconnect`.
    """
    remains = Remains()
    await _play(app, script, root, example, limit, outcome, update, disconnect)
    await _apps.at_rest()  # what ends by itself may do so
    left = remains.problems()
    if left and not outcome.broken_off:
        outcome.problem = "\n".join(filter(None, [outcome.problem, *left]))
    return outcome


async def _play(
    app: Callable[[], ASGIApp],
    script: Transcript,
    root: Path,
    example: Path,
    limit: float,
    outcome: Outcome,
    update: bool,
    disconnect: str,
) -> None:
    try:
        loaded = app()
    except Exception as exc:
        outcome.broken_off = True
        outcome.problem = "the app cannot be loaded:\n" + _apps.describe_error(exc, root)
        return
    lifespan = Lifespan(loaded, limit)
    try:
        started = await lifespan.start()
    except Exception as exc:
        outcome.broken_off = True
        outcome.problem = _apps.describe_lifespan_error(exc, root)
        return
    stage = MemoryStage(loaded, lifespan.state, root, example, disconnect)
    failure: BaseException | None = None
    try:
        drive = record if update else replay
        await drive(stage, script, limit=limit, outcome=outcome)
    except BaseException as exc:
        failure = exc
        raise
    finally:
        if started:
            try:
                await lifespan.stop(failure)
            except Exception as exc:
                if not outcome.broken_off:  # with handlers that were cancelled it proves nothing
                    problem = _apps.describe_lifespan_error(exc, root)
                    outcome.problem = "\n".join(filter(None, [outcome.problem, problem]))


def run_in_thread(
    main: Callable[[], Coroutine[Any, Any, Any]],
    backend: str,
    limit: float,
    root: Path,
    example: Path | None,
) -> Any:
    """Run an event loop in a thread of its own: code that blocks it does not block the gate.

    Returns:
        What ``main`` returns; or, when it is not back in time, a `str` that says where the thread
        stands.
    """
    loop = LoopThread(backend, backend_options(backend), root, example)
    loop.start()
    try:
        return loop.call(main, limit=limit)
    except WebSocketTimeout as error:
        return f"timed out: the handler blocks the event loop in {error.place}"
    finally:
        loop.stop()
