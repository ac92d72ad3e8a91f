"""Shutting down: every open WebSocket is closed in batches, before the server ends them all at once.

    from lilya.websockets.draining import drain

    app = drain(app, within=10)

Servers give an app no notice of their stop: uvicorn closes every connection first, all at the same instant,
and tells the app by `lifespan.shutdown` when they have gone, which it waits for without a limit. So `drain`
learns of the stop where the server does, by the signal, and hands it on when it is done.

The rules of this file:

- A message costs one coroutine more in each direction, and nothing else: no task and no scope of its own.
- Nothing here waits without a limit. `within` has three parts: the batches, the time in which what is still
  running is cancelled, and before either of them the time that the last close may take.
- A handler of signals does nothing but wake the event loop. It may run between any two bytecodes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import signal
from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import FrameType
from typing import Any, Final, TypeVar, cast

import anyio

from ._extensions import END, watch_of
from ._messages import checked_close
from ._options import checked_count, checked_number
from ._servers import Line, line_of
from ._state import CONNECTED, CONNECTING, DISCONNECTED, RESPONSE
from ._websocket import WebSocket
from .exceptions import WebSocketDisconnect, WebSocketRuntimeError
from .types import AnyASGIApp, ASGIApp, Message, Receive, Scope, Send

__all__ = ["close_all", "drain"]

T = TypeVar("T")

logger: Final = logging.getLogger("lilya.websockets")

# Seconds that a close may take, and that what is cancelled has to end; less if `within` is short.
_CLOSING: Final = 1.0
# Seconds after which one looks for the first time whether a client has taken its close; each look then comes
# after twice the time, so that thousands of clients that take nothing are looked at a few times only.
_LOOK: Final = 0.02
# Seconds between two looks at connections whose apps have ended, to forget those that are gone.
_FORGET: Final = 1.0

_AFTER: Final = {
    "websocket.accept": CONNECTED,
    "websocket.close": DISCONNECTED,
    "websocket.http.response.start": RESPONSE,
}
# What servers report after a close of the app's own, besides its code.
_NO_CODE: Final = (None, 1005, 1006)


async def close_all(
    websockets: Iterable[T],
    code: int = 1012,
    reason: str | None = None,
    *,
    within: float = 10.0,
    batch: int = 100,
    interval: float = 0.1,
    jitter: float = 0.5,
) -> list[T]:
    """Close many WebSockets in batches, so that their clients do not all reconnect at the same instant.

    A handler in a block sees the same end as when the server shuts down. A handler without a block sees the
    same as after a `close` by another task. Connections that have ended are ignored. If this is cancelled,
    the remaining connections stay open.

    Args:
        websockets: The WebSockets, also as objects of a framework, see `WebSocket.wrap`.
        code: The close code, see `WebSocket.close`. Default: 1012, the service restarts.
        reason: At most 123 bytes of UTF-8. Default: none.
        within: Seconds after which all are closed. With very many connections, the intervals are shorter.
        batch: The number of WebSockets to close at once, 1 or more.
        interval: Seconds from one batch to the next.
        jitter: The part of an interval, 0 to 1, by which each batch is delayed at random.

    Returns:
        The WebSockets whose clients did not take the close within a second, because they do not read.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An argument out of range, or a code or a reason that must not be sent.

    RFC 6455 section 7.4; the code 1012 is in IANA's registry.
    """
    code, reason = checked_close(code, reason)
    pace = _Pace(within, batch, interval, jitter)
    # All of them first: what is none of them is an error before any is closed.
    pairs = [(websocket, WebSocket.wrap(websocket)) for websocket in websockets]
    missed: list[T] = []

    async def close(pair: tuple[T, WebSocket]) -> None:
        given, websocket = pair
        if not await _close(websocket, code, reason, pace.closing):
            missed.append(given)

    await pace.go(pairs, close)
    return missed


async def _close(websocket: WebSocket, code: int, reason: str, seconds: float) -> bool:
    """Close one; whether it has ended, and its client was told."""
    block = websocket._block
    if block is not None:
        return await block.shut_down(code, reason, seconds)
    with anyio.move_on_after(seconds):
        try:
            await websocket.close(code, reason)
        except WebSocketRuntimeError:
            pass  # it was closed before, or is being denied
        except Exception as error:
            logger.warning("the server refused to close", exc_info=error)
            return False
        return True
    return False


class _Pace:
    """How fast many are closed."""

    def __init__(self, within: float, batch: int, interval: float, jitter: float) -> None:
        self.within = checked_number("within", within)
        self.batch = checked_count("batch", batch, least=1)
        self.interval = checked_number("interval", interval, least=0.0)
        self.jitter = checked_number("jitter", jitter, least=0.0)
        if self.jitter > 1:
            raise ValueError(f"jitter must be from 0 to 1, got {jitter!r}")
        self.closing = min(_CLOSING, self.within / 4)

    async def go(self, items: Sequence[T], call: Callable[[T], Coroutine[Any, Any, None]]) -> None:
        """Call with each, a batch at a time; every call takes `closing` seconds at most."""
        start = anyio.current_time()
        batches = math.ceil(len(items) / self.batch)
        interval = min(self.interval, (self.within - 2 * self.closing) / max(batches, 1))
        async with anyio.create_task_group() as group:
            for number in range(batches):
                # Later than planned, never sooner, by a part of one interval: the order stays.
                await anyio.sleep_until(start + interval * (number + self.jitter * random.random()))
                for item in items[number * self.batch : (number + 1) * self.batch]:
                    group.start_soon(call, item)


def drain(
    app: AnyASGIApp,
    *,
    within: float = 10.0,
    batch: int = 100,
    interval: float = 0.1,
    jitter: float = 0.5,
    code: int = 1012,
    reason: str | None = None,
) -> ASGIApp:
    """Wrap an app, so that its open WebSockets are closed in batches when the server is told to stop.

    At the app's startup, `drain` puts itself in front of the server's handler for SIGINT and SIGTERM. It
    passes a signal on to the server when all connections have ended, or when the time is up. Until then, new
    connections are denied with 503. A second signal is passed on at once. Without such a handler, `drain`
    starts at `lifespan.shutdown`.

    Your handlers receive a disconnect with code 1012, as from a server that shuts down. A handler is
    cancelled if it has not ended shortly before the time is up, and at once if its client does not take the
    close within a second.

    Args:
        app: Any ASGI app, with a lifespan or without one.
        within: Seconds after which the signal is passed on at the latest. With very many connections, the
            intervals are shorter.
        batch: The number of connections to close at once, 1 or more.
        interval: Seconds from one batch to the next.
        jitter: The part of an interval, 0 to 1, by which each batch is delayed at random.
        code: The close code for the clients, see `WebSocket.close`. Default: 1012, the service restarts.
        reason: At most 123 bytes of UTF-8. Default: none.

    Returns:
        The app to serve. Let it be the outermost app, because another app around it may hide the server.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An argument out of range, or a code or a reason that must not be sent.

    ASGI spec, "Lifespan Protocol"; RFC 6455 section 7.4.
    """
    if not callable(app):
        raise TypeError(f"app must be an ASGI app, got {type(app).__name__}")
    code, reason = checked_close(code, reason)
    return _Drain(app, _Pace(within, batch, interval, jitter), code, reason)


class _Drained(ConnectionError):
    """What a send raises after the drain has closed its connection."""


class _Connection:
    """One connection, between server and app."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, code: int, reason: str) -> None:
        self.scope = self._scope = scope
        self._receive = receive
        self._send = send
        self._code = code
        self._reason = reason
        self._state = CONNECTING
        self.closed = False  # by the drain
        self._dropped = False
        self.running = anyio.CancelScope()
        self._end: dict[str, Any] | None = None  # the server's extension, if it has it
        if watch_of(scope, receive, send) is not None:
            self._end = scope["extensions"][END]
            ours = {**scope["extensions"], END: {**self._end, "watch": self.watch}}
            self.scope = {**scope, "extensions": ours}

    async def receive(self) -> Message:
        """In place of the server's: it receives the same, and after the drain's close the end of a stop."""
        message = await self._receive()
        return self._of_a_stop(message) if message["type"] == "websocket.disconnect" else message

    def watch(self, callback: Callable[[Message], object]) -> None:
        """The same, for who is told the end."""
        cast("dict[str, Any]", self._end)["watch"](lambda end: callback(self._of_a_stop(end)))

    def _of_a_stop(self, end: Message) -> Message:
        if not self.closed or end.get("code") not in (*_NO_CODE, self._code):
            return end  # the client was faster
        return {"type": "websocket.disconnect", "code": 1012, "reason": ""}

    async def send(self, message: Message) -> None:
        """In place of the server's, until the drain's close."""
        message_type = message["type"]
        if self.closed:
            if message_type == "websocket.close":
                return  # the goal is reached
            raise _Drained("the server is shutting down, and has closed the connection")
        after = _AFTER.get(message_type)
        if after is not None:
            self._state = after
        try:
            await self._send(message)
        except Exception as error:
            if self.closed:
                raise _Drained("the server is shutting down, and has closed the connection") from error
            raise

    async def close(self, seconds: float, retry_after: int) -> None:
        """Close, or deny what is not accepted yet; a client that does not take it in time is cut off."""
        if self._state is RESPONSE:
            return  # the app is denying it, and is not done
        with anyio.move_on_after(seconds) as limit:
            if self._state is not DISCONNECTED:  # else the app has ended it
                self.closed = True
                try:
                    if self._state is CONNECTED:
                        await self._send(
                            {"type": "websocket.close", "code": self._code, "reason": self._reason}
                        )
                    else:
                        await _deny(self._scope, self._receive, self._send, retry_after)
                except Exception as error:
                    logger.debug("the server refused to close", exc_info=error)
            await self.taken()
        if limit.cancelled_caught:
            line = self._line
            if line is None or not line.frees_senders:
                self.running.cancel()  # the app may wait in a send for ever
            self.drop()

    def leave(self) -> None:
        """The app has ended: what it has not closed is the server's to close."""
        self._state = DISCONNECTED

    async def taken(self) -> None:
        """Wait until the server no longer waits for the client, if the server tells."""
        pause = _LOOK
        while self.is_held():
            await anyio.sleep(pause)
            pause *= 2

    def cut(self) -> None:
        """Cancel the app, and drop the connection."""
        self.running.cancel()
        self.drop()

    def drop(self) -> None:
        """Drop the connection if the server still waits for the client, which may take for ever.

        ASGI has no message for that. uvicorn's own protocols wait without a limit for a client that does not
        read, and ours (`lilya.websockets.uvicorn`) for 10 seconds for one that does not answer a close.
        """
        line = self._line
        if line is not None and self.is_held():
            self._dropped = True  # over TLS, its buffer may stay as it is
            line.abort()

    def is_held(self) -> bool:
        """Whether the server would wait for the client; false if it does not tell."""
        line = self._line
        return line is not None and not self._dropped and line.is_held()

    @property
    def _line(self) -> Line | None:
        return line_of(self._send, self._end)


