"""The connections to one Redis server, the requests on them, and the outage that they share.

The rules of this file:

- A line is a connection and the task that uses it. The lines fail together: the first one that notices that
  the server is away takes the others down. So an outage has one beginning and one end, and is logged once.
- There are three lines to a server, however many channels there are: one to publish, one to ask, and one that
  receives pushes. Answers arrive in the order of the requests. On a shared connection, a page of history
  would delay every publish behind it, and a burst of pushes would delay both. A line is opened when it is
  needed.
- In an outage, only the first line tries to connect, after a random delay that grows. The other lines wait
  for it. The delay is reset only when all lines are back. A server may accept one connection and refuse the
  next, for example because a right is missing, and that must not become a tight loop.
- A request without an answer is sent again, before all newer requests, with its old number. The server
  remembers the last number of each publisher, so it does not store the same event twice. This works only if
  the numbers rise. So a refused request gets a new number, and only after everything that was sent with it
  was answered.
- A time limit is for progress: it starts again with every piece of data that is sent or received. Otherwise a
  large answer on a slow link would never arrive: it would be late each time, and be asked for again. Only a
  caller that waits for a small answer has a limit for the whole answer.
- Whatever the server sends, the tasks go on. An answer that cannot be read is an outage.

For example, the publishes 1, 2 and 3 are sent to one channel, and the connection is lost after the answer to
1. The server may have stored 2 and 3, or not. They are sent again, as 2 and 3. If the last number that the
server knows in this channel is 3, it returns the ids of the events that it has already.
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
    "stopped",
]

logger: Final = logging.getLogger("lilya.websockets")

# The seconds for connecting, and the seconds that may pass without progress while an answer is due. A server
# that saves to a slow disk may not answer for a while.
PATIENCE: Final = 5.0
# The seconds after which an idle connection is tested with a `PING`.
IDLE: Final = 5.0
# The bytes that are sent at once. Each such piece counts as progress.
_PIECE: Final = 65_536
# The bytes of requests after which no more are added to a batch.
_BATCH_BYTES: Final = 1_048_576
# The number of waiting requests after which those that nobody waits for are removed.
_CROWD: Final = 1_024
# The upper limit of the random delay before an attempt to connect, in seconds: for the first attempt, and at
# most. It doubles with each attempt.
_FIRST_DELAY: Final = 0.1
_LAST_DELAY: Final = 5.0

# By its length, what precedes each part of a command, for parts that are shorter than this.
_SHORT: Final = 256
_LENGTHS: Final = [b"\r\n$%d\r\n" % size for size in range(_SHORT)]

# Where in a script an error came from, as Redis 6, Redis 7 and Valkey say it.
_IN_SCRIPT: Final = re.compile(
    r"^Error running script \(.*?\): @user_script:\d+: (@user_script: \d+: )?|^user_script:\d+: "
    r"| script: [^ ]*,? ?on @user_script:\d+\.?$"
)


class Late(Exception):
    """There was no answer within the time limit."""


class Limit:
    """A time limit that is cheap to postpone.

    It is postponed each time that data arrives. To cancel a timer of the event loop and create another one
    each time would be expensive. So the timer stays as it is. When it fires too early, it is set again, for
    the time that is left.

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
        """Set the limit to so many seconds from now."""
        self._at = self._loop.time() + seconds
        # Only an earlier limit needs another timer. For a later one, `_fire` sees that time is left.
        if self._timer is not None and self._timer.when() > self._at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._at, self._fire)

    def lift(self) -> None:
        """Remove the limit. The timer stays, and does nothing when it fires."""
        self._at = math.inf

    def stop(self) -> None:
        """Remove the limit and the timer."""
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
    """A block that uses a connection. `leave` ends it from outside, when another line has lost the server.

    Raises:
        TimeoutError: `late` has ended it, because the server did not answer in time.
    """

    # A line enters the same object again for each new connection.

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
    """A stream that reports each piece of data, because half of a large answer is progress, too."""

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


# redis-py selects the parser for the protocol, RESP2 or RESP3, but only if `parser_class` is one of its own.
# Ours is not, so it is selected here. It must be the one for RESP2: the parser for RESP3 reads a missing
# value of RESP2 as text, and is then one answer behind for ever.
_Base: Any = DefaultParser if DefaultParser is _AsyncHiredisParser else _AsyncRESP2Parser


