"""`HTTPProtocol`: limits on the heads of requests, around uvicorn's own HTTP protocols."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ._heads import END_OF_HEAD, MAX_HEAD, head_of, response

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState


class HTTPProtocol(asyncio.Protocol):
    """Limits on the head of every request, in time and in size, around uvicorn's own HTTP protocol.

    uvicorn's HTTP protocols see a request before any WebSocket protocol does, and wait for the end of its
    head without a limit in time, the faster one of them without a limit in size. Given with `--http`, this
    class adds both. It collects the first head of a connection itself, and then hands over to `HttpTools` or
    `H11` below, which hold later requests to the same limits.

    Args:
        config: uvicorn's.
        server_state: uvicorn's.
        app_state: What the lifespan of the app has left.
    """

    head_timeout: ClassVar[float] = 10.0
    """Seconds that a client has for the head of a request, and again for its part of a close."""

    __slots__ = ("_arguments", "_head", "_loop", "_server", "_timer", "_transport")

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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the time begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(cast(Any, self))
        self._timer = self._loop.call_later(self.head_timeout, self._too_late)

    def data_received(self, data: bytes) -> None:
        """Collect the head, and hand over when it is whole."""
        if self._transport.is_closing():
            return  # over TLS it may still bring something
        if not self._head:
            data = data.lstrip(b"\r\n")  # empty lines may come before it (RFC 9112 section 2.2)
        start = max(0, len(self._head) - 3)
        self._head += data
        if END_OF_HEAD.search(self._head, start):
            self._leave()
            protocol = cast(Any, (HttpTools or H11)(*self._arguments))
            protocol.head_timeout = self.head_timeout
            protocol.connection_made(self._transport)
            self._transport.set_protocol(protocol)
            protocol.data_received(bytes(self._head))
        elif len(self._head) > MAX_HEAD:
            self._refuse(431 if b"\n" in self._head else 414)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._leave()

    def shutdown(self) -> None:
        """The server stops."""
        self._close()

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


class Guarded:
    """What `HTTPProtocol` adds to one of uvicorn's HTTP protocols, for every request of a connection.

    - A head has `head_timeout` seconds from the read that brought its first bytes, and `MAX_HEAD` bytes.
    - `Upgrade` is ignored unless it is exactly one `websocket` (RFC 9110 section 7.8): the body of any other
      request is its body, and what follows is the next request.
    - A connection that is about to close takes nothing more.
    """

    head_timeout: float
    transport: asyncio.Transport
    _timer: asyncio.TimerHandle | None = None  # of a head that has begun, then of the close
    _size = 0  # bytes of that head so far
    _deaf = False  # whether the connection takes nothing more

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

    def _hand_over(self: Any, method: bytes, target: bytes, early: bytes) -> None:
        """Give the connection to the WebSocket protocol, with what has come after the handshake: uvicorn's
        own protocols forget it."""
        self._deaf = True
        self._cancel_timer()
        self.connections.discard(self)
        protocol = self.ws_protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.app_state
        )
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        protocol.data_received(head_of(method, target, self.headers))
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
            # It is this request that cannot go on. Its app learns that from the close.
            answers = not cycle.response_started and not getattr(self, "pipeline", None)
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


def guarded_httptools() -> Any:
    """`HttpTools`, where httptools is installed: uvicorn then prefers it, and so does `HTTPProtocol`."""
    try:
        import httptools
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return None

    class HttpTools(Guarded, HttpToolsProtocol):
        """uvicorn's protocol over httptools, guarded.

        The parser stops behind the head of *every* request that asks for an upgrade, and takes what follows
        for another protocol: fed on, it would read a body as the next request. So a request whose `Upgrade`
        is ignored is parsed once more, without that header, by a parser that goes on with its body.
        """

        _began = False  # whether a head is under way
        _advanced = False  # whether the bytes at hand were more than a part of a head
        _ignored: list[tuple[bytes, bytes]] | None = None  # the headers of a request to be parsed once more

        def data_received(self, data: bytes) -> None:
            """Parse it."""
            if self._deaf or self.transport.is_closing():
                return
            size = self._size + len(data)
            self._advanced = False
            rest: Any = data
            while rest is not None and not self._deaf:
                rest = self._feed(rest)
            if self._deaf:
                return
            if not self._advanced:
                # A part of a head, or of what is around the pieces of a body; a parser keeps it.
                self._size = size
                if size > MAX_HEAD:
                    self._refuse(431)
                    return
            if self._began:
                self._wait_for_head()

        def _feed(self, data: Any) -> Any:
            """Give bytes to the parser. Returns those that it must be given anew, if any."""
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                rest = memoryview(data)[stop.args[0] :]  # not a copy: there may be many such requests
                if self._ignored is not None:
                    head = head_of(
                        self.parser.get_method(),
                        self.url,
                        [pair for pair in self._ignored if pair[0] != b"upgrade"],
                        self.parser.get_http_version().encode(),
                    )
                    self.parser = httptools.HttpRequestParser(self)
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
                    self._feed(head)
                    return rest
                if self._should_upgrade():
                    self._hand_over(self.parser.get_method(), self.url, bytes(rest))
                else:
                    # CONNECT: what follows would belong to the tunnel.
                    self._deaf = True
            except httptools.HttpParserError:
                if self._size > MAX_HEAD:
                    self._refuse(431)
                else:
                    self.logger.warning("Invalid HTTP request received.")
                    self._refuse(400)
            return None

        # Callbacks of the parser

        def on_message_begin(self) -> None:
            """A request begins."""
            self._unset_keepalive_if_required()
            self._began = self._advanced = True
            self._size = 0
            super().on_message_begin()

        def on_url(self, url: bytes) -> None:
            """A part of its target."""
            self._grow(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            """A header, or a trailer."""
            self._grow(len(name) + len(value) + 4)
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            """Its head is whole."""
            self._began = False
            self._cancel_timer()
            if self._ignored is not None:
                self.headers[:] = self._ignored  # the app sees all of them
                self._ignored = None
            elif self.parser.should_upgrade() and not self._should_upgrade():
                if self.parser.get_method() != b"CONNECT":
                    self._ignored = self.headers
                    return
                super().on_headers_complete()
                self.cycle.keep_alive = False
                return
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            """A part of its body."""
            self._advanced = True
            self._size = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            """It is whole."""
            if self._ignored is None:
                super().on_message_complete()

        def _grow(self, size: int) -> None:
            self._size += size
            if self._size > MAX_HEAD:
                raise ValueError("the head is too large")  # ends the parser, and comes back as its error

    return HttpTools


class H11(Guarded, H11Protocol):
    """uvicorn's protocol over h11, guarded. h11 itself limits the size of a head, with 400 for an answer."""

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
        self._hand_over(event.method, event.target, self.conn.trailing_data[0])

    def send_400_response(self, msg: str) -> None:
        """The request is none."""
        self._refuse(431 if self._size > MAX_HEAD else 400)


HttpTools = guarded_httptools()
