"""uvicorn in a thread of its own, with an app that writes down what it saw of each connection."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs

import uvicorn

from .frames import LIMIT, Client, eventually

PROTOCOL = os.environ.get("CONFORMANCE_PROTOCOL", "lilya.websockets.uvicorn:WebSocketProtocol")
"""The class under test; another one shows where that one stands."""

EXHAUSTIVE = os.environ.get("CONFORMANCE") == "exhaustive"
"""Every case in every chopping, on every event loop, and ten times the seeds: by `nox -s conformance`."""

TIMES = 10 if EXHAUSTIVE else 1

Event = tuple[Any, ...]


class Seen:
    """What the app saw of one connection, in order."""

    def __init__(self) -> None:
        self.connected = False
        self.events: list[Event] = []
        self.failed_sends = 0
        self.ended = threading.Event()

    def wait(self) -> list[Event]:
        """The events, once the app has ended."""
        assert self.ended.wait(LIMIT), f"the app has not ended; it saw {self.short()}"
        return self.events

    @property
    def messages(self) -> list[str | bytes]:
        return [event[1] for event in self.events if event[0] in ("text", "bytes")]

    def short(self) -> str:
        return repr([tuple(str(part)[:40] for part in event) for event in self.events])


class Complaints(logging.Handler):
    """Everything that was logged as a warning or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Serving:
    """A server on a free port of loopback, until the block is left.

    Its app does what the path says: `/echo` sends every message back, `/sink` only reads, `/close` closes
    with the code and the reason of its query, when it has read the number of messages that `after` names.
    """

    LOGGERS = ("uvicorn.error", "uvicorn.access", "asyncio", "websockets")

    def __init__(self, protocol: Any = None, *, loop: str = "asyncio", **options: Any) -> None:
        self.seen: dict[str, Seen] = {}
        self.complaints = Complaints()
        self._numbers = itertools.count()
        # With the protocol named: asyncio turns Nagle's algorithm off only where it is.
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(512)
        self.port: int = self._listener.getsockname()[1]
        options = {
            "lifespan": "off",
            "interface": "asgi3",
            "log_config": None,
            "ws_ping_interval": None,
            "timeout_graceful_shutdown": 5,
            **options,
        }
        self.server = uvicorn.Server(uvicorn.Config(self.app, ws=protocol or PROTOCOL, loop=loop, **options))
        self._thread = threading.Thread(target=self._run, name="uvicorn", daemon=True)

    def _run(self) -> None:
        try:
            self.server.run([self._listener])
        except BaseException as error:  # the thread must not end without a trace
            self.complaints.lines.append(f"the server ended with {error!r}")

    def __enter__(self) -> Serving:
        for name in self.LOGGERS:
            logging.getLogger(name).addHandler(self.complaints)
        self._thread.start()
        eventually(lambda: self.server.started or not self._thread.is_alive(), "the server has started")
        if not self.server.started:
            self._listener.close()
            raise AssertionError(self.complaints.lines)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.server.should_exit = True
        self._thread.join(LIMIT)
        for name in self.LOGGERS:
            logging.getLogger(name).removeHandler(self.complaints)
        self._listener.close()
        assert not self._thread.is_alive(), "the server does not end"

    def client(self) -> Client:
        return Client(self.port)

    def connect(
        self, path: str = "/echo", headers: dict[str, str | None] | None = None
    ) -> tuple[Client, Seen]:
        """A client whose connection is open, and what the app will have seen of it."""
        path, seen = self.place(path)
        client = self.client()
        try:
            return client.open(path, headers), seen
        except BaseException:
            client.socket.close()
            raise

    def place(self, path: str) -> tuple[str, Seen]:
        """A path that no other connection has, and what the app will have seen there."""
        number = str(next(self._numbers))
        seen = self.seen[number] = Seen()
        return f"{path}{'&' if '?' in path else '?'}n={number}", seen

    @property
    def idle(self) -> bool:
        """No connection is left, and no app."""
        return not self.server.server_state.connections and not self.server.server_state.tasks

    def settled(self) -> None:
        """Wait until no connection is left; nothing may have been complained about until then."""
        eventually(lambda: self.idle, "every connection has ended")
        lines, self.complaints.lines = self.complaints.lines, []
        assert not lines, lines
        self.seen.clear()

    async def app(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        if scope["type"] != "websocket":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        query = {
            name: values[0] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()
        }
        seen = self.seen.get(query.get("n", ""), Seen())
        try:
            message = await receive()
            assert message["type"] == "websocket.connect", message
            seen.connected = True
            await send({"type": "websocket.accept"})
            await self._talk(scope["path"], query, seen, receive, send)
        finally:
            seen.ended.set()

    async def _talk(
        self,
        path: str,
        query: dict[str, str],
        seen: Seen,
        receive: Callable[[], Any],
        send: Callable[[Any], Any],
    ) -> None:
        after = int(query.get("after", "0"))
        while True:
            if path == "/close" and len(seen.messages) == after:
                after = -1
                code, reason = int(query.get("code", "1000")), query.get("reason", "")
                try:
                    await send({"type": "websocket.close", "code": code, "reason": reason})
                except OSError:  # the client has closed meanwhile
                    seen.failed_sends += 1
            message = await receive()
            if message["type"] == "websocket.disconnect":
                seen.events.append(("disconnect", message["code"], message.get("reason") or ""))
                return
            assert message["type"] == "websocket.receive", message
            data, other = message.get("text"), message.get("bytes")
            assert (data is None) != (other is None), message
            seen.events.append(("text", data) if other is None else ("bytes", other))
            if path != "/echo" or seen.failed_sends:
                continue
            try:
                if other is None:
                    await send({"type": "websocket.send", "text": data})
                else:
                    await send({"type": "websocket.send", "bytes": other})
            except OSError:
                seen.failed_sends += 1


def loops(names: Sequence[str]) -> list[str]:
    """Those of the event loops that are installed."""
    found = []
    for name in names:
        try:
            __import__(name)
        except ImportError:
            continue
        found.append(name)
    return found