class _Parser(_Base):  # type: ignore[misc]  # with or without hiredis, depending on what is installed
    """The parser of redis-py, which also reports progress and knows the errors of cluster nodes."""

    # In older versions of redis-py, only the parser for clusters has these errors.
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
    """A connection that is replaced whenever it fails, and the task that uses it.

    Args:
        link: The link that the line belongs to.
        name: The name of the line.
        serve: Uses a connection until it fails.
        came: Called for each piece of data that arrives.
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
        """Start the task, with the given connection or with a new one."""
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
                # The first line connects outside the block. `lose` ends the blocks of all lines, and must not
                # interrupt the attempt to connect that all lines are waiting for.
                if is_first and self.connection is None:
                    await link.back_off()
                    self.connection = await self.connect()
                    link.reached()
                # One block for the whole connection, because to enter a block costs more than a request.
                with self.use:
                    if self.connection is None:
                        await link.up.wait()
                        self.connection = await self.connect()
                    await self._serve(self.connection)
            except Exception as error:  # any exception: without this task, the outage would never end
                link.lose(error)
            finally:
                connection, self.connection = self.connection, None
                if connection is not None:
                    await connection.disconnect(nowait=True)


class Link:
    """What the lines to one server share: how to connect, and the outage.

    Args:
        arguments: The arguments of redis-py's connection.
        where: The address of the server as text, without a password.
        prepare: Checks that a new connection can be used for what its line does.
        scripts: The scripts to load on each new connection.
        find: Returns the address of the server, if that can change in an outage.
        changed: Called when an outage begins, when an attempt to connect fails, and when the outage ends.
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
        self.up = asyncio.Event()  # set while the first line has a connection, so that the others may connect
        self.up.set()
        self.down: set[str] = set()  # the names of the lines that are in the outage and not back yet
        self.reason = ""  # of the outage
        self.attempts = 0  # to connect, in this outage
        self._lost_at = 0.0

    def add(self, line: Line) -> None:
        self.lines.append(line)

    async def connect(self, name: str, came: Callable[[], None] = lambda: None) -> Connection:
        """A new connection that is checked and has the scripts loaded."""
        if self._find is not None and name == self.lines[0].name:
            # Only the first line asks Sentinel for the primary. The other lines connect to the same server.
            # If each line asked, a failover in between could put them on two servers: events published on one
            # would not be pushed on the other.
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
        """Load the scripts on the server."""
        for script in self._scripts:
            await ask(connection, b"SCRIPT", b"LOAD", script.source)

    async def stop(self) -> None:
        for line in self.lines:
            await line.stop()

    async def back_off(self) -> None:
        """Wait before the next attempt to connect."""
        # The delay is random, from 0 to the limit. All processes lose the server at the same moment, and must
        # not come back at the same moment.
        limit = min(_FIRST_DELAY * 2 ** min(self.attempts, 20), _LAST_DELAY)
        self.attempts += 1
        await asyncio.sleep(random.uniform(0, limit))

    def reached(self) -> None:
        """Let the other lines connect: the first line has a connection again."""
        self.found(self.lines[0].name)
        self.up.set()

    def lose(self, error: BaseException) -> None:
        """Start an outage, or go on with it: drop the connections of all lines."""
        self.reason = reason(error)
        # Log only the beginning. More errors in the same outage only change the reason.
        if not self.down:
            self._lost_at = asyncio.get_running_loop().time()
            self.ready = anyio.Event()
            logger.warning("Redis at %s is away: %s. Trying again", self.where, self.reason)
        self.up.clear()
        for line in self.lines:
            # A line that was never needed does not connect, so `ready` must not wait for it.
            if line.is_started:
                self.down.add(line.name)
                line.use.leave()
        self._changed()

    def found(self, name: str) -> None:
        """Note that a line can be used again. When all lines can, the outage has ended."""
        if name not in self.down:
            return
        self.down.discard(name)
        if not self.down:
            # Not earlier: if the first line gets a connection and another line is refused, this is still the
            # same outage, and the next attempt must wait longer than the last one.
            self.attempts = 0
            self.ready.set()
            seconds = asyncio.get_running_loop().time() - self._lost_at
            logger.warning("Redis at %s is back after %.1f seconds", self.where, seconds)
            self._changed()


class Request:
    """A command, and the future of the caller that waits for its answer."""

    __slots__ = ("doubtful", "future", "number", "parts", "until")

    asks = False
    """Whether it is sent with `ASKING`, to a node that is still importing the slot."""

    def __init__(self, parts: Sequence[bytes], future: asyncio.Future[Any], number: int | None) -> None:
        self.parts = parts
        self.future = future
        self.until = math.inf  # the time at which the caller stops waiting for the answer
        # The number of a publish, which becomes the last argument of its script. 0 if it gets a new number
        # when it is sent. `None` if it is not a publish.
        self.number = number
        self.doubtful = False  # a connection was lost after it was sent: the server may have done it or not

    def redirected(self, error: ResponseError) -> bool:
        """Send the request to another node if the error asks for that. Returns whether it does."""
        return False


class Outage(Protocol):
    """The parts of an outage that the errors of waiting callers mention."""

    where: str
    reason: str

    @property
    def down(self) -> Collection[str]: ...


class Asking(ABC):
    """Takes requests, and gives up those that are not answered in time.

    Args:
        outage: The outage that may be the reason for a missing answer.
        timeout: The seconds in which a request must be answered.
        patient: Whether these seconds start again whenever data arrives.
    """

    def __init__(self, outage: Outage, *, timeout: float, patient: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._outage = outage
        self.timeout = timeout
        self._is_patient = patient
        self._came_at = -math.inf
        # The requests with a time limit. All have the same limit, so the oldest one, at the left, is due
        # first, and one timer is enough.
        self._awaited: deque[Request] = deque()
        self._give_up_at = Limit(self._give_up)
        self._is_stopped = False

    @abstractmethod
    def request(self, parts: Sequence[bytes], *, numbered: bool = False) -> Request:
        """Send a command as soon as possible. `numbered`: it is a publish, which gets a number."""

    @abstractmethod
    def pipes(self) -> Sequence[Pipe]:
        """One pipe for each server that has a part of the channels."""

    def stop(self) -> None:
        """Take no more requests."""
        self._is_stopped = True
        self._give_up_at.stop()

    async def answer(self, attempted: str, parts: Sequence[bytes], *, numbered: bool = False) -> Any:
        """Send a command, and return the server's answer.

        Raises:
            BrokerError: The server refuses, or does not answer within the time limit.
        """
        if self._is_stopped:
            raise BrokerError(f"cannot {attempted}: the channels were stopped")
        request = self.request(parts, numbered=numbered)
        request.until = self._loop.time() + self.timeout
        awaited = self._awaited
        # Remove answered requests here, from the left. To remove each one when it is answered would mean to
        # search the queue for it.
        while awaited and awaited[0].future.done():
            awaited.popleft()
        if not awaited:
            self._give_up_at.set(self.timeout)
        awaited.append(request)
        try:
            return await request.future
        except ResponseError as error:
            # The answer to an earlier try of this publish was lost.
            unknown = ". It may have been kept before" if request.number and request.doubtful else ""
            raise BrokerError(f"cannot {attempted}: Redis refuses: {reason(error)}{unknown}") from error
        except Late:
            raise self.too_late(attempted, sent=bool(request.number)) from None

    def too_late(self, attempted: str, *, sent: bool = False) -> BrokerError:
        """The error for a request without an answer in time. `sent`: it is a publish that may be done."""
        why = f": {self._outage.reason}" if self._outage.down else ""
        unknown = ". It was sent, and may have been kept" if sent else ""
        return BrokerError(
            f"cannot {attempted}: no answer from Redis at {self._outage.where} within {self.timeout:g} "
            f"seconds{why}{unknown}"
        )

    def _give_up(self) -> None:
        """Fail the requests that have waited for too long."""
        awaited, now = self._awaited, self._loop.time()
        # With `patient`, a request is late only if no data has arrived for that long, for any request.
        # Answers arrive in order, so data for an earlier request is progress for the later ones, too.
        since = self._came_at + self.timeout if self._is_patient else -math.inf
        while awaited and (awaited[0].future.done() or max(awaited[0].until, since) <= now):
            fail(awaited.popleft(), Late())
        if awaited:
            self._give_up_at.set(max(awaited[0].until, since) - now)


class Pipe(Asking):
    """Requests on a line of their own. Many are sent in one batch, and answered in the same order.

    Args:
        link: The link.
        name: The name of the line.
        most: The most requests in a batch.
        timeout: The seconds in which a request must be answered.
        patient: Whether these seconds start again whenever data arrives.
        numbers: The numbers of publishes. In a cluster, all publishing pipes share them.
        came: Called when data has arrived.
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
        self._crowd = _CROWD  # the length of the queue at which it is tidied
        self.sent: deque[Request] = deque()  # those of the batch that are not answered yet
        self._work = asyncio.Event()
        self._numbers = itertools.count(1) if numbers is None else numbers
        self._tell = came
        self._progress = Limit(self.line.use.late)
        self._idling = Limit(self._ping)

    def stop(self) -> None:
        """Fail all requests. The line has ended before."""
        super().stop()
        for limit in (self._progress, self._idling):
            limit.stop()
        for request in (*self.sent, *self._queue):
            fail(request, stopped(request))

    def request(self, parts: Sequence[bytes], *, numbered: bool = False) -> Request:
        """Send a command as soon as possible."""
        request = Request(parts, self._loop.create_future(), 0 if numbered else None)
        self.put(request)
        return request

    def put(self, request: Request) -> None:
        """Send a request as soon as possible."""
        if len(self._queue) >= self._crowd:
            # In an outage, nothing is sent, and callers give up. Without this, the requests of a long outage
            # would fill the memory. Tidy when the queue has doubled, so that this costs little per request.
            self.withdraw(lambda request: request.future.done())
            self._crowd = max(2 * len(self._queue), _CROWD)
        self._queue.append(request)
        self._work.set()
        self.line.start()

    def withdraw(self, which: Callable[[Request], bool]) -> list[Request]:
        """Take back some of the requests that wait to be sent."""
        found = [request for request in self._queue if which(request)]
        if found:
            self._queue = deque(request for request in self._queue if not which(request))
        return found

    def pipes(self) -> Sequence[Pipe]:
        """This pipe alone."""
        return (self,)

    def _came(self) -> None:
        """Note progress: data has arrived from the server, or the server has taken some."""
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
        """Test an idle connection. Without this, the first publish after a long time would find it dead."""
        self.request((b"PING",)).future.add_done_callback(_forget)

    async def _exchange(self, connection: Connection) -> None:
        """Send a batch of requests, and pass on the answers.

        A request leaves the batch in one of these ways, and the rules at the top decide about its number:

        - It is answered, with a result or an error.
        - It is redirected to another node of the cluster.
        - It is refused because the server does not have the script. It was not done. When the whole batch is
          answered, it goes back to the front of the queue, and gets a new number: the requests behind it have
          been answered, and their numbers are higher than its old one.
        - It is still there when the connection fails. It may have been done. It goes back to the front of the
          queue and keeps its number, so that the server can recognize it.
        """
        pieces, size = self._next_batch()
        if not pieces:
            return
        batch = self.sent  # those that are in it when this ends have no answer
        refused: list[Request] = []  # because the server does not have the script
        passed = False  # a request behind a refused one has been done
        failure: Exception | None = None
        try:
            self._progress.set(PATIENCE)
            await self._send(connection, pieces, size)
            while batch:
                try:
                    # `ASKING` is a command of its own, with its own answer. The answer to the request
                    # follows.
                    if batch[0].asks:
                        await _read_past(connection)
                    answer = await connection.read_response()
                except NoScriptError:
                    # The server has restarted, or somebody has flushed its scripts. Nothing was done. Read
                    # the other answers of the batch before this is sent again: one of them may be a success,
                    # if another client has loaded the script meanwhile, and its number is higher.
                    refused.append(batch.popleft())
                except ResponseError as error:
                    request = batch.popleft()
                    if request.redirected(error):
                        continue
                    fail(request, error)
                    if "READONLY" in str(error) or isinstance(error, ReadOnlyError):
                        # The primary has become a replica, so this connection is of no use. Read the other
                        # answers of the batch before it is dropped: each of them settles what was done.
                        failure = error
                else:
                    request = batch.popleft()
                    passed = bool(refused)
                    if not request.future.done():
                        request.future.set_result(answer)
                        if self._is_patient:
                            # These answers are large. Let the caller process this one before the next one is
                            # read. Otherwise, a whole batch of them would be in memory at once.
                            await asyncio.sleep(0)
        finally:
            self._progress.lift()
            self._put_back(refused, passed=passed)
        if failure is not None:
            raise failure
        if refused:
            with anyio.fail_after(PATIENCE):
                await self._link.load_scripts(connection)

    def _next_batch(self) -> tuple[list[bytes], int]:
        """Move requests from the queue to `sent`. Returns them as bytes, and the number of these."""
        batch, queue = self.sent, self._queue
        size, pieces = 0, []
        while queue and len(batch) < self._most and size < _BATCH_BYTES:
            request = queue.popleft()
            if not request.future.done():  # otherwise, the caller has given up: do not send it (again)
                batch.append(request)
                pieces.append(self._packed(request))
                size += len(pieces[-1])
        return pieces, size

    def _put_back(self, refused: list[Request], *, passed: bool) -> None:
        """Put the requests of a batch that must be sent again back in front of the queue.

        Args:
            refused: Those that were refused because the server does not have the script.
            passed: Whether a request behind one of these has been done.
        """
        if self.sent:
            # The connection has failed, so the rest of the batch must be sent again with its old numbers.
            # There is no number left for the refused requests. A new one would be higher than those, and if
            # the server stored it first, it would drop the others. The old one is lower than those, which the
            # server may have stored already, and it would drop the refused ones. So they fail.
            for request in refused:
                fail(request, ResponseError("its scripts were lost while the connection was"))
            for request in self.sent:
                request.doubtful = True  # it must keep its number
            self._queue.extendleft(reversed(self.sent))
            self.sent.clear()
            return
        for request in refused:
            if not request.doubtful:
                # It was certainly not done, so it gets a new number when it is sent. That is higher than the
                # numbers of the requests that were done before it.
                request.number = None if request.number is None else 0
            elif passed and request.number:
                # It may have been done on an earlier connection, so a new number could store it twice. A
                # higher number may have been stored since, so with its old number the server would take it
                # for stored, even if it is not.
                fail(request, ResponseError("its scripts were lost"))
        self._queue.extendleft(reversed(refused))

    async def _send(self, connection: Connection, pieces: list[bytes], size: int) -> None:
        # In pieces: on a slow link, one large write takes long, and would look like a server that does not
        # answer.
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
    """A connection of redis-py that is not connected yet.

    Raises:
        ValueError: redis-py refuses one of the arguments.
    """
    arguments = {**arguments, "parser_class": partial(_Parser, came)}
    try:
        return arguments.pop("connection_class", Connection)(**arguments)  # type: ignore[no-any-return]
    except (TypeError, ValueError, RedisError) as error:
        raise ValueError(f"the URL has options that the client of Redis refuses: {error}") from None


def packed(*parts: bytes) -> bytes:
    """Encode a command in the protocol of Redis."""
    # One `join`, with most of the lengths formatted in advance. To format each part takes four times as long.
    pieces = [b"*%d" % len(parts)]
    for part in parts:
        size = len(part)
        pieces += (_LENGTHS[size] if size < _SHORT else b"\r\n$%d\r\n" % size, part)
    pieces.append(b"\r\n")
    return b"".join(pieces)


async def ask(connection: Connection, *parts: bytes) -> Any:
    """Send a command and return its answer, on a connection that nobody else uses."""
    await connection.send_packed_command([packed(*parts)], False)
    return await connection.read_response()


async def _read_past(connection: Connection) -> None:
    """Read an answer, and ignore it."""
    try:
        await connection.read_response()
    except ResponseError:
        pass


def fail(request: Request, error: Exception) -> None:
    """Raise an error in the caller of a request, unless it was answered or given up."""
    if not request.future.done():
        request.future.set_exception(error)


def stopped(request: Request) -> BrokerError:
    """The error for a request that has no answer when the channels are stopped."""
    unknown = ". It was sent, and may have been kept" if request.number else ""
    return BrokerError(f"the channels were stopped before Redis answered{unknown}")


def _forget(future: asyncio.Future[Any]) -> None:
    future.exception()  # otherwise, asyncio logs the exception, because nobody has retrieved it


def reason(error: BaseException | None) -> str:
    """The message of an error, for users."""
    # redis-py 5 leaves out what TLS says.
    text = _IN_SCRIPT.sub("", str(error)).rstrip(".") or type(error).__name__
    context = error and error.__context__
    return f"{text} {context}" if type(context).__name__.startswith("SSL") else text
