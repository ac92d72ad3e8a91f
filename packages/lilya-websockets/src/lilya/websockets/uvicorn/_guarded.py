"""uvicorn's HTTP protocols, with limits for every request: what they have in common, and the one over h11."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ._heads import MAX_HEAD, head_of, response


class Guarded:
    """What `HTTPProtocol` adds to one of uvicorn's HTTP protocols.

    - A head has `head_timeout` seconds from the read that brought its first bytes, and `max_head` bytes.
    - `Upgrade` is ignored unless it is exactly one `websocket` (RFC 9110 section 7.8): the body of any other
      request is its body, and what follows is the next request.
    - A connection that is about to close takes nothing more.
    """

    head_timeout: float
    max_head = MAX_HEAD
    transport: asyncio.Transport
    pipeline: Any = ()  # the requests that wait for an answer to the one before them, the last one first
    _timer: asyncio.TimerHandle | None = None  # of a head that has begun, then of the close
    _size = 0  # bytes of that head so far
    _deaf = False  # whether the connection takes nothing more

    def limit(self, head_timeout: float, max_head: int) -> None:
        """Set the limits of a head: seconds, and bytes."""
        self.head_timeout = head_timeout
        self.max_head = max_head

    def connection_lost(self: Any, exc: Exception | None) -> None:
        """Forget it."""
        self._cancel_timer()
        super().connection_lost(exc)  # type: ignore[misc]

    def _should_upgrade(self: Any) -> bool:
        """Whether the request is a handshake. uvicorn's own takes the last `Upgrade` of several."""
        if self.ws_protocol_class is None:
            return False
        values = [value for name, value in self.headers if name == b"upgrade"]
        if [value.strip().lower() for value in values] != [b"websocket"]:
            return False
        tokens = b",".join(value for name, value in self.headers if name == b"connection").split(b",")
        return b"upgrade" in [token.strip().lower() for token in tokens]

    def _hand_over(self: Any, method: bytes, target: bytes, version: bytes, early: bytes) -> None:
        """Give the connection to the WebSocket protocol, with what has come after the handshake: uvicorn's
        own protocols forget it."""
        if self.cycle is not None and not self.cycle.response_complete:
            # Another request has not been answered yet, and nothing may overtake its answer. A client waits
            # for it: a handshake is the first thing on a connection (RFC 6455 section 4.1).
            self._refuse(400)
            return
        self._deaf = True
        self._cancel_timer()
        self.connections.discard(self)
        protocol = self.ws_protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.app_state
        )
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        protocol.data_received(head_of(method, target, self.headers, version))
        if early and not self.transport.is_closing():
            protocol.data_received(early)

    def _wait_for_head(self: Any) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.head_timeout, self._too_late)

    def _too_late(self: Any) -> None:
        self._timer = None
        if self.flow.read_paused:
            self._wait_for_head()  # it is the app that takes its time, with a request before this one
        else:
            self._refuse(408)

    def _refuse(self: Any, status: int) -> None:
        """Close, with an error where no other answer is owed or under way."""
        self._deaf = True
        self._cancel_timer()
        cycle = self.cycle  # of the last request that has begun
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False  # its answer is the last one, and closes
                return
            # It is this request that cannot go on.
            if self.pipeline:
                self.pipeline.popleft()  # the app has not seen it yet; others come first, the last one closes
                return
            answers = not cycle.response_started  # its app learns from the close
        else:
            answers = True
        if answers:
            body = HTTPStatus(status).phrase.encode()
            self.transport.write(response(status, self.server_state.default_headers, b"", body))
        self.transport.close()
        # Over TLS it waits for the client's part of the close.
        self._timer = self.loop.call_later(self.head_timeout, self.transport.abort)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class H11(Guarded, H11Protocol):
    """uvicorn's protocol over h11, guarded. h11 itself limits the size of a head, with 400 for an answer."""

    def limit(self, head_timeout: float, max_head: int) -> None:
        """Set the limits of a head: seconds, and bytes. h11's own would be 16 KiB."""
        super().limit(head_timeout, max_head)
        self.conn = h11.Connection(h11.SERVER, max_head)

    def data_received(self, data: bytes) -> None:
        """Parse it."""
        if self._deaf or self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE:
            self._size += len(data)
        super().data_received(data)
        if self._deaf or self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE:
            self._wait_for_head()
        else:
            self._size = 0
            self._cancel_timer()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """The request is a handshake."""
        self._hand_over(event.method, event.target, event.http_version, self.conn.trailing_data[0])

    def send_400_response(self, msg: str) -> None:
        """The request is none."""
        self._refuse(431 if self._size > self.max_head else 400)
