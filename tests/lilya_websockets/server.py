"""A server in memory, as strict as the strictest, that does to an app what a test tells it to.

It judges the messages of the app by an automaton of its own, and writes down every violation besides raising
it, so that an implementation which swallows the exception is caught all the same: the fixture `no_violations`
looks at every server that a test has made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import anyio

from lilya.websockets import WebSocket
from lilya.websockets._extensions import Counts

DENIAL = "websocket.http.response"
END = "lilya.websocket.end"
TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")

Message = dict[str, Any]


class Violation(AssertionError):
    """The app sent or asked for what it must not."""


class ClientDisconnected(OSError):
    """What servers raise when they are told to send to a client that has gone."""


def connect() -> Message:
    return {"type": "websocket.connect"}


def text(data: str) -> Message:
    return {"type": "websocket.receive", "text": data}


def data(payload: bytes) -> Message:
    return {"type": "websocket.receive", "bytes": payload}


def disconnect(code: int | None = 1001, reason: str | None = "") -> Message:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


class Server:
    """The server's side of one connection.

    Args:
        events: What `receive` gives, in this order; an exception is raised. After them, it blocks.
        connecting: Whether `websocket.connect` comes before them.
        scope: What differs from an ordinary scope; `...` leaves the key out.
    """

    made: ClassVar[list[Server]] = []
    announces: ClassVar[bool] = False
    """Whether it has the extension `lilya.websocket.end`, and so tells the end before it is received."""
    repeats: ClassVar[bool] = False
    """Whether the end can be received after a send has failed by it, as from uvicorn."""

    def __init__(self, *events: Message | BaseException, connecting: bool = True, **scope: Any) -> None:
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/",
            "raw_path": b"/",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"example.org")],
            "client": ("192.0.2.1", 50000),
            "server": ("198.51.100.1", 8000),
            "subprotocols": [],
            "extensions": {DENIAL: {}},
        }
        if self.announces:
            self.scope["extensions"][END] = {"watch": self.watch, "connection": self}
        for key, value in scope.items():
            if value is ...:
                del self.scope[key]
            else:
                self.scope[key] = value
        self.events: deque[Message | BaseException] = deque([connect()] if connecting else [])
        self.events.extend(events)
        self.sent: list[Message] = []
        self.state = "handshake"  # then "open" or "denying", then "closed"
        self.client_left = False  # and the app was told
        self.faults: dict[int, Exception] = {}  # by the number of the send, from 0
        self.sends = 0
        self.receives = 0
        self.receiving = False
        self.held: set[str] = set()  # types of messages whose sending blocks
        self.ended = False
        self.violations: list[str] = []
        self.watchers: list[Callable[[Message], object]] = []
        self.counts: Counts | None = None
        self._changed = anyio.Event()
        self.waiting = anyio.Event()  # a receive has blocked
        self.holding = anyio.Event()  # a send has blocked
        Server.made.append(self)

    # The test's side

    def push(self, *events: Message | BaseException) -> None:
        """The peer does something."""
        self.events.extend(events)
        self._count(events)
        self.wake()
        self.tell()

    def tell(self) -> None:
        """Tell the end to who watches it, if it has come."""
        for event in self.events:
            if isinstance(event, dict) and event.get("type") == "websocket.disconnect":
                self.ended = True
                while self.watchers:
                    self.watchers.pop()(event)

    def let_go(self) -> None:
        """Have a receive return that waits, with what no app should see."""
        if not self.events:
            self.push({"type": "for nobody"})

    def release(self) -> None:
        """Let held sends go on."""
        self.held.clear()
        self.wake()

    def fail(self, error: Exception, *, after: int = 0) -> None:
        """Raise it at a send to come: at the next one, or after some more."""
        self.faults[self.sends + after] = error

    def wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.sent]

    async def pause(self) -> None:
        """Wait until the test does something."""
        await self._changed.wait()

    def websocket(self, of: type[WebSocket] = WebSocket) -> WebSocket:
        return of(self.scope, self.receive, self.send)

    async def accepted(self, of: type[WebSocket] = WebSocket) -> WebSocket:
        websocket = self.websocket(of)
        await websocket.accept()
        self.sent.clear()
        self.waiting = anyio.Event()
        return websocket

    # The app's side

    def watch(self, callback: Callable[[Message], object]) -> None:
        self.watchers.append(callback)
        self.tell()

    def count(self) -> Counts:
        self.counts = Counts()
        self._count(self.events)
        return self.counts

    def _count(self, events: Iterable[Any]) -> None:
        for event in events:
            payload = event.get("text", event.get("bytes")) if isinstance(event, dict) else None
            if self.counts is not None and payload is not None:
                self.counts.messages_received += 1
                self.counts.bytes_received += len(payload.encode() if isinstance(payload, str) else payload)

    @property
    def is_ready(self) -> bool:
        """Whether a send would neither wait nor fail; one of a class derived from this one may do both."""
        return (
            type(self).send is Server.send
            and self.state == "open"
            and not (self.ended or self.client_left or self.held or self.sends in self.faults)
        )

    def is_open(self) -> bool:
        return False

    def abort(self) -> None:
        raise AssertionError("there is nothing to abort")

    async def receive(self) -> Any:
        self._demand(not self.receiving, "two receives at the same time")
        self._demand(not self.client_left, "a receive after the end")
        self.receives += 1
        self.receiving = True
        try:
            while not self.events:
                self.waiting.set()
                await self.pause()
            event = self.events.popleft()
        finally:
            self.receiving = False
        if isinstance(event, BaseException):
            self.client_left = isinstance(event, OSError)
            raise event
        if isinstance(event, dict) and event.get("type") == "websocket.disconnect":
            self.client_left = True
        return event

    async def send(self, message: Any) -> None:
        self._demand(not self.client_left, f"{message!r} after the end")
        state = self._judged(message)
        fault = self.faults.pop(self.sends, None)
        self.sends += 1
        if isinstance(fault, OSError) and (self.announces or self.repeats):
            self.push(disconnect(1006, None))
        elif isinstance(fault, OSError):
            self.client_left = True
        if fault is not None:
            raise fault
        self.sent.append(message)
        self.state = state
        if self.announces and message["type"] == "websocket.close":
            self.push({**message, "type": "websocket.disconnect"})
        if self.announces and message["type"] == "websocket.close":
            return  # it never waits
        while message["type"] in self.held:
            self.holding.set()
            await self.pause()
            if self.announces and self.ended:
                raise ClientDisconnected

    def _demand(self, condition: bool, violation: str) -> None:
        if not condition:
            self.violations.append(violation)
            raise Violation(violation)

    def _judged(self, message: Any) -> str:
        """The state after a message, which is legal."""
        self._demand(type(message) is dict, f"no dict: {message!r}")
        kind = message.get("type")
        legal = {
            "handshake": {"websocket.accept", "websocket.close", f"{DENIAL}.start"},
            "open": {"websocket.send", "websocket.close"},
            "denying": {f"{DENIAL}.body"},
            "closed": set(),
        }[self.state]
        self._demand(kind in legal, f"{kind!r} in state {self.state}")
        if kind == "websocket.accept":
            subprotocol = message["subprotocol"]
            self._demand(
                subprotocol is None or subprotocol in self.scope["subprotocols"],
                f"the subprotocol {subprotocol!r} was not offered",
            )
            self._judge_headers(message["headers"])
            names = [name for name, _ in message["headers"]]
            self._demand(
                not any(name.startswith(b"sec-websocket-") for name in names),
                f"a name of the server: {names}",
            )
            return "open"
        if kind == "websocket.send":
            self._demand(set(message) in ({"type", "text"}, {"type", "bytes"}), f"keys {set(message)}")
            if "text" in message:
                self._demand(isinstance(message["text"], str), f"text {message['text']!r}")
                message["text"].encode()
            else:
                self._demand(type(message["bytes"]) is bytes, f"bytes {message['bytes']!r}")
            return "open"
        if kind == "websocket.close":
            code, reason = message["code"], message["reason"]
            sendable = type(code) is int and (1000 <= code <= 1014 or 3000 <= code <= 4999)
            self._demand(sendable and code not in (1004, 1005, 1006), f"close code {code!r}")
            self._demand(isinstance(reason, str) and len(reason.encode()) <= 123, f"reason {reason!r}")
            return "closed"
        if kind == f"{DENIAL}.start":
            self._demand(DENIAL in (self.scope.get("extensions") or {}), "a denial without the extension")
            status = message["status"]
            self._demand(type(status) is int and 200 <= status <= 599, f"status {status!r}")
            self._judge_headers(message["headers"])
            return "denying"
        self._demand(type(message["body"]) is bytes, f"body {message['body']!r}")
        self._demand(type(message["more_body"]) is bool, f"more_body {message['more_body']!r}")
        return "denying" if message["more_body"] else "closed"

    def _judge_headers(self, headers: Any) -> None:
        self._demand(type(headers) is list, f"headers {headers!r}")
        for pair in headers:
            self._demand(type(pair) is tuple and len(pair) == 2, f"header {pair!r}")
            name, value = pair
            self._demand(type(name) is bytes and name != b"" and TOKEN.issuperset(name), f"name {name!r}")
            self._demand(type(value) is bytes and not set(b"\r\n\0") & set(value), f"value {value!r}")


def steps(awaitable: Any) -> Any:
    """Run what never has to wait, without an event loop."""
    iterator = awaitable.__await__()
    try:
        next(iterator)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def opened(*events: Message | BaseException, **scope: Any) -> tuple[WebSocket, Server]:
    """An accepted WebSocket and its server, without an event loop."""
    server = Server(*events, **scope)
    websocket = server.websocket()
    steps(websocket.accept())
    server.sent.clear()
    return websocket, server


def header_pairs(*names: str) -> Iterable[tuple[bytes, bytes]]:
    """A one-shot iterable of headers."""
    return ((name.encode(), b"value of " + name.encode()) for name in names)
