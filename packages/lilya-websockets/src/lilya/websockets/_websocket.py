"""`WebSocket`: moves messages. What a block adds is in `_conversation.py`.

The rules of this file:

- The common message (text or bytes, either way) takes a fast path: one `await` of the server's callable, a
  look at the message, return. One coroutine per message, so the methods repeat those few lines instead of
  calling one another: a coroutine more is about a fifth of what the whole layer costs. The server's callable
  is read into a local variable first: calling it as a method would make the interpreter look for one on the
  class each time. What is not needed for the common message is not in its way: `timeout` may be given by
  position because a keyword-only argument makes every call slower.
- The fast path tests no state: it calls `_receive_now` and `_send_now`, and these are the state. They are the
  server's callables while that is allowed, and else `_no_receive` and `_no_send`, which lead to the slow
  path. They are derived, and follow the two states wherever these move: in `_move`, and inlined in `accept`
  and `close`, where the call was a measurable part of the cost.
- Everything else goes through the tables of `_state.py`.
- On send the state moves before the `await`, so that of two tasks that close only one puts a close on the
  wire, and it is put back if the server refuses the message. On receive the state moves after the `await`,
  because the message is the event.
- An `OSError` of the server means that the client is gone, and so does the disconnect of a framework's own
  object: `losses()` lists them, and `_lost` translates them.
- Objects over one connection share one state, those of frameworks too: `_shared.py`.
- `WebSocket[In, Out]` is a subclass that `typed/` makes, and imports when it is asked for the first time.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import cache
from importlib import import_module
from inspect import isawaitable
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NoReturn, TypeVar
from weakref import WeakValueDictionary

from ._connection import Connection
from ._extensions import DENIAL
from ._frameworks import end_of, losses
from ._messages import (
    PreparedMessage,
    checked_bytes,
    checked_close,
    checked_headers,
    checked_payload,
    checked_status,
    checked_subprotocol,
    checked_text,
    describe,
    describe_argument,
    dumps,
    encode_json,
    loads,
)
from ._servers import is_loss, warn_of_dropped_headers
from ._shared import LEADING, Foreign, checked_foreign, foreign_before, second_class, states_of
from ._state import (
    CONNECTED,
    CONNECTING,
    DISCONNECTED,
    RECEIVE,
    RESPONSE,
    WebSocketState,
    after_receive,
    after_send,
)
from .exceptions import (
    WebSocketClosed,
    WebSocketDataError,
    WebSocketDisconnect,
    WebSocketRuntimeError,
)
from .types import ASGIApp, In, Message, Out, Receive, Scope, Send

if TYPE_CHECKING:
    from ._conversation import Conversation
    from ._options import Options

    AnyConversation = Conversation[Any]
else:
    AnyConversation = Any  # `typing.get_type_hints` looks it up

__all__ = ["WebSocket", "WebSocketClose"]

T = TypeVar("T")
W = TypeVar("W", bound="WebSocket[Any, Any]")

is_ascii: Final = str.isascii  # refuses what is no `str`, so that one call asks both

logger: Final = logging.getLogger("lilya.websockets")

_BY_APP: Final = "the app closed it"
_BY_RESPONSE: Final = "the app answered with an HTTP response"
_BY_CLIENT: Final = "the client closed it"
_BY_NETWORK: Final = "the connection was lost"
_BY_SHUTDOWN: Final = "the server shut down"


class WebSocket(Connection, Generic[In, Out]):
    """One WebSocket connection, on any ASGI server.

    `WebSocket[In, Out]` has typed messages: `In` is the type of what the client sends, and `Out` the type of
    what you send. With `WebSocket[In]`, both types are the same.

    Args:
        scope: The ASGI scope, of type `websocket`.
        receive: The server's `receive`.
        send: The server's `send`.

    Raises:
        ValueError: The scope is of another type.

    Implements the application's side of the ASGI spec, "WebSocket".
    """

    dumps = staticmethod(dumps)
    """Encodes JSON for `send_json`. It is called with the value only. Replace it in a subclass."""

    loads = staticmethod(loads)
    """Decodes JSON for `receive_json`. It is called with a `str` only, and raises `ValueError` for invalid
    JSON. Replace it in a subclass."""

    close_code: int | None
    """The close code of the first end, RFC 6455 section 7.4; `None` before the end."""

    close_reason: str | None
    """The reason of the first end, or `""` without a reason; `None` before the end."""

    accepted_subprotocol: str | None = None
    """The subprotocol that the app accepted; `None` if there is none."""

    # What a block adds (`async with`). On the class, so that a connection without one is not charged.
    _conversation: AnyConversation | None = None
    _unseen: bool = False  # the block's reader has seen the end, and the app was not told

    # What `WebSocket[In, Out]` adds: how its messages are decoded and encoded.
    _typed: Any = None

    # What is raised at the end. The module of a framework makes them that framework's own, too.
    _disconnect_class: type[WebSocketDisconnect] = WebSocketDisconnect
    _closed_class: type[WebSocketClosed] = WebSocketClosed

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A plain function in a class body would be bound, and called with the WebSocket first.
        for name in ("dumps", "loads"):
            if isinstance(cls.__dict__.get(name), FunctionType):
                setattr(cls, name, staticmethod(cls.__dict__[name]))

    if not TYPE_CHECKING:

        def __class_getitem__(cls, types: Any) -> Any:
            # By its name: the core knows nothing of typed messages until somebody asks for them.
            return import_module(".typed._making", __package__).with_types(cls, types)

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope_type = scope["type"]
        except KeyError:
            scope_type = None
        if scope_type != "websocket":
            raise ValueError(f'a WebSocket needs a scope of type "websocket", got {scope_type!r}')
        self.scope = scope
        self._send = send
        # Set by routers, never by servers: only where a router has been does anybody look for other objects.
        behind: Any = None
        if "path_params" in scope:
            behind = self._recognize(receive)
            if behind is self:
                return
        self._receive = receive
        self._client_state = CONNECTING
        self._application_state = CONNECTING
        self._receive_now: Receive = _no_receive
        self._send_now: Send = _no_send
        self._receiving = False
        self._ended: str | None = None
        self.close_code = None
        self.close_reason = None
        self._cleanups: list[Callable[[], Any]] | None = None
        if behind is not None:
            self._stand_behind(*behind)

    def _recognize(self, receive: Receive) -> Any:
        """Look for what there is over this connection already, by the `receive` that this is made with.

        Returns:
            This object, if it follows one of ours now. A framework's object with where that stands, if the
            `receive` is its own and none of ours is there. Else `None`.
        """
        owner: Any = getattr(receive, "__self__", receive)
        own: Send | None = None
        if type(owner) in LEADING:
            first = owner.websocket
        elif getattr(owner, "scope", None) is self.scope and (states := states_of(owner)) is not None:
            foreign = foreign_before(owner)
            # Else the methods were taken from the class of an object that one of ours stands before.
            if foreign is None or (first := foreign.websocket) is None:
                return owner, foreign, states
        else:
            # By identity: middleware that changes the conversation hands on a `receive` of its own, and what
            # is behind it is another conversation. A method is made anew for each look at it: its object
            # counts. The ids stay taken as long as the first object is there.
            first = _FIRST_OVER.setdefault((id(self.scope), id(owner)), self)
            own = self._send
        if first is None or first is self:
            return None
        self._follow(first, own)
        return self

    def _follow(self, first: WebSocket, send: Send | None) -> None:
        """Become a second object; `send` is its own one, if it has one."""
        self.__dict__.pop("_send", None)
        self.__class__ = second_class(type(self))  # here, so that no other object pays for it
        self._first = first
        self._own_send = send

    def _stand_behind(
        self, other: Any, foreign: Foreign | None, states: tuple[WebSocketState, WebSocketState] | None
    ) -> None:
        """Begin where a framework's object stands, and see what it does from now on."""
        self._start_at(states)
        (foreign or Foreign(other)).stand_before(other, self)

    def _start_at(self, states: tuple[WebSocketState, WebSocketState] | None) -> None:
        """Begin in these states, unless they are those of the beginning."""
        if states is not None and states != (CONNECTING, CONNECTING):
            client, application = states
            self._move(client, application)
            if DISCONNECTED in states:
                self._ended = _BY_CLIENT if client is DISCONNECTED else _BY_APP

    @classmethod
    def wrap(cls: type[W], other: Any) -> W:
        """Create a WebSocket of this class over the object of a framework, for the same connection.

        Both objects share one state: if you accept, receive, send or close with one of them, the other one
        has the new state. If the framework closes after the end, because it handles an exception, nothing
        more is sent.

        Code that replaces `other.receive` or `other.send` must do so before this call. After it, only the
        framework's own methods use the replacement.

        Args:
            other: An object with an ASGI `scope` and the ASGI callables `receive` and `send`: the WebSocket
                of Starlette, FastAPI or Litestar, or one of this package.

        Returns:
            The WebSocket, which is `other` itself if that is of this class.

        Raises:
            TypeError: The object does not have them. Quart's does not: its `receive` and `send` are not ASGI.
            ValueError: Its scope is of another type.
        """
        if callable(getattr(other, "_get_current_object", None)):
            other = other._get_current_object()  # a proxy of a context: the object outlives that
        # Not `isinstance`, which asks the abstract class of mappings: half of what wrapping costs.
        classes = type(other).__mro__
        if cls in classes:
            return other  # type: ignore[no-any-return]
        if WebSocket in classes:
            first: Any = other
        else:
            foreign = foreign_before(other)
            first = None if foreign is None else foreign.websocket
            if first is None:
                checked_foreign(other)
                # What stands before it now is not what leads to the server.
                receive, send = (other.receive, other.send) if foreign is None else foreign.callables
                websocket = cls(other.scope, receive, send)
                foreign = foreign_before(other) or foreign
                if foreign is None or foreign.websocket is not websocket:
                    websocket._stand_behind(other, foreign, states_of(other))
                return websocket
            if isinstance(first, cls):
                return first
        second = cls.__new__(cls)
        second.scope = other.scope
        second._follow(getattr(first, "_first", first), None)
        return second

    @property
    def client_state(self) -> WebSocketState:
        """The state of the client's side, which changes when a message is received. You can set it."""
        return self._client_state

    @client_state.setter
    def client_state(self, state: WebSocketState) -> None:
        self._move(WebSocketState(state), self._application_state)

    @property
    def application_state(self) -> WebSocketState:
        """The state of the app's side, which changes when a message is sent. You can set it."""
        return self._application_state

    @application_state.setter
    def application_state(self, state: WebSocketState) -> None:
        self._move(self._client_state, WebSocketState(state))

    def _move(self, client: WebSocketState, application: WebSocketState) -> None:
        self._client_state = client
        self._application_state = application
        both = client is CONNECTED and application is CONNECTED
        self._receive_now = self._receive if both else _no_receive
        self._send_now = self._send if both else _no_send

    @property
    def _open(self) -> bool:
        """Whether both states are CONNECTED."""
        return self._send_now is not _no_send

    # Accepting

    async def accept(
        self,
        subprotocol: str | None = None,
        headers: Mapping[Any, Any] | Iterable[tuple[bytes | str, bytes | str]] | None = None,
    ) -> None:
        """Accept the connection. This receives `websocket.connect` first, unless the app has received it.

        If this is cancelled while it waits for `websocket.connect`, nothing changes.

        Args:
            subprotocol: One of `scope["subprotocols"]`, the client's offer. Default: none.
            headers: Headers of the response to the handshake, pairs or a mapping of `bytes` or `str`. Some
                servers drop them. If the server is known to do so, you get one `RuntimeWarning`.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: A subprotocol that was not offered, or a header that must not be sent.
            WebSocketDisconnect: The client left before it was accepted.
            WebSocketRuntimeError: Already accepted or denied, or the server sent another first message.

        ASGI spec, "Accept - send event".
        """
        checked: list[tuple[bytes, bytes]] = []
        if headers is not None:
            checked = checked_headers(headers, of_handshake=True)
            if checked:
                warn_of_dropped_headers(self.scope, checked)
        if subprotocol is not None:
            subprotocol = self._checked_subprotocol(subprotocol)
        if self._client_state is CONNECTING and self._application_state is CONNECTING:
            if self._receiving:
                raise _second_receive("accept")
            receive = self._receive
            self._receiving = True
            try:
                message = await receive()
            except losses() as error:
                await self._lost(error)
            finally:
                self._receiving = False
            try:
                connects = message["type"] == "websocket.connect"
            except (KeyError, TypeError):
                connects = False
            if connects and self._application_state is CONNECTING:
                self._client_state = CONNECTED
            elif self._arrived(message):
                await self._run_cleanups()
                raise self._disconnect()
            else:  # another task has closed or denied meanwhile, or found the client gone
                self._after("websocket.accept")
        else:
            self._after("websocket.accept")
        self._application_state = CONNECTED
        self._receive_now = self._receive
        send = self._send_now = self._send
        try:
            await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": checked})
        except losses() as error:
            await self._lost(error)
        except Exception:
            self._put_back(CONNECTED, CONNECTING)
            raise
        if subprotocol is not None:
            self.accepted_subprotocol = subprotocol

    def select_subprotocol(self, preferences: Iterable[str]) -> str | None:
        """Return the first of your preferences that the client has offered. Pass it to `accept`.

        Args:
            preferences: Subprotocols that the app supports, the best one first.

        Returns:
            One of them, or `None` if the client has offered none of them.

        Raises:
            TypeError: Not an iterable of `str`.

        RFC 6455 section 4.2.2.
        """
        if isinstance(preferences, (str, bytes)) or not isinstance(preferences, Iterable):
            raise TypeError(f"preferences must be an iterable of str, got {type(preferences).__name__}")
        offered = self.scope.get("subprotocols") or ()
        selected = None
        for preference in preferences:
            if not isinstance(preference, str):
                raise TypeError(f"a subprotocol must be str, got {type(preference).__name__}")
            if selected is None and preference in offered:
                selected = preference
        return selected

    # Owning the connection

    def open(
        self: W,
        subprotocol: str | None = None,
        headers: Mapping[Any, Any] | Iterable[tuple[bytes | str, bytes | str]] | None = None,
        *,
        cancel_on_disconnect: bool = False,
        idle_timeout: float | None = None,
        idle_code: int = 1001,
        heartbeat: float | None = None,
        heartbeat_message: str | bytes = "ping",
        heartbeat_timeout: float | None = None,
        max_message_size: int | None = None,
        max_messages_per_second: float | None = None,
        buffer_messages: int = 64,
        buffer_bytes: int = 1_048_576,
        close_timeout: float = 1.0,
    ) -> AbstractAsyncContextManager[W]:
        """Own the connection in an `async with` block. `async with websocket` is the same without options.

        Entering the block accepts the connection, unless it is already accepted.

        In the block, a disconnect is detected at once: the next send raises it, `wait_disconnected` returns,
        and a receive raises it after the messages that came before it. For this, a reader in the background
        receives ahead of your handler. If the server reports the end, by the extension `lilya.websocket.end`,
        there is no reader, unless you set one of the options from `idle_timeout` to `buffer_bytes`.

        Leaving the block closes the connection, unless it is already closed: with 1000 after a normal end;
        with 1011 and no reason if an exception leaves the block or the task is cancelled; with 1012 if it is
        cancelled because the server stops. A `WebSocketException` of FastAPI, Starlette, Lilya or Litestar
        closes with its code and reason. A `WebSocketDisconnect` of this connection ends the block without an
        exception, also in an exception group. Other exceptions are passed on unchanged.

        Args:
            subprotocol: See `accept`.
            headers: See `accept`.
            cancel_on_disconnect: Whether the end of the connection cancels the block's body. The block then
                ends without an exception, and messages that were not received are dropped. Your own `close`
                does not cancel the body.
            idle_timeout: Close after this many seconds without a message from the client. Default: none.
            idle_code: The close code for `idle_timeout`.
            heartbeat: Seconds from one heartbeat, a message to the client, to the next. Default: none.
            heartbeat_message: The message, text or binary.
            heartbeat_timeout: Seconds in which the client must send any message after a heartbeat. If it does
                not, the connection is closed with 1011. Default: the value of `heartbeat`.
            max_message_size: The largest size of a message in bytes; text counts as UTF-8. A larger message
                closes with 1009. Default: no limit.
            max_messages_per_second: Messages that the client may send per second on average, and as many at
                once (at least one). More close with 1008. Default: no limit.
            buffer_messages: Messages that may wait to be received. If it is reached, the reader stops, and
                the server's flow control stops the client. With 0, what the client sends is dropped.
            buffer_bytes: Bytes of messages that may wait. One more message may exceed this.
            close_timeout: Seconds that a close may take in the block. After that, it counts as sent.

        Returns:
            An asynchronous context manager that gives this WebSocket.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: An argument out of range.
            WebSocketRuntimeError: On entering: another block owns the connection, a receive is in progress,
                or you gave a subprotocol or headers and the connection is already accepted.
            WebSocketClosed: On entering: the connection has ended.
        """
        conversation, checked_options, _ = _needing_anyio()
        options = checked_options(
            cancel_on_disconnect=cancel_on_disconnect,
            idle_timeout=idle_timeout,
            idle_code=idle_code,
            heartbeat=heartbeat,
            heartbeat_message=heartbeat_message,
            heartbeat_timeout=heartbeat_timeout,
            max_message_size=max_message_size,
            max_messages_per_second=max_messages_per_second,
            buffer_messages=buffer_messages,
            buffer_bytes=buffer_bytes,
            close_timeout=close_timeout,
        )
        return conversation(self, subprotocol, headers, options)

    async def __aenter__(self: W) -> W:
        conversation, _, _ = _needing_anyio()
        return await conversation(self).__aenter__()  # type: ignore[no-any-return]

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if self._conversation is None:
            raise WebSocketRuntimeError("cannot leave: this block was not entered")
        return await self._conversation.__aexit__(exc_type, exc, traceback)

    async def wait_disconnected(self) -> None:
        """Wait until the connection has ended, whichever side ended it. Only in a block.

        It returns as soon as the client leaves, even if earlier messages were not received yet.
        `close_code`, `close_reason` and `closed_by` say how it ended. Cancelling it changes nothing.

        Raises:
            WebSocketRuntimeError: No block has owned the connection.
        """
        if self._conversation is None:
            raise WebSocketRuntimeError(
                "cannot wait for the end without a block: open one with `async with websocket`"
            )
        await self._conversation.wait_disconnected()

    @property
    def closed_by(self) -> Literal["client", "server", "network"] | None:
        """Who ended the connection; the app is part of the server. `None` before the end."""
        return None if self._ended is None else _CLOSED_BY.get(self._ended, "server")

    @property
    def messages_received(self) -> int:
        """Messages from the client in the block, including those not received yet; 0 without a block."""
        return self._counted("messages_received")

    @property
    def bytes_received(self) -> int:
        """The bytes of their payloads, of text as UTF-8."""
        return self._counted("bytes_received")

    @property
    def messages_sent(self) -> int:
        """Messages that the server took in the block, including heartbeats; 0 without a block."""
        return self._counted("messages_sent")

    @property
    def bytes_sent(self) -> int:
        """The bytes of their payloads, of text as UTF-8."""
        return self._counted("bytes_sent")

    def _counted(self, what: str) -> int:
        source = None if self._conversation is None else self._conversation.source
        return 0 if source is None else getattr(source.counts, what)

    # Receiving

    async def receive(self, timeout: float | None = None) -> Message:
        """Receive one raw ASGI message, which may be a disconnect, and update the state.

        Cancelling it loses no message.

        Args:
            timeout: Seconds to wait, 0 or more. Default: no limit.

        Returns:
            The server's message as it came.

        Raises:
            TimeoutError: No message came in time. The next one is not lost.
            WebSocketClosed: The client's side has ended. The server is not called.
            WebSocketRuntimeError: Another receive is in progress, or the server sent an illegal message.
        """
        if timeout is not None:
            return await _limited(timeout, WebSocket.receive, self)
        return await self._next("receive")

    async def receive_text(self, timeout: float | None = None) -> str:
        """Receive one text message.

        Cancelling it loses no message.

        Args:
            timeout: Seconds to wait, 0 or more. Default: no limit.

        Returns:
            The text, which may be `""`; never `None`.

        Raises:
            TimeoutError: No message came in time. The next one is not lost.
            WebSocketDisconnect: The client left.
            WebSocketDataError: A binary message came. The connection stays usable.
            WebSocketClosed: The connection has ended.
            WebSocketRuntimeError: Not accepted yet, or another receive is in progress.

        ASGI spec, "Receive - receive event".
        """
        if timeout is not None:
            return await _limited(timeout, WebSocket.receive_text, self)
        if self._receiving:
            raise self._refused_receive("receive text")
        receive = self._receive_now
        self._receiving = True
        try:
            message = await receive()
        except losses() as error:
            await self._lost(error)
        finally:
            self._receiving = False
        try:
            if message["type"] == "websocket.receive" and (text := message["text"]) is not None:
                return text  # type: ignore[no-any-return]
        except (KeyError, TypeError):
            pass
        return await self._receive_otherwise(message, "text", "receive text")  # type: ignore[no-any-return]

    async def receive_bytes(self, timeout: float | None = None) -> bytes:
        """Receive one binary message.

        Cancelling it loses no message.

        Args:
            timeout: Seconds to wait, 0 or more. Default: no limit.

        Returns:
            The payload, which may be `b""`; never `None`.

        Raises:
            TimeoutError: No message came in time. The next one is not lost.
            WebSocketDisconnect: The client left.
            WebSocketDataError: A text message came. The connection stays usable.
            WebSocketClosed: The connection has ended.
            WebSocketRuntimeError: Not accepted yet, or another receive is in progress.

        ASGI spec, "Receive - receive event".
        """
        if timeout is not None:
            return await _limited(timeout, WebSocket.receive_bytes, self)
        if self._receiving:
            raise self._refused_receive("receive bytes")
        receive = self._receive_now
        self._receiving = True
        try:
            message = await receive()
        except losses() as error:
            await self._lost(error)
        finally:
            self._receiving = False
        try:
            if message["type"] == "websocket.receive" and (data := message["bytes"]) is not None:
                return data  # type: ignore[no-any-return]
        except (KeyError, TypeError):
            pass
        return await self._receive_otherwise(message, "bytes", "receive bytes")  # type: ignore[no-any-return]

    async def receive_json(self, mode: str = "text", timeout: float | None = None) -> Any:
        """Receive one message and decode it as JSON (RFC 8259; `NaN` and infinities are refused).

        Cancelling it loses no message.

        Args:
            mode: Where the JSON is: `"text"` or `"binary"` messages.
            timeout: Seconds to wait, 0 or more. Default: no limit.

        Returns:
            The decoded value, which may be `None`.

        Raises:
            TimeoutError: No message came in time. The next one is not lost.
            WebSocketDisconnect: The client left.
            WebSocketDataError: A message of the other kind, or one that is not UTF-8, not JSON, nested too
                deeply, or has an integer that is too long. The connection stays usable.
            WebSocketClosed: The connection has ended.
            WebSocketRuntimeError: An invalid mode, not accepted yet, or another receive is in progress.
        """
        if timeout is not None:
            return await _limited(timeout, WebSocket.receive_json, self, mode)
        if _is_binary(mode):
            return self._decode(await self.receive_bytes(), "bytes")
        return self._decode(await self.receive_text(), "text")

    def iter_text(self) -> AsyncIterator[str]:
        """Iterate over text messages until the connection ends.

        Leaving the loop, or cancelling it, loses no message.

        Returns:
            An asynchronous iterator that raises what `receive_text` raises, except that it ends on a
            disconnect; `close_code` and `close_reason` say how the connection ended.
        """
        return _Iterator(self, "text")

    def iter_bytes(self) -> AsyncIterator[bytes]:
        """Iterate over binary messages until the connection ends; see `iter_text`."""
        return _Iterator(self, "bytes")

    def iter_json(self, mode: str = "text") -> AsyncIterator[Any]:
        """Iterate over messages decoded as JSON until the connection ends; see `iter_text`.

        Args:
            mode: Where the JSON is: `"text"` or `"binary"` messages.

        Raises:
            WebSocketRuntimeError: An invalid mode.
        """
        return _JSONIterator(self, "bytes" if _is_binary(mode) else "text")

    # Sending

    async def send(self, message: Message, timeout: float | None = None) -> None:
        """Send one raw ASGI message and update the state.

        The message is checked like the arguments of the other methods. The types of a denial response may
        have the prefix `websocket.` or not. If cancelled, the message counts as sent.

        Args:
            message: An ASGI message. A `websocket.send` has exactly one of `text` and `bytes`.
            timeout: Seconds that the send may take, 0 or more. Default: no limit.

        Raises:
            TypeError: A value in the message is of another type.
            ValueError: A value in the message must not be sent.
            TimeoutError: The client does not read. The message counts as sent, and the connection stays open.
            WebSocketDisconnect: The client is gone.
            WebSocketClosed: The connection has ended. The server is not called.
            WebSocketRuntimeError: The message is not allowed at this point.
        """
        if timeout is not None:
            await _limited(timeout, WebSocket.send, self, message)
            return
        if not isinstance(message, Mapping) or not isinstance(message.get("type"), str):
            raise TypeError(f"an ASGI message must be a mapping with a 'type', got {describe(message)}")
        message_type = message["type"]
        if message_type.startswith(DENIAL):
            message_type = message_type.removeprefix("websocket.")
        more_body = bool(message.get("more_body"))
        after = self._after(message_type, more_body=more_body)
        checked: Message
        if message_type == "websocket.accept":
            subprotocol = message.get("subprotocol")
            if subprotocol is not None:
                subprotocol = self._checked_subprotocol(subprotocol)
            headers = message.get("headers")
            headers = [] if headers is None else checked_headers(headers, of_handshake=True)
            if headers:
                warn_of_dropped_headers(self.scope, headers)
            checked = {**message, "subprotocol": subprotocol, "headers": headers}
        elif message_type == "websocket.send":
            checked = {"type": message_type, **checked_payload(message)}
        elif message_type == "websocket.close":
            code, reason = checked_close(message.get("code", 1000), message.get("reason"))
            checked = {**message, "code": code, "reason": reason}
        elif message_type == "http.response.start":
            headers = message.get("headers")
            checked = {
                "type": f"{DENIAL}.start",
                "status": checked_status(message.get("status")),
                "headers": [] if headers is None else checked_headers(headers, of_handshake=False),
            }
        else:
            body = message.get("body")
            checked = {
                "type": f"{DENIAL}.body",
                "body": b"" if body is None else checked_bytes(body),
                "more_body": more_body,
            }
        await self._deliver(checked, after)
        if message_type == "websocket.accept":
            self.accepted_subprotocol = checked["subprotocol"]

    async def send_text(self, data: str, timeout: float | None = None) -> None:
        """Send one text message.

        If cancelled, the message counts as sent, because it may have gone out.

        Args:
            data: Text that encodes to UTF-8; may be `""`.
            timeout: Seconds that the send may take, 0 or more. Default: no limit.

        Raises:
            TypeError: Not a `str`.
            ValueError: The text has a lone surrogate.
            TimeoutError: The client does not read. The message counts as sent, and the connection stays open.
            WebSocketDisconnect: The client is gone.
            WebSocketClosed: The connection has ended. The server is not called.
            WebSocketRuntimeError: Not accepted yet.

        ASGI spec, "Send - send event".
        """
        if timeout is not None:
            await _limited(timeout, WebSocket.send_text, self, data)
            return
        try:
            if not is_ascii(data):
                data = checked_text(data)
        except TypeError:
            raise TypeError(f"text must be str, got {describe_argument(data)}") from None
        send = self._send_now
        try:
            await send({"type": "websocket.send", "text": data})
            return
        except _NotOpen:
            pass
        except losses() as error:
            await self._lost(error)
        await self._send_otherwise({"type": "websocket.send", "text": data})

    async def send_bytes(self, data: bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """Send one binary message.

        If cancelled, the message counts as sent, because it may have gone out.

        Args:
            data: Any bytes-like object; may be empty. An object other than `bytes` is copied.
            timeout: Seconds that the send may take, 0 or more. Default: no limit.

        Raises:
            TypeError: Not bytes-like.
            TimeoutError: The client does not read. The message counts as sent, and the connection stays open.
            WebSocketDisconnect: The client is gone.
            WebSocketClosed: The connection has ended. The server is not called.
            WebSocketRuntimeError: Not accepted yet.

        ASGI spec, "Send - send event".
        """
        if timeout is not None:
            await _limited(timeout, WebSocket.send_bytes, self, data)
            return
        if type(data) is not bytes:
            data = checked_bytes(data)
        send = self._send_now
        try:
            await send({"type": "websocket.send", "bytes": data})
            return
        except _NotOpen:
            pass
        except losses() as error:
            await self._lost(error)
        await self._send_otherwise({"type": "websocket.send", "bytes": data})

    async def send_json(self, data: Any, mode: str = "text", timeout: float | None = None) -> None:
        """Send one message with compact JSON. Non-ASCII characters are kept, lone surrogates are escaped.

        If cancelled, the message counts as sent, because it may have gone out.

        Args:
            data: A value that `dumps` can encode.
            mode: The kind of message: `"text"` or `"binary"`.
            timeout: Seconds that the send may take, 0 or more. Default: no limit.

        Raises:
            TypeError: The data, or a value in it, has no JSON form.
            ValueError: `NaN`, an infinity, a reference cycle, or nesting too deep.
            TimeoutError: The client does not read. The message counts as sent, and the connection stays open.
            WebSocketDisconnect: The client is gone.
            WebSocketClosed: The connection has ended. The server is not called.
            WebSocketRuntimeError: An invalid mode, or not accepted yet.
        """
        if timeout is not None:
            await _limited(timeout, WebSocket.send_json, self, data, mode)
            return
        binary = _is_binary(mode)
        encoded = encode_json(data, self.dumps)
        if binary:
            await self.send_bytes(encoded.encode() if isinstance(encoded, str) else encoded)
        else:
            await self.send_text(encoded if isinstance(encoded, str) else encoded.decode())

    async def send_prepared(self, message: PreparedMessage, timeout: float | None = None) -> None:
        """Send a message that you send to many connections. It is encoded and checked only once.

        A server with the extension `lilya.websocket.prepared` frames it once for all connections. On other
        servers, this is the same as `send_text` or `send_bytes`.

        If cancelled, the message counts as sent, because it may have gone out.

        Args:
            message: Create it once, with `PreparedMessage("text")` or `PreparedMessage(b"data")`.
            timeout: Seconds that the send may take, 0 or more. Default: no limit.

        Raises:
            TypeError: Not a `PreparedMessage`.
            TimeoutError: The client does not read. The message counts as sent, and the connection stays open.
            WebSocketDisconnect: The client is gone.
            WebSocketClosed: The connection has ended. The server is not called.
            WebSocketRuntimeError: Not accepted yet.
        """
        if timeout is not None:
            await _limited(timeout, WebSocket.send_prepared, self, message)
            return
        if not isinstance(message, PreparedMessage):
            raise TypeError(f"send_prepared takes a PreparedMessage, got {describe_argument(message)}")
        made = message.message_for(self.scope.get("extensions") or ())
        send = self._send_now
        try:
            await send(made)
            return
        except _NotOpen:
            pass
        except losses() as error:
            await self._lost(error)
        await self._send_otherwise(made)

    # Typed messages: `WebSocket[In, Out]` does what is only described here.

    def iter_messages(self, on_error: Literal["raise", "answer", "close"] = "raise") -> AsyncIterator[In]:
        """Iterate over messages, decoded and validated as `In`, until the connection ends.

        Leaving the loop, or cancelling it, loses no message.

        Args:
            on_error: What to do with an invalid message. `"raise"`: raise `WebSocketDataError`; a new loop
                continues with the next message. `"answer"`: tell the client what is wrong, by
                `{"type": "error", "errors": [{"loc": […], "type": "…", "msg": "…"}]}`, and continue.
                `"close"`: close with 1007, which ends the iteration.

        Returns:
            An asynchronous iterator that raises what `receive_message` raises, except that it ends on a
            disconnect; `close_code` and `close_reason` say how the connection ended.

        Raises:
            ValueError: `on_error` has another value.
            WebSocketRuntimeError: This WebSocket has no types.
        """
        raise _untyped("iterate over messages")

    async def receive_message(self, timeout: float | None = None) -> In:
        """Receive one message, decoded and validated as `In`.

        Cancelling it loses no message.

        Args:
            timeout: Seconds to wait, 0 or more. Default: no limit.

        Returns:
            A value of the type `In`, such as an instance of a model.

        Raises:
            TimeoutError: No message came in time. The next one is not lost.
            WebSocketDisconnect: The client left.
            WebSocketDataError: The message is not an `In`; `errors()` says why. The connection stays usable.
            WebSocketClosed: The connection has ended.
            WebSocketRuntimeError: This WebSocket has no types, it is not accepted yet, or another receive is
                in progress.
        """
        raise _untyped("receive a message")

    async def send_message(self, message: Out, timeout: float | None = None) -> None:
        """Send one message, an `Out`.

        If cancelled, the message counts as sent, because it may have gone out.

        Args:
            message: An instance of a model, or another value of the type `Out`.
            timeout: Seconds that the send may take, 0 or more. Default: no limit.

        Raises:
            TypeError: The message is not an `Out`.
            ValueError: A value in it cannot be encoded.
            TimeoutError: The client does not read. The message counts as sent, and the connection stays open.
            WebSocketDisconnect: The client is gone.
            WebSocketClosed: The connection has ended. The server is not called.
            WebSocketRuntimeError: This WebSocket has no types, or it is not accepted yet.
        """
        raise _untyped("send a message")

    async def call(self, request: Out, timeout: float | None = 30.0) -> In:
        """Send a request and wait for its answer.

        The model of the request has a field of the type `CallId`, which `call` fills in. The model of the
        answer has a field of the type `ReplyTo`, in which the client sends the id back. Until the answer
        comes, up to 64 other messages are kept for `iter_messages` and `receive_message`. If this is
        cancelled, a later answer is ignored.

        Args:
            request: An instance of a model with a field of the type `CallId`.
            timeout: Seconds to wait for the answer, 0 or more; `None` for no limit.

        Returns:
            The answer, an `In`.

        Raises:
            TypeError: The request is not an `Out`, or the types have no such fields.
            ValueError: Another call with the id of this request is in progress.
            TimeoutError: No answer came in time. A later answer is dropped.
            WebSocketDisconnect: The client left.
            WebSocketClosed: The connection has ended.
            WebSocketRuntimeError: This WebSocket has no types, it is not accepted yet, or another task
                receives by a method other than `receive_message` or `iter_messages`.
        """
        raise _untyped("call")

    # Ending

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Close the connection. Before `accept`, the client gets HTTP 403 instead.

        This raises nothing if the client has already left, or leaves in the meantime. If cancelled, the close
        counts as sent.

        Args:
            code: A close code that an endpoint may send: 1000-1003, 1007-1014, 3000-4999.
            reason: At most 123 bytes of UTF-8. Default: none.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: A code or a reason that must not be sent. The connection is unchanged.
            WebSocketClosed: The app has already closed the connection.
            WebSocketRuntimeError: A denial response has been started.

        ASGI spec, "Close - send event"; RFC 6455 section 7.4.
        """
        if reason is None and type(code) is int and code == 1000:  # not worth a call
            reason = ""
        else:
            code, reason = checked_close(code, reason)
        send = self._send
        if self._send_now is _no_send:
            # A block's reader may have seen the end before the app has received what came before it.
            left = self._client_state is DISCONNECTED or self._ended is not None
            if left and self._ended not in (_BY_APP, _BY_RESPONSE):
                self._move(DISCONNECTED, DISCONNECTED)
                return
            self._after("websocket.close")
        before = self._application_state
        self._application_state = DISCONNECTED
        self._receive_now = _no_receive
        self._send_now = _no_send
        self._ended = _BY_APP
        self.close_code = code
        self.close_reason = reason
        try:
            await send({"type": "websocket.close", "code": code, "reason": reason})
        except losses():
            self._move(DISCONNECTED, DISCONNECTED)  # the client is gone: the goal is reached
        except Exception:
            self._put_back(DISCONNECTED, before)
            raise
        except BaseException as cancelled:  # counts as sent, so this is the end
            await self._run_cleanups(cancelled)  # and raises it
        if self._cleanups:
            await self._run_cleanups()

    async def deny(
        self,
        status: int = 403,
        content: str | bytes = b"",
        headers: Mapping[Any, Any] | Iterable[tuple[bytes | str, bytes | str]] | None = None,
    ) -> None:
        """Refuse the connection with an HTTP response, or by `close()` if the server cannot send one.

        This raises nothing if the client has already left, or leaves in the meantime. If cancelled, the
        response counts as sent.

        Args:
            status: The status, 200-599. A server without denial responses sends 403 instead.
            content: The body. A `str` is sent as UTF-8, with a `content-type` unless `headers` has one.
            headers: Headers of the response, pairs or a mapping of `bytes` or `str`.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: A status or a header that must not be sent.
            WebSocketClosed: The app has already closed or denied the connection.
            WebSocketRuntimeError: Already accepted, or a denial response has been started.

        ASGI spec, "WebSocket Denial Response".
        """
        status = checked_status(status)
        body = checked_bytes(checked_text(content).encode() if isinstance(content, str) else content)
        fields = [] if headers is None else checked_headers(headers, of_handshake=False)
        names = {name for name, _ in fields}
        if isinstance(content, str) and content and b"content-type" not in names:
            fields.append((b"content-type", b"text/plain; charset=utf-8"))
        if b"content-length" not in names:
            fields.append((b"content-length", str(len(body)).encode()))
        if self._client_state is DISCONNECTED and self._ended not in (_BY_APP, _BY_RESPONSE):
            self._move(DISCONNECTED, DISCONNECTED)
            return
        extensions = self.scope.get("extensions") or ()
        if self._application_state is CONNECTING and DENIAL not in extensions:
            await self.close()
            return
        self._after("http.response.start")
        try:
            await self.send({"type": "http.response.start", "status": status, "headers": fields})
            await self.send({"type": "http.response.body", "body": body})
        except WebSocketDisconnect:
            pass  # gone: the goal is reached

    async def send_denial_response(self, response: ASGIApp) -> None:
        """Refuse the connection with your own HTTP response, instead of `accept`.

        The response is run as an HTTP app. If it does not complete its body, the body is completed for it.

        Args:
            response: An ASGI response of any framework, or any ASGI app that answers an HTTP request with a
                status from 200 to 599.

        Raises:
            WebSocketDisconnect: The client is gone.
            WebSocketClosed: The connection has ended.
            WebSocketRuntimeError: The server does not offer the extension (a `RuntimeError`; use `close()`),
                the connection is already accepted, or the response sent nothing.

        ASGI spec, "WebSocket Denial Response".
        """
        self._after("http.response.start")
        # A response may read more of its scope than ours has (a method, say), so it gets the scope of an
        # HTTP request. No extensions: the denial response has none of those an HTTP response may use.
        scope = {**self._readable_scope(), "type": "http", "method": "GET", "extensions": {}}
        try:
            await response(scope, _DenialRequest(self), self.send)
        except Exception:
            # The client would wait for the rest of a body that never comes. The error comes first.
            if self._application_state is RESPONSE and self._client_state is not DISCONNECTED:
                try:
                    await self._end_denial()
                except Exception:
                    logger.exception("the denial response failed, and could not be ended either")
            raise
        if self._application_state in (CONNECTING, RESPONSE) and self._client_state is DISCONNECTED:
            raise self._disconnect()  # the response saw the client leave, and gave up
        if self._application_state is RESPONSE:
            await self._end_denial()
        elif self._application_state is CONNECTING:
            raise WebSocketRuntimeError(
                "the denial response ended without a response: it sent no http.response.start"
            )

    async def _end_denial(self) -> None:
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    def add_cleanup(self, fn: Callable[[], Any]) -> None:
        """Call a function once when the connection ends, whichever side ends it.

        Callbacks run in the order in which they were added, even if one of them raises. When all have run,
        the first exception is raised, and the other exceptions are logged.

        Args:
            fn: A function without arguments. If it returns an awaitable, that is awaited.

        Raises:
            TypeError: Not callable.
            WebSocketClosed: The connection has already ended.
        """
        if not callable(fn):
            raise TypeError(f"a cleanup must be callable, got {type(fn).__name__}")
        if self._ended is not None and not self._unseen:
            raise self._closed("add a cleanup")
        if self._cleanups is None:
            self._cleanups = []
        self._cleanups.append(fn)

    # For a block, channels and draining

    @property
    def _block(self) -> Conversation[Any] | None:
        """The block that owns the connection now, and has been entered."""
        block = self._conversation
        return block if block is not None and block.is_active and block.source is not None else None

    @property
    def _ended_by_app(self) -> bool:
        """Whether it was the app itself that closed."""
        return self._ended == _BY_APP

    @property
    def _is_receiving(self) -> bool:
        """Whether the app waits for a message, so that it learns of the end there."""
        return self._receiving

    def _check_open(self, attempted: str) -> None:
        """See that messages can be sent.

        Raises:
            WebSocketDisconnect: The conversation has ended.
            WebSocketRuntimeError: It was not accepted.
        """
        if self._open:
            return
        if self._application_state is CONNECTING and self._client_state is not DISCONNECTED:
            raise WebSocketRuntimeError(
                f"cannot {attempted} yet: the WebSocket is not accepted. Call accept() first, or open it by "
                "`async with websocket`"
            )
        if self._application_state is RESPONSE:
            raise WebSocketRuntimeError(
                f"cannot {attempted}: an HTTP response has been started instead of accepting"
            )
        raise self._closed(attempted)

    def _tell_at_end(self, tell: Callable[[], None]) -> None:
        """Have the block, if there is one, call something as soon as the conversation has ended."""
        if self._block is not None:
            self._block.tell_at_end(tell)

    def _tell_no_more(self, tell: Callable[[], None]) -> None:
        """Undo `_tell_at_end`."""
        if self._conversation is not None:
            self._conversation.forget(tell)

    async def _not_sent(self, error: Exception) -> NoReturn:
        """Raise why a message is not sent, by what `_send_now` has raised."""
        if isinstance(error, _NotOpen):
            self._after("websocket.send")
        if isinstance(error, losses()):
            await self._lost(error)
        raise error

    def _use(self, receive: Receive, send: Send, *, over: bool = False) -> None:
        """Use other callables from now on, and neither of them if the conversation is over."""
        self._receive = receive
        self._send = send
        if over:
            self._move(DISCONNECTED, DISCONNECTED)
        else:
            self._move(self._client_state, self._application_state)

    def _learn(self, end: Message | None, ended: str | None = None) -> None:
        """Learn of the end before the app does: it can still receive what came before.

        Args:
            end: Its code and reason; `None` if they are known.
            ended: How it ended, in the words of an exception, if the code does not tell.
        """
        if end is None:
            self._unseen = True
            return
        if self._ended is None:
            self._record_end(end)
            self._ended = ended or self._ended
            self._unseen = True
        self._move(self._client_state, DISCONNECTED)
        if self._client_state is CONNECTED and self._ended not in (_BY_APP, _BY_RESPONSE):
            self._receive_now = self._receive

    def _tell(self, attempted: str | None = None) -> WebSocketDisconnect:
        """The exception by which the app learns of the end: of what it attempted, if it may know already."""
        if attempted is not None:
            return self._closed(attempted)
        self._unseen = False
        return self._disconnect()

    def _is_told_by(self, error: BaseException) -> bool:
        """Whether an exception tells the end of this connection, as far as can be known."""
        if isinstance(error, WebSocketDisconnect):
            block = self._conversation
            return error._origin is (None if block is None else block.token)
        # That of a framework's object: its class does not say of which connection, but the code must be ours.
        return (
            isinstance(error, losses())
            and not isinstance(error, OSError)
            and self.close_code is not None
            and end_of(error)["code"] == self.close_code
        )

    # What is not the common message's way

    def _closed(self, attempted: str) -> WebSocketDisconnect:
        if self._unseen:  # the app does not know of the end: this is how it is told
            self._unseen = False
            return self._disconnect()
        return self._marked(
            self._closed_class(
                1005 if self.close_code is None else self.close_code,
                self.close_reason,
                attempted,
                self._ended or "the conversation has ended",
            )
        )

    def _disconnect(self) -> WebSocketDisconnect:
        return self._marked(
            self._disconnect_class(1005 if self.close_code is None else self.close_code, self.close_reason)
        )

    def _marked(self, error: WebSocketDisconnect) -> WebSocketDisconnect:
        if self._conversation is not None:
            error._origin = self._conversation.token
        return error

    def _checked_subprotocol(self, subprotocol: object) -> str:
        return checked_subprotocol(subprotocol, self.scope.get("subprotocols") or ())

    def _after(self, message_type: str, *, more_body: bool = False) -> WebSocketState:
        """The application's state after a message that is about to be sent.

        Raises:
            WebSocketClosed: Nothing can be sent any longer.
            WebSocketRuntimeError: The message is out of turn, or needs an extension that is not there.
        """
        if self._client_state is DISCONNECTED or self._application_state is DISCONNECTED:
            raise self._closed(_ATTEMPTS.get(message_type, f"send {message_type!r}"))
        after = after_send(self._application_state, message_type, more_body=more_body)
        if after is RESPONSE and DENIAL not in (self.scope.get("extensions") or ()):
            raise WebSocketRuntimeError(
                f"cannot send a denial response: the server does not offer the extension {DENIAL!r}. "
                "close() before accept() gives the client HTTP 403 without it"
            )
        return after

    async def _deliver(self, message: Message, after: WebSocketState) -> None:
        """Hand a message to the server: the state moves first, and back if the server refuses."""
        before = self._application_state
        self._move(self._client_state, after)
        if after is DISCONNECTED:
            # The last part of a denial response has neither a code nor a reason.
            self._record(
                _BY_APP if before is not RESPONSE else _BY_RESPONSE,
                message.get("code"),
                message.get("reason"),
            )
        try:
            await self._send(message)
        except losses() as error:
            if after is DISCONNECTED:
                self._record(None, None, None)  # it did not end that way
            await self._lost(error)
        except Exception:
            self._put_back(after, before)
            raise
        except BaseException as cancelled:
            if after is DISCONNECTED:  # counts as sent, so this is the end
                await self._run_cleanups(cancelled)
            raise
        if after is DISCONNECTED:
            if before is RESPONSE:
                self._move(DISCONNECTED, DISCONNECTED)  # after an HTTP response nothing can come
            await self._run_cleanups()

    async def _relay(self, message: Message) -> None:
        """Send what a framework sends by its own object, as it is; a close after the end is none."""
        message_type = message["type"]
        if message_type.startswith(DENIAL):
            message_type = message_type.removeprefix("websocket.")
        if message_type == "websocket.close" and DISCONNECTED in (
            self._client_state,
            self._application_state,
        ):
            return
        await self._deliver(message, self._after(message_type, more_body=bool(message.get("more_body"))))
        if message_type == "websocket.accept":
            self.accepted_subprotocol = message.get("subprotocol")

    def _put_back(self, after: WebSocketState, before: WebSocketState) -> None:
        """The server refused a message: as if it had not been sent.

        Unless the conversation ended otherwise meanwhile: then there is nothing to go back to.
        """
        if self._application_state is after and self._client_state is not DISCONNECTED:
            self._move(self._client_state, before)
            if after is DISCONNECTED:
                self._record(None, None, None)

    def _record(self, ended: str | None, code: int | None, reason: str | None) -> None:
        self._ended = ended
        self.close_code = code
        self.close_reason = reason

    def _refused_receive(self, attempted: str) -> Exception:
        """What to raise where another task is receiving: the end comes first."""
        if self._receive_now is _no_receive and DISCONNECTED in (self._client_state, self._application_state):
            return self._closed(attempted)
        return _second_receive(attempted)

    async def _prepare_to_receive(self, attempted: str) -> None:
        """Return when messages may be received, although they may not now, or say why not."""
        if DISCONNECTED in (self._client_state, self._application_state):
            raise self._closed(attempted)
        if self._application_state is not CONNECTED:
            raise WebSocketRuntimeError(
                f"cannot {attempted}: an HTTP response has been started instead of accepting"
                if self._application_state is RESPONSE
                else f"cannot {attempted} yet: the WebSocket is not accepted. Call accept() first"
            )
        # Accepted by a raw `send`, with the `websocket.connect` still to come.
        message = await self._next(attempted)
        if message["type"] == "websocket.disconnect":
            raise self._disconnect()
        if not self._open:  # another task has closed, or found the client gone, meanwhile
            raise self._closed(attempted)

    async def _next(self, attempted: str) -> Message:
        """Receive any message, through the table."""
        if self._client_state is DISCONNECTED:
            raise self._closed(attempted)
        if self._receiving:
            raise _second_receive(attempted)
        receive = self._receive
        self._receiving = True
        try:
            message = await receive()
        except losses() as error:
            await self._lost(error)
        finally:
            self._receiving = False
        if self._arrived(message) and self._cleanups:
            await self._run_cleanups()
        return message

    def _arrived(self, message: Message) -> bool:
        """Move the state for a message that came; whether it is the end."""
        try:
            message_type = message["type"]
        except (KeyError, TypeError):
            raise WebSocketRuntimeError(
                f"the server sent what is no ASGI message: {describe(message)}"
            ) from None
        if self._client_state is DISCONNECTED and message_type in _RECEIVABLE:
            return False  # a send found the client gone during this receive: what still comes is legal
        state = after_receive(self._client_state, message_type)
        if state is not self._client_state:
            self._move(state, self._application_state)
        if state is not DISCONNECTED:
            return False
        self._unseen = False
        if self._ended is None:
            self._record_end(message)
        self._inform(message)
        return True

    def _inform(self, end: Message) -> None:
        """Tell the block of an end that the app has found by itself."""
        if (block := self._block) is not None:
            block.learn(end)

    def _record_end(self, message: Message) -> None:
        code, reason = message.get("code"), message.get("reason")
        if not isinstance(code, int):
            code = 1005  # RFC 6455 section 7.1.5
        elif code == 1005 and is_loss(self.scope, message):
            code = 1006
        self._record(_BY.get(code, _BY_CLIENT), code, reason if isinstance(reason, str) else "")

    async def _receive_otherwise(self, message: Message, key: str, attempted: str) -> Any:
        """What the fast path cannot do: receive after all, or say what a message without a payload means."""
        if message is _NOTHING:
            await self._prepare_to_receive(attempted)
            return await (WebSocket.receive_text if key == "text" else WebSocket.receive_bytes)(self)
        if self._arrived(message):
            await self._run_cleanups()
        if message["type"] == "websocket.disconnect":
            raise self._disconnect()
        raise WebSocketDataError(message, f"expected {_EXPECTED[key]}, got {describe(message)}")

    async def _send_otherwise(self, message: Message) -> None:
        """Send although the fast path may not, or raise why that is."""
        await self._deliver(message, self._after("websocket.send"))

    async def _lost(self, error: Exception) -> NoReturn:
        """The server or a framework says by an exception that the client is gone.

        ASGI spec, "Disconnected Client".
        """
        if self._conversation is not None and self._is_told_by(error):
            raise error  # the block's, which has seen to the rest
        self._move(DISCONNECTED, DISCONNECTED)
        self._unseen = False
        if self._ended is None:
            self._record_end(end_of(error))
        self._inform(end_of(error))
        await self._run_cleanups()
        raise self._disconnect() from error

    async def _run_cleanups(self, failure: BaseException | None = None) -> None:
        """Run what was added, once. `failure` is what is being raised already, and counts as the first."""
        # Taken away first: two tasks may notice the end at the same time.
        callbacks, self._cleanups = self._cleanups, None
        for callback in callbacks or ():
            try:
                result = callback()
                if isawaitable(result):
                    await result
            except BaseException as error:
                # The first is raised, but what is more than an error (a cancellation) goes before it.
                if failure is None or (isinstance(failure, Exception) and not isinstance(error, Exception)):
                    failure, error = error, failure
                if error is not None:
                    logger.error("a cleanup failed after another one", exc_info=error)
        if failure is not None:
            raise failure

    def _decode(self, payload: str | bytes, key: str) -> Any:
        message = {"type": "websocket.receive", key: payload}
        if not isinstance(payload, (str, bytes, bytearray, memoryview)):  # a fault of the server
            raise WebSocketDataError(message, f"expected {_EXPECTED[key]}, got {describe(message)}")
        try:
            return self.loads(payload if isinstance(payload, str) else str(payload, "utf-8"))
        except (ValueError, RecursionError) as error:
            problem = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
            raise WebSocketDataError(message, f"expected JSON, got {describe(message)}: {problem}") from error


class _Iterator(Generic[T]):
    """Messages until the connection ends; the same few lines as in `WebSocket.receive_text`."""

    __slots__ = ("_key", "_websocket")

    def __init__(self, websocket: WebSocket, key: str) -> None:
        self._websocket = websocket
        self._key = key

    def __aiter__(self) -> _Iterator[T]:
        return self

    async def __anext__(self) -> T:
        websocket = self._websocket
        try:
            if websocket._receiving:
                raise websocket._refused_receive("iterate")
            receive = websocket._receive_now
            websocket._receiving = True
            try:
                message = await receive()
            except losses() as error:
                await websocket._lost(error)
            finally:
                websocket._receiving = False
            try:
                if message["type"] == "websocket.receive" and (payload := message[self._key]) is not None:
                    return payload  # type: ignore[no-any-return]
            except (KeyError, TypeError):
                pass
            return await websocket._receive_otherwise(message, self._key, "iterate")  # type: ignore[no-any-return]
        except WebSocketDisconnect:
            raise StopAsyncIteration from None


class _JSONIterator(_Iterator[Any]):
    """The same, decoded."""

    __slots__ = ()

    async def __anext__(self) -> Any:
        return self._websocket._decode(await super().__anext__(), self._key)


class _DenialRequest:
    """The `receive` of a denial response: a request without a body, and after that only its disconnect."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._read = False

    async def __call__(self) -> Message:
        if not self._read:
            self._read = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while self._websocket.client_state is not DISCONNECTED:
            await self._websocket.receive()
        return {"type": "http.disconnect"}


class WebSocketClose:
    """An ASGI app that only closes the connection. Before `accept`, the client gets HTTP 403.

    Args:
        code: A close code that an endpoint may send; see `WebSocket.close`.
        reason: At most 123 bytes of UTF-8. Default: none.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: A code or a reason that must not be sent.
    """

    def __init__(self, code: int = 1000, reason: str | None = None) -> None:
        self.code, self.reason = checked_close(code, reason)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "websocket.close", "code": self.code, "reason": self.reason})
        except losses():
            pass  # the client is gone: the goal is reached


