"""uvicorn's HTTP protocol over httptools, guarded. Importing this needs httptools."""

from __future__ import annotations

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ._guarded import Guarded
from ._heads import head_of


class HttpTools(Guarded, HttpToolsProtocol):
    """uvicorn's protocol over httptools, guarded.

    The parser stops behind the head of *every* request that asks for an upgrade, and takes what follows
    for another protocol: fed on, it would read a body as the next request. So a request whose `Upgrade`
    is ignored is parsed once more, without that header, by a parser that goes on with its body.
    """

    _found = 0  # bytes of a head that the parser has given back; `_size` are those that were given to it
    _began = False  # whether a head is under way, and not the rest of a request
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
            if size > self.max_head:
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
                version = self.parser.get_http_version().encode()
                self._hand_over(self.parser.get_method(), self.url, version, bytes(rest))
            else:
                # CONNECT: what follows would belong to the tunnel.
                self._deaf = True
        except httptools.HttpParserError:
            if max(self._size, self._found) > self.max_head:
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
        self._size = self._found = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of its target."""
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which is none (RFC 9110 section 6.5.1)."""
        self._grow(len(name) + len(value) + 4)
        if self._began:
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
        self._size = self._found = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """It is whole."""
        if self._ignored is None:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request has its answer."""
        was_last = not self.pipeline
        super().on_response_complete()
        if was_last and self._deaf:
            self.transport.close()

    def _grow(self, size: int) -> None:
        # More than one read may bring is found here; what comes in small pieces, by their size.
        self._found += size
        if self._found > self.max_head:
            raise ValueError("the head is too large")  # ends the parser, and comes back as its error
