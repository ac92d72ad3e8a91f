"""Replays over a real wire: uvicorn in a process of its own, the `websockets` client on this end."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import http.client
import json
import os
import queue
import signal
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websockets_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from ws_doctest import _apps, _preload
from ws_doctest._apps import Code
from ws_doctest._memory import HOST
from ws_doctest._replay import Outcome, Seen, SessionError, replay, visible_headers
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
)

T = TypeVar("T")

IMPLEMENTATIONS = ("websockets-sansio", "wsproto", "websockets")

# Seconds without news after which nothing but the server's clock is waited for. It is the server that knows.
QUIET = 0.01
START_LIMIT = 30.0  # seconds; a cold import on a busy machine, not a measure of anything


def unconfirmed(connection: socket.socket) -> int:
    """Return how many bytes the other side has not confirmed; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    import fcntl
    import termios

    try:
        (count,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0)))
    except (OSError, ValueError):  # it is closed
        return 0
    return int(count)


class ServerError(Exception):
    """The server process does not serve; the message has its output."""


class UvicornProcess:
    """One uvicorn process, reused for all replays with its implementation.

    Args:
        implementation: the value of uvicorn's ``--ws``.
        root: the project's root, its working directory.
    """

    def __init__(self, implementation: str, root: Path) -> None:
        self.implementation = implementation
        self.root = root
        self.runs = 0
        self.connections = 0
        self.messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self.kept: list[dict[str, Any]] = []  # handlers that ended while something else was waited for
        self.waiting: asyncio.Future[None] | None = None  # for the next message, in an event loop
        descriptor, name = tempfile.mkstemp(prefix="ws-doctest-")
        os.close(descriptor)
        self.output = Path(name)
        self.line: socket.socket | None = None
        with socket.create_server(("127.0.0.1", 0)) as listener:
            arguments = (implementation, str(listener.getsockname()[1]), str(root), str(self.output))
            self.process: Any = _preload.PROCESSES.Process(target=_preload.serve, args=arguments, daemon=True)
            self.process.start()
            atexit.register(self.stop)
            try:
                self._meet(listener)
                self.port = int(self._wait_for("port", START_LIMIT)["port"])
            except BaseException:
                self.stop()
                raise

    def _meet(self, listener: socket.socket) -> None:
        """Wait for the process to call back."""
        listener.settimeout(0.1)
        for _ in range(int(START_LIMIT / 0.1)):
            try:
                self.line, _address = listener.accept()
            except TimeoutError:
                if self.process.exitcode is not None:
                    raise ServerError(self._obituary()) from None
                continue
            self.line.settimeout(None)
            threading.Thread(target=self._listen, args=(self.line,), daemon=True, name="ws-doctest").start()
            return
        raise ServerError(f"uvicorn ({self.implementation}) did not start within {START_LIMIT:g} s")

    def _listen(self, line: socket.socket) -> None:
        with contextlib.suppress(OSError), line.makefile("rb") as lines:
            for text in lines:
                self._put(json.loads(text))
        self._put({"gone": True})

    def _put(self, message: dict[str, Any]) -> None:
        self.messages.put(message)
        waiting = self.waiting
        if waiting is not None:
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                waiting.get_loop().call_soon_threadsafe(_wake, waiting)

    def _wait_for(self, key: str, limit: float, value: object = None) -> dict[str, Any]:
        """Return the message that has ``key``; those about earlier runs are dropped."""
        found = self._kept(key, value)
        while found is None:
            try:
                found = self._looked_at(self.messages.get(timeout=limit), key, value)
            except queue.Empty:
                raise TimeoutError(f"no {key!r} from uvicorn within {limit:g} s") from None
        return found

    async def _news(self, key: str, limit: float, value: object = None) -> dict[str, Any]:
        """Return the message that has ``key``, as `_wait_for` does, without blocking the event loop."""
        found = self._kept(key, value)
        deadline = anyio.current_time() + limit
        while found is None:
            # First of all: what comes from now on wakes this.
            waiting = self.waiting = asyncio.get_running_loop().create_future()
            try:
                found = self._looked_at(self.messages.get_nowait(), key, value)
            except queue.Empty:
                left = deadline - anyio.current_time()
                with anyio.move_on_after(left) as scope:
                    await waiting
                if scope.cancelled_caught and self.messages.empty():
                    raise TimeoutError(f"no {key!r} from uvicorn within {limit:g} s") from None
            finally:
                self.waiting = None
        return found

    def _kept(self, key: str, value: object) -> dict[str, Any] | None:
        for message in self.kept:
            if key in message and value in (None, message[key]):
                self.kept.remove(message)
                return message
        return None

    def _looked_at(self, message: dict[str, Any], key: str, value: object) -> dict[str, Any] | None:
        """Return a message if it is the one that is waited for."""
        if "gone" in message:
            self.process.join(5)
            raise ServerError(self._obituary())
        if key in message and value in (None, message[key]):
            return message
        if "ended" in message:
            self.kept.append(message)
        return None

    def _obituary(self) -> str:
        output = self.output.read_text(encoding="utf-8", errors="replace").strip()
        return (
            f"uvicorn with --ws {self.implementation} is not running (exit status {self.process.exitcode}); "
            f"its output:\n{output or '(none)'}"
        )

    def _tell(self, **message: object) -> None:
        if self.line is None:
            raise ServerError(self._obituary())
        try:
            self.line.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            raise ServerError(self._obituary()) from None

    def stage(self, example: Path | Code, limit: float, disconnect: str = "error") -> str | None:
        """Put an example on: load it and start it up. Return what went wrong."""
        self.runs += 1
        self.kept.clear()
        code = example if isinstance(example, Code) else None
        self._tell(
            run=self.runs,
            example=str(code.path if code else example),
            source=code.source if code else None,
            above=code.above if code else 0,
            limit=limit,
            disconnect=disconnect,
        )
        return self._started_or_ended("staged", limit)

    def leave(self, limit: float) -> str | None:
        """Shut the example down. Return what went wrong."""
        self._tell(leave=self.runs)
        return self._started_or_ended("left", limit)

    def _started_or_ended(self, key: str, limit: float) -> str | None:
        # Within its limit the app tells by itself; beyond it, and however long an import may take, something
        # blocks the event loop.
        try:
            problem: str | None = self._wait_for(key, limit + START_LIMIT, self.runs)["problem"]
        except TimeoutError:
            return f"timed out: the app blocks the event loop in {self.where(0)}"
        return problem

    async def _ask(self, key: str, limit: float, **message: object) -> dict[str, Any]:
        """Tell the server something, and return its answer. It is awaited even if the caller is cancelled."""
        self._tell(**message)
        answer: dict[str, Any] = {}
        with anyio.CancelScope(shield=True):
            answer |= await self._news(key, limit)
        return answer

    async def expect(self) -> int:
        """Announce a connection; return its number."""
        self.connections += 1
        await self._ask("expecting", START_LIMIT, connection=self.connections)
        return self.connections

    async def at_rest(self, limit: float) -> None:
        """Wait until the app can do nothing more of itself."""
        await self._ask("at_rest", limit, at_rest=True)

    async def advance(self, seconds: float, limit: float) -> float:
        """Let the server's clock pass until its app does something; return the seconds that have passed.

        Those are 0 where an app has just done something, or where something may come from elsewhere.
        """
        return float((await self._ask("advanced", limit, advance=seconds))["advanced"])

    async def wait_for_end(self, connection: int, limit: float) -> str | None:
        """Wait for the end of a connection's handler; return its error."""
        error: str | None = (await self._news("ended", limit, connection))["error"]
        return error

    def where(self, connection: int) -> str:
        """Ask where the handler of a connection is waiting."""
        self._tell(where=connection)
        return str(self._wait_for("where", 5.0)["where"])

    def stop(self) -> None:
        """End the process, and wait until it is gone."""
        atexit.unregister(self.stop)
        if self.line is not None:
            with contextlib.suppress(OSError):
                self.line.shutdown(socket.SHUT_RDWR)
            self.line.close()
        if self.line is None:
            self.process.kill()
        self.process.join(5)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self.output.unlink(missing_ok=True)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class _Client(websockets_connect):
    """A client that follows no redirect: a denial with status 302 is what the transcript shows."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class WireSession:
    """One connection to an app behind a real server."""

    def __init__(self, server: UvicornProcess, number: int, limit: float) -> None:
        self.server = server
        self.number = number
        self.limit = limit
        self.first: Accept | Deny | None = None
        self.connection: ClientConnection | None = None
        self.closed_by_us = False
        self.skipped = 0.0

    def time(self) -> float:
        """Return the app's time: the real one, and what the server has skipped."""
        return anyio.current_time() + self.skipped

    async def open(self, request: Connect) -> None:
        """Shake hands."""
        try:
            await self._while_time_passes(lambda: self._open(request))
        except TimeoutError:
            raise
        except (WebSocketException, EOFError, OSError, ValueError) as exc:
            raise SessionError(await self._why_not(exc)) from exc

    async def _open(self, request: Connect) -> None:
        host = next((value for name, value in request.headers if name == "host"), HOST)
        headers = [(name, value) for name, value in request.headers if name != "host"]
        try:
            self.connection = await _Client(
                f"ws://{host}{request.path}",
                host="127.0.0.1",
                port=self.server.port,
                additional_headers=headers,
                subprotocols=[Subprotocol(name) for name in request.subprotocols] or None,
                compression=None,
                user_agent_header=None,
                proxy=None,
                open_timeout=None,  # the whole handshake has its limit in connect(), below
                close_timeout=self.limit,
                ping_interval=None,
                max_size=None,
                max_queue=None,
            )
        except InvalidStatus as exc:
            response = exc.response
            shown = visible_headers(list(response.headers.raw_items()))
            self.first = Deny(response.status_code, shown, bytes(response.body or b""))
        else:
            answer = self.connection.response
            raw = list(answer.headers.raw_items()) if answer is not None else []
            self.first = Accept(self.connection.subprotocol, visible_headers(raw))

    async def _why_not(self, exc: Exception) -> str:
        """Say why there was no handshake; the handler's own error says more than the client's."""
        reason = f"the handshake failed: {type(exc).__name__}: {exc}"
        try:
            error = await self.ended()
        except (TimeoutError, ServerError):
            return reason
        return f"{reason}\n{error}" if error else reason

    async def _delivered(self) -> None:
        """Wait until everything that was sent has arrived in the server's socket."""
        transport = None if self.connection is None else self.connection.transport
        with anyio.move_on_after(START_LIMIT):
            while transport is not None and not transport.is_closing():
                if not transport.get_write_buffer_size() and not unconfirmed(
                    transport.get_extra_info("socket")
                ):
                    break
                await asyncio.sleep(0.001)

    async def _advance(self, seconds: float) -> float:
        # On a busy machine, the system passes data on late. If the server's clock were advanced meanwhile, it
        # would tick on while a message is on its way to the app.
        await self._delivered()
        passed = await self.server.advance(seconds, START_LIMIT)
        self.skipped += passed
        return passed

    async def _while_time_passes(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Wait for something that the server does, in its own time.

        Raises:
            TimeoutError: More time has passed than one step may take.
        """
        task = asyncio.ensure_future(wait())
        passed = 0.0
        try:
            while not (await asyncio.wait({task}, timeout=QUIET))[0]:
                if passed >= self.limit:
                    raise TimeoutError(f"nothing came within {self.limit:g} s")
                await _apps.at_rest()  # what has come is taken first
                passed += await self._advance(self.limit - passed)
            return task.result()
        except ServerError as exc:
            raise SessionError(str(exc)) from exc
        finally:
            if not task.done():
                task.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait({task})

    async def send(self, data: str | bytes) -> None:
        """Send one frame."""
        if self.connection is None:
            raise SessionError("the connection was denied")
        # A server that has closed is seen by the next receive.
        with contextlib.suppress(ConnectionClosed):
            await self.connection.send(data)

    async def close(self, code: int | None, reason: str) -> None:
        """Start the closing handshake, and see it through."""
        if self.connection is None:
            raise SessionError("the connection was denied")
        self.closed_by_us = True
        if code is None:
            # ClientConnection.close() always sends a code; the protocol below it need not.
            async with self.connection.send_context():
                self.connection.protocol.send_close()
            await self._while_time_passes(self.connection.wait_closed)
        else:
            # A server that has closed is seen by the next receive.
            with contextlib.suppress(ConnectionClosed):
                await self.connection.close(code, reason)

    async def receive(self) -> Seen | None:
        """Return the next thing to see."""
        return await self._while_time_passes(self._receive)

    async def _receive(self) -> Seen | None:
        if self.first is not None:
            first, self.first = self.first, None
            return first
        if self.connection is None:
            raise SessionError("the connection was denied")
        try:
            data = await self.connection.recv()
        except ConnectionClosed as exc:
            if exc.rcvd is None:
                return Close(DROPPED)
            if self.closed_by_us and not exc.rcvd_then_sent:
                return None
            return Close(exc.rcvd.code or NO_CODE, exc.rcvd.reason)
        return Text(data) if isinstance(data, str) else Bytes(data)

    async def ended(self) -> str | None:
        """Wait for the handler's end, which the server reports."""
        # One after the other: the server answers in order, on one line.
        passed, began = 0.0, anyio.current_time()
        while True:
            try:
                return await self.server.wait_for_end(self.number, QUIET)
            except TimeoutError:
                if max(passed, anyio.current_time() - began) >= self.limit:
                    raise
            passed += await self._advance(self.limit - passed)

    async def where(self) -> str:
        """Ask the server where the handler is waiting."""
        try:
            return await anyio.to_thread.run_sync(self.server.where, self.number)
        except (TimeoutError, ServerError) as exc:
            return f"a place that cannot be told: {exc}"


@asynccontextmanager
async def connect(server: UvicornProcess, request: Connect, limit: float) -> AsyncIterator[WireSession]:
    """Open a connection to the example that is on in ``server``."""
    try:
        session = WireSession(server, await server.expect(), limit)
        # The handshake is part of the session: that it takes too long is for `replay` to tell.
        try:
            with anyio.fail_after(limit):
                await session.open(request)
        except TimeoutError:
            where = await session.where()
            raise SessionError(
                f"timed out after {limit:g} s, waiting for `< accept` or `< deny`\n"
                f"the handler was waiting in {where}"
            ) from None
        try:
            yield session
        finally:
            if session.connection is not None:
                session.connection.transport.abort()
    except ServerError as exc:
        raise SessionError(str(exc)) from exc


class WireStage:
    """The example that is on in a server."""

    def __init__(self, server: UvicornProcess, limit: float) -> None:
        self.server = server
        self.limit = limit

    def connect(self, request: Connect) -> AbstractAsyncContextManager[WireSession]:
        """Open a connection."""
        return connect(self.server, request, self.limit)

    async def ask(self, request: Request, limit: float) -> tuple[Response, str | None]:
        """Make a request over HTTP; return the whole response. What goes wrong in the app is a 500."""

        def exchange() -> Response:
            connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=limit)
            try:
                connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
                if "host" not in dict(request.headers):
                    connection.putheader("host", HOST)
                for name, value in request.headers:
                    connection.putheader(name, value.encode("latin-1"))
                if request.body:
                    connection.putheader("content-length", str(len(request.body)))
                connection.endheaders(request.body or None)
                answer = connection.getresponse()
                return Response(answer.status, visible_headers(answer.getheaders()), answer.read())
            finally:
                connection.close()

        try:
            return await anyio.to_thread.run_sync(exchange), None
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as exc:
            raise SessionError(f"there was no answer: {exc!r}") from exc

    async def at_rest(self) -> None:
        """Wait until the app can do nothing more of itself."""
        try:
            await self.server.at_rest(self.limit)
        except ServerError as exc:
            raise SessionError(str(exc)) from exc


