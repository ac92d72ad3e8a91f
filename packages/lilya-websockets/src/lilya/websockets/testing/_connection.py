"""A strict ASGI server in memory: one connection to one app, on asyncio and trio.

An illegal or malformed message is raised to the app, and noted, so that an app which swallows the error
fails all the same. After the end `receive` gives the disconnect, and `send` raises `OSError`, as the
strictest servers do; with a `spec_version` below 2.4 it drops the message, as servers of that age do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode, urlsplit

import anyio
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from .._messages import checked_headers
from ..exceptions import WebSocketClosed, WebSocketDisconnect
from ..types import AnyASGIApp, Message, Scope
from ._errors import ASGIViolation, ClientDisconnected, add_note, show
from ._rules import DENIAL, LEGAL, Stage, illegal, malformed, tolerated
from ._task import AppTask

__all__ = ["DENIAL", "Headers", "MemoryConnection", "websocket_scope"]

Headers = Mapping[Any, Any] | Iterable[tuple[bytes | str, bytes | str]]

DROPPED: Final = 1006
_PORTS: Final = {"ws": 80, "wss": 443}


def websocket_scope(
    url: str = "/",
    *,
    subprotocols: Sequence[str] | None = None,
    headers: Headers | None = None,
    cookies: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | Sequence[tuple[str, Any]] | None = None,
    base_url: str = "ws://testserver",
    root_path: str = "",
    client: tuple[str, int] = ("testclient", 50000),
    state: Mapping[str, Any] | None = None,
    extensions: Mapping[str, Any] | None = None,
    spec_version: str = "2.4",
    scope: Mapping[str, Any] | None = None,
) -> Scope:
    """Create the scope of a connection, as a server does for the request of a client.

    Args:
        url: A path with or without a query, or a whole URL. Percent-encoding is kept in `raw_path`.
        subprotocols: What the client offers, in its order.
        headers: Headers of the request, pairs or a mapping; instead of the client's own where the names
            are the same.
        cookies: Names and values of a `Cookie` header.
        params: Query parameters, added to those of the URL.
        base_url: Scheme and host where `url` has none.
        root_path: Where the app is mounted.
        client: The client's address.
        state: The state of the lifespan; each connection gets a copy.
        extensions: Default: the denial response. `{}` is a server without any.
        spec_version: Of the ASGI spec.
        scope: Keys of the scope that count before all others.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: A scheme that is not `ws`, `wss`, `http` or `https`, or a header that cannot be sent.
    """
    absolute = "://" in url.partition("?")[0]
    parts = urlsplit(url if absolute else base_url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in _PORTS:
        raise ValueError(
            "a WebSocket's URL begins with ws:// or wss://, or is a path; "
            f"got {url if absolute else base_url!r}"
        )
    if absolute:
        url = parts._replace(scheme="", netloc="").geturl()
    raw_path, _, query = url.partition("#")[0].partition("?")
    raw_path = quote(raw_path if raw_path.startswith("/") else f"/{raw_path}", safe="/%:@!$&'()*+,;=~")
    query = "&".join(filter(None, [quote(query, safe="/%:@!$&'()*+,;=~?[]"), urlencode(params or {}, True)]))
    if isinstance(subprotocols, str):
        raise TypeError(f"subprotocols must be a list of str, got the str {subprotocols!r}")
    own = checked_headers(headers or (), of_handshake=False)
    offered = list(subprotocols or ())
    if not offered:
        values = [value.decode("latin-1") for name, value in own if name == b"sec-websocket-protocol"]
        offered = [value.strip() for value in ",".join(values).split(",") if value.strip()]
    pairs = [
        (b"host", parts.netloc.rpartition("@")[2].encode()),
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),  # RFC 6455, section 1.3
        (b"sec-websocket-version", b"13"),
    ]
    if offered:
        pairs.append((b"sec-websocket-protocol", ", ".join(offered).encode("latin-1")))
    if cookies:
        pairs.append((b"cookie", "; ".join(f"{name}={value}" for name, value in cookies.items()).encode()))
    names = {name for name, _ in own}
    pairs = [pair for pair in pairs if pair[0] not in names]
    # A request begins with its host, also if the test chose it.
    pairs = [pair for pair in own if pair[0] == b"host"] + pairs
    pairs += [pair for pair in own if pair[0] != b"host"]
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": spec_version},
        "http_version": "1.1",
        "scheme": scheme,
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": query.encode(),
        "root_path": root_path,
        "headers": pairs,
        "client": client,
        "server": (parts.hostname, parts.port or _PORTS[scheme]),
        "subprotocols": offered,
        "state": dict(state or {}),
        "extensions": {DENIAL: {}} if extensions is None else dict(extensions),
        **(scope or {}),
    }


class MemoryConnection:
    """One connection to an app without a network, raw: for tools, and what the test client stands on.

    Args:
        app: The app.
        scope: What `websocket_scope` made.
    """

    def __init__(self, app: AnyASGIApp, scope: Scope) -> None:
        self.scope = scope
        self.stage = Stage.CONNECTING
        self.gone = False
        self.violations: list[str] = []
        self.warnings: list[str] = []
        self.last_sent: Message | None = None
        self.stalled: anyio.Event | None = None
        self._goodbye: Message | None = None  # the disconnect, once there is one
        self._error: BaseException | None = None
        self._denials = DENIAL in (scope.get("extensions") or {})
        # ASGI spec 2.4, "Send - send event": only since then a send after the end raises.
        self._silent = _version(scope) < (2, 4)
        self._to_app: MemoryObjectSendStream[Message]
        self._from_client: MemoryObjectReceiveStream[Message]
        self._to_client: MemoryObjectSendStream[Message]
        self._from_app: MemoryObjectReceiveStream[Message]
        self._to_app, self._from_client = anyio.create_memory_object_stream(math.inf)
        self._to_client, self._from_app = anyio.create_memory_object_stream(math.inf)
        self._to_app.send_nowait({"type": "websocket.connect"})
        self.task = AppTask(app, scope, self._receive, self._send, self._app_ended)

    async def start(self) -> None:
        """Start the app; `stop` must follow, on trio in the same task."""
        await self.task.start()

    async def stop(self, patience: float | None) -> None:
        """Wait for the app's end, and cancel it after that many seconds; see `AppTask.stop`."""
        try:
            await self.task.stop(patience)
        finally:
            for stream in (self._to_app, self._from_client, self._to_client, self._from_app):
                stream.close()

    @property
    def answered(self) -> bool:
        """Whether the app has accepted, closed or denied."""
        return self.stage is not Stage.CONNECTING

    # The client

    async def receive(self) -> Message | None:
        """The next ASGI message that the app sent; `None` if no more can come. Cancelling loses none."""
        try:
            return await self._from_app.receive()
        except anyio.EndOfStream:
            return None

    def receive_nowait(self) -> Message | None:
        """The same, without waiting.

        Raises:
            anyio.WouldBlock: There is none now.
        """
        try:
            return self._from_app.receive_nowait()
        except anyio.EndOfStream:
            return None

    def send(self, message: Message) -> None:
        """Hand the app a message. It is lost if the connection is over, as on a network."""
        if self._goodbye is None and not self.task.ended.is_set():
            self._to_app.send_nowait(message)

    def close(self, code: int, reason: str = "") -> None:
        """Close as the client; 1006 is the loss of the connection. Nothing happens if it is over."""
        if self._goodbye is None:
            self.gone = True
            self._end(code, reason)

    def stall(self) -> None:
        """Read no more, as if every buffer were full: what the app sends waits until `resume`."""
        self.stalled = self.stalled or anyio.Event()

    def resume(self) -> None:
        """Read on."""
        if self.stalled is not None:
            self.stalled.set()
            self.stalled = None

    async def settled(self) -> None:
        """Wait until the app waits for the client, or has ended."""
        while not self.task.ended.is_set():
            await anyio.wait_all_tasks_blocked()
            if self._from_client.statistics().tasks_waiting_receive:
                return
            if self.stalled is not None and self.stalled.statistics().tasks_waiting:
                return
            with anyio.move_on_after(0.01):  # it waits for something else, such as a timer: look again
                await self.task.ended.wait()

    def take_error(self) -> BaseException | None:
        """What the app raised, once; `None` for a clean end by disconnect.

        Violations that the app swallowed before are noted on it; without it, they are what is returned.
        """
        error, self._error = self._error, None
        if error is None and self.violations:
            error = ASGIViolation(self.violations.pop(0))
        if error is not None:
            for violation in self.violations:
                if violation != str(error):
                    add_note(error, violation)
            self.violations.clear()
        return error

    def take_violations(self) -> list[str]:
        """The rules that the app has broken so far, once."""
        taken, self.violations = self.violations, []
        return taken

    def where(self, root: Path | None = None, prefer: Path | None = None) -> str:
        """Say where the app is waiting; see `describe_frames`."""
        return self.task.where(root, prefer)

    # The app

    async def _receive(self) -> Message:
        if self._goodbye is not None and self._from_client.statistics().current_buffer_used == 0:
            await anyio.lowlevel.checkpoint()
            return dict(self._goodbye)
        return await self._from_client.receive()

    async def _send(self, message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        while True:
            problem = malformed(message, self.scope.get("subprotocols") or (), denials=self._denials)
            if problem and isinstance(message, dict) and (meant := tolerated(message, self.stage)):
                self.warnings.append(problem)
                problem, message = None, meant
            problem = problem or illegal(message, self.stage)
            if problem:
                self.violations.append(problem)
                over = self.gone or self.stage is Stage.ENDED
                raise (ClientDisconnected if over else ASGIViolation)(problem)
            if self.stalled is None or self.stage is not Stage.OPEN:
                break
            await self.stalled.wait()  # and then look again: meanwhile anything may have happened
        kind, before = message["type"], self.stage
        last = kind == f"{DENIAL}.body" and not message.get("more_body", False)
        self.stage = Stage.ENDED if last else LEGAL[before][kind]
        if not self.gone:
            self.last_sent = message
            self._to_client.send_nowait(message)
            if self.stage is Stage.ENDED and before is Stage.OPEN:
                self._end(message.get("code", 1000), message.get("reason") or "")
            elif self.stage is Stage.ENDED:
                self._end(DROPPED)
        elif not self._silent:
            raise ClientDisconnected(f"the client is gone; the app sent {show(message)}")

    def _end(self, code: int, reason: str = "") -> None:
        self._goodbye = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self._to_app.send_nowait(dict(self._goodbye))
        self._to_client.close()
        self.resume()

    def _app_ended(self, error: BaseException | None) -> None:
        if error is not None and not (self.gone and _is_disconnect(error)):
            self._error = error
        if error is None and not self.gone and not self.task.cancelled:
            if self.stage is Stage.CONNECTING:
                self.violations.append(
                    "the app returned without accepting, closing or denying the connection"
                )
            elif self.stage is Stage.DENYING:
                self.violations.append(
                    f"the app returned within a denial: no '{DENIAL}.body' without more_body"
                )
        self._to_client.close()


def _is_disconnect(error: BaseException) -> bool:
    """Whether an app ended by the disconnect of the client, whichever framework's exception tells so."""
    if isinstance(error, WebSocketClosed):
        return False  # used after the app had seen the end: that is a bug
    names = {cls.__name__ for cls in type(error).__mro__}
    return isinstance(error, ClientDisconnected) or WebSocketDisconnect.__name__ in names


def _version(scope: Scope) -> tuple[int, ...]:
    version = (scope.get("asgi") or {}).get("spec_version") or "2.0"
    return tuple(int(part) for part in str(version).split("."))
