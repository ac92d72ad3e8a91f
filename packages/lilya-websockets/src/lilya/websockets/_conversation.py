"""A block that owns the connection: `async with websocket`. The only module of the core that imports AnyIO.

The rules of this file:

- While the block lasts, one task, the reader, awaits the server's `receive`, and what it gets goes through a
  bounded buffer. `websocket._receive` and `websocket._send` are the methods of this class then, so that the
  paths of `_websocket.py` are the same with a block and without one.
- A server with the extension `lilya.websocket.end` tells the end itself, and keeps what was not received.
  There the app receives from it directly, and there is no reader, unless an option has something to say about
  messages that the app has not received.
- There is one end, the first. `_finish` is the only place that makes it: it puts the end behind the messages
  that came before it, and wakes everybody who waits. From then on nothing can be sent; what is in the buffer
  can still be received.
- What is taken from the buffer is taken without an `await` between the look and the taking, so a cancelled
  receive loses nothing.
- No AnyIO object is made before the block is entered: it belongs to an event loop.
- Whatever is sent while leaving has a limit in time, and is shielded: on a server that shuts down, the task
  is cancelled already.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType, coroutine
from typing import Any, Final, Generic, Protocol, TypeVar, cast
from weakref import proxy

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from ._extensions import END
from ._frameworks import close_of, denial_of, end_of, is_handled, losses
from ._messages import checked_bytes, checked_close, checked_text
from ._servers import is_stop
from ._state import CONNECTED, CONNECTING, DISCONNECTED, RESPONSE, WebSocketState
from .exceptions import WebSocketClosed, WebSocketDisconnect, WebSocketRuntimeError
from .types import Message, Receive, Scope, Send

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["Conversation", "checked_count", "checked_number", "limited", "watch_of"]

T = TypeVar("T")

logger: Final = logging.getLogger("lilya.websockets")

# Sends in a row after which the reader gets a turn, whatever the server does: some servers never wait in a
# send to a client that has gone.
_TURN: Final = 16
# Seconds in which the reader finds out what a failed send means. Servers have the disconnect at hand then.
_GRACE: Final = 0.2
# What may wait for the app, unless it says something else.
MESSAGES, BYTES = 64, 1_048_576


class Owned(Protocol):
    """What is used here of a `WebSocket`; the layers below it don't know the class."""

    scope: Scope
    close_code: int | None
    _ended: str | None
    _receive: Receive
    _send: Send
    _client_state: WebSocketState
    _application_state: WebSocketState
    _receiving: bool
    _unseen: bool
    _conversation: Conversation[Any] | None

    async def accept(self, subprotocol: str | None = None, headers: Any = None) -> None: ...
    async def close(self, code: int = 1000, reason: str | None = None) -> None: ...
    async def deny(self, status: int = 403, content: str | bytes = b"", headers: Any = None) -> None: ...
    def _move(self, client: WebSocketState, application: WebSocketState) -> None: ...
    def _after(self, message_type: str) -> WebSocketState: ...
    def _closed(self, attempted: str) -> WebSocketDisconnect: ...
    def _disconnect(self) -> WebSocketDisconnect: ...
    def _end_unseen(self, end: Message, ended: str | None = None) -> None: ...
    async def _prepare_to_receive(self, attempted: str) -> None: ...
    async def _run_cleanups(self, failure: BaseException | None = None) -> None: ...


W = TypeVar("W", bound=Owned)


