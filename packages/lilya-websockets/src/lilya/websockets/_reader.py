"""The reader of a block: a task that receives from the server, so that the end is known at once.

The rules of this file:

- What is taken from the inbox is taken without an `await` between the look and the taking, so a cancelled
  receive loses nothing.
- One at a time receives from the server: the reader, or the app's own task. Two tasks woken for each message
  are what a block costs most, so on asyncio the app receives by itself whenever the reader is not in the
  server's `receive` and nothing waits. The reader stands aside then. A turn after a message, one callback for
  all connections of the loop sends the readers of those apps to watch for the end that have not come back.
- A receive of the reader is never cancelled for that: the app waits at the inbox. The reader stands aside
  when it has handed a message over, and does so the less often the more often the app did not come back.
- The app receives by itself only where `_servers.waker_of` knows that a cancelled receive loses nothing, also
  where Starlette's object is between.
- The end gets the app out of the server's `receive` by a message that it makes the server give, and that goes
  no further. A cancellation goes before it, and is never taken for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator
from types import coroutine
from typing import Any, ClassVar, Final, NoReturn, Protocol, cast
from weakref import WeakValueDictionary

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from ._extensions import Counts
from ._frameworks import below, end_of, losses
from ._inbox import Breach, Inbox, kind_of, size_of
from ._options import Heartbeat, Options
from ._servers import GRACE, ready_of, waker_of
from .exceptions import WebSocketDisconnect
from .types import Message, Receive, Send

__all__ = ["TURN", "Reader", "Source", "Wait"]

logger: Final = logging.getLogger("lilya.websockets")

# Sends in a row after which others get a turn, whatever the server does: some servers never wait in a send to
# a client that has gone.
TURN: Final = 16
# Handovers without standing aside, at most, when the app never comes back in time.
_SHYEST: Final = 63


class Block(Protocol):
    """What is used here of a `Conversation`."""

    @property
    def is_over(self) -> bool: ...
    @property
    def is_receiving(self) -> bool: ...
    def learn(self, end: Message, item: object = None) -> None: ...
    def receive_by(self, receive: Receive) -> None: ...
    def tell(self) -> WebSocketDisconnect: ...
    async def close(self, message: Message) -> None: ...
    async def has_ended(self, error: Exception) -> bool: ...
    async def enforce(self, breach: Breach) -> bool: ...
    async def wait_disconnected(self) -> None: ...


class Source:
    """Where the messages of a block come from: what its two kinds have in common.

    Args:
        block: The block, weakly referred to.
        receive: The server's.
        send: The server's.
    """

    # What most connections never change is on the class: an idle one costs the less.
    _turn_at = TURN  # messages sent by which the event loop should have had its turn
    _seen = 0  # messages that had come when that was looked at
    _over = False  # the conversation has ended

    def __init__(self, block: Block, receive: Receive, send: Send) -> None:
        self._block = block
        self._server_receive = receive
        self._server_send = send
        self.counts = Counts()
        """Of what has come, and of what the server took."""

    def _has_turned(self) -> bool:
        """Whether a message has come since this was asked: then the event loop has had its turn."""
        before, self._seen = self._seen, self.counts.messages_received
        if before == self._seen:
            return False
        self._turn_at = self.counts.messages_sent + TURN
        return True

    def _is_long(self) -> bool:
        """Whether the others should have their turn of the event loop: a send may wait for nothing.

        They have it after the message: before it, those that other tasks send would overtake it.
        """
        if self.counts.messages_sent < self._turn_at:
            return False
        self._turn_at = self.counts.messages_sent + TURN
        return True

    async def _failed(self, error: Exception) -> NoReturn:
        """Raise what an error of the server means at a send."""
        if await self._block.has_ended(error):
            raise self._block.tell() from error
        raise error

    def _have_received(self, message: Message) -> int:
        size = size_of(message)
        counts = self.counts
        counts.messages_received += 1
        counts.bytes_received += size
        return size

    def _have_sent(self, message: Message) -> None:
        counts = self.counts
        counts.messages_sent += 1
        counts.bytes_sent += size_of(message)


class Reader(Source):
    """Where the messages of a block come from if the server does not tell the end.

    Args:
        block: The block, weakly referred to.
        receive: The server's.
        send: The server's.
        options: Those of the block.
    """

    closes_at_once = False
    _hurried = 0  # who waits for the reader to go on in spite of a full inbox
    # A close is under way, and the reader waits for its end: granian does not close while somebody receives.
    _closing: anyio.Event | _FutureEvent | None = None
    _arrival: anyio.Event | _FutureEvent | None = None  # somebody waits for a message
    _room: anyio.Event | None = None  # the reader waits for room
    _answer: anyio.Event | None = None  # the heartbeat waits for any message
    # Who receives
    _reads = False  # the reader
    is_lent = False  # the app's task
    _aside = False  # the reader is to leave that to the app
    _called: _FutureEvent | None = None  # the reader stands aside
    shyness = 0  # handovers without standing aside, after the next failure
    _skips = 0  # how many of them are left

    def __init__(
        self,
        block: Block,
        receive: Receive,
        send: Send,
        options: Options,
    ) -> None:
        super().__init__(block, receive, send)
        self._turn = _Turn.of_this_loop() if _on_asyncio() else None  # on asyncio only
        self._wake: Callable[[], None] | None = None  # gets the app out of the server's `receive`
        self._is_ready: Callable[[], bool] | None = None  # whether a send neither waits nor fails
        self._options = options
        self._limits = options.limits
        self._unlimited = not options.need_reader
        self._sends: set[Callable[[], None]] = set()  # what stops each that waits
        self._outside: anyio.CancelScope  # between what is around the block and its tasks
        self._group: TaskGroup
        self._reading: anyio.CancelScope
        self._inbox: Inbox
        self._event: Callable[[], anyio.Event | _FutureEvent]

    # Beginning and end

    async def enter(self) -> None:
        """Enter what is around the tasks."""
        self._outside = anyio.CancelScope()
        self._outside.__enter__()
        group = anyio.create_task_group()
        await group.__aenter__()
        self._group = group

    def start(self, watch: object) -> None:
        """Start the tasks. Nobody tells the end."""
        self._event = type(anyio.Event())
        if self._turn is not None:
            self._event = _FutureEvent
            self._is_ready = ready_of(self._server_send)
            if self._unlimited:
                self._wake = waker_of(below(self._server_receive))
        self._reading = anyio.CancelScope()
        self._inbox = Inbox(self._limits, anyio.current_time)
        self._group.start_soon(self._read)
        if self._limits.idle is not None:
            self._group.start_soon(self._watch_idle, self._limits.idle)
        if self._options.heartbeat is not None:
            self._group.start_soon(self._beat, self._options.heartbeat)

    async def leave(self) -> None:
        """End the tasks. What one of them has failed by is raised."""
        # Not sooner: the scope of the body would take it for its own.
        self._group.cancel_scope.cancel()
        # Not to be interrupted, and it need not be.
        self._outside.shield = True
        try:
            await self._group.__aexit__(None, None, None)
        finally:
            self._outside.__exit__(None, None, None)

    def abandon(self, body: anyio.CancelScope | None) -> None:
        """Leave without an `await`; the tasks end by themselves."""
        self._group.cancel_scope.cancel()
        if body is not None:
            body.__exit__(None, None, None)
        self._group.cancel_scope.__exit__(None, None, None)
        self._outside.__exit__(None, None, None)

    def end(self, item: object) -> None:
        """The end has come: it is received last, and who waits in a send or a receive goes on."""
        self._over = True
        if item is not None:
            self._put(item)
        for stop in self._sends:
            stop()
        self._release()

    def give_back(self, code: int | None, *, over: bool) -> None:
        """Drop what was not received until now. A task that outlives the block is told of its end.

        By no message if the conversation goes on: that would end it. Who is in the server's `receive` then
        stays there.
        """
        self._inbox.clear()
        if not over and self.is_lent:
            return
        self._over = True
        self._put({"type": "websocket.disconnect", "code": code} if over else self._block.tell())
        self._release()

    def stop_reading(self) -> None:
        """Stop the receive that is under way; in the reader itself a shield holds that off."""
        self._reading.cancel()

    def hold(self) -> None:
        """Have nobody receive while a close is under way."""
        self._closing = self._event()
        self._reading.cancel()

    def go_on(self) -> None:
        """The server has refused the close: it may be asked for messages again, and for the reason."""
        closing, self._closing = self._closing, None
        cast(_FutureEvent, closing).set()

    # The reader's task

    async def _read(self) -> None:
        while not self._over:
            if self._closing is not None:
                await self._closing.wait()
                continue
            with anyio.CancelScope() as self._reading:
                await self._receive_all()

    async def _receive_all(self) -> None:
        """Receive until the end, as long as there is room."""
        receive = self._server_receive
        while not self._over:
            if self._inbox.is_full and not self._hurried:
                await self._wait_for_room()
            if self._aside:
                self._called = called = _FutureEvent()
                await called.wait()
                continue
            self._reads = True
            try:
                message = await receive()
            except losses() as error:
                self._learn(end_of(error), error)
                return
            except Exception as error:
                # The app is told in its turn. The server is asked again when it was, as without a block.
                self._reads = False
                self._put(error)
                await self._wait_for_room(empty=True)
                continue
            finally:
                self._reads = False
            if self._over:
                return
            kind = kind_of(message)
            if kind == "websocket.receive":
                size = self._have_received(message)
                if self._unlimited:
                    arrival = self._arrival
                    awaited = self._wake is not None and arrival is not None and not arrival.is_set()
                    self._put(message, size)
                    if awaited:
                        self._stand_aside()  # the app goes on first, and is looked at after that
                else:
                    await self._arrived(message, size)
            elif kind == "websocket.disconnect":
                self._learn(message, message)
            else:
                self._put(message)

    async def _arrived(self, message: Message, size: int) -> None:
        if self._answer is not None:
            self._answer.set()
        breach = self._inbox.admit(size)
        if breach is not None:
            await self._block.enforce(breach)
        elif self._limits.messages:
            self._put(message, size)
        else:
            await anyio.lowlevel.checkpoint()  # nothing else may make the reader wait

    def _learn(self, end: Message, item: object) -> None:
        if not self._over:
            self._block.learn(end, item)

    def _put(self, item: object, size: int = 0) -> None:
        self._inbox.keep(item, size)
        if self._arrival is not None:
            self._arrival.set()

    async def _wait_for_room(self, *, empty: bool = False) -> None:
        inbox = self._inbox
        inbox.pause()
        try:
            while (inbox.is_full and not self._hurried) or (empty and inbox.items):
                self._room = anyio.Event()
                await self._room.wait()
        finally:
            inbox.resume()

    # Who receives

    def _stand_aside(self) -> None:
        """A message is handed over to an app that waits. It may receive the next one by itself."""
        if self._skips:
            self._skips -= 1
        else:
            self._aside = True
            turn = cast(_Turn, self._turn)
            if not turn.away:
                turn.come()
            turn.away.append(self)

    def watch_again(self) -> None:
        """The turn has passed, and the app has not come back for the next message."""
        if not self._aside:
            return  # it was away more than once
        self._skips = self.shyness = min(2 * self.shyness + 1, _SHYEST)
        self._call()

    def _call(self) -> None:
        """Have the reader receive."""
        if not self.is_lent:
            self._aside = False
            if self._called is not None:
                self._called.set()

    def _release(self) -> None:
        """Get the app out of the server's `receive`: what it receives there now is for nobody."""
        if self.is_lent:
            cast("Callable[[], None]", self._wake)()
        self._call()

    # The app's side

    async def receive(self) -> Message:
        """The next message, in order; in place of the server's `receive`. Cancelling it loses none."""
        items = self._inbox.items
        while not items:
            if not self._aside:
                if self._reads or self._wake is None or self._over:
                    arrival = self._arrival = self._event()
                    await arrival.wait()
                    continue
                self._aside = True
            turn: Any = self._turn
            self.is_lent = True
            try:
                message = await self._server_receive()
            finally:
                self.is_lent = False
                if not turn.away:
                    turn.come()
                turn.away.append(self)
            if self._over:
                continue  # it ended otherwise meanwhile: that is what waits
            try:
                text = message.get("text")
            except AttributeError:
                return message  # for the app's receive to refuse
            if text is not None and text.isascii():  # what is most common has no call in its way
                counts = self.counts
                counts.messages_received += 1
                counts.bytes_received += len(text)
            elif kind_of(message) == "websocket.receive":
                self._have_received(message)
            return message
        if self._room is not None:
            self._room.set()
        return cast(Message, self._inbox.take())

    def send(self, message: Message) -> Awaitable[None]:
        """Send, or find that the conversation is over; in place of the server's `send`.

        No coroutine: where it is known that a send neither waits nor fails, that of the server will do.
        """
        if message["type"] == "websocket.close":
            return self._block.close(message)
        counts = self.counts
        sent = counts.messages_sent
        turned = sent < self._turn_at or self._has_turned()
        if turned and self._is_ready is not None and self._is_ready():
            text = message.get("text")
            counts.messages_sent = sent + 1
            counts.bytes_sent += len(text) if text is not None and text.isascii() else size_of(message)
            return self._server_send(message)
        return self._send_otherwise(message)

    async def _send_otherwise(self, message: Message) -> None:
        """Send what may wait, or fail, or comes before a turn for the others."""
        long = self._is_long()
        try:
            sent = True
            if self._turn is None:
                sent = await self._hand_over(message)
            else:
                # Begun by hand: also of those that may wait, nearly all do not.
                sending = self._server_send(message).__await__()
                try:
                    awaited = next(sending)
                except StopIteration:
                    pass
                else:
                    sent = await self._wait_to_send(sending, awaited)
        except Exception as error:
            await self._failed(error)
        if not sent:  # the end came first
            raise self._block.tell()
        self._have_sent(message)
        if long:
            await anyio.lowlevel.checkpoint()

    async def _wait_to_send(self, sending: Generator[Any, Any, Any], awaited: Any) -> bool:
        """Wait for a send that has begun; whether it has ended before the conversation did."""
        wait = Wait()
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

    async def find_end(self, error: Exception) -> None:
        """Find what a failed send means: the true code lies in the server's `receive`, behind what came."""
        self._hurried += 1
        if self._room is not None:
            self._room.set()
        try:
            with anyio.move_on_after(GRACE):
                await self._block.wait_disconnected()
        finally:
            self._hurried -= 1

    # Limits in time

    async def _watch_idle(self, seconds: float) -> None:
        breach = Breach(self._options.idle_code, "idle", f"the client sent nothing for {seconds:g} seconds")
        while not self._over:
            due = self._inbox.silent_since() + seconds
            if due > anyio.current_time():
                await anyio.sleep_until(due)
                continue
            await self._block.enforce(breach)
            if not self._over:  # the app is closing, and the server may refuse
                await anyio.sleep(GRACE)

    async def _beat(self, heartbeat: Heartbeat) -> None:
        breach = Breach(
            1011, "no answer", f"the client did not answer a heartbeat in {heartbeat.limit:g} seconds"
        )
        due = self._inbox.last + heartbeat.period
        while True:
            await anyio.sleep_until(due)
            if self._over:
                return
            due = anyio.current_time() + heartbeat.period
            answer = self._answer = anyio.Event()
            # The limit holds for the sending, too: who does not read does not answer.
            with anyio.move_on_after(heartbeat.limit):
                try:
                    await self._server_send(dict(heartbeat.message))
                    self._have_sent(heartbeat.message)
                except Exception as error:
                    if not await self._block.has_ended(error):  # then the silence will tell
                        logger.debug("the server refused a heartbeat", exc_info=error)
                await answer.wait()
            self._answer = None
            # While the reader waits for the app, there may be an answer that it has not read.
            if not answer.is_set() and self._inbox.paused_at is None:
                await self._block.enforce(breach)


