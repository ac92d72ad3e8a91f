"""The way to one Redis server: its connections, the requests on them, and the outage that they have together.

The rules of this file:

- A line is a connection and the task that uses it. The lines fail together: the first one that finds the
  server away takes the others down, so an outage has one beginning and one end, and is logged once.
- There are three lines to a server, and no more, however many channels there are: to publish, to ask, and to
  hear what is pushed. Answers come in the order of the questions, so a page of history would hold back every
  publish behind it, and a burst of pushes would hold back both. A line that nobody needs yet is not opened.
- In an outage only the first line tries to connect, after a random delay that grows. The other lines wait for
  it. The delay starts small again only when all lines are back: a server may accept one connection and refuse
  the next, and that must not become a tight loop.
- A request without an answer is sent again, in its old place, with its old number. The server remembers the
  last number of each publisher, so it does not keep the same event twice. This works only if the numbers
  rise. So a request that was refused gets a new number, and only after everything sent with it was answered.
- A time limit is for progress: it starts again with every byte that is sent or received. Only a caller that
  waits for a small answer has a limit for the whole answer.
- Whatever the server sends, the tasks go on. An answer that cannot be read is an outage.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import re
from abc import ABC, abstractmethod
from asyncio import StreamReader
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol

import anyio
from redis._parsers import _AsyncHiredisParser, _AsyncRESP2Parser
from redis.asyncio.connection import Connection, DefaultParser
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from ._backend import BrokerError
from ._places import Address
from ._scripts import Script

__all__ = [
    "Asking",
    "Late",
    "Limit",
    "Line",
    "Link",
    "Pipe",
    "Request",
    "ask",
    "fail",
    "new_connection",
    "packed",
    "reason",
]

logger: Final = logging.getLogger("lilya.websockets")

# Seconds for connecting, and without a byte of an answer. A server that saves to a slow disk takes its time.
PATIENCE: Final = 5.0
# Seconds after which an idle connection is tried.
IDLE: Final = 5.0
# Bytes that are sent at once; each such piece is progress.
_PIECE: Final = 65_536
# Bytes of requests that are sent without waiting for an answer between them.
_BATCH_BYTES: Final = 1_048_576
# Seconds up to which a random time is waited before trying again: the first time, and the most, after
# twice as many each time.
_FIRST_DELAY: Final = 0.1
_LAST_DELAY: Final = 5.0

# What stands before a part of a command, by the length of the part, for all parts that are shorter than this.
_SHORT: Final = 256
_LENGTHS: Final = [b"\r\n$%d\r\n" % size for size in range(_SHORT)]

_IN_SCRIPT: Final = re.compile(r"^Error running script \(.*?\): @user_script:\d+: (@user_script: \d+: )?")


class Late(Exception):
    """There was no answer within the time limit."""


class Limit:
    """A time limit that is cheap to move.

    Each byte that comes moves one. A timer of the event loop would have to be cancelled and made again each
    time. So the timer stays, and when it fires too early, it is set for the rest of the time.

    Args:
        late: Called when the time is over.
    """

    __slots__ = ("_at", "_late", "_loop", "_timer")

    def __init__(self, late: Callable[[], object]) -> None:
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Let so many seconds be left from now on."""
        self._at = self._loop.time() + seconds
        # Only an earlier limit needs another timer. For a later one, `_fire` finds that time is left.
        if self._timer is not None and self._timer.when() > self._at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._at, self._fire)

    def lift(self) -> None:
        """Let there be no limit. The timer finds nothing to do."""
        self._at = math.inf

    def stop(self) -> None:
        """Lift it for good."""
        self.lift()
        if self._timer is not None:
            self._timer.cancel()

    def _fire(self) -> None:
        self._timer = None
        if self._at == math.inf:
            return
        left = self._at - self._loop.time()
        if left > 0:
            self.set(left)
        else:
            self.lift()
            self._late()


