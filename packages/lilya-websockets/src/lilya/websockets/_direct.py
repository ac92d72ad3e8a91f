"""Where the messages of a block come from if the server tells the end: from the server itself, with no task.

The rules of this file:

- The server has the extension `lilya.websocket.end`: it reports the end at once, whichever side made it. It
  keeps what was not received. At the end, its `receive` and its `send` return by themselves.
- So the app receives from the server itself, which counts the messages: nothing of ours slows down a
  common message. What is left to do is to find out what a failed send means.
- The object that reports the end must be the one that the app receives from and sends to. Behind middleware
  with another `receive`, that may be another conversation, and tasks that wait in its `send` would hang.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, cast

import anyio

from ._extensions import Counting
from ._frameworks import losses
from ._inbox import Inbox, kind_of, size_of
from ._options import DEFAULTS
from ._reader import Source
from ._servers import GRACE
from .types import Message, Receive

__all__ = ["Direct"]


class Direct(Source):
    """The server as the source of the messages of a block.

    Args:
        block: The block, weakly referred to.
        receive: The server's, which keeps what was not received.
        send: The server's, which goes on at the end if it waits.
    """

    closes_at_once = True  # the server's own `send` waits for nothing at a close
    _looking = False  # a send that has failed looks for the end
    _inbox: Inbox  # what it has found before the end
    _arrival: anyio.Event | None = None  # somebody waits for that

    _connection: Any

    @property
    def receive(self) -> Receive:
        """In place of the server's `receive`: just that."""
        return self._server_receive

    def start(self, server: Counting) -> None:
        """Have the server count, and tell the end. Its `receive` does so, too, after what came before."""
        self._connection = server.connection
        self.counts = server.connection.count()
        server.watch(self._block.learn)

    async def leave(self) -> None:
        """There is no task."""

    def abandon(self, body: anyio.CancelScope | None) -> None:
        """Leave without an `await`."""
        if body is not None:
            body.__exit__(None, None, None)

    def end(self, item: object) -> None:
        """The end has come: the server's `receive` gives it, and its `send` ends."""
        self._over = True

    def give_back(self, code: int | None, *, over: bool) -> None:
        """The server tells the end to who still waits."""

    def hold(self) -> None:
        """The server closes also while somebody receives."""

    go_on = stop_reading = hold

    def send(self, message: Message) -> Awaitable[None]:
        """Send, or find that the conversation is over; in place of the server's `send`.

        No coroutine: a send that neither waits nor fails is left to the server.
        """
        if message["type"] == "websocket.close":
            return self._block.close(message)
        counts = self.counts
        sent = counts.messages_sent
        if (sent < self._turn_at or self._has_turned()) and self._connection.is_ready:
            text = message.get("text")
            counts.messages_sent = sent + 1
            counts.bytes_sent += len(text) if text is not None and text.isascii() else size_of(message)
            return self._server_send(message)
        return self._send_otherwise(message)

    async def _send_otherwise(self, message: Message) -> None:
        """Send what waits, or fails, or comes before a turn for the others."""
        long = self._is_long()
        try:
            await self._server_send(message)
        except Exception as error:
            await self._failed(error)
        self._have_sent(message)
        if long:
            await anyio.lowlevel.checkpoint()

    async def find_end(self, error: Exception) -> None:
        """Find what a failed send means: the true code lies behind what the server keeps."""
        with anyio.move_on_after(GRACE):
            # A task that is already receiving gets the end, too.
            if isinstance(error, losses()) and not (self._looking or self._block.is_receiving):
                await self._receive_until_over()
            else:
                await self._block.wait_disconnected()

    async def _receive_until_over(self) -> None:
        """Receive what the server keeps before the end: it tells the end when it comes to it."""
        inbox = self._inbox = Inbox(DEFAULTS.limits, anyio.current_time)
        self._looking = True
        self._block.receive_by(self._receive_found)
        try:
            while not self._block.is_over:
                message = await self._server_receive()
                inbox.keep(message)
                if self._arrival is not None:
                    self._arrival.set()
                if kind_of(message) == "websocket.disconnect":
                    self._block.learn(message)
        except losses():
            pass  # that it is over is known
        except Exception as error:  # the app is told in its turn, as by the reader
            inbox.keep(error)
        finally:
            self._looking = False
            if self._arrival is not None:
                self._arrival.set()

    async def _receive_found(self) -> Message:
        """The next message, in order, once a send has looked for the end."""
        inbox = self._inbox
        while self._looking and not inbox.items:  # else messages would overtake one another
            arrival = self._arrival = anyio.Event()
            await arrival.wait()
        return cast(Message, inbox.take()) if inbox.items else await self._server_receive()
