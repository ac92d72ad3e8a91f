"""What happens to every WebSocket: hooks for metrics, traces and logs, around any ASGI app.

    from lilya.websockets.observing import LogObserver, observe

    app = observe(app, LogObserver())

The rules of this file:

- An app without `observe` costs nothing more. With it, a message costs one coroutine more in each direction,
  and a call of each hook for messages that an observer has.
- A hook is a plain function and waits for nothing. What it raises is logged, and changes nothing else.
- Every connection is either refused, or opened and ended: each once, and the last when the app has left it.
- No log line here holds a header, a query string, a close reason, a message, or the text of an exception.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable
from inspect import iscoroutinefunction
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

from ._extensions import END, watch_of
from ._frameworks import end_of, losses
from ._inbox import kind_of, size_of
from ._servers import GRACE, is_loss
from .types import AnyASGIApp, ASGIApp, Message, Receive, Scope, Send

__all__ = [
    "End",
    "LogObserver",
    "ObservedConnection",
    "Observer",
    "Refusal",
    "connection_id",
    "explain",
    "observe",
    "report_dropped",
    "report_slow",
]

logger: Final = logging.getLogger("lilya.websockets")

Kind = Literal["text", "bytes"]

_KEY: Final = "lilya.websocket.observed"  # in the scope: what is observed
_PATH: Final = 200  # characters of a path in a log line
_WHY: Final = 200  # and of an explanation
_NOTE: Final = "in the WebSocket connection "
_WORD: Final = re.compile(r"[!#-&(-<>-~]+")  # what may stand in a line without quotes
_DENIALS: Final = ("websocket.http.response.start", "http.response.start")


class Refusal(NamedTuple):
    """Why a handshake was refused, or got no answer."""

    by: str
    """Who refused it. `"app"`; the name of a guard, such as `"OriginGuard"`; `"client"`: it left before the
    answer; `"server"`: it stopped; `"error"`: the app raised an exception or gave no answer, and the server
    answers."""
    status: int | None
    """The HTTP status of the answer: 403 for a `close` before `accept`. `None` if the app gave no answer."""
    why: str
    """The reason that `explain` was given, such as that of a guard; `""` if there is none."""
    error: BaseException | None
    """What the app raised, which may be a cancellation; `None` if it returned."""

    @property
    def failed(self) -> bool:
        """Whether the app has failed. A cancellation and the disconnect of the client are not failures."""
        return _is_failure(self.error)


class End(NamedTuple):
    """How a connection ended."""

    by: str
    """Who ended it. `"client"`; `"network"`: the connection was lost; `"app"`; the name of a guard, such as
    `"LimitGuard"`; `"server"`: it stopped, or it closes a connection that the app left open."""
    code: int | None
    """The close code, RFC 6455 section 7.4. `None` if nobody closed: servers differ in what they send."""
    why: str
    """The reason that `explain` was given, such as the name of a limit; `""` if there is none."""
    duration: float
    """Seconds from the acceptance until the app or the server noticed the end."""
    error: BaseException | None
    """What the app raised, which may be a cancellation; `None` if it returned."""

    @property
    def failed(self) -> bool:
        """Whether the app has failed. A cancellation and the disconnect of the client are not failures."""
        return _is_failure(self.error)

    @property
    def code_label(self) -> str:
        """The code as a label for a metric; `"none"` if nobody closed. If a client chose a code from 3000 on,
        this is `"3xxx"` or `"4xxx"`, so that there are few labels.
        """
        if self.code is None:
            return "none"
        if self.by != "client" or 1000 <= self.code < 1016:
            return str(self.code)
        return {3: "3xxx", 4: "4xxx"}.get(self.code // 1000, "other")


class Observer:
    """Gets a call for everything that happens to connections. Subclass it, and override the hooks you need.

    Hooks are called in the event loop, and must return quickly. Hooks that you do not override cost nothing.
    """

    def began(self, connection: ObservedConnection) -> None:
        """A handshake has arrived. Called in the app's task, before the app."""

    def opened(self, connection: ObservedConnection) -> None:
        """The connection was accepted."""

    def refused(self, connection: ObservedConnection, refusal: Refusal) -> None:
        """The connection was not accepted, and the app has left it. Called in the app's task."""

    def received(self, connection: ObservedConnection, kind: Kind, size: int) -> None:
        """A message has arrived. `size` is its length in bytes; for text, in UTF-8."""

    def sent(self, connection: ObservedConnection, kind: Kind, size: int) -> None:
        """The server has taken a message. `size` is its length in bytes; for text, in UTF-8."""

    def dropped(self, connection: ObservedConnection, count: int) -> None:
        """Events of a channel were dropped, because the client is slow. `count` is their number."""

    def slow(self, connection: ObservedConnection) -> None:
        """The connection is being closed, because the client is too slow for a channel."""

    def ended(self, connection: ObservedConnection, end: End) -> None:
        """The connection has ended, and the app has left it. Called in the app's task."""