class Replayer(_preload.Helper):
    """A process that replays over a server of its own.

    Args:
        implementation: the value of uvicorn's ``--ws``.
        root: the project's root.
    """

    def __init__(self, implementation: str, root: Path) -> None:
        super().__init__(_preload.replay, implementation, str(root))

    def replay(self, script: Transcript, example: Path | Code, *, limit: float, disconnect: str) -> Outcome:
        """Replay a transcript.

        Raises:
            ServerError: The server does not start.
        """
        try:
            answer = self.ask(script, example, limit, disconnect)
        except (EOFError, OSError) as exc:
            raise ServerError(f"the process that replays over uvicorn has ended: {exc!r}") from None
        if isinstance(answer, Outcome):
            return answer
        raise ServerError(str(answer))


def replay_for(pipe: Any, implementation: str, root: str) -> None:
    """Be the process of a `Replayer`: replay what is asked for, until nobody asks, or a handler hangs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt at the terminal is the gate's to handle
    server: UvicornProcess | None = None
    try:
        while (asked := pipe.recv()) is not None:
            script, example, limit, disconnect = asked
            if server is None:
                server = UvicornProcess(implementation, Path(root))
            outcome = run_replay(server, script, example, limit=limit, disconnect=disconnect)
            pipe.send(outcome)
            if outcome.broken_off:
                break
    except ServerError as exc:
        pipe.send(str(exc))
    except EOFError:
        pass
    finally:
        if server is not None:
            server.stop()


def run_replay(
    server: UvicornProcess,
    script: Transcript,
    example: Path | Code,
    *,
    limit: float,
    disconnect: str = "error",
) -> Outcome:
    """Replay a transcript over the wire."""

    async def main() -> Outcome:
        return await replay(WireStage(server, limit), script, limit=limit)

    try:
        problem = server.stage(example, limit, disconnect)
        if problem:
            return Outcome(problem=problem, broken_off=True)
        outcome = anyio.run(main)
        # Broken off, a handler may run on. Nobody waits for it: who goes on with this server starts another.
        problem = None if outcome.broken_off else server.leave(limit)
    except ServerError as exc:
        return Outcome(problem=str(exc), broken_off=True)
    if problem:
        outcome.problem = "\n".join(filter(None, [outcome.problem, problem]))
    return outcome
