"""A block that owns the connection: `async with websocket`.

The rules of this file:

- The life of a block is a table, `LIFE`, like those of `_state.py`: pure, and tested without an event loop.
- While the block lasts, `websocket._receive` and `websocket._send` are methods of its source, so that the
  paths of `_websocket.py` are the same with a block and without one. There are two sources, and which one it
  is, is asked once: `Reader`, a task that receives ahead of the app, and `Direct`, where the server tells the
  end itself and no option is about messages that the app has not received.
- There is one end, the first. `_end` is the only place that makes it: it puts the end behind the messages
  that came before it, and wakes everybody who waits. From then on nothing can be sent; what waits can still
  be received.
- No AnyIO object is made before the block is entered: it belongs to an event loop.
- Whatever is sent while leaving has a limit in time, and is shielded: on a server that shuts down, the task
  is cancelled already.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Awaitable, Callable
from enum import IntEnum
from types import TracebackType
from typing import Any, Final, Generic, Protocol, TypeVar, cast
from weakref import proxy

import anyio
import anyio.lowlevel

from ._direct import Direct
from ._extensions import counting_of
from ._frameworks import close_of, denial_of, end_of, is_handled, losses
from ._inbox import Breach
from ._options import DEFAULTS, Options, checked_number
from ._reader import Reader
from ._servers import is_stop
from ._state import CONNECTED, CONNECTING, DISCONNECTED, RESPONSE
from .exceptions import WebSocketClosed, WebSocketDisconnect, WebSocketRuntimeError
from .types import Message, Receive, Scope, Send

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = [
    "LIFE",
    "BlockState",
    "Conversation",
    "after",
    "limited",
]

T = TypeVar("T")

logger: Final = logging.getLogger("lilya.websockets")


# The life of a block


class BlockState(IntEnum):
    """Where a block stands. From `OVER` on its conversation has ended."""

    NEW = 0
    """Made, and not entered."""
    OPEN = 1
    """Entered. The conversation goes on."""
    LEAVING = 2
    """The body has ended before the conversation did, and it is being closed."""
    HANDED_ON = 3
    """The body has ended by an exception for which somebody around the block closes."""
    OVER = 4
    """The conversation has ended before the body did."""
    OVER_LEAVING = 5
    """Both have ended. What was acquired is being cleaned up."""
    LEFT = 6
    """The callables of the server are its own again."""

    # An enum's own hash is a Python function; the table is looked up at every step.
    __hash__ = int.__hash__


NEW: Final = BlockState.NEW
OPEN: Final = BlockState.OPEN
LEAVING: Final = BlockState.LEAVING
HANDED_ON: Final = BlockState.HANDED_ON
OVER: Final = BlockState.OVER
OVER_LEAVING: Final = BlockState.OVER_LEAVING
LEFT: Final = BlockState.LEFT

LIFE: Final[dict[BlockState, dict[str, BlockState]]] = {
    NEW: {"enter": OPEN},
    OPEN: {"refuse": NEW, "end": OVER, "leave": LEAVING},
    LEAVING: {"end": OVER_LEAVING, "hand on": HANDED_ON, "give back": LEFT},
    HANDED_ON: {"end": OVER_LEAVING, "give back": LEFT},
    OVER: {"leave": OVER_LEAVING},
    OVER_LEAVING: {"give back": LEFT},
    LEFT: {},
}
"""What may happen to a block in a state, and the state after it. There is one end, and one way out."""


def after(state: BlockState, event: str) -> BlockState:
    """The state of a block after something has happened to it.

    Raises:
        WebSocketRuntimeError: It must not happen in this state.
    """
    try:
        return LIFE[state][event]
    except KeyError:
        raise WebSocketRuntimeError(f"a block in state {state.name} cannot {event}") from None


class Owned(Protocol):
    """What is used here of a `WebSocket`; the layers below it don't know the class."""

    scope: Scope
    close_code: int | None
    client_state: Any
    application_state: Any
    _conversation: Conversation[Any] | None
    _receiving: bool
    _receive: Receive
    _send: Send

    async def accept(self, subprotocol: str | None = None, headers: Any = None) -> None: ...
    async def close(self, code: int = 1000, reason: str | None = None) -> None: ...
    async def deny(self, status: int = 403, content: str | bytes = b"", headers: Any = None) -> None: ...
    def _use(self, receive: Receive, send: Send, *, over: bool = False) -> None: ...
    def _learn(self, end: Message | None, ended: str | None = None) -> None: ...
    def _tell(self, attempted: str | None = None) -> WebSocketDisconnect: ...
    def _is_told_by(self, error: BaseException) -> bool: ...
    @property
    def _ended_by_app(self) -> bool: ...
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
        subprotocol: str | None = None,
        headers: Any = None,
        options: Options = DEFAULTS,
    ) -> None:
        self._options = options
        self._websocket = websocket
        self._server: tuple[Receive, Send]
        self._accept_with = (subprotocol, headers)
        self.token = object()
        """What the exceptions of this block carry. The socket itself would make reference cycles."""

    # What most connections never change is on the class: an idle one costs the less.
    _state = NEW
    _source: Reader | Direct | None = None
    _raises = False  # an exception leaves the block, and the server will see it
    _over: anyio.Event | None = None  # somebody waits for the end
    _told: dict[Callable[[], None], None] | None = None  # who is told of the end at once
    _body: anyio.CancelScope | None = None  # around the body, if the end cancels it

    @property
    def is_active(self) -> bool:
        """Whether the block owns the connection now."""
        return NEW < self._state < LEFT

    @property
    def is_over(self) -> bool:
        """Whether the conversation has ended."""
        return self._state >= OVER

    @property
    def is_receiving(self) -> bool:
        """Whether the app receives, in another task."""
        return self._websocket._receiving

    @property
    def source(self) -> Reader | Direct | None:
        """Where messages come from, and what is counted; `None` before the block is entered."""
        return self._source

    def _step(self, event: str) -> None:
        self._state = after(self._state, event)

    # Entering

    async def __aenter__(self) -> W:
        websocket = self._websocket
        if self._state is LEFT:
            raise WebSocketRuntimeError("cannot open: this block was left before. One connection has one")
        if websocket._conversation is not None and websocket._conversation.is_active:
            raise WebSocketRuntimeError(
                "cannot open: a block owns this WebSocket already. Use it there, and open it once"
            )
        if DISCONNECTED in (websocket.client_state, websocket.application_state):
            raise websocket._tell("open")
        if websocket._receiving:
            raise WebSocketRuntimeError(
                "cannot open: another task is already receiving. Open first, and receive in the block"
            )
        if websocket.application_state is RESPONSE:
            raise WebSocketRuntimeError("cannot open: an HTTP response has been started instead of accepting")
        if websocket.application_state is CONNECTED and self._accept_with != (None, None):
            raise WebSocketRuntimeError(
                "cannot open with a subprotocol or headers: already accepted, and they are sent by accepting"
            )
        before, websocket._conversation = websocket._conversation, self
        self._step("enter")
        try:
            left = await self._accept()
        except BaseException as error:
            websocket._conversation = before
            self._step("refuse")
            await self._deny_for(error)
            raise
        receive, send = self._server = websocket._receive, websocket._send
        options = self._options
        limited = options is not DEFAULTS and options.need_reader
        server: Any = None if limited else counting_of(websocket.scope, receive, send)
        if left or server is not None:
            self._source = Direct(proxy(self), receive, send)
        else:
            self._source = Reader(proxy(self), receive, send, options)
            await self._source.enter()
        if options.cancels:
            self._body = anyio.CancelScope()
            self._body.__enter__()
        websocket._use(self._source.receive, self._source.send)
        if left:
            self._end(None)
        else:
            self._source.start(server)
        return websocket

    async def _accept(self) -> bool:
        """Accept, unless it was done, and see that `websocket.connect` was received; whether the client left.

        That is no fault of the app, and nothing that it has to catch: the block sees the client leave, as if
        that had been a moment later.
        """
        websocket = self._websocket
        try:
            if websocket.application_state is CONNECTING:
                await websocket.accept(*self._accept_with)
            elif websocket.client_state is CONNECTING:  # accepted by a raw `send`
                await websocket._prepare_to_receive("open")
        except WebSocketClosed:
            raise  # the app itself has ended it meanwhile
        except WebSocketDisconnect:
            websocket._learn(None)
            return True
        return False

    async def _deny_for(self, error: BaseException) -> None:
        """Refuse as an exception says that was raised before accepting, unless a framework around does so."""
        websocket = self._websocket
        if websocket.application_state is not CONNECTING or is_handled(websocket.scope, error):
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
        source = cast("Reader | Direct", self._source)
        failure = exc
        self._step("leave")
        try:
            if isinstance(exc, GeneratorExit):  # the body's coroutine is thrown away: nothing can be awaited
                source.abandon(self._body)
                return False
            try:
                if self._body is not None and self._body.__exit__(exc_type, exc, traceback):
                    failure = None
            except BaseException as rest:
                failure = rest
            try:
                await source.leave()
            except BaseException as error:  # of a task of the block, which has cancelled the body
                failure = _unwrapped(error)
            failure = await self._close(self._without_the_end(failure))
        finally:
            self._give_back(source)
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

    async def _close(self, failure: BaseException | None) -> BaseException | None:
        """Close the connection if it is still open, and run the cleanups. Return what to raise."""
        try:
            if failure is None:
                await self._close_with(1000)
            elif _has_error(failure):
                self._raises = True
                await self._close_for(failure)
            else:
                # The task is being stopped, and a stop has a time limit. The cleanups get part of that time.
                with anyio.move_on_after(2 * self._options.close_timeout, shield=True):
                    await self._close_with(1012 if is_stop(failure, self._server[1]) else 1011)
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
            if not self.is_over:
                self._step("hand on")
            await websocket._run_cleanups()

    async def _close_with(self, code: int, reason: str | None = None) -> None:
        websocket = self._websocket
        if websocket.application_state is CONNECTED and websocket.client_state is CONNECTED:
            await websocket.close(code, reason)
        await websocket._run_cleanups()

    def _give_back(self, source: Reader | Direct) -> None:
        websocket = self._websocket
        over = self._state is not HANDED_ON
        if over and websocket.close_code is None:  # nothing was sent, and nothing will be
            websocket._learn({"code": 1006})
        self._step("give back")
        websocket._use(*self._server, over=over)
        source.give_back(websocket.close_code, over=over)
        if self._over is not None:
            self._over.set()
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
            self._websocket._is_told_by(error)
            # Used after a `close()` of one's own: that is a bug, and no end that came by surprise.
            and not (isinstance(error, WebSocketClosed) and self._websocket._ended_by_app)
        )

    # The end

    def learn(self, end: Message, item: object = None, ended: str | None = None) -> None:
        """The end has come, and not by the app.

        Args:
            end: Its code and reason.
            item: What the app receives last: a message or an exception.
            ended: How it ended, in the words of an exception, if the code does not tell.
        """
        if not self.is_over:
            self._websocket._learn(end, ended)
            self._end(item)

    def _end(self, item: object) -> None:
        """The end, once: what is received last, and nothing more is sent."""
        self._step("end")
        cast("Reader | Direct", self._source).end(item)
        if self._over is not None:
            self._over.set()
        # Once the body has been left, its scope cancels nothing.
        if self._body is not None and not self._websocket._ended_by_app:
            self._body.cancel()
        told, self._told = self._told, None
        for tell in told or ():
            tell()

    def receive_by(self, receive: Receive) -> None:
        """Have the app receive in another way from now on."""
        self._websocket._use(receive, self._websocket._send)

    def tell_at_end(self, tell: Callable[[], None]) -> None:
        """Have something called as soon as the conversation has ended. It must neither wait nor raise."""
        if self.is_over:
            tell()
            return
        if self._told is None:
            self._told = {}
        self._told[tell] = None

    def forget(self, tell: Callable[[], None]) -> None:
        """Undo `tell_at_end`."""
        if self._told is not None:
            self._told.pop(tell, None)

    def tell(self) -> WebSocketDisconnect:
        """What a send raises because of the end."""
        return self._websocket._tell()

    async def wait_disconnected(self) -> None:
        """Wait until the conversation has ended."""
        if self.is_over:
            await anyio.lowlevel.checkpoint()
            return
        if self._over is None:
            self._over = anyio.Event()
        await self._over.wait()

    async def has_ended(self, error: Exception) -> bool:
        """Whether a server's error at a send means that the conversation is over."""
        if self._state is OPEN:
            try:
                await cast("Reader | Direct", self._source).find_end(error)
            finally:
                if isinstance(error, losses()):
                    self.learn(end_of(error), error)
        return self.is_over

    # Closing

    async def close(self, message: Message) -> None:
        """In place of the server's `send`, for a close, of the app or of the block."""
        source = cast("Reader | Direct", self._source)
        leaving = self._state is not OPEN
        source.hold()
        try:
            if source.closes_at_once:
                await self._have_closed(message)
            else:
                with anyio.move_on_after(self._options.close_timeout, shield=leaving):
                    await self._have_closed(message)
        except Exception as error:
            source.go_on()
            if not (isinstance(error, losses()) or await self.has_ended(error)):
                if not leaving:
                    raise
                logger.warning("the server refused to close", exc_info=error)
            elif not leaving:
                self._end_own(message)
                raise ConnectionError("the client has left") from error
        except BaseException:  # counts as sent
            self._end_own(message)
            raise
        self._end_own(message)

    async def _have_closed(self, message: Message) -> None:
        """Have the server close: with 1000 if it refuses the code, so that nobody stays connected."""
        send = self._server[1]
        try:
            await send(message)
        except losses():
            raise
        except Exception as error:
            # daphne sends 1000 and 3000-4999 only, and 1011 by itself when an exception reaches it.
            if message["code"] == 1000 or (self._raises and message["code"] == 1011):
                raise
            logger.debug("the server refused to close with %d", message["code"], exc_info=error)
            try:
                await send({**message, "code": 1000})
            except Exception:
                raise error from None

    def _end_own(self, message: Message) -> None:
        if not self.is_over:
            self._end({**message, "type": "websocket.disconnect"})

    async def shut_down(self, code: int, reason: str, seconds: float) -> bool:
        """End the conversation because the server shuts down; whether the client was told in time."""
        return await self.enforce(Breach(code, reason, "the server shut down"), seconds)

    async def enforce(self, breach: Breach, seconds: float = math.inf) -> bool:
        """End the conversation, as the options say; whether it has ended, and the client was told."""
        if self.is_over or self._websocket.application_state is not CONNECTED:
            return True
        code, reason, ended = breach
        end = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self.learn(end, end, ended)
        cast("Reader | Direct", self._source).stop_reading()
        try:
            # Shielded, because the body may leave at once, and that ends this task.
            with anyio.move_on_after(min(self._options.close_timeout, seconds), shield=True) as limit:
                await self._have_closed({**end, "type": "websocket.close"})
        except Exception as error:
            logger.debug("the server refused to close", exc_info=error)
            return False
        return not limit.cancelled_caught


async def limited(seconds: float, call: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Call and await, with a time limit in seconds.

    Raises:
        TypeError: `seconds` is not a number.
        ValueError: They are negative, or no number at all.
        TimeoutError: It takes longer; it was cancelled.
    """
    seconds = checked_number("timeout", seconds, least=0.0)
    with anyio.move_on_after(seconds):
        return await call(*arguments)
    raise TimeoutError(f"{call.__name__} took longer than {seconds:g} seconds")


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