class _Hooks:
    """The hooks that observers have, by name."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self.observers = tuple({id(observer): observer for observer in observers}.values())
        self._failures: set[tuple[str, type[Exception]]] = set()
        self._joined: dict[_Hooks, _Hooks] = {}
        self.began = self._of("began")
        self.opened = self._of("opened")
        self.refused = self._of("refused")
        self.received = self._of("received")
        self.sent = self._of("sent")
        self.dropped = self._of("dropped")
        self.slow = self._of("slow")
        self.ended = self._of("ended")

    def _of(self, name: str) -> tuple[Callable[..., Any], ...]:
        none = getattr(Observer, name)
        hooks = [getattr(observer, name) for observer in self.observers]
        own = tuple(hook for hook in hooks if getattr(hook, "__func__", hook) is not none)
        for hook in own:
            if iscoroutinefunction(hook):
                raise TypeError(f"the hook {_name(hook)} must be a plain function: nothing awaits it")
        return own

    def joined(self, others: _Hooks) -> _Hooks:
        """These and others. Made once: what has failed is remembered."""
        if others not in self._joined:
            self._joined[others] = _Hooks((*self.observers, *others.observers))
        return self._joined[others]

    def failed(self, hook: Callable[..., Any], error: Exception) -> None:
        """Log what a hook raises: once for each hook and class of exception."""
        failure = (_name(hook), type(error))
        if failure not in self._failures:
            self._failures.add(failure)
            logger.error("the hook %s failed; the same is not logged again", failure[0], exc_info=error)


def _name(hook: Callable[..., Any]) -> str:
    return getattr(hook, "__qualname__", type(hook).__name__)


class ObservedConnection:
    """One connection, as observers see it. `observe` creates it, and all hooks get the same object."""

    __slots__ = (
        "__weakref__",
        "_by",
        "_code",
        "_ended_at",
        "_explained",
        "_hooks",
        "_is_guess",
        "_opened_at",
        "_receive",
        "_root",
        "_send",
        "_status",
        "_watch",
        "bytes_received",
        "bytes_sent",
        "id",
        "messages_received",
        "messages_sent",
        "scope",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, hooks: _Hooks) -> None:
        self.id: str = secrets.token_hex(8)
        """16 hexadecimal digits, made at random for each connection."""
        self.scope: dict[str, Any] = {**scope, _KEY: self}
        """The scope that the app has. It may contain tokens."""
        self.messages_received = 0
        """Messages that have arrived so far, including those in the buffer of a block."""
        self.bytes_received = 0
        """Their bytes, of text as UTF-8."""
        self.messages_sent = 0
        """Messages that the server has taken so far."""
        self.bytes_sent = 0
        """Their bytes, of text as UTF-8."""
        self._root = str(scope.get("root_path", ""))
        self._receive = receive
        self._send = send
        self._hooks = hooks
        self._opened_at: float | None = None
        self._status: int | None = None  # of the answer that refuses
        self._explained: tuple[str, str] | None = None
        self._by = ""  # who ended it; nobody yet
        self._code: int | None = None
        self._ended_at = 0.0
        self._is_guess = False  # a send has failed: the true end may still be received
        self._watch: Any = watch_of(scope, receive, send)
        if self._watch is not None:
            extensions = scope["extensions"]
            self.scope["extensions"] = {**extensions, END: {**extensions[END], "watch": self.watch}}
            self._watch(self._told)

    @property
    def path(self) -> str:
        """The path, percent-encoded and without the query string, at most 200 characters of it."""
        return quote(str(self.scope.get("path", "")), safe="/:@!$&'()*+,;=~", errors="replace")[:_PATH]

    @property
    def route(self) -> str | None:
        """The template of the route and its mount, such as `"/rooms/{name}"`. `None` before the framework
        has found the route, and for frameworks that do not report it. FastAPI, Starlette and Litestar do.
        """
        route = self.scope.get("path_template", getattr(self.scope.get("route"), "path", None))
        if not isinstance(route, str):
            return None
        # A mount has moved its part of the path there, filled in. There are few routes only if each value
        # that the client has chosen becomes its name again.
        root = str(self.scope.get("root_path", ""))
        mount = root[len(self._root) :] if root.startswith(self._root) else ""
        params = self.scope.get("path_params") if mount else None
        names = {quote(str(value)): name for name, value in params.items()} if params else {}
        parts = [f"{{{names[part]}}}" if part in names else part for part in mount.split("/")]
        template = "/".join(parts) + route
        return template if all(f"{{{name}" in template for name in params or ()) else route

    # Between the server and the app

    async def _run(self, app: AnyASGIApp) -> None:
        self._tell(self._hooks.began)
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as error:
            _note(error, self.id)
            try:
                if isinstance(error, Exception):
                    await self._find_end()
            finally:
                self._leave(error)
            raise
        else:
            try:
                await self._find_end()
            finally:
                self._leave(None)
        finally:
            self.scope = {}  # it refers to this

    async def _find_end(self) -> None:
        """Ask the server how it ended, if all that is known is that a send has failed: the app has not."""
        if not self._is_guess or self._opened_at is None:
            return
        try:
            import anyio
        except ImportError:
            return  # it stays a guess
        with anyio.move_on_after(GRACE):
            try:
                while self._is_guess:
                    message = await self._receive()
                    if kind_of(message) == "websocket.disconnect":
                        self._told(message)
            except Exception:
                pass  # the server has nothing to say

    async def receive(self) -> Message:
        """In place of the server's `receive`. Cancelling it loses no more than the server's loses."""
        try:
            message = await self._receive()
        except Exception as error:
            if isinstance(error, losses()):
                self._told(end_of(error))
            raise
        try:
            kind = message["type"]
        except (KeyError, TypeError):
            return message  # for the app to refuse
        if kind == "websocket.receive":
            text = message.get("text")
            # What is most common has no call in its way.
            size = len(text) if type(text) is str and text.isascii() else size_of(message)
            self.messages_received += 1
            self.bytes_received += size
            if self._hooks.received:
                self._tell(self._hooks.received, "bytes" if text is None else "text", size)
        elif kind == "websocket.disconnect":
            self._told(message)
        return message

    async def send(self, message: Message) -> None:
        """In place of the server's `send`."""
        kind = kind_of(message)
        closes = kind == "websocket.close" and not self._by and self._opened_at is not None
        if closes:  # before the server waits for the client's answer, which is no end of the client's
            self._end("app", message.get("code", 1000))
        try:
            await self._send(message)
        except Exception as error:
            if closes:
                self._by = ""
            self._lose(error)
            raise
        if kind == "websocket.send":
            text = message.get("text")
            size = len(text) if type(text) is str and text.isascii() else size_of(message)
            self.messages_sent += 1
            self.bytes_sent += size
            if self._hooks.sent:
                self._tell(self._hooks.sent, "bytes" if text is None else "text", size)
        elif self._opened_at is not None or self._status is not None:
            return
        elif kind == "websocket.accept":
            self._opened_at = time.monotonic()
            self._explained = None  # why it might have been refused
            self._tell(self._hooks.opened)
        elif kind == "websocket.close":
            self._status = 403  # ASGI spec, "Close - send event"
        elif kind in _DENIALS:
            self._status = message.get("status")

    def watch(self, callback: Callable[[Message], object]) -> None:
        """In place of the server's: it tells the end."""
        self._watch(callback)

    # What happens

    def _told(self, message: Message) -> None:
        """The server tells the end."""
        code = message.get("code")
        if not isinstance(code, int):
            code = 1005  # RFC 6455 section 7.1.5
        elif code == 1005 and is_loss(self.scope, message):
            code = 1006
        self._end(_BY.get(code, "client"), code)

    def _lose(self, error: Exception) -> None:
        """The server's `send` has raised."""
        if isinstance(error, losses()) and not self._by:
            self._told(end_of(error))
            self._is_guess = True

    def _end(self, by: str, code: int | None) -> None:
        if not self._by or self._is_guess:
            self._ended_at = self._ended_at if self._is_guess else time.monotonic()
            self._is_guess = False
            self._by = by
            self._code = code

    def _leave(self, error: BaseException | None) -> None:
        """The app has left the connection."""
        guard, why = self._explained or ("app", "")
        stopped = error is not None and not isinstance(error, Exception)
        if self._opened_at is None:
            if self._status is not None:
                refusal = Refusal(guard, self._status, why, error)
            elif stopped or self._by == "server":
                refusal = Refusal("server", None, "", error)
            else:
                refusal = Refusal("client" if self._by else "error", None, "", error)
            self._tell(self._hooks.refused, refusal)
            return
        if not self._by:
            self._end("server", None)
        by, why = (guard, why) if self._by == "app" else (self._by, "")
        duration = max(self._ended_at - self._opened_at, 0.0)
        self._tell(self._hooks.ended, End(by, self._code, why, duration, error))

    def _tell(self, hooks: tuple[Callable[..., Any], ...], *arguments: object) -> None:
        for hook in hooks:
            try:
                hook(self, *arguments)
            except Exception as error:
                self._hooks.failed(hook, error)

    # For those who have it from the scope

    def _join(self, hooks: _Hooks) -> None:
        """Let the observers of an `observe` further inside see it, too."""
        seen = self._hooks
        self._hooks = seen.joined(hooks)
        self._tell(tuple(hook for hook in hooks.began if hook not in seen.began))

    def _explain(self, by: str, why: str) -> None:
        self._explained = (by, why[:_WHY])


