"""Sending to sockets: as many tasks as there are sends that wait, and no more.

A task for each socket would have to be woken for each message, and that costs more than most sends: servers
take a message at once unless the client does not read. Here one task, a writer, goes through all sockets of
an event, one after the other, and sends to those that wait for nothing else; for the others it is put in
their outboxes. Before each send it has another writer woken. If the send is done at once, that one finds
nothing to do. If it has to wait, the other goes on with the rest, and this one is the writer of the slow
socket, for as long as that takes.

So a slow socket keeps nobody waiting, and a fast one costs no task.
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

# Sends in a row after which everybody else on the event loop gets a turn.
_TURN: Final = 250


class SocketOutbox(Outbox):
    """What waits for a socket. The writers empty it.

    Args:
        websocket: The socket.
        policy: See `Outbox`, as the others.
    """

    __slots__ = ("form", "released", "websocket", "writing")

    def __init__(self, websocket: WebSocket, policy: Policy, max_messages: int, max_bytes: int) -> None:
        super().__init__(policy, max_messages, max_bytes)
        self.websocket = websocket
        self.form: Form
        """Equal for all sockets that get the same messages, and the same object for most."""
        self.writing: anyio.CancelScope | None = None  # that of a writer that sends to it
        self.released: anyio.Event | None = None  # leaving waits for the send that is under way

    async def release(self, seconds: float) -> None:
        """Interrupt the send that is under way, and wait for so long until its writer has let go."""
        if self.writing is not None:
            self.released = anyio.Event()
            self.writing.cancel()
            with anyio.move_on_after(seconds):
                await self.released.wait()

    # For the owner.

    def missed(self, gap: Gap) -> None:
        """The client has come to a gap."""

    def failed(self, error: Exception) -> None:
        """A message could not be sent."""


class Writers:
    """The tasks that send.

    Args:
        start: Starts a task.
    """

    def __init__(self, start: Callable[[Callable[[], Coroutine[Any, Any, None]]], None]) -> None:
        self._start = start
        self.ready: deque[tuple[Entry | None, Iterator[SocketOutbox]]] = deque()
        """What is to be done: an entry for some sockets, or for each of them what is in its outbox."""
        self._idle: list[anyio.Event] = []
        self._coming = False  # a writer was woken, and did not run yet
        self._emptied: anyio.Event | None = None
        self.sockets = 0
        """How many there are: one writer more than that may stay, to be there while all send, or none."""
        self._form: Form | None = None

    def entered(self, outbox: SocketOutbox, encode: Encode) -> None:
        """There is a socket more, whose messages are made by a function."""
        self.sockets += 1
        extensions = (PREPARED,) if PREPARED in (outbox.websocket.scope.get("extensions") or ()) else ()
        form = (encode, extensions)
        if self._form != form:
            self._form = form
        outbox.form = self._form

    def put(self, outbox: SocketOutbox) -> None:
        """Send what is in an outbox."""
        self.ready.append((None, iter((outbox,))))

    def wake(self) -> None:
        """See that there is somebody who sends, after something was put in `ready`."""
        if self.ready and not self._coming:
            self._call()

    def _call(self) -> None:
        self._coming = True
        if self._idle:
            self._idle.pop().set()
        else:
            self._start(self._run)

    async def turn(self) -> None:
        """Wait until each socket has begun to send, or has it in its outbox; for one task at a time."""
        while self.ready:
            self._emptied = anyio.Event()
            await self._emptied.wait()

    def left(self) -> None:
        """A socket has gone, and a writer with it if there are too many."""
        self.sockets -= 1
        while len(self._idle) > self._staying:
            self._idle.pop().set()

    @property
    def _staying(self) -> int:
        return self.sockets + 1 if self.sockets else 0

    async def _run(self) -> None:
        self._coming = False
        scope = None
        # Cancelled alone, a writer goes on with the next socket.
        while scope is None or scope.cancel_called:
            with anyio.CancelScope() as scope:
                await self._work(scope)

    async def _work(self, scope: anyio.CancelScope) -> None:
        sends = 0
        last: Entry | None = None
        form: Form | None = None
        message: dict[str, Any] | None = None
        # By a socket that leaves. Not asked of the scope each time: that costs as much as a tenth of a send.
        cancelled = False
        while not scope.cancel_called:
            if not self.ready or sends >= _TURN:
                # Another one goes on, when everybody else on the event loop had a turn.
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
            # Whoever takes over goes on with the same iterator. So each socket is visited once, and in the
            # order of the batches.
            for socket in sockets:
                if socket.over:
                    continue
                if entry is not None and not socket.idle:
                    socket.put(entry)
                    continue
                socket.idle = False
                current = entry if entry is not None else socket.take()
                error: Exception | None = None
                socket.writing = scope
                websocket = socket.websocket
                try:
                    while current is not None:
                        # The socket before had the same, as a rule.
                        if current is not last or socket.form is not form:
                            last, form = current, socket.form
                            message = current.message_for(form)
                            if type(current.item) is Gap:
                                last = None
                                socket.missed(current.item)
                        if message is not None:
                            # If this send has to wait, somebody must be there for the others.
                            if not self._coming:
                                self._call()
                            # What `send_prepared` does, less a coroutine.
                            failure: Exception | None = None
                            try:
                                # Servers and middleware may change what they get.
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
                            self.ready.appendleft((None, iter((socket,))))  # before what is newer
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
                if self.ready and self.ready[0] is batch:
                    self.ready.popleft()
                    if not self.ready and self._emptied is not None:
                        self._emptied.set()
                        self._emptied = None