class Conversation(Generic[W]):
    """What `WebSocket.open` returns: an asynchronous context manager, and all that a block knows.

    Args:
        websocket: The WebSocket that the block owns.
        subprotocol: See `WebSocket.open`, as all others.
    """

    def __init__(
        self,
        websocket: W,
        subprotocol: str | None,
        headers: Any,
        *,
        cancel_on_disconnect: bool,
        idle_timeout: float | None,
        idle_code: int,
        heartbeat: float | None,
        heartbeat_message: str | bytes,
        heartbeat_timeout: float | None,
        max_message_size: int | None,
        max_messages_per_second: float | None,
        buffer_messages: int,
        buffer_bytes: int,
        close_timeout: float,
    ) -> None:
        if not isinstance(cancel_on_disconnect, bool):
            raise TypeError(f"cancel_on_disconnect must be bool, got {type(cancel_on_disconnect).__name__}")
        self._cancels = cancel_on_disconnect
        self._idle = _checked_period("idle_timeout", idle_timeout)
        self._idle_code, _ = checked_close(idle_code, None)
        self._heartbeat = _checked_period("heartbeat", heartbeat)
        self._heartbeat_message: Message = {"type": "websocket.send"}
        if isinstance(heartbeat_message, str):
            self._heartbeat_message["text"] = checked_text(heartbeat_message)
        else:
            self._heartbeat_message["bytes"] = checked_bytes(heartbeat_message)
        self._heartbeat_timeout = _checked_period("heartbeat_timeout", heartbeat_timeout)
        self._max_size = (
            None if max_message_size is None else checked_count("max_message_size", max_message_size)
        )
        self._rate = _checked_period("max_messages_per_second", max_messages_per_second)
        # Whether anybody asks when a message came. To look at the clock costs as much as the rest of it.
        self._timed = self._idle is not None or self._rate is not None
        self._max_messages = checked_count("buffer_messages", buffer_messages)
        self._max_bytes = checked_count("buffer_bytes", buffer_bytes, least=1)
        self._close_timeout = checked_number("close_timeout", close_timeout)
        # Whether no option is about messages that the app has not received.
        self._unlimited = self._idle is self._heartbeat is self._max_size is self._rate is None and (
            self._max_messages,
            self._max_bytes,
        ) == (MESSAGES, BYTES)
        self._websocket = websocket
        self._accept_with = (subprotocol, headers)
        self.token = object()
        """What the exceptions of this block carry. The socket itself would make reference cycles."""
        self.messages_received = self.bytes_received = self.messages_sent = self.bytes_sent = 0
        self._server_receive: Receive
        self._server_send: Send

    # What most connections never change is on the class: an idle one costs the less.
    active = False
    _used = False
    _done = False  # the end has come
    _direct = False  # the server tells it, and the app receives from the server
    _looking = False  # unless a send that has failed looks for the end there
    _leaving = False
    _raising = False  # and an exception leaves, which the server will see
    _closed_by_app = False
    _left_open = False  # for a handler of exceptions around the block, which closes
    _unyielded = 0  # sends since the event loop had its turn
    _over: anyio.Event | None = None  # somebody waits for the end
    _body: anyio.CancelScope | None = None  # around the body, if the end cancels it
    # Of the reader
    _outside: anyio.CancelScope  # between what is around the block and its tasks
    _group: TaskGroup | None = None  # the tasks; there is a reader if there is a group
    _reading: anyio.CancelScope
    _on_asyncio: bool
    _event: Callable[[], anyio.Event | _FutureEvent]
    # What came and was not received yet, with its size: messages, errors of the server, and the end. Who puts
    # something into it has made one for this connection.
    _buffer: deque[tuple[Any, int]] = deque()  # noqa: RUF012
    _held = 0  # bytes in the buffer
    _paused_at: float | None = None  # the reader waits for room
    _hurried = 0  # who waits for the reader to go on in spite of a full buffer
    _sends: set[Callable[[], None]]  # what stops each that waits
    # A close is under way, and the reader waits for its end.
    _closing: anyio.Event | _FutureEvent | None = None
    _arrival: anyio.Event | _FutureEvent | None = None  # somebody waits for a message
    _room: anyio.Event | None = None  # the reader waits for room
    _answer: anyio.Event | None = None  # the heartbeat waits for any message
    _last = 0.0  # when the last message came
    _tokens = 0.0

    # Entering

    async def __aenter__(self) -> W:
        websocket = self._websocket
        if self._used and not self.active:
            raise WebSocketRuntimeError("cannot open: this block was left before. One connection has one")
        if websocket._conversation is not None and websocket._conversation.active:
            raise WebSocketRuntimeError(
                "cannot open: a block owns this WebSocket already. Use it there, and open it once"
            )
        if DISCONNECTED in (websocket._client_state, websocket._application_state):
            raise websocket._closed("open")
        if websocket._receiving:
            raise WebSocketRuntimeError(
                "cannot open: another task is already receiving. Open first, and receive in the block"
            )
        if websocket._application_state is RESPONSE:
            raise WebSocketRuntimeError("cannot open: an HTTP response has been started instead of accepting")
        if websocket._application_state is CONNECTED and self._accept_with != (None, None):
            raise WebSocketRuntimeError(
                "cannot open with a subprotocol or headers: already accepted, and they are sent by accepting"
            )
        before, websocket._conversation = websocket._conversation, self
        self.active = self._used = True
        try:
            await self._accept()
        except BaseException as error:
            websocket._conversation = before
            self.active = False
            await self._deny_for(error)
            raise
        watch = watch_of(websocket.scope, websocket._receive) if self._unlimited else None
        self._direct = watch is not None
        if not self._direct and not self._done:
            await self._enter_group()
        if self._cancels:
            self._body = anyio.CancelScope()
            self._body.__enter__()
        self._server_receive = websocket._receive
        websocket._receive = self.receive_directly if self._direct else self.receive
        self._server_send, websocket._send = websocket._send, self.send
        websocket._move(websocket._client_state, websocket._application_state)  # it calls these from now on
        if self._done:  # the client left before it was accepted
            self._finish(None)
        elif watch is not None:
            watch(self._told_the_end)
        else:
            self._start()
        return websocket

    async def _enter_group(self) -> None:
        self._outside = anyio.CancelScope()
        self._outside.__enter__()
        group = anyio.create_task_group()
        await group.__aenter__()
        self._group = group
        self._sends = set()

    def _start(self) -> None:
        """Start the tasks of the block."""
        group = cast(TaskGroup, self._group)
        self._on_asyncio = _on_asyncio()
        self._event = _FutureEvent if self._on_asyncio else type(anyio.Event())
        self._reading = anyio.CancelScope()
        self._buffer = deque()
        self._last = anyio.current_time()
        if self._rate is not None:
            self._tokens = max(self._rate, 1.0)
        group.start_soon(self._read)
        if self._idle is not None:
            group.start_soon(self._watch_idle, self._idle)
        if self._heartbeat is not None:
            group.start_soon(self._beat, self._heartbeat)

    async def _accept(self) -> None:
        """Accept, unless it was done, and see that `websocket.connect` was received."""
        websocket = self._websocket
        try:
            if websocket._application_state is CONNECTING:
                await websocket.accept(*self._accept_with)
            elif websocket._client_state is CONNECTING:  # accepted by a raw `send`
                await websocket._prepare_to_receive("open")
        except WebSocketClosed:
            raise  # the app itself has ended it meanwhile
        except WebSocketDisconnect:
            # No fault of the app, and nothing that it has to catch: the block sees the client leave, as if
            # that had been a moment later.
            websocket._unseen = True
            self._done = True

    async def _deny_for(self, error: BaseException) -> None:
        """Refuse as an exception says that was raised before accepting, unless a framework around does so."""
        websocket = self._websocket
        if websocket._application_state is not CONNECTING or is_handled(websocket.scope, error):
            return
        if (denial := denial_of(error)) is not None:
            await websocket.deny(*denial)
        elif close_of(error) is not None:
            await websocket.close()

    # Leaving

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._leaving = True
        failure = exc
        try:
            if isinstance(exc, GeneratorExit):
                self._abandon()
                return False
            try:
                if self._body is not None and self._body.__exit__(exc_type, exc, traceback):
                    failure = None
            except BaseException as rest:
                failure = rest
            if self._group is not None:
                # Not sooner: the scope of the body would take it for its own.
                self._group.cancel_scope.cancel()
                # Not to be interrupted, and it need not be.
                self._outside.shield = True
                try:
                    await self._group.__aexit__(None, None, None)
                except BaseException as error:  # of a task of the block, which has cancelled the body
                    failure = _unwrapped(error)
                self._outside.__exit__(None, None, None)
            failure = await self._close(self._without_the_end(failure))
        finally:
            self._give_back()
        if failure is None:
            return exc is not None
        if failure is exc:
            return False
        context = failure.__context__
        try:
            raise failure
        finally:
            failure.__context__ = context
            del failure, exc, context

    def _abandon(self) -> None:
        """The body's coroutine is thrown away: leave without an `await`; the tasks end by themselves."""
        if self._group is not None:
            self._group.cancel_scope.cancel()
        if self._body is not None:
            self._body.__exit__(None, None, None)
        if self._group is not None:
            self._group.cancel_scope.__exit__(None, None, None)
            self._outside.__exit__(None, None, None)

    async def _close(self, failure: BaseException | None) -> BaseException | None:
        """Close if that has not been done, and run the cleanups; what is to be raised."""
        try:
            if failure is None:
                await self._close_with(1000)
            elif _has_error(failure):
                self._raising = True
                await self._close_for(failure)
            else:
                # Whoever stops the task has limited patience, and the cleanups have a part of it.
                with anyio.move_on_after(2 * self._close_timeout, shield=True):
                    await self._close_with(1012 if is_stop(failure, self._server_send) else 1011)
        except BaseException as error:
            if failure is None or not isinstance(error, Exception):
                return error
            logger.error("a cleanup failed while an exception left the block", exc_info=error)
        return failure

    async def _close_for(self, failure: BaseException) -> None:
        """Close as the exception says, or leave that to the framework around that handles it."""
        websocket = self._websocket
        close = close_of(failure)
        if close is None:
            await self._close_with(1011)
        elif not is_handled(websocket.scope, failure):
            await self._close_with(*close)
        else:
            self._left_open = not self._done
            await websocket._run_cleanups()

    async def _close_with(self, code: int, reason: str | None = None) -> None:
        websocket = self._websocket
        if websocket._application_state is CONNECTED and websocket._client_state is CONNECTED:
            await websocket.close(code, reason)
        await websocket._run_cleanups()

    def _give_back(self) -> None:
        websocket = self._websocket
        websocket._receive, websocket._send = self._server_receive, self._server_send
        self.active = False
        if websocket._ended is None and not self._left_open:  # nothing was sent, and nothing will be
            websocket._end_unseen({"code": 1006})
        self._done = True
        if self._over is not None:
            self._over.set()
        if self._group is not None:
            self._buffer.clear()  # what was not received until now is dropped
            # A task that outlives the block and still waits here is told, too.
            self._put({"type": "websocket.disconnect", "code": websocket.close_code}, 0)
        if self._left_open:
            websocket._move(websocket._client_state, websocket._application_state)
        else:
            websocket._move(DISCONNECTED, DISCONNECTED)
        # Its reference to this object stays: it is asked for the counts. A cycle of the two would keep the
        # server's side of the connection until the garbage collector comes.
        self._websocket = proxy(websocket)

    def _without_the_end(self, failure: BaseException | None) -> BaseException | None:
        """What remains of an exception without the news that this conversation has ended."""
        if isinstance(failure, BaseExceptionGroup):
            # A bound method is not taken before Python 3.13.
            ends, others = failure.split(lambda error: self._tells_the_end(error))
            rest: BaseException | None = failure if ends is None else others
            return rest
        return None if failure is None or self._tells_the_end(failure) else failure

    def _tells_the_end(self, error: BaseException) -> bool:
        return (
            isinstance(error, WebSocketDisconnect)
            and error._origin is self.token
            # Used after a `close()` of one's own: that is a bug, and no end that came by surprise.
            and not (isinstance(error, WebSocketClosed) and self._closed_by_app)
        )

    # The reader

    async def _read(self) -> None:
        """Receive from the server, except while a close is under way: granian closes when nobody receives."""
        while not self._done:
            if self._closing is not None:
                await self._closing.wait()
                continue
            with anyio.CancelScope() as self._reading:
                await self._receive_all()

    async def _receive_all(self) -> None:
        """Receive until the end, as long as there is room."""
        receive = self._server_receive
        while not self._done:
            if self._full():
                await self._wait_for_room()
            try:
                message = await receive()
            except losses() as error:
                if not self._done:
                    self._websocket._end_unseen(end_of(error))
                    self._finish(error)
                return
            except Exception as error:
                # The app is told in its turn. The server is asked again when it was, as without a block.
                self._put(error, 0)
                await self._wait_for_room(empty=True)
                continue
            if self._done:
                return
            message_type = _type_of(message)
            if message_type == "websocket.receive":
                if self._unlimited:
                    self._put(message, self._counted(message))
                else:
                    await self._arrived(message)
            elif message_type == "websocket.disconnect":
                self._websocket._end_unseen(message)
                self._finish(message)
            else:
                self._put(message, 0)

    async def _arrived(self, message: Message) -> None:
        size = self._counted(message)
        elapsed = self._elapsed() if self._timed else 0.0
        if self._answer is not None:
            self._answer.set()
        if self._max_size is not None and size > self._max_size:
            await self._enforce(1009, "message too big", f"a message had more than {self._max_size} bytes")
            return
        if self._rate is not None:
            full = max(self._rate, 1.0)
            if self._tokens < full:
                self._tokens = min(full, self._tokens + elapsed * self._rate)
            if self._tokens < 1.0:
                await self._enforce(
                    1008, "too many messages", f"the client sent more than {self._rate:g} messages per second"
                )
                return
            self._tokens -= 1.0
        if self._max_messages:
            self._put(message, size)
        else:
            await anyio.lowlevel.checkpoint()  # nothing else may make the reader wait

    def _counted(self, message: Message) -> int:
        size = _size(message)
        self.messages_received += 1
        self.bytes_received += size
        return size

    def _elapsed(self) -> float:
        """Seconds since the last message, as this one comes."""
        before, self._last = self._last, anyio.current_time()
        return self._last - before

    def _put(self, item: Any, size: int) -> None:
        self._buffer.append((item, size))
        self._held += size
        if self._arrival is not None:
            self._arrival.set()

    def _full(self) -> bool:
        return (
            (len(self._buffer) >= self._max_messages or self._held >= self._max_bytes)
            and self._max_messages > 0
            and not self._hurried
        )

    async def _wait_for_room(self, *, empty: bool = False) -> None:
        self._paused_at = anyio.current_time()
        try:
            while self._full() or (empty and self._buffer):
                self._room = anyio.Event()
                await self._room.wait()
        finally:
            now = anyio.current_time()
            if self._rate is not None:
                # What came meanwhile is read in one go. It was not sent in one.
                self._tokens += (now - self._paused_at) * self._rate
            self._last = now  # the silence was ours
            self._paused_at = None

    # The app's side

    async def receive(self) -> Message:
        """The next message, in order; in place of the server's `receive`. Cancelling it loses none."""
        while not self._buffer:
            arrival = self._arrival = self._event()
            await arrival.wait()
            self._unyielded = 0
        item, size = self._buffer.popleft()
        self._held -= size
        if self._room is not None:
            self._room.set()
        if isinstance(item, BaseException):
            raise item
        return item  # type: ignore[no-any-return]

    async def receive_directly(self) -> Message:
        """The same, where the server tells the end."""
        while self._looking and not self._buffer:  # else messages would overtake one another
            arrival = self._arrival = anyio.Event()
            await arrival.wait()
        if self._buffer:  # what was found before the end when a send had failed
            return await self.receive()
        try:
            message = await self._server_receive()
        except losses() as error:
            self._told_the_end(end_of(error))
            raise
        try:
            if message["type"] == "websocket.receive":
                self._unyielded = 0  # it has waited, or will when it has taken what the server keeps
                self.messages_received += 1
                self.bytes_received += _size(message)
            elif message["type"] == "websocket.disconnect":
                self._told_the_end(message)  # middleware may make one, of which the server knows nothing
        except (KeyError, TypeError):
            pass  # for the app's receive to refuse
        return message

    async def send(self, message: Message) -> None:
        """Send, or find that the conversation is over; in place of the server's `send`."""
        if message["type"] == "websocket.close":
            await self._send_close(message)
            return
        self._unyielded += 1
        if self._unyielded >= _TURN:
            self._unyielded = 0
            await anyio.lowlevel.checkpoint()
            if self._done:
                raise self._told()
        try:
            if self._direct:  # it releases a send that waits at the end, too
                await self._server_send(message)
            elif not self._on_asyncio:
                if not await self._hand_over(message):
                    raise self._told()
            else:
                # Most sends wait for nothing. Only those that do need to be stopped by the end.
                sending = self._server_send(message).__await__()
                try:
                    awaited = next(sending)
                except StopIteration:
                    pass
                else:
                    if not await self._wait_to_send(sending, awaited):
                        raise self._told()
        except Exception as error:
            if await self._is_over(error):
                raise self._told() from error
            raise
        self.messages_sent += 1
        self.bytes_sent += _size(message)

    async def _wait_to_send(self, sending: Generator[Any, Any, Any], awaited: Any) -> bool:
        """Wait for a send that has begun; whether it has ended before the conversation did."""
        wait = _Wait()
        self._sends.add(wait.stop)
        try:
            return await wait.rest_of(sending, awaited)
        finally:
            self._sends.discard(wait.stop)

    async def _hand_over(self, message: Message) -> bool:
        """Hand the server a message; whether that was done before the end."""
        with anyio.CancelScope() as scope:
            self._sends.add(scope.cancel)
            try:
                await self._server_send(message)
            finally:
                self._sends.discard(scope.cancel)
        return not scope.cancelled_caught

    async def _send_close(self, message: Message) -> None:
        self._closed_by_app = not self._leaving
        closing = None
        if self._group is not None:
            closing = self._closing = self._event()
            self._reading.cancel()
        try:
            if self._direct and owner(self._server_send) is owner(self._server_receive):
                await self._have_closed(message)  # there it waits for nothing
            else:
                with anyio.move_on_after(self._close_timeout, shield=self._leaving):
                    await self._have_closed(message)
        except Exception as error:
            if closing is not None:  # it may be asked for messages again, and for the reason
                self._closing = None
                closing.set()
            if not (isinstance(error, losses()) or await self._is_over(error)):
                if not self._leaving:
                    self._closed_by_app = False
                    raise
                logger.warning("the server refused to close", exc_info=error)
            elif not self._leaving:
                self._finish_own(message)
                raise ConnectionError("the client has left") from error
        except BaseException:  # counts as sent
            self._finish_own(message)
            raise
        self._finish_own(message)

    async def _have_closed(self, message: Message) -> None:
        """Have the server close: with 1000 if it refuses the code, so that nobody stays connected."""
        try:
            await self._server_send(message)
        except losses():
            raise
        except Exception as error:
            # daphne sends 1000 and 3000-4999 only, and 1011 by itself when an exception reaches it.
            if message["code"] == 1000 or (self._raising and message["code"] == 1011):
                raise
            logger.debug("the server refused to close with %d", message["code"], exc_info=error)
            try:
                await self._server_send({**message, "code": 1000})
            except Exception:
                raise error from None

    def _finish_own(self, message: Message) -> None:
        if not self._done:
            self._finish({**message, "type": "websocket.disconnect"})

    def _told(self) -> WebSocketDisconnect:
        self._websocket._unseen = False
        return self._websocket._disconnect()

    async def _is_over(self, error: Exception) -> bool:
        """Whether a server's error at a send means that the conversation is over."""
        if not self._done and not self._leaving:
            # The true code lies in the server's `receive`, behind what came before.
            self._hurried += 1
            if self._room is not None:
                self._room.set()
            try:
                with anyio.move_on_after(_GRACE):
                    if (
                        self._direct
                        and isinstance(error, losses())
                        # Whoever receives already comes to the end, too.
                        and not (self._looking or self._websocket._receiving)
                    ):
                        await self._receive_until_told()
                    else:
                        await self.wait_disconnected()
            finally:
                self._hurried -= 1
                if not self._done and isinstance(error, losses()):
                    self._websocket._end_unseen(end_of(error))
                    self._finish(error)
        return self._done

    async def _receive_until_told(self) -> None:
        """Receive what the server keeps before the end: it tells the end when it comes to it."""
        self._buffer = deque()
        self._looking = True
        try:
            while not self._done:
                message = await self._server_receive()
                message_type = _type_of(message)
                self._put(message, self._counted(message) if message_type == "websocket.receive" else 0)
                if message_type == "websocket.disconnect":
                    self._told_the_end(message)
        except losses():
            pass  # that it is over is known
        except Exception as error:  # the app is told in its turn, as by the reader
            self._put(error, 0)
        finally:
            self._looking = False
            if self._arrival is not None:
                self._arrival.set()

    async def wait_disconnected(self) -> None:
        """Wait until the conversation has ended."""
        if self._done:
            await anyio.lowlevel.checkpoint()
            return
        if self._over is None:
            self._over = anyio.Event()
        await self._over.wait()

    # The end

    def _told_the_end(self, end: Message) -> None:
        """The server tells it. Its `receive` does so, too, after what came before."""
        if not self._done:
            self._websocket._end_unseen(end)
            self._finish(None)

    def _finish(self, end: Message | Exception | None) -> None:
        """The end, once: what is received last, and nothing more is sent."""
        self._done = True
        if end is not None and not self._direct:
            self._put(end, 0)
        if self._over is not None:
            self._over.set()
        if self._group is not None:
            for stop in self._sends:
                stop()
        if self._cancels and self._body is not None and not self._closed_by_app and not self._leaving:
            self._body.cancel()

    async def shut_down(self, code: int, reason: str, seconds: float) -> bool:
        """End the conversation because the server shuts down; whether the client was told in time."""
        return await self._enforce(code, reason, "the server shut down", seconds)

    async def _enforce(self, code: int, reason: str, ended: str, seconds: float = math.inf) -> bool:
        """End the conversation, as the options say; whether it has ended, and the client was told."""
        if self._done or self._websocket._application_state is not CONNECTED:
            return True
        self._websocket._end_unseen({"code": code, "reason": reason}, ended)
        self._finish({"type": "websocket.disconnect", "code": code, "reason": reason})
        if self._group is not None:
            self._reading.cancel()  # as for a close by the app; in the reader itself the shield holds it off
        try:
            # Shielded, because the body may leave at once, and that ends this task.
            with anyio.move_on_after(min(self._close_timeout, seconds), shield=True) as limit:
                await self._have_closed({"type": "websocket.close", "code": code, "reason": reason})
        except Exception as error:
            logger.debug("the server refused to close", exc_info=error)
            return False
        return not limit.cancelled_caught

    async def _watch_idle(self, seconds: float) -> None:
        while not self._done:
            # While the reader waits for the app, the silence is the app's.
            last = anyio.current_time() if self._paused_at is not None else self._last
            if last + seconds > anyio.current_time():
                await anyio.sleep_until(last + seconds)
                continue
            await self._enforce(self._idle_code, "idle", f"the client sent nothing for {seconds:g} seconds")
            if not self._done:  # the app is closing, and the server may refuse
                await anyio.sleep(_GRACE)

    async def _beat(self, seconds: float) -> None:
        limit = self._heartbeat_timeout or seconds
        due = self._last + seconds
        while True:
            await anyio.sleep_until(due)
            if self._done:
                return
            due = anyio.current_time() + seconds
            answer = self._answer = anyio.Event()
            # The limit holds for the sending, too: who does not read does not answer.
            with anyio.move_on_after(limit):
                try:
                    await self._server_send(dict(self._heartbeat_message))
                    self.messages_sent += 1
                    self.bytes_sent += _size(self._heartbeat_message)
                except Exception as error:
                    if not await self._is_over(error):  # then the silence will tell
                        logger.debug("the server refused a heartbeat", exc_info=error)
                await answer.wait()
            self._answer = None
            # While the reader waits for the app, there may be an answer that it has not read.
            if not answer.is_set() and self._paused_at is None:
                await self._enforce(
                    1011, "no answer", f"the client did not answer a heartbeat in {limit:g} seconds"
                )


