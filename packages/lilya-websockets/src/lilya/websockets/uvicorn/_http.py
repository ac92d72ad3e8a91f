"""`HTTPProtocol`: limits on the heads of requests, around uvicorn's own HTTP protocols."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from ._guarded import H11, Guarded
from ._handshake import MAX_LINE_LENGTH, Refusal, agreed, read
from ._heads import END_OF_HEAD, MAX_HEAD, NO_METHOD, response
from ._protocol import WebSocketProtocol, ends_of

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

behind: type[Guarded] = H11
"""Handles requests that are not handshakes. Like uvicorn, it prefers httptools where it is installed."""
try:
    from ._httptools import HttpTools
except ImportError:
    pass
else:
    behind = HttpTools


HANDSHAKE: Final = (
    b"pgrade: websocket\r\n"  # as clients write it; if they write it otherwise, it takes longer
)
LONGEST_METHOD: Final = 32  # bytes; the longest registered one has 17 (RFC 9110 section 16.1.1)


class HTTPProtocol(asyncio.Protocol):
    """Limits on the head of every request, in time and in size, around uvicorn's own HTTP protocol.

    uvicorn's HTTP protocols receive a request before any WebSocket protocol does. They wait for the end of
    its head without a time limit, and the faster one of them without a size limit. Given with `--http`, this
    class adds both limits. It collects the first head of a connection itself. A handshake goes straight to
    the `WebSocketProtocol`. Anything else goes to a subclass of uvicorn's own protocol, which applies the
    same limits to later requests.

    Args:
        config: uvicorn's configuration.
        server_state: uvicorn's connections and tasks.
        app_state: The state of the app's lifespan.
    """

    head_timeout: ClassVar[float] = 10.0
    """Seconds in which a client must send the head of a request. A close has the same limit."""

    __slots__ = ("_arguments", "_head", "_loop", "_max_head", "_server", "_timer", "_transport")

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        if config.ws_protocol_class is type(self):
            raise TypeError("HTTPProtocol was given with --ws; it goes with --http, beside WebSocketProtocol")
        self._arguments = (config, server_state, app_state, _loop)
        self._loop = _loop or asyncio.get_running_loop()
        self._server = server_state
        self._head = bytearray()
        self._max_head = config.h11_max_incomplete_event_size or MAX_HEAD

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the time begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(cast(Any, self))
        self._timer = self._loop.call_later(self.head_timeout, self._too_late)

    def data_received(self, data: bytes) -> None:
        """Collect the head, and hand over when it is whole."""
        if self._transport.is_closing():
            return  # over TLS it may still bring something
        start = max(0, len(self._head) - 2)
        if not self._head:
            # Nearly always it is a whole head.
            if HANDSHAKE in data and (end := data.find(b"\r\n\r\n")) > 0 and self._open(data, end):
                return
            data = data.lstrip(b"\r\n")  # empty lines may come before it (RFC 9112 section 2.2)
        self._head += data
        if END_OF_HEAD.search(self._head, start):
            self._leave()
            protocol = cast(Any, behind)(*self._arguments)
            protocol.limit(self.head_timeout, self._max_head)
            protocol.connection_made(self._transport)
            self._transport.set_protocol(protocol)
            protocol.data_received(bytes(self._head))
        elif len(self._head) > self._max_head:
            self._refuse(431 if b"\n" in self._head else 414)
        elif start < LONGEST_METHOD and NO_METHOD(self._head):
            self._refuse(400)  # such as the first bytes of TLS, whose sender waits for an answer

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._leave()

    def shutdown(self) -> None:
        """The server stops."""
        self._close()

    def _open(self, data: bytes, end: int) -> bool:
        """Hand over to the WebSocket protocol, if it is ours and this is a handshake that can be accepted."""
        config, server_state, app_state, loop = self._arguments
        cls: Any = config.ws_protocol_class
        if end > MAX_LINE_LENGTH or cls is None or not issubclass(cls, WebSocketProtocol):
            return False
        try:
            agreement = agreed(*read(data[:end]), config.ws_per_message_deflate)
        except Refusal:
            return False  # refused already: do not refuse twice
        self._leave()
        protocol = cls(config, server_state, app_state, loop)
        protocol.connection_made(self._transport)
        protocol.begin(agreement, ends_of(self._transport), data[end + 4 :])
        return True

    def _too_late(self) -> None:
        if self._head:
            self._refuse(408)
        else:
            self._close()

    def _refuse(self, status: int) -> None:
        body = HTTPStatus(status).phrase.encode()
        self._transport.write(response(status, self._server.default_headers, b"", body))
        self._close()

    def _close(self) -> None:
        if self._transport.is_closing():
            return  # closed twice, asyncio's transport for TLS does not abort any more
        self._timer.cancel()
        self._timer = self._loop.call_later(self.head_timeout, self._transport.abort)
        self._transport.close()  # over TLS it waits for the client's

    def _leave(self) -> None:
        self._server.connections.discard(cast(Any, self))
        self._timer.cancel()
