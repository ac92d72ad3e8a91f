"""Where the messages of a block come from if the server tells the end: from the server itself, with no task.

The rules of this file:

- The server has the extension `lilya.websocket.end`: it tells the end the moment it knows of it, whoever made
  it; it keeps what was not received; and at the end its `receive` and its `send` end by themselves.
- So there is nothing to do but count, and to find out what a send means that has failed.
- The one who tells the end must be the one who is received from and sent to: behind middleware with a
  `receive` of its own may be another conversation, and nobody would get those out who wait in its `send`.
"""

from __future__ import annotations

from typing import Any, cast

import anyio

from ._frameworks import end_of, losses
from ._inbox import Inbox, kind_of, size_of
from ._options import DEFAULTS
from ._reader import TURN, Source
from ._servers import GRACE
from .types import Message

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
    _inbox: Inbox | None = None  # what it has found before the end
    _arrival: anyio.Event | None = None  # somebody waits for that

    _block: Any

    def start(self, watch: Any) -> None:
        """Have the server tell the end. Its `receive` does so, too, after what came before."""
        watch(self._block.learn)

    async def leave(self) -> None:
        """There is no task."""

    def abandon(self, body: anyio.CancelScope | None) -> None:
        """Leave without an `await`."""
        if body is not None:
            body.__exit__(None, None, None)

    def end(self, item: object) -> None:
        """The end has come: the server's `receive` gives it, and its `send` ends."""
        self._over = True

    def give_back(self, code: int | None) -> None:
        """The server tells the end to who still waits."""

    def hold(self) -> None:
        """The server closes also while somebody receives."""

    go_on = stop_reading = hold

    async def receive(self) -> Message:
        """The next message, in order; in place of the server's `receive`. Cancelling it loses none."""
        if self._inbox is not None:
            while self._looking and not self._inbox.items:  # else messages would overtake one another
                arrival = self._arrival = anyio.Event()
                await arrival.wait()
            if self._inbox.items:
                return cast(Message, self._inbox.take())
        try:
            message = await self._server_receive()
        except losses() as error:
            self._block.learn(end_of(error))
            raise
        try:
            text = message.get("text")
        except AttributeError:
            return message  # for the app's receive to refuse
        if text is not None and text.isascii():  # what is most common has no call in its way
            self._unyielded = 0
            self.messages_received += 1
            self.bytes_received += len(text)
        elif text is None and type(payload := message.get("bytes")) is bytes:
            self._unyielded = 0
            self.messages_received += 1
            self.bytes_received += len(payload)
        else:
            self._note(message)  # middleware may make a disconnect, of which the server knows nothing
        return message

    async def send(self, message: Message) -> None:
        """Send, or find that the conversation is over; in place of the server's `send`."""
        text = message.get("text")
        if text is None and message["type"] == "websocket.close":
            await self._block.close(message)
            return
        self._unyielded += 1
        if self._unyielded >= TURN:
            await self._give_turn()
        try:
            await self._server_send(message)
        except Exception as error:
            await self._failed(error)
        self.messages_sent += 1
        self.bytes_sent += len(text) if text is not None and text.isascii() else size_of(message)

    async def find_end(self, error: Exception) -> None:
        """Find what a failed send means: the true code lies behind what the server keeps."""
        with anyio.move_on_after(GRACE):
            # Whoever receives already comes to the end, too.
            if isinstance(error, losses()) and not (self._looking or self._block.is_receiving):
                await self._receive_until_over()
            else:
                await self._block.wait_disconnected()

    async def _receive_until_over(self) -> None:
        """Receive what the server keeps before the end: it tells the end when it comes to it."""
        inbox = self._inbox = Inbox(DEFAULTS.limits, anyio.current_time)
        self._looking = True
        try:
            while not self._block.is_over:
                message = await self._server_receive()
                kind = kind_of(message)
                inbox.keep(message, self._count(message) if kind == "websocket.receive" else 0)
                if self._arrival is not None:
                    self._arrival.set()
                if kind == "websocket.disconnect":
                    self._block.learn(message)
        except losses():
            pass  # that it is over is known
        except Exception as error:  # the app is told in its turn, as by the reader
            inbox.keep(error)
        finally:
            self._looking = False
            if self._arrival is not None:
                self._arrival.set()