# Who ended it, where the code tells; 1012 is what servers say when they shut down.
_BY: Final = {1006: "network", 1012: "server"}


class _Observing:
    """What `observe` returns."""

    def __init__(self, app: AnyASGIApp, hooks: _Hooks) -> None:
        self.app = app
        self._hooks = hooks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        observed = _observed(scope)
        if observed is None:
            await ObservedConnection(scope, receive, send, self._hooks)._run(self.app)
        else:
            observed._join(self._hooks)
            await self.app(scope, receive, send)


def observe(app: AnyASGIApp, *observers: Observer) -> ASGIApp:
    """Wrap an app, so that observers see what happens to its WebSockets.

    Observers see what happens inside of the wrapper, so put it around your guards, too. Put `drain` around
    it. If you put one `observe` inside of another, a connection counts once, and all observers see it.

    An exception that leaves the app gets a note with the connection's id, which tracebacks show from
    Python 3.11 on.

    Args:
        app: Any ASGI app.
        observers: The observers, in the order in which they are called.

    Returns:
        The app to serve.

    Raises:
        TypeError: An argument of the wrong type.
    """
    if not callable(app):
        raise TypeError(f"app must be an ASGI app, got {type(app).__name__}")
    for observer in observers:
        if not isinstance(observer, Observer):
            raise TypeError(f"an observer must be an Observer, got {type(observer).__name__}")
    return _Observing(app, _Hooks(observers))