class _FutureEvent:
    """What is used here of an AnyIO event, for one task that waits: on asyncio, half of what a message costs
    in a block would be to make an event for it."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[None] = asyncio.Future()

    def set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def wait(self) -> Awaitable[None]:
        return self._future


def _on_asyncio() -> bool:
    try:
        return asyncio.current_task() is not None  # trio may run as a guest of asyncio's loop
    except RuntimeError:
        return False


class _Wait:
    """A send that was begun by hand, on asyncio, and has to wait: the rest of it, which can be stopped.

    A scope around every send would be most of what one costs that waits for nothing. Here it is around each
    wait: the send may have entered scopes of its own by then, and scopes are left in the reverse order.
    """

    __slots__ = ("_scope", "_stopped")

    def __init__(self) -> None:
        self._stopped = False
        self._scope: anyio.CancelScope

    def stop(self) -> None:
        self._stopped = True
        self._scope.cancel()

    @coroutine
    def rest_of(self, begun: Generator[Any, Any, Any], awaited: Any) -> Generator[Any, Any, bool]:
        """What `yield from` does (PEP 380); whether it was done, and not stopped."""
        stopped = False
        while True:
            answer = error = None
            scope = self._scope = anyio.CancelScope()
            if self._stopped:
                scope.cancel()
            try:
                with scope:
                    try:
                        answer = yield awaited
                    except BaseException as thrown:
                        error = thrown
                        raise
            except BaseException as thrown:
                if isinstance(error, GeneratorExit):  # thrown away, whatever the scope says to it
                    if hasattr(begun, "close"):
                        begun.close()
                    raise
                error = thrown
            if scope.cancelled_caught:
                stopped = True
            elif isinstance(error, asyncio.CancelledError):
                stopped = False  # somebody else wants it to end, and more than that
            try:
                if error is None:
                    awaited = next(begun) if answer is None else begun.send(answer)
                elif hasattr(begun, "throw"):
                    awaited = begun.throw(error)
                else:  # an iterator and no more, as granian's
                    raise error
            except StopIteration:
                return True
            except BaseException as raised:
                if stopped and isinstance(raised, asyncio.CancelledError):
                    return False
                raise
            finally:
                del error


async def limited(seconds: float, call: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Call and await, for so many seconds at most.

    Raises:
        TypeError: The seconds are no number.
        ValueError: They are negative, or no number at all.
        TimeoutError: It takes longer; it was cancelled.
    """
    seconds = checked_number("timeout", seconds, least=0.0)
    with anyio.move_on_after(seconds):
        return await call(*arguments)
    raise TimeoutError(f"{call.__name__} took longer than {seconds:g} seconds")


