"""One session with an app, as its client sees it, in the event loop of the test."""

from __future__ import annotations

import math
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.lowlevel

from .._messages import checked_bytes, checked_close, checked_text, describe, dumps, encode_json, loads
from ..datastructures import Header
from ..exceptions import WebSocketClosed, WebSocketDataError, WebSocketDisconnect, WebSocketRuntimeError
from ..types import AnyASGIApp, Message, Scope
from ._connection import Headers, MemoryConnection, websocket_scope
from ._errors import (
    ASGIWarning,
    UnexpectedMessage,
    WebSocketDenialResponse,
    WebSocketTimeout,
    add_note,
)

if TYPE_CHECKING:
    from .._websocket import WebSocket
    from ._messages import MessageSession

__all__ = ["TIMEOUT", "Opened", "Timeout", "WebSocketSession", "connect"]

TIMEOUT: Final = 5.0  # seconds: far more than an app in memory takes, and little enough to wait for
BRIEFLY: Final = 0.1  # seconds for the app's end when the test has already waited for it in vain

S = TypeVar("S")
R = TypeVar("R")

Timeout = float | None | EllipsisType
"""Seconds; `None` to wait as long as it takes; `...` for the limit of the session."""


class WebSocketSession:
    """One session with an app, as its client sees it. `connect` creates it.

    If the app failed, every receive raises the app's exception.
    """

    subprotocol: str | None
    """The subprotocol that the app accepted; `None` if it chose none."""

    headers: Header
    """The headers that the app sent with its acceptance."""

    close_code: int | None = None
    """The close code, once the test has seen the end: RFC 6455 section 7.4, 1006 if the connection was
    lost."""

    close_reason: str | None = None
    """The reason of the end, or `""` without a reason."""

    def __init__(self, connection: MemoryConnection, timeout: float | None) -> None:
        self.connection = connection
        self.timeout = timeout
        self.subprotocol = None
        self.headers = Header([])
        self.accepted: Message = {}
        self._kept: list[Message] = []  # what came where nothing was expected
        self._own_end: tuple[int, str] | None = None

    @property
    def scope(self) -> Scope:
        """The scope that the app got."""
        return self.connection.scope

    # Sending

    async def send_text(self, data: str) -> None:
        """Send a text message. As on a network, it is lost if the app has ended the connection.

        Args:
            data: The text.

        Raises:
            TypeError: Not a `str`.
            ValueError: The text cannot be encoded as UTF-8.
            WebSocketClosed: The test has seen the end.
        """
        await self.send({"type": "websocket.receive", "text": checked_text(data)})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message; see `send_text`.

        Args:
            data: The payload.
        """
        await self.send({"type": "websocket.receive", "bytes": checked_bytes(data)})

    async def send_json(self, data: Any, mode: str = "text") -> None:
        """Send a value as JSON; see `send_text`.

        Args:
            data: The value.
            mode: The kind of message: `"text"` or `"binary"`.

        Raises:
            TypeError: The value has no JSON form.
            ValueError: NaN, an infinity, or nesting too deep.
            WebSocketRuntimeError: An invalid mode.
        """
        key, text = _key(mode), encode_json(data, dumps)
        await (self.send_text(str(text)) if key == "text" else self.send_bytes(str(text).encode()))

    async def send(self, message: Message) -> None:
        """Pass a raw ASGI message to the app; see `send_text`.

        Args:
            message: A `websocket.receive`, in any form that a server may use.
        """
        __tracebackhide__ = True
        await anyio.lowlevel.checkpoint()
        self._raise_error_of_the_app()
        if self.close_code is not None:
            raise self._closed("send")
        self.connection.send(message)

    # Receiving

    async def receive(self, *, timeout: Timeout = ...) -> Message:
        """Receive the next ASGI message of any type that the app sent.

        Cancelling it loses no message.

        Args:
            timeout: Seconds to wait; `None` for no limit. Default: the session's.

        Returns:
            The message as the app sent it. The last message is a `websocket.close`, even if the app ended
            without one (code 1006) or the client closed.

        Raises:
            WebSocketTimeout: Nothing came in time.
            WebSocketClosed: The end was already received.
            WebSocketRuntimeError: The client is stalled.
        """
        __tracebackhide__ = True
        return await self._receive("a message", timeout)

    async def receive_text(self, *, timeout: Timeout = ...) -> str:
        """Receive one text message; see `receive`.

        Args:
            timeout: Seconds to wait; `None` for no limit. Default: the session's.

        Raises:
            WebSocketDisconnect: The connection ended.
            WebSocketDataError: A binary message came.
            WebSocketTimeout: Nothing came in time.
        """
        __tracebackhide__ = True
        return await self._payload("text", "a text message", timeout)  # type: ignore[no-any-return]

    async def receive_bytes(self, *, timeout: Timeout = ...) -> bytes:
        """Receive one binary message; see `receive_text`.

        Args:
            timeout: Seconds to wait; `None` for no limit. Default: the session's.

        Raises:
            WebSocketDisconnect: The connection ended.
            WebSocketDataError: A text message came.
            WebSocketTimeout: Nothing came in time.
        """
        __tracebackhide__ = True
        return await self._payload("bytes", "a binary message", timeout)  # type: ignore[no-any-return]

    async def receive_json(self, mode: str = "text", *, timeout: Timeout = ...) -> Any:
        """Receive one message and decode it as JSON; see `receive_text`.

        Args:
            mode: The kind of message: `"text"` or `"binary"`.
            timeout: Seconds to wait; `None` for no limit. Default: the session's.

        Raises:
            WebSocketDisconnect: The connection ended.
            WebSocketDataError: A message of the other kind, or not JSON.
            WebSocketTimeout: Nothing came in time.
            WebSocketRuntimeError: An invalid mode.
        """
        __tracebackhide__ = True
        key = _key(mode)
        data = await self._payload(key, f"JSON in a {mode} message", timeout)
        try:
            return loads(data if key == "text" else data.decode())
        except (ValueError, RecursionError) as error:
            message = {"type": "websocket.send", key: data}
            raise WebSocketDataError(message, f"expected JSON, got {describe(message)}: {error}") from error

    async def receive_nothing(self, seconds: float) -> None:
        """Wait, and check that nothing comes.

        Args:
            seconds: How long to wait.

        Raises:
            UnexpectedMessage: A message or the end of the connection came. A message is not lost.
        """
        __tracebackhide__ = True
        if self.close_code is not None or self._own_end is not None:
            raise self._closed("wait for nothing")
        with anyio.move_on_after(seconds):
            message = self._kept[0] if self._kept else await self._next()
            if message is None:
                self._raise_error_of_the_app()
            elif not self._kept:
                self._kept.append(message)
            raise UnexpectedMessage(message, seconds)

    def typed(self, types: type[WebSocket[S, R]]) -> MessageSession[S, R]:
        """Return an object with `send_message`, `receive_message` and `call` for typed messages.

            messages = session.typed(WebSocket[Say | Leave, Said])
            await messages.send_message(Say(text="hello"))
            said = await messages.receive_message()

        Args:
            types: The app's `WebSocket[In, Out]`. The client sends `In`, and receives `Out`.

        Raises:
            TypeError: Not a `WebSocket[In, Out]`.
        """
        from ._messages import messages_of

        return messages_of(self, types)

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Iterate over the payloads of messages until the connection ends.

        Each wait has the session's time limit. `close_code` and `close_reason` say how the connection ended.
        """
        return self._payloads()

    # The end

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Close the connection as the client. You can still receive what the app sent before.

        Args:
            code: A close code that an endpoint may send: 1000-1003, 1007-1014 or 3000-4999.
            reason: At most 123 bytes of UTF-8. Default: none.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: A code or a reason that must not be sent.
            WebSocketClosed: Closed before, or the test has seen the end.
        """
        __tracebackhide__ = True
        await self._end(*checked_close(code, reason))

    async def vanish(self) -> None:
        """Drop the connection without a close frame, as if the client had lost its network.

        The app receives a disconnect with code 1006, and its `send` raises `OSError`.

        Raises:
            WebSocketClosed: Closed before, or the test has seen the end.
        """
        __tracebackhide__ = True
        await self._end(1006, "")

    def stall(self) -> None:
        """Stop reading, as if every buffer on the way were full: what the app sends waits until `resume`."""
        self.connection.stall()

    def resume(self) -> None:
        """Continue to read after `stall`."""
        self.connection.resume()

    async def settled(self, *, timeout: Timeout = ...) -> None:
        """Wait until the app has ended or waits for the client: in `receive`, or because of `stall`.

        Args:
            timeout: Seconds to wait; `None` for no limit. Default: the session's.

        Raises:
            WebSocketTimeout: The app waits for something else.
        """
        __tracebackhide__ = True
        limit = self.timeout if timeout is ... else timeout
        with anyio.move_on_after(limit):
            return await self.connection.settled()
        raise self._timeout("the app to wait for the client", limit)

    # Inside

    async def open(self) -> None:
        """Wait for the app's answer to the handshake."""
        __tracebackhide__ = True
        message = await self._limited("the app to accept", ...)
        if message is not None and message["type"] == "websocket.accept":
            self.accepted = message
            self.subprotocol = message.get("subprotocol")
            self.headers = Header(
                [
                    (name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in message.get("headers") or ()
                ]
            )
            return
        if message is not None and message["type"] == "websocket.close":
            code, reason = message.get("code", 1000), message.get("reason")
            raise WebSocketDenialResponse(403, code=code, reason=reason)
        if message is None:
            self._raise_error_of_the_app()
            raise WebSocketDisconnect(1006)
        body = b""
        while (part := await self._limited("the body of the denial response", ...)) is not None:
            body += part.get("body", b"")
            if not part.get("more_body", False):
                raise WebSocketDenialResponse(message["status"], message.get("headers") or (), body)
        self._raise_error_of_the_app()
        raise WebSocketDisconnect(1006)

    async def finish(self, failure: BaseException | None) -> None:
        """End the session and the app; raise what the test has not been told.

        Args:
            failure: What the test itself raised.
        """
        __tracebackhide__ = True
        task, limit = self.connection.task, self.timeout
        self.connection.close(1000)
        if isinstance(failure, anyio.get_cancelled_exc_class()):
            limit = 0
        elif isinstance(failure, WebSocketTimeout):
            limit = BRIEFLY
        await self.connection.stop(limit)
        for problem in self.connection.warnings:
            warnings.warn(problem, ASGIWarning, stacklevel=2)
        error = self.connection.take_error()
        late = None
        if task.stopped_at is not None:
            then = (
                "it swallowed the cancellation, and was left where it was"
                if task.let_go
                else "it was cancelled"
            )
            late = WebSocketTimeout(
                "the app to end after the session",
                limit or 0,
                self.connection.last_sent,
                task.stopped_at,
                (),
                then,
            )
        if failure is None:
            if late is not None:
                raise late from error
            if error is not None:
                raise error
        else:
            if late is not None and (task.let_go or limit == self.timeout):
                add_note(failure, str(late))
            if error is not None:
                raise error  # with the failure as its context: neither is lost

    async def _end(self, code: int, reason: str) -> None:
        __tracebackhide__ = True
        await anyio.lowlevel.checkpoint()
        self._raise_error_of_the_app()
        if self._own_end is not None or self.close_code is not None:
            raise self._closed("close")
        self._own_end = (code, reason)
        self.connection.close(code, reason)

    async def _receive(self, wanted: str, timeout: Timeout) -> Message:
        __tracebackhide__ = True
        if self.close_code is not None:
            raise self._closed("receive")
        message = self._kept.pop() if self._kept else await self._limited(wanted, timeout)
        if message is None:
            self._raise_error_of_the_app()
            code, reason = self._own_end or (1006, "")
            message = {"type": "websocket.close", "code": code, "reason": reason}
        if message["type"] == "websocket.close":
            self.close_code, self.close_reason = message.get("code", 1000), message.get("reason") or ""
        return message

    async def _payload(self, key: str, wanted: str, timeout: Timeout) -> Any:
        __tracebackhide__ = True
        message = await self._receive(wanted, timeout)
        if message["type"] == "websocket.close":
            raise WebSocketDisconnect(self.close_code or 1006, self.close_reason)
        data = message.get(key)
        if data is None:
            raise WebSocketDataError(message, f"expected {_KINDS[key]}, got {describe(message)}")
        return data

    async def _payloads(self) -> AsyncIterator[str | bytes]:
        __tracebackhide__ = True
        while self.close_code is None:
            message = await self._receive("a message or the end", ...)
            if message["type"] == "websocket.send":
                text = message.get("text")
                yield message["bytes"] if text is None else text

    async def _limited(self, wanted: str, timeout: Timeout) -> Message | None:
        __tracebackhide__ = True
        limit = self.timeout if timeout is ... else timeout
        with anyio.move_on_after(limit):
            return await self._next()
        raise self._timeout(wanted, limit)

    async def _next(self) -> Message | None:
        __tracebackhide__ = True
        if self.connection.stalled is None:
            return await self.connection.receive()
        try:
            return self.connection.receive_nowait()
        except anyio.WouldBlock:
            raise WebSocketRuntimeError(
                "cannot receive while the client is stalled: call resume() first"
            ) from None

    def _timeout(self, wanted: str, limit: float | None) -> WebSocketTimeout:
        connection = self.connection
        place = None if connection.task.ended.is_set() else connection.where()
        return WebSocketTimeout(
            wanted,
            math.inf if limit is None else limit,
            connection.last_sent,
            place,
            connection.take_violations(),
        )

    def _closed(self, attempted: str) -> WebSocketClosed:
        code, reason = self._own_end or (self.close_code or 1006, self.close_reason or "")
        who = "the app" if self._own_end is None else "the client"
        return WebSocketClosed(code, reason, attempted, f"{who} ended it")

    def _raise_error_of_the_app(self) -> None:
        __tracebackhide__ = True
        if self.connection.task.ended.is_set():
            error = self.connection.take_error()
            if error is not None:
                raise error


_KINDS: Final = {"text": "text", "bytes": "binary data"}


def _key(mode: str) -> str:
    try:
        return {"text": "text", "binary": "bytes"}[mode]
    except (KeyError, TypeError):
        raise WebSocketRuntimeError(f"the mode must be 'text' or 'binary', got {mode!r}") from None


class Opened(AbstractAsyncContextManager[WebSocketSession]):
    """A session over a connection with this scope, as an asynchronous context manager."""

    connection: MemoryConnection | None = None
    """The connection, there as soon as it is being opened."""

    def __init__(self, app: AnyASGIApp, scope: Scope, timeout: float | None) -> None:
        self._made = (app, scope)
        self._timeout = timeout
        self._session: WebSocketSession

    async def __aenter__(self) -> WebSocketSession:
        __tracebackhide__ = True
        connection = self.connection = MemoryConnection(*self._made)
        session = self._session = WebSocketSession(connection, self._timeout)
        await connection.start()
        try:
            await session.open()
        except BaseException as error:
            await session.finish(error)
            raise
        return session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        await self._session.finish(error)


def connect(
    app: AnyASGIApp,
    url: str = "/",
    subprotocols: Sequence[str] | None = None,
    *,
    headers: Headers | None = None,
    cookies: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | Sequence[tuple[str, Any]] | None = None,
    extensions: Mapping[str, Any] | None = None,
    spec_version: str = "2.4",
    scope: Mapping[str, Any] | None = None,
    timeout: float | None = TIMEOUT,
) -> AbstractAsyncContextManager[WebSocketSession]:
    """Connect to an app that runs in the event loop of the test.

        async with connect(app, "/chat?room=blue") as session:
            await session.send_text("hello")
            assert await session.receive_text() == "You said: hello"

    Entering waits until the app accepts. Leaving closes with code 1000, unless the connection is already
    closed, and waits until the app has ended. If the block is cancelled, the app is cancelled, too. The
    app's lifespan is not run: see `AsyncTestClient`.

    Args:
        app: Any ASGI app.
        url: A path with or without a query, or a URL.
        subprotocols: What the client offers, in its order.
        headers: Headers of the request, pairs or a mapping of `bytes` or `str`.
        cookies: Cookies of the request.
        params: Query parameters, added to those of the URL.
        extensions: The extensions of the server. Default: the denial response; `{}` is a server without.
        spec_version: Of the ASGI spec. Below 2.4, a send after the client's end is dropped silently, where
            2.4 raises `OSError`.
        scope: Keys of the scope that count before all others.
        timeout: Seconds for each wait; `None` for no limit.

    Returns:
        An asynchronous context manager of a `WebSocketSession`.

    Raises:
        WebSocketDenialResponse: On entering, the app refused.
        WebSocketTimeout: On entering, the app did not answer in time; on leaving, it did not end in time,
            and was cancelled.
        ASGIViolation: The app broke a rule of ASGI.
        BaseException: What the app raised, as it was.
    """
    made = websocket_scope(
        url,
        subprotocols=subprotocols,
        headers=headers,
        cookies=cookies,
        params=params,
        extensions=extensions,
        spec_version=spec_version,
        scope=scope,
    )
    return Opened(app, made, timeout)