async def _deny(scope: Scope, receive: Receive, send: Send, retry_after: int) -> None:
    await WebSocket(scope, receive, send).deny(503, headers={"retry-after": str(retry_after)})


class _Drain:
    """What `drain` returns."""

    def __init__(self, app: AnyASGIApp, pace: _Pace, code: int, reason: str) -> None:
        self.app = app
        self._pace = pace
        self._code = code
        self._reason = reason
        self._connections: dict[_Connection, None] = {}  # a set that is in order
        # Their apps have ended, but the server still waits for their clients.
        self._untaken: list[_Connection] = []
        self._gone: anyio.Event | None = None  # somebody waits for the last connection
        self._until: float | None = None  # when a drain that has begun must be done
        self._alive = False  # between the beginning and the end of a lifespan
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] != "websocket":
            await self.app(scope, receive, send)
        elif self._until is not None:
            await _deny(scope, receive, send, self._retry_after())
        else:
            if not self._alive and not self._warned:
                self._warned = True
                logger.warning(
                    "drain() cannot close the connections when the server stops: the server has started no "
                    "lifespan, by which the stop is learned. Remove `--lifespan off`; daphne has none"
                )
            await self._converse(scope, receive, send)

    async def _converse(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = _Connection(scope, receive, send, self._code, self._reason)
        self._connections[connection] = None
        try:
            with connection.running:
                await self.app(connection.scope, connection.receive, connection.send)
        except (WebSocketDisconnect, _Drained):
            if not connection.closed:
                raise
            # The app was told that it must end, and passed that on. This is normal, and is not logged.
        finally:
            connection.leave()
            del self._connections[connection]
            if self._alive and connection.is_held():
                self._untaken.append(connection)
            if self._gone is not None and not self._connections:
                self._gone.set()

    # The server's life

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The lifespan of the app, and in place of an app without one."""
        self._until = None  # also of an app that is started once more
        self._alive = True
        self._over = anyio.Event()
        self._patience = anyio.CancelScope()
        signals = _Signals(self._patience.cancel)
        asked = False

        async def told_receive() -> Message:
            nonlocal asked
            asked = True
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._drain()  # the app's own shutdown comes after the last handler
            return message

        async def told_send(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                signals.stand()
            await send(message)

        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._watch, signals)
                group.start_soon(self._forget)
                try:
                    await self.app(scope, told_receive, told_send)
                except Exception as error:  # kept out of the group, which would wrap it
                    failure = error
                if not asked:
                    # An app that knows no lifespan leaves at once, mostly by an exception.
                    logger.debug("the app has no lifespan", exc_info=failure)
                    failure = None
                    await told_receive()
                    await told_send({"type": "lifespan.startup.complete"})
                    await told_receive()
                    await told_send({"type": "lifespan.shutdown.complete"})
                group.cancel_scope.cancel()
        finally:
            self._alive = False
            self._untaken.clear()
            signals.leave()
        if failure is not None:
            raise failure

    async def _watch(self, signals: _Signals) -> None:
        await signals.came.wait()
        await self._drain()
        signals.hand_on()

    async def _forget(self) -> None:
        """Forget connections that are gone.

        Not at the end of each app: thousands that stay would be looked at thousands of times.
        """
        while True:
            await anyio.sleep(_FORGET)
            if self._untaken:
                self._untaken = [connection for connection in self._untaken if connection.is_held()]

    async def _drain(self) -> None:
        """Close all connections, once. A second caller waits until the first is done."""
        if self._until is not None:
            await self._over.wait()
            return
        now = anyio.current_time()
        self._until = now + self._pace.within
        connections = [*self._untaken, *self._connections]
        with self._patience:
            with anyio.CancelScope(deadline=self._until - self._pace.closing):
                await self._pace.go(connections, self._close)
                await self._none_left()
                for connection in connections:
                    await connection.taken()
        if self._patience.cancelled_caught:  # the server closes them itself now
            with anyio.move_on_after(self._pace.closing):
                await self._none_left()
                for connection in connections:
                    await connection.taken()
        for connection in connections:
            connection.cut()
        with anyio.move_on_after(self._pace.closing):
            await self._none_left()
        if self._connections:
            logger.warning("%d handlers did not end when they were cancelled", len(self._connections))
        self._over.set()

    async def _close(self, connection: _Connection) -> None:
        await connection.close(self._pace.closing, self._retry_after())

    async def _none_left(self) -> None:
        if self._connections:
            self._gone = anyio.Event()
            await self._gone.wait()

    def _retry_after(self) -> int:
        """Seconds after which this server will have gone, and perhaps another one is in its place."""
        left = (self._until or 0.0) - anyio.current_time()
        return max(math.ceil(left), 0) + 1


class _Signals:
    """Stands before the server's handlers of signals.

    Args:
        hurry: Called in the event loop at the second signal.
    """

    def __init__(self, hurry: Callable[[], None]) -> None:
        self.came = anyio.Event()
        self._hurry = hurry
        self._wake = _waker()
        self._servers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._seen = False
        self._held: int | None = None

    def stand(self) -> None:
        """Step before the handlers that are there now. Where there is none, it stays so."""
        # Who has none for SIGTERM is no server that stops gracefully: what there is for Ctrl+C then is
        # Python's, or the event loop's.
        if not callable(signal.getsignal(signal.SIGTERM)):
            return
        for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
            number = getattr(signal, name, None)
            handler = None if number is None else signal.getsignal(number)
            if number is None or not callable(handler):
                continue
            try:
                signal.signal(number, self._handle)
            except ValueError:  # not the main thread
                return
            self._servers[number] = handler

    def leave(self) -> None:
        """Give the places back, unless somebody else has taken them."""
        for number, handler in self._servers.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)

    def hand_on(self) -> None:
        """Tell the server of the signal that was held back."""
        number, self._held = self._held, None
        if number is not None:
            self._servers[number](number, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._seen:
            self._seen = True
            self._held = number
            self._wake(self.came.set)
            return
        self._held = None  # this one goes in its place
        self._wake(self._hurry)
        self._servers[number](number, frame)


def _waker() -> Callable[[Callable[[], Any]], Any]:
    """What has something called in the running event loop, from a handler of signals. AnyIO has none."""
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon
