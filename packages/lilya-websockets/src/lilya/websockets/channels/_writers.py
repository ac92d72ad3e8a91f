"""Sending to sockets, with as many tasks as there are sends that wait, and no more.

A task for each socket would have to be woken for each message. That costs more than most sends, because
servers take a message at once unless the client does not read. Here, one task, a writer, goes through all
sockets of an event, one after the other. It sends to each socket that is idle. If a socket is still busy with
an earlier message, the event goes into its outbox.

Before a send, a writer wakes another one. If the send ends at once, the other one finds nothing to do. If the
send has to wait, the other one continues with the next sockets, and the first stays with the slow socket for
as long as that takes. So a slow socket delays nobody, and a fast one costs no task.

For example, an event goes to 1,000 sockets, and the client of number 3 does not read. Writer A sends to 1 and
2, wakes writer B, and hangs in the send to 3. B sends to the sockets from 4 on. When client 3 reads again, A
sends what is in the outbox of 3, and is free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

import anyio

from .._extensions import PREPARED
from .._websocket import WebSocket
from ._backend import Gap
from ._outbox import Encode, Entry, Form, Outbox, Policy

__all__ = ["SocketOutbox", "Writers"]

# The number of sends after which the other tasks on the event loop get a turn.
_TURN: Final = 250


class SocketOutbox(Outbox):
    """The outbox of a socket, which the writers empty.

    Args:
        websocket: The socket.
        policy: See `Outbox`, as for the others.
    """

    __slots__ = ("form", "released", "websocket", "writing")

    def __init__(self, websocket: WebSocket, policy: Policy, max_messages: int, max_bytes: int) -> None:
        super().__init__(policy, max_messages, max_bytes)
        self.websocket = websocket
        self.form: Form
        """Equal for all sockets that get the same messages, and the same object for most."""
        self.writing: anyio.CancelScope | None = None  # the scope of the writer that is sending to it
        self.released: anyio.Event | None = None  # set by that writer when it has stopped, for `release`

    async def release(self, seconds: float) -> None:
        """Cancel a send that is under way, and wait until its writer has stopped, for so many seconds."""
        if self.writing is not None:
            self.released = anyio.Event()
            self.writing.cancel()
            with anyio.move_on_after(seconds):
                await self.released.wait()

    # For the owner.

    def missed(self, gap: Gap) -> None:
        """React to a gap in what the client gets."""

    def failed(self, error: Exception) -> None:
        """React to a message that could not be sent."""


class Writers:
    """The tasks that send, see above.

    Args:
        start: Starts a task.
    """

    def __init__(self, start: Callable[[Callable[[], Coroutine[Any, Any, None]]], None]) -> None:
        self._start = start
        self.ready: deque[tuple[Entry | None, Iterator[SocketOutbox]]] = deque()
        """The work: an entry for some sockets, or, with `None`, for each of them what is in its outbox."""
        self._idle: list[anyio.Event] = []  # one for each writer without work, set to wake it
        self._coming = False  # a writer was woken or started, and has not run yet
        self._emptied: anyio.Event | None = None
        self.sockets = 0
        """The number of sockets. One writer more may stay: while all sockets wait, it takes new work."""
        self._form: Form | None = None

    def entered(self, outbox: SocketOutbox, encode: Encode) -> None:
        """Add a socket. `encode` makes its messages."""
        self.sockets += 1
        extensions = (PREPARED,) if PREPARED in (outbox.websocket.scope.get("extensions") or ()) else ()
        form = (encode, extensions)
        # Give sockets that join in a row the same object, so that `_work` can compare by identity.
        if self._form != form:
            self._form = form
        outbox.form = self._form

    def put(self, outbox: SocketOutbox) -> None:
        """Send what is in an outbox."""
        self.ready.append((None, iter((outbox,))))

    def wake(self) -> None:
        """Make sure that a writer runs, after something was put into `ready`."""
        if self.ready and not self._coming:
            self._call()

    def _call(self) -> None:
        self._coming = True
        if self._idle:
            self._idle.pop().set()
        else:
            self._start(self._run)

    async def turn(self) -> None:
        """Wait until `ready` is empty: all events are being sent, or are in outboxes. For one task only."""
        while self.ready:
            self._emptied = anyio.Event()
            await self._emptied.wait()

    def left(self) -> None:
        """Remove a socket, and end the idle writers that are no longer needed."""
        self.sockets -= 1
        while len(self._idle) > self._staying:
            self._idle.pop().set()  # it finds nothing to do, and too many others, and ends

    @property
    def _staying(self) -> int:
        """The most writers that may stay idle."""
        return self.sockets + 1 if self.sockets else 0

    async def _run(self) -> None:
        self._coming = False
        scope = None
        # A socket that leaves cancels only the send to it, see `release`. The writer continues in a new
        # scope.
        while scope is None or scope.cancel_called:
            with anyio.CancelScope() as scope:
                await self._work(scope)

    async def _work(self, scope: anyio.CancelScope) -> None:
        """Take work from `ready` until this writer is cancelled or is no longer needed.

        Several writers take from the same work. Between two `await`s, only one of them runs, so no lock is
        needed. But during a send, everything may change: others may empty `ready`, and the socket may leave.

        This is one long function for its speed: most sends cost less than the call of a coroutine.
        """
        sends = 0
        # The last message, because the next socket usually gets the same.
        last: Entry | None = None
        form: Form | None = None
        message: dict[str, Any] | None = None
        # Whether a socket that leaves has cancelled this writer. Read from the scope only where that is
        # possible: to read it for each send would cost a tenth of a send.
        cancelled = False
        while not scope.cancel_called:
            if not self.ready or sends >= _TURN:
                # Wake another writer, which continues if there is work left. It runs after the other tasks on
                # the event loop had a turn. This writer becomes idle, or ends if there are enough.
                self.wake()
                if len(self._idle) >= self._staying:
                    return
                woken = anyio.Event()
                self._idle.append(woken)
                await woken.wait()
                self._coming = False
                sends = 0
                continue
            batch = self.ready[0]
            entry, sockets = batch
            # All writers use the same iterator. When this one hangs in a send, another one continues with the
            # next socket. So each socket is visited once, and gets its events in order.
            for socket in sockets:
                if socket.over:
                    continue
                if entry is not None and not socket.idle:
                    # Another writer is sending to it. That one takes this entry from the outbox later.
                    socket.put(entry)
                    continue
                # Nobody else sends to it until it is idle again. From here on, its events go into its outbox.
                socket.idle = False
                current = entry if entry is not None else socket.take()
                error: Exception | None = None
                socket.writing = scope
                websocket = socket.websocket
                try:
                    while current is not None:
                        # Usually, the socket before had the same entry and the same form.
                        if current is not last or socket.form is not form:
                            last, form = current, socket.form
                            message = current.message_for(form)
                            if type(current.item) is Gap:
                                last = None
                                socket.missed(current.item)
                        if message is not None:
                            # If this send has to wait, another writer must serve the other sockets. Wake it
                            # now: once the send waits, this writer cannot do it any more.
                            if not self._coming:
                                self._call()
                            # The same as `send_prepared`, without its coroutine.
                            failure: Exception | None = None
                            try:
                                # A copy, because servers and middleware may change the message.
                                await websocket._send_now(message.copy())
                            except Exception as raised:
                                failure = raised
                            if failure is not None:
                                await websocket._not_sent(failure)
                            socket.sent += 1
                            sends += 1
                        if not socket.more:  # `take` would find nothing
                            socket.idle = True
                            current = None
                        elif sends >= _TURN:
                            # A turn for the others. The rest of this outbox comes first after it, because it
                            # is older than the work in `ready`.
                            self.ready.appendleft((None, iter((socket,))))
                            break
                        else:
                            current = socket.take()
                except Exception as raised:
                    error = raised
                finally:
                    socket.writing = None
                    if error is not None or socket.released is not None:
                        cancelled = scope.cancel_called
                        if socket.released is not None:
                            socket.released.set()
                        if error is not None:
                            socket.failed(error)
                if cancelled or sends >= _TURN:
                    break
            else:
                # All sockets of the batch were visited. Another writer may have removed it already.
                if self.ready and self.ready[0] is batch:
                    self.ready.popleft()
                    if not self.ready and self._emptied is not None:
                        self._emptied.set()
                        self._emptied = None
