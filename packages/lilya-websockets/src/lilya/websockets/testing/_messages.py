"""Typed messages of a session, as its client sends and receives them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from .._websocket import WebSocket
from ..typed._calls import Calls
from ..typed._typed import Typed
from ._session import Timeout, WebSocketSession

__all__ = ["MessageSession", "MessageTestSession", "messages_of"]

S = TypeVar("S")  # what the client sends
R = TypeVar("R")  # what it receives
T = TypeVar("T")


class MessageSession(Generic[S, R]):
    """Typed messages of one session. `WebSocketSession.typed` makes it."""

    def __init__(self, session: WebSocketSession, typed: Typed) -> None:
        self._session = session
        self._typed = typed
        self._calls: Calls | None = None
        self._timeout: Timeout = ...

    async def send_message(self, message: S) -> None:
        """Send a message; see `WebSocketSession.send_text`.

        Args:
            message: What the app receives, an `In`.

        Raises:
            TypeError: The message is not an `In`.
        """
        __tracebackhide__ = True
        await self._send(self._typed.encode(message))

    async def receive_message(self, *, timeout: Timeout = ...) -> R:
        """Receive one message; see `WebSocketSession.receive_text`.

        Args:
            timeout: Seconds to wait; `None` for no limit. Default: the session's.

        Returns:
            What the app sent, an `Out`.

        Raises:
            WebSocketDisconnect: The connection ended.
            WebSocketDataError: The message is not an `Out`; `errors()` says why.
            WebSocketTimeout: Nothing came in time.
        """
        __tracebackhide__ = True
        self._timeout = timeout
        return await (self._calling().next() if self._typed.replies else self._receive_one())  # type: ignore[no-any-return]

    async def call(self, request: S, *, timeout: Timeout = ...) -> R:
        """Send a request and wait for its answer; see `WebSocket.call`.

        Args:
            request: An `In` whose model has a field of the type `CallId`.
            timeout: Seconds to wait for each message; `None` for no limit. Default:
                the session's.

        Raises:
            TypeError: The request is not an `In`, or has no such field.
            WebSocketDisconnect: The connection ended.
            WebSocketTimeout: Nothing came in time.
        """
        __tracebackhide__ = True
        self._timeout = timeout
        calls = self._calling()
        identified, id = calls.identified(request)
        return await calls.call(id, self._send, self._typed.encode(identified))  # type: ignore[no-any-return]

    def _calling(self) -> Calls:
        if self._calls is None:
            self._calls = Calls(self._typed, self._receive_one, keep_all=True)
        return self._calls

    async def _send(self, payload: str | bytes) -> None:
        if isinstance(payload, str):
            await self._session.send_text(payload)
        else:
            await self._session.send_bytes(payload)

    async def _receive_one(self) -> Any:
        __tracebackhide__ = True
        session, typed = self._session, self._typed
        receive = session.receive_text if typed.key == "text" else session.receive_bytes
        payload = await receive(timeout=self._timeout)
        try:
            return typed.decode(payload)
        except typed.failures as error:
            raise typed.refused(payload, error, "websocket.send") from error


def messages_of(session: WebSocketSession, types: type[WebSocket[S, R]]) -> MessageSession[S, R]:
    """The typed messages of a session.

    Raises:
        TypeError: Not a `WebSocket[In, Out]`.
    """
    typed = getattr(types, "_typed", None)
    if not isinstance(typed, Typed):
        raise TypeError(f"types must be the app's WebSocket[In, Out], got {types!r}")
    return MessageSession(session, typed.swapped)


class _Call(Protocol):
    def __call__(self, method: Callable[..., Awaitable[T]], *arguments: Any, limit: Timeout = ...) -> T: ...


class MessageTestSession(Generic[S, R]):
    """`MessageSession` without `await`. `WebSocketTestSession.typed` makes it."""

    __test__ = False

    def __init__(self, messages: MessageSession[S, R], call: _Call) -> None:
        self._messages = messages
        self._call = call

    def send_message(self, message: S) -> None:
        """Send a message; see `MessageSession.send_message`."""
        __tracebackhide__ = True
        self._call(self._messages.send_message, message)

    def receive_message(self, *, timeout: Timeout = ...) -> R:
        """Receive one message; see `MessageSession.receive_message`."""
        __tracebackhide__ = True
        return self._call(partial(self._messages.receive_message, timeout=timeout), limit=timeout)

    def call(self, request: S, *, timeout: Timeout = ...) -> R:
        """Send a request and wait for its answer; see `MessageSession.call`."""
        __tracebackhide__ = True
        return self._call(partial(self._messages.call, request, timeout=timeout), limit=timeout)