class _NotOpen(Exception):
    """From `_no_send` to the method that called it, and no further."""


# What the fast path calls where it must not call the server:


async def _no_send(message: Message) -> None:
    raise _NotOpen


async def _no_receive() -> Message:
    return _NOTHING


_NOTHING: Final[Message] = {"type": "nothing was received"}

# The first object over each connection behind a router, by the ids of its scope and its `receive`.
_FIRST_OVER: Final[WeakValueDictionary[tuple[int, int], WebSocket]] = WeakValueDictionary()
# Who ended it, where the code tells; 1012 is what servers say when they shut down.
_BY: Final = {1006: _BY_NETWORK, 1012: _BY_SHUTDOWN}
_CLOSED_BY: Final[dict[str, Literal["client", "network"]]] = {_BY_CLIENT: "client", _BY_NETWORK: "network"}
# A tuple: whatever a server sends as a type can be looked for in it, what has no hash too.
_RECEIVABLE: Final = tuple({message_type: None for table in RECEIVE.values() for message_type in table})
_EXPECTED: Final = {"text": "text", "bytes": "binary data"}
_ATTEMPTS: Final = {
    "websocket.accept": "accept",
    "websocket.send": "send",
    "websocket.close": "close",
    "http.response.start": "deny",
}


async def _limited(seconds: float, call: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    _, _, limited = _needing_anyio()
    result: T = await limited(seconds, call, *arguments)
    return result


@cache
def _needing_anyio() -> tuple[type[Conversation[Any]], Callable[..., Options], Callable[..., Awaitable[Any]]]:
    from ._conversation import Conversation, limited
    from ._options import checked_options

    return Conversation, checked_options, limited


def _untyped(attempted: str) -> WebSocketRuntimeError:
    return WebSocketRuntimeError(
        f"cannot {attempted}: this WebSocket has no message types. Use WebSocket[In, Out](scope, receive, "
        "send), or WebSocket[In, Out].wrap(websocket) for one that a framework has made"
    )


def _second_receive(attempted: str) -> WebSocketRuntimeError:
    return WebSocketRuntimeError(
        f"cannot {attempted}: another task is already receiving. Receive in one task, and hand the "
        "messages on"
    )


def _is_binary(mode: str) -> bool:
    if mode == "text":
        return False
    if mode == "binary":
        return True
    raise WebSocketRuntimeError(f"the mode must be 'text' or 'binary', got {mode!r}")