class _Use:
    """A block that uses a connection. It ends when another line finds that the server is away, or when late.

    Raises:
        TimeoutError: It was late.
    """

    # The same object is entered for each connection of a line, one after the other.

    def __init__(self) -> None:
        self._scope: anyio.CancelScope
        self._entered = False
        self._was_late = False

    def __enter__(self) -> None:
        self._was_late = False
        self._scope = anyio.CancelScope().__enter__()
        self._entered = True

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._entered = False
        left = bool(self._scope.__exit__(exc_type, exc, traceback))
        if left and self._was_late:
            raise TimeoutError("no answer in time") from exc
        return left

    def late(self) -> None:
        self._was_late = True
        self.leave()

    def leave(self) -> None:
        if self._entered:
            self._scope.cancel()


class _Counted:
    """A stream that reports each piece of data: half of a large answer is progress, too."""

    def __init__(self, stream: StreamReader, came: Callable[[], None]) -> None:
        self._stream = stream
        self._came = came

    async def read(self, most: int) -> bytes:
        data = await self._stream.read(most)
        self._came()
        return data

    async def readline(self) -> bytes:
        data = await self._stream.readline()
        self._came()
        return data

    async def readexactly(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count:
            data = await self.read(count)
            if not data:
                raise asyncio.IncompleteReadError(b"".join(parts), count)
            parts.append(data)
            count -= len(data)
        return b"".join(parts)


# redis-py chooses the parser for the protocol (RESP2 or RESP3), but only if `parser_class` is one of its own.
# Ours is not, so the choice is made here. It has to be RESP2: the parser for RESP3 reads a missing value of
# RESP2 as text, and then takes every later answer for the one before it.
_Base: Any = DefaultParser if DefaultParser is _AsyncHiredisParser else _AsyncRESP2Parser


class _Parser(_Base):  # type: ignore[misc]  # one of two, as what is installed allows
    """The parser of redis-py. It also reports progress, and knows the errors of the nodes of a cluster."""

    # Older versions of redis-py know these errors only in the parser for clusters.
    EXCEPTION_CLASSES = {  # noqa: RUF012 - it is so in the class above
        **_Base.EXCEPTION_CLASSES,
        "ASK": AskError,
        "CLUSTERDOWN": ClusterDownError,
        "MASTERDOWN": MasterDownError,
        "MOVED": MovedError,
        "TRYAGAIN": TryAgainError,
    }

    def __init__(self, came: Callable[[], None], socket_read_size: int) -> None:
        super().__init__(socket_read_size=socket_read_size)
        self._tell = came

    def on_connect(self, connection: Any) -> None:
        super().on_connect(connection)
        self._stream: Any = _Counted(connection._reader, self._tell)


class Line:
    """A connection that is made again as often as it takes, and the task that uses it.

    Args:
        link: Of which link.
        name: What the outage calls it.
        serve: Uses a connection until that fails.
        came: Called for each piece that has come.
    """

    def __init__(
        self,
        link: Link,
        name: str,
        serve: Callable[[Connection], Awaitable[None]],
        came: Callable[[], None],
    ) -> None:
        self._link = link
        self.name = name
        self._serve = serve
        self._came = came
        self.use = _Use()
        self.connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_started(self) -> bool:
        return self._task is not None

    def start(self, connection: Connection | None = None) -> None:
        """Begin, with a connection that is there already or with one of its own."""
        if self._task is None:
            self.connection = connection
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def connect(self) -> Connection:
        return await self._link.connect(self.name, self._came)

    async def _run(self) -> None:
        link = self._link
        is_first = self is link.lines[0]
        while True:
            try:
                # The first line connects outside the block: in an outage it is the one that the others wait
                # for, so the outage must not interrupt it.
                if is_first and self.connection is None:
                    await link.back_off()
                    self.connection = await self.connect()
                    link.reached()
                # One block for everything on this connection: to enter it costs more than a request.
                with self.use:
                    if self.connection is None:
                        await link.up.wait()
                        self.connection = await self.connect()
                    await self._serve(self.connection)
            except Exception as error:  # of any kind: without this task the outage would never end
                link.lose(error)
            finally:
                connection, self.connection = self.connection, None
                if connection is not None:
                    await connection.disconnect(nowait=True)


class Link:
    """What the lines to one server share: how to connect, and the outage.

    Args:
        arguments: Of the client's connection.
        where: Where that is, without a password.
        prepare: Sees on a new connection that everything is there that is used.
        scripts: Are told to the server on each new connection.
        find: Where the server is, if that can be another place after each outage.
        changed: Called when an outage begins, when another try has failed, and when it ends.
    """

    def __init__(
        self,
        arguments: dict[str, Any],
        where: str,
        prepare: Callable[[Connection, str], Awaitable[None]],
        scripts: Collection[Script],
        *,
        find: Callable[[], Awaitable[Address]] | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._arguments = dict(arguments)
        self._scripts = scripts
        self._find = find
        self._changed = changed
        self.where = where
        self._prepare = prepare
        self.lines: list[Line] = []
        self.ready = anyio.Event()
        self.ready.set()
        self.up = asyncio.Event()  # the first line has a connection
        self.up.set()
        self.down: set[str] = set()  # the lines that the outage has taken, and that are not back
        self.reason = ""  # of the outage
        self.attempts = 0
        self._lost_at = 0.0

    def add(self, line: Line) -> None:
        self.lines.append(line)

    async def connect(self, name: str, came: Callable[[], None] = lambda: None) -> Connection:
        """A connection on which everything is known that is used."""
        if self._find is not None and name == self.lines[0].name:
            # The other lines connect to the same server as the first: what is published on one of them has to
            # be pushed on another. If each asked Sentinel, a failover could come between.
            self._arguments["host"], self._arguments["port"] = await self._find()
        connection = new_connection(self._arguments, came)
        try:
            with anyio.fail_after(PATIENCE):
                await connection.connect()  # type: ignore[no-untyped-call]
                await self._prepare(connection, name)
                await self.load_scripts(connection)
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"no answer within {PATIENCE:g} seconds") from error
            raise
        return connection

    async def load_scripts(self, connection: Connection) -> None:
        """Tell the server the scripts."""
        for script in self._scripts:
            await ask(connection, b"SCRIPT", b"LOAD", script.source)

    async def stop(self) -> None:
        for line in self.lines:
            await line.stop()

    async def back_off(self) -> None:
        """Wait before the server is tried again."""
        # From 0 on: processes that have lost the same server must not come back at the same moment.
        limit = min(_FIRST_DELAY * 2 ** min(self.attempts, 20), _LAST_DELAY)
        self.attempts += 1
        await asyncio.sleep(random.uniform(0, limit))

    def reached(self) -> None:
        """The first line has a connection again."""
        self.found(self.lines[0].name)
        self.up.set()

    def lose(self, error: BaseException) -> None:
        """The server is away: nothing of any connection is trusted any more."""
        self.reason = reason(error)
        # Further errors of the same outage only change the reason. So it is logged once.
        if not self.down:
            self._lost_at = asyncio.get_running_loop().time()
            self.ready = anyio.Event()
            logger.warning("Redis at %s is away: %s. Trying again", self.where, self.reason)
        self.up.clear()
        for line in self.lines:
            # A line that was never used has nothing to come back to, and `ready` must not wait for it.
            if line.is_started:
                self.down.add(line.name)
                line.use.leave()
        self._changed()

    def found(self, name: str) -> None:
        """A line can be used again."""
        if name not in self.down:
            return
        self.down.discard(name)
        if not self.down:
            self.attempts = 0
            self.ready.set()
            seconds = asyncio.get_running_loop().time() - self._lost_at
            logger.warning("Redis at %s is back after %.1f seconds", self.where, seconds)
            self._changed()


class Request:
    """What is asked of the server: the parts of a command, and who waits for the answer."""

    __slots__ = ("doubtful", "future", "number", "parts", "until")

    asks = False
    """Whether it is sent with `ASKING`, to a node that is still importing the slot."""

    def __init__(self, parts: Sequence[bytes], future: asyncio.Future[Any], number: int | None) -> None:
        self.parts = parts
        self.future = future
        self.until = math.inf  # when the caller stops waiting for the answer
        self.number = number  # of a publish, 0 until it is sent; `None` if it is not one
        self.doubtful = False  # it was sent and not answered: the server may have done it

    def redirected(self, error: ResponseError) -> bool:
        """Whether an answer means that something else is to be asked. Then that has begun."""
        return False


class Outage(Protocol):
    """What callers that wait in vain are told of an outage."""

    where: str
    reason: str

    @property
    def down(self) -> Collection[str]: ...


class Asking(ABC):
    """Where requests are handed in, and who waits for the answers.

    Args:
        outage: Why there may be no answer.
        timeout: Seconds in which each must be answered.
        patient: Whether those seconds start again as long as something comes.
    """

    def __init__(self, outage: Outage, *, timeout: float, patient: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._outage = outage
        self.timeout = timeout
        self._is_patient = patient
        self._came_at = -math.inf
        # Requests with a caller and a time limit. The limit is the same for all, so they are in order of
        # time, and one timer, for the oldest, is enough.
        self._awaited: deque[Request] = deque()
        self._give_up_at = Limit(self._give_up)
        self._is_stopped = False

    @abstractmethod
    def request(self, parts: Sequence[bytes], *, numbered: bool = False) -> Request:
        """Have something asked."""

    @abstractmethod
    def pipes(self) -> Sequence[Pipe]:
        """One for each server that has a part of the channels."""

    def stop(self) -> None:
        """Let nobody wait any longer."""
        self._is_stopped = True
        self._give_up_at.stop()

    async def answer(self, attempted: str, parts: Sequence[bytes], *, numbered: bool = False) -> Any:
        """What the server answers, within the time limit.

        Raises:
            BrokerError: It does not answer, or refuses.
        """
        if self._is_stopped:
            raise BrokerError(f"cannot {attempted}: the channels were stopped")
        request = self.request(parts, numbered=numbered)
        request.until = self._loop.time() + self.timeout
        awaited = self._awaited
        # Answered requests leave here, and not when they are answered: that would be in the middle of the
        # queue.
        while awaited and awaited[0].future.done():
            awaited.popleft()
        if not awaited:
            self._give_up_at.set(self.timeout)
        awaited.append(request)
        try:
            return await request.future
        except ResponseError as error:
            raise BrokerError(f"cannot {attempted}: Redis refuses: {reason(error)}") from error
        except Late:
            raise self.too_late(attempted, sent=bool(request.number)) from None

    def too_late(self, attempted: str, *, sent: bool = False) -> BrokerError:
        """What is raised when there is no answer in time."""
        why = f": {self._outage.reason}" if self._outage.down else ""
        unknown = ". It was sent, and may have been kept" if sent else ""
        return BrokerError(
            f"cannot {attempted}: no answer from Redis at {self._outage.where} within {self.timeout:g} "
            f"seconds{why}{unknown}"
        )

    def _give_up(self) -> None:
        """Tell those who have waited for too long."""
        awaited, now = self._awaited, self._loop.time()
        # A patient caller is late only if nothing at all has come for that long, for whomever.
        since = self._came_at + self.timeout if self._is_patient else -math.inf
        while awaited and (awaited[0].future.done() or max(awaited[0].until, since) <= now):
            fail(awaited.popleft(), Late())
        if awaited:
            self._give_up_at.set(max(awaited[0].until, since) - now)


class Pipe(Asking):
    """Requests on a line of their own: many are under way at a time, and answered in their order.

    Args:
        link: The link.
        name: What the line is called.
        most: Requests that are sent without waiting for an answer between them.
        timeout: Seconds in which each must be answered.
        patient: Whether those seconds start again as long as something comes.
        numbers: Of publishes. Several pipes of one publisher share them.
        came: Called when something has come.
    """

    def __init__(
        self,
        link: Link,
        name: str,
        *,
        most: int,
        timeout: float,
        patient: bool,
        numbers: Iterator[int] | None = None,
        came: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(link, timeout=timeout, patient=patient)
        self._link = link
        self._most = most
        self.line = Line(link, name, self._serve, self._came)
        link.add(self.line)
        self._queue: deque[Request] = deque()
        self.sent: deque[Request] = deque()  # and not answered yet
        self._work = asyncio.Event()
        self._numbers = itertools.count(1) if numbers is None else numbers
        self._tell = came
        self._progress = Limit(self.line.use.late)
        self._idling = Limit(self._ping)

    def stop(self) -> None:
        """Let nobody wait any longer. The line has ended."""
        super().stop()
        for limit in (self._progress, self._idling):
            limit.stop()
        for request in (*self.sent, *self._queue):
            fail(request, BrokerError("the channels were stopped before Redis answered"))

    def request(self, parts: Sequence[bytes], *, numbered: bool = False) -> Request:
        """Have something asked."""
        request = Request(parts, self._loop.create_future(), 0 if numbered else None)
        self.put(request)
        return request

    def put(self, request: Request) -> None:
        """Have something asked that is a request already."""
        self._queue.append(request)
        self._work.set()
        self.line.start()

    def withdraw(self, which: Callable[[Request], bool]) -> list[Request]:
        """Take back some of what waits to be sent."""
        found = [request for request in self._queue if which(request)]
        if found:
            self._queue = deque(request for request in self._queue if not which(request))
        return found

    def pipes(self) -> Sequence[Pipe]:
        """This one."""
        return (self,)

    def _came(self) -> None:
        """Something has come, or was taken: the server is there."""
        if self.sent:
            self._progress.set(PATIENCE)
            self._came_at = self._loop.time()
            if self._tell is not None:
                self._tell()

    async def _serve(self, connection: Connection) -> None:
        self._link.found(self.line.name)
        try:
            while True:
                if self._queue:
                    await self._exchange(connection)
                else:
                    await self._wait_for_work()
        finally:
            self._progress.lift()

    async def _wait_for_work(self) -> None:
        self._work.clear()
        self._idling.set(IDLE)
        try:
            await self._work.wait()
        finally:
            self._idling.lift()

    def _ping(self) -> None:
        """See whether an idle connection is still there."""
        self.request((b"PING",)).future.add_done_callback(_forget)

    async def _exchange(self, connection: Connection) -> None:
        """Send what is there, and hand on the answers."""
        # `batch` is `self.sent`: what is in it when this ends has no answer.
        batch, queue = self.sent, self._queue
        size, pieces = 0, []
        while queue and len(batch) < self._most and size < _BATCH_BYTES:
            request = queue.popleft()
            if not request.future.done():  # else the caller has given up, and it was never sent
                batch.append(request)
                pieces.append(self._packed(request))
                size += len(pieces[-1])
        if not batch:
            return
        refused: list[Request] = []  # for want of a script
        passed = False  # by one that came after them
        failure: Exception | None = None
        try:
            self._progress.set(PATIENCE)
            await self._send(connection, pieces, size)
            while batch:
                try:
                    # The answer to `ASKING` comes first. Then a redirection is answered to the request
                    # itself.
                    if batch[0].asks:
                        await _read_past(connection)
                    answer = await connection.read_response()
                except NoScriptError:
                    # The server has restarted, or somebody has flushed its scripts. Nothing was done. What
                    # was sent behind it is answered first, because its numbers are higher.
                    refused.append(batch.popleft())
                except ResponseError as error:
                    request = batch.popleft()
                    if request.redirected(error):
                        continue
                    fail(request, error)
                    if "READONLY" in str(error) or isinstance(error, ReadOnlyError):
                        # The primary has become a replica. The rest of the batch still gets its answers
                        # first.
                        failure = error
                else:
                    request = batch.popleft()
                    passed = bool(refused)
                    if not request.future.done():
                        request.future.set_result(answer)
                        if self._is_patient:
                            # These answers are large. Let the caller process this one before the next is
                            # read.
                            await asyncio.sleep(0)
        finally:
            self._progress.lift()
            if batch:
                # The connection has failed. `batch` is sent again with its old numbers. What was refused has
                # lower numbers, but would be sent after them: the server would take it for something it has
                # kept.
                for request in refused:
                    fail(request, ResponseError("its scripts were lost while the connection was"))
                for request in batch:
                    request.doubtful = True  # it must keep its number
                self._queue.extendleft(reversed(batch))
                batch.clear()
            else:
                for request in refused:
                    if not request.doubtful:
                        # It was certainly not done: it may have a new number, above those that have passed
                        # it.
                        request.number = None if request.number is None else 0
                    elif passed and request.number:
                        # An earlier connection may have done it. Its old number is below one that was kept
                        # since, so the server can no longer tell; with a new number it could be kept twice.
                        fail(request, ResponseError("its scripts were lost. It may have been kept before"))
                self._queue.extendleft(reversed(refused))
        if failure is not None:
            raise failure
        if refused:
            with anyio.fail_after(PATIENCE):
                await self._link.load_scripts(connection)

    async def _send(self, connection: Connection, pieces: list[bytes], size: int) -> None:
        # In pieces: on a slow link one large write would look like a server that does not answer.
        if size <= _PIECE:
            await connection.send_packed_command(pieces, False)
            return
        whole = memoryview(b"".join(pieces))
        for start in range(0, size, _PIECE):
            await connection.send_packed_command([bytes(whole[start : start + _PIECE])], False)
            self._came()

    def _packed(self, request: Request) -> bytes:
        asking = packed(b"ASKING") if request.asks else b""
        if request.number is None:
            return asking + packed(*request.parts)
        request.number = request.number or next(self._numbers)
        return asking + packed(*request.parts, b"%d" % request.number)


def new_connection(arguments: dict[str, Any], came: Callable[[], None]) -> Connection:
    """A connection of the client, not connected yet.

    Raises:
        ValueError: It refuses one of the arguments.
    """
    arguments = {**arguments, "parser_class": partial(_Parser, came)}
    try:
        return arguments.pop("connection_class", Connection)(**arguments)  # type: ignore[no-any-return]
    except (TypeError, ValueError, RedisError) as error:
        raise ValueError(f"the URL has options that the client of Redis refuses: {error}") from None


def packed(*parts: bytes) -> bytes:
    """A command in the protocol of Redis."""
    # Formatting each part takes four times as long as this: one `join`, with most lengths formatted already.
    pieces = [b"*%d" % len(parts)]
    for part in parts:
        size = len(part)
        pieces += (_LENGTHS[size] if size < _SHORT else b"\r\n$%d\r\n" % size, part)
    pieces.append(b"\r\n")
    return b"".join(pieces)


async def ask(connection: Connection, *parts: bytes) -> Any:
    """Ask something on a connection that nobody else uses."""
    await connection.send_packed_command([packed(*parts)], False)
    return await connection.read_response()


async def _read_past(connection: Connection) -> None:
    """Read an answer that tells nothing: the next one does."""
    try:
        await connection.read_response()
    except ResponseError:
        pass


def fail(request: Request, error: Exception) -> None:
    """Raise an error for the caller that waits for the answer, if there is still one."""
    if not request.future.done():
        request.future.set_exception(error)


def _forget(future: asyncio.Future[Any]) -> None:
    future.exception()  # asyncio logs an exception that nobody has retrieved


def reason(error: BaseException | None) -> str:
    """What an error says, without what it says about us."""
    # Redis 6 says first where in a script it was, and the client of Redis 5 nothing of what TLS says.
    text = _IN_SCRIPT.sub("", str(error)) or type(error).__name__
    context = error and error.__context__
    return f"{text} {context}" if type(context).__name__.startswith("SSL") else text