# Arguments


def checked_number(name: str, value: object, *, least: float | None = None) -> float:
    """A number above zero, or not below `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    # NaN compares with nothing.
    if not (value > 0 if least is None else value >= least):
        raise ValueError(f"{name} must be {'above' if least is None else 'at least'} 0, got {value!r}")
    return min(value, sys.float_info.max)  # there are larger integers, which no clock takes


def _checked_period(name: str, value: float | None) -> float | None:
    return None if value is None else checked_number(name, value)


def checked_count(name: str, value: object, *, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


def owner(method: object) -> object:
    return getattr(method, "__self__", None)


def watch_of(scope: Scope, receive: Receive) -> Callable[[Callable[[Message], object]], object] | None:
    """Where the server tells the end, if it is the end of the conversation that is received from."""
    extension = (scope.get("extensions") or {}).get(END)
    if extension is None:
        return None
    # By identity: middleware that hands on a `receive` of its own may make another end of it.
    watch: Any = extension["watch"]
    return watch if owner(watch) is not None and owner(watch) is owner(receive) else None


def _type_of(message: Message) -> Any:
    """What a server calls it. What is no message has no type, and is for the app's receive to refuse."""
    try:
        return message["type"]
    except (KeyError, TypeError):
        return None


def _size(message: Message) -> int:
    """The bytes of a message's payload, text as UTF-8."""
    text = message.get("text")
    if isinstance(text, str):
        return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    data = message.get("bytes")
    return len(data) if isinstance(data, (bytes, bytearray, memoryview)) else 0


def _has_error(failure: BaseException | None) -> bool:
    """Whether an exception is, or holds, more than a cancellation or an interrupt."""
    if isinstance(failure, BaseExceptionGroup):
        return failure.subgroup(Exception) is not None
    return isinstance(failure, Exception)


def _unwrapped(error: BaseException) -> BaseException:
    """The first failure of a task of this block; a group of them would say nothing more."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