def connection_id(websocket: Any) -> str | None:
    """The id of an observed connection, as it is in log lines and in notes of exceptions.

    Args:
        websocket: A WebSocket of this package or of any ASGI framework, or a scope.

    Returns:
        16 hexadecimal digits; `None` without `observe` around the app.
    """
    observed = _observed(websocket)
    return None if observed is None else observed.id


def explain(websocket: Any, why: str, by: str = "app") -> None:
    """Say why a connection is about to be refused or closed. Does nothing without `observe` around the app.

    Observers get the reason with the refusal, or with the end if the app closes. If the connection is
    accepted, an earlier reason is dropped.

    Args:
        websocket: A WebSocket of this package or of any ASGI framework, or a scope.
        why: The reason, such as `"the ticket has expired"`, at most 200 characters. It is logged: use one of
            a few fixed texts, and nothing that the client has sent.
        by: Who refuses, such as the name of a guard. Default: the app.
    """
    observed = _observed(websocket)
    if observed is not None:
        observed._explain(by, why)


def report_dropped(websocket: Any, count: int) -> None:
    """Tell observers that events for a connection were dropped. Does nothing without `observe`.

    Args:
        websocket: A WebSocket of this package or of any ASGI framework, or a scope.
        count: How many.
    """
    observed = _observed(websocket)
    if observed is not None:
        observed._tell(observed._hooks.dropped, count)