class _Turn:
    """What the blocks of one asyncio event loop share: the blocks to look at after this turn of the loop."""

    # The readers hold it, and it holds the loop: with the last of them it goes.
    _of: ClassVar[WeakValueDictionary[asyncio.AbstractEventLoop, _Turn]] = WeakValueDictionary()

    def __init__(self) -> None:
        self.away: list[Reader] = []
        """Those whose app has received in this turn; it may be back."""
        # Kept, because asking for it is a call of the system before Python 3.12.
        self._loop = asyncio.get_running_loop()

    @classmethod
    def of_this_loop(cls) -> _Turn:
        """That of the loop that runs."""
        loop = asyncio.get_running_loop()
        turn = cls._of.get(loop)
        if turn is None:
            turn = cls._of[loop] = cls()
        return turn

    def come(self) -> None:
        """Look a turn later at those who will be away."""
        self._loop.call_soon(self._pass)

    def _pass(self) -> None:
        away, self.away = self.away, []
        for reader in away:
            if not reader.is_lent:
                reader.watch_again()
            elif reader.shyness:
                reader.shyness = 0


class _FutureEvent:
    """What is used here of an AnyIO event, for one task that waits: on asyncio, half of what a message costs
    in a block would be to make an event for it."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[None] = asyncio.Future()

    def set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def is_set(self) -> bool:
        return self._future.done()

    def wait(self) -> Awaitable[None]:
        return self._future


def _on_asyncio() -> bool:
    try:
        return asyncio.current_task() is not None  # trio may run as a guest of asyncio's loop
    except RuntimeError:
        return False


class Wait:
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