def report_slow(websocket: Any) -> None:
    """Tell observers that a connection is being closed for being slow. Does nothing without `observe`.

    Args:
        websocket: A WebSocket of this package or of any ASGI framework, or a scope.
    """
    observed = _observed(websocket)
    if observed is not None:
        observed._tell(observed._hooks.slow)


class LogObserver(Observer):
    """Logs each opening, refusal and end, and slow clients, as a line of text and as data.

    A line consists of `name=value` pairs. The record's attribute `websocket` is a dictionary with the values,
    for formatters that write JSON. If the framework reports the route, its template is logged as the path.

    Args:
        logger: The logger. Default: `logging.getLogger("lilya.websockets.connections")`.
        level: The level. An app that has failed is logged as `logging.ERROR`. Default: `logging.INFO`.
    """

    def __init__(self, logger: logging.Logger | None = None, level: int = logging.INFO) -> None:
        self._logger = logger or logging.getLogger("lilya.websockets.connections")
        self._level = level

    def opened(self, connection: ObservedConnection) -> None:
        """Log `opened`."""
        self._log(self._level, connection, "opened", {})

    def refused(self, connection: ObservedConnection, refusal: Refusal) -> None:
        """Log `refused`, with the status, who refused and why."""
        values = {"by": refusal.by, "status": refusal.status, "why": refusal.why}
        self._log(self._level_of(refusal), connection, "refused", values, refusal.error)

    def ended(self, connection: ObservedConnection, end: End) -> None:
        """Log `ended`, with who ended it, the code, the duration and the counts."""
        values = {
            "by": end.by,
            "code": end.code,
            "why": end.why,
            "seconds": round(end.duration, 3),
            "received": connection.messages_received,
            "bytes_received": connection.bytes_received,
            "sent": connection.messages_sent,
            "bytes_sent": connection.bytes_sent,
        }
        self._log(self._level_of(end), connection, "ended", values, end.error)

    def slow(self, connection: ObservedConnection) -> None:
        """Log `slow`."""
        self._log(self._level, connection, "slow", {})

    def _level_of(self, outcome: Refusal | End) -> int:
        return logging.ERROR if outcome.failed else self._level

    def _log(
        self,
        level: int,
        connection: ObservedConnection,
        event: str,
        values: dict[str, Any],
        error: BaseException | None = None,
    ) -> None:
        if not self._logger.isEnabledFor(level):
            return
        said: dict[str, Any] = {
            "event": event,
            "connection": connection.id,
            "path": connection.route or connection.path,
            **values,
            "error": type(error).__name__ if _is_failure(error) else None,
        }
        said = {name: value for name, value in said.items() if value is not None and value != ""}
        line = " ".join(f"{name}={_shown(value)}" for name, value in said.items() if name != "event")
        self._logger.log(level, "%s %s", event, line, extra={"websocket": said})


def _is_failure(error: BaseException | None) -> bool:
    return isinstance(error, Exception) and not isinstance(error, losses())


def _shown(value: object) -> str:
    """A value in a line: in quotes if it would not be one word."""
    text = str(value)
    return text if _WORD.fullmatch(text) else repr(text)


def _observed(websocket: Any) -> ObservedConnection | None:
    scope = getattr(websocket, "scope", websocket)
    found = scope.get(_KEY)
    return found if isinstance(found, ObservedConnection) else None


def _note(error: BaseException, id: str) -> None:
    """Add the id to an exception, as `add_note` does from Python 3.11 on."""
    try:
        notes = [note for note in getattr(error, "__notes__", ()) if not str(note).startswith(_NOTE)]
        error.__notes__ = [*notes, _NOTE + id]  # type: ignore[attr-defined]
    except Exception:
        pass  # an exception that takes no attributes
