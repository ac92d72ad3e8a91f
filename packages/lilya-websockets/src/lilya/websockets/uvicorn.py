"""A WebSocket protocol for uvicorn: `uvicorn --ws lilya.websockets.uvicorn:WebSocketProtocol app:app`.

The rules of this file:

- The common frame takes a fast path: masked, whole, data, no larger than allowed, and nothing else under way.
  It is read in `_parse`, or if it came alone in `data_received`, and written in `send`, all of them without a
  call that could be saved. So do pings, pongs and fragments that are not compressed.
- Every other frame (closes, compressed fragments, whatever is wrong) goes byte by byte through the
  `websockets` library, `wire`. It is made when such a frame comes, and dropped after it: kept, it would be
  the largest part of an idle connection. While `wire` is there, all frames go through it.
- Both paths give the same events and the same bytes. A property test compares them, with `fast` on and off.
- `_phase` says what may happen, and only moves forward. `_end` says what the app is told at the end, once.
- `_parse` stops at a frame when the app has enough to read. What is left waits in `_pending`, and reading is
  paused, until the app has taken all of it: one pause for many messages, none for one at a time.
- `send` waits before it writes, never after it: a send that is cancelled has written nothing, and each waits
  for an event, not for a future of another. `close` never waits.
- Whatever waits for the peer is bounded: after every end `_timer` aborts the transport.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
import re
import socket
import sys
import zlib
from codecs import IncrementalDecoder
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from enum import IntEnum
from functools import partial
from http import HTTPStatus
from random import getrandbits
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast
from urllib.parse import unquote

try:
    import h11
    from uvicorn.logging import TRACE_LOG_LEVEL
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.protocols.utils import (
        ClientDisconnected,
        get_client_addr,
        get_local_addr,
        get_path_with_query_string,
        get_remote_addr,
        is_ssl,
    )

    from websockets.exceptions import NegotiationError, PayloadTooBig, ProtocolError
    from websockets.extensions import Extension
    from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
    from websockets.frames import Close, Frame, Opcode
    from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS, Request
    from websockets.protocol import State
    from websockets.server import ServerProtocol
    from websockets.typing import ExtensionName
except ModuleNotFoundError as error:
    raise ImportError(
        "lilya.websockets.uvicorn needs uvicorn and websockets: install lilya-websockets[uvicorn]"
    ) from error

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

__all__ = ["HTTPProtocol", "WebSocketProtocol"]

logger = logging.getLogger("uvicorn.error")  # where uvicorn's own protocols write, access lines included

DENIAL: Final = "websocket.http.response"
PREPARED: Final = "lilya.websocket.prepared"
END: Final = "lilya.websocket.end"
# Under which a prepared message has its frame: it is no other server's.
FRAME: Final = "lilya.websockets.uvicorn"

MAX_HEAD = 65536  # bytes of a request before its empty line; h11 has the same limit
MAX_QUEUE = 262144  # bytes of messages that wait for the app, which is what one read of a loop brings
STEP = 1048576  # bytes that are inflated at once
# Bytes from which a payload is not copied into its frame. In these Pythons asyncio never says `pause_writing`
# after `writelines` (CVE-2024-12254): there, all are.
PAUSES = not ((3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2))
APART = 16384 if PAUSES else sys.maxsize
PARSED: Final = (
    "connection",
    "upgrade",
    *(f"sec-websocket-{name}" for name in ("key", "version", "extensions")),
)
MAX_STREAMS = 16  # blocks with BFINAL set in a frame: what follows each is copied

# The first byte of a frame: final, and its opcode; for a compressed message RSV1 (RFC 7692 section 6).
TEXT, BINARY, COMPRESSED = 0x81, 0x82, 0x40
PING, PONG = 0x89, 0x8A
PIECES: Final = frozenset((0x01, 0x02, 0x00, 0x80))  # of a text or a binary message, and what follows
CONTINUATIONS: Final = frozenset((0x00, 0x80))
BEATS: Final = frozenset((PING, PONG))
PONG_HEAD: Final = bytes((PONG,))
PLAIN: Final = frozenset((TEXT, BINARY))
DEFLATED: Final = frozenset((TEXT | COMPRESSED, BINARY | COMPRESSED))
TEXT_HEADS: Final = [bytes((TEXT, length)) for length in range(126)]


class Phase(IntEnum):
    """How far a connection has come."""

    REQUEST = 0  # the request is awaited
    ASKED = 1  # the app has it, and has not answered
    OPEN = 2
    CLOSING = 3  # our close frame is out, the client's is awaited
    DONE = 4  # nothing is read any more, what was written goes out
    LOST = 5  # the transport is gone


REQUEST, ASKED, OPEN, CLOSING, DONE, LOST = Phase


class WebSocketProtocol(asyncio.Protocol):
    """One WebSocket connection of uvicorn, made from the HTTP request that asked for it.

    Args:
        config: uvicorn's; the `ws_*` settings hold here.
        server_state: uvicorn's; the connections and tasks for which a shutdown waits.
        app_state: What the lifespan of the app has left; each connection gets a copy.
    """

    close_timeout: ClassVar[float] = 10.0
    """Seconds that a client has to answer a close, or to read what is left, before it is cut off."""

    compression_level: ClassVar[int] = 3
    """zlib's level for messages that are sent: 1 takes the least time, 9 makes them smallest, 6 is zlib's own
    default. 3 was measured to take a quarter less time than 6, for messages a tenth larger."""

    fast: ClassVar[bool] = True
    """Whether common frames take the fast path. They do not while uvicorn logs at level debug or trace: the
    `websockets` library then logs every frame but those of prepared messages."""

    __slots__ = (
        "_app_state",
        "_by_app",
        "_config",
        "_decoder",
        "_deflate",
        "_denial",
        "_drained",
        "_ending",
        "_fast",
        "_fragments",
        "_held",
        "_later",
        "_loop",
        "_max_later",
        "_max_size",
        "_missing",
        "_next",
        "_owed",
        "_paused",
        "_pending",
        "_phase",
        "_pinged",
        "_plain",
        "_pong",
        "_reader",
        "_ready",
        "_response",
        "_rest",
        "_server",
        "_size",
        "_stopped",
        "_timer",
        "_told",
        "_transport",
        "_watchers",
        "_wire",
        "scope",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        if config.http_protocol_class is type(self):
            raise TypeError("WebSocketProtocol was given with --http; it goes with --ws")
        self._config = config
        self._server = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._fast = self.fast and not logger.isEnabledFor(logging.DEBUG)
        self._max_size = config.ws_max_size
        self.scope: dict[str, Any] = {}
        self._phase = REQUEST
        self._response = b"?"  # to the request; empty once it is out
        self._by_app = False  # whether the app has ended it
        self._denial: tuple[int, bytes, list[bytes]] | None = None  # status, header lines, body so far
        self._deflate: Deflate | None = None
        self._wire: ServerProtocol | None = None
        # From the client
        self._pending: bytearray | None = None  # what could not be parsed yet
        self._missing = 0  # bytes without which it cannot be
        self._rest = 0  # bytes of the frame whose beginning `wire` has
        self._fragments: bytearray | None = None  # of the message under way
        self._decoder: IncrementalDecoder | None = None  # if that is a text
        # To the app
        self._next: dict[str, Any] | None = None  # the oldest message
        self._later: list[dict[str, Any]] = []  # the others: for one, a list would allocate and free
        self._max_later = config.ws_max_queue - 1
        self._size = 0  # bytes in both, since they were empty
        self._stopped = False  # the app has enough to read
        self._paused = False  # and the transport knows
        self._reader: asyncio.Future[None] | None = None  # the last call of `receive` that waits
        self._ending: dict[str, Any] | None = None  # the `websocket.disconnect`
        self._watchers: list[Callable[[dict[str, Any]], object]] | None = None  # who are told it at once
        self._told = False  # whether a call of `receive` has returned it
        # To the client
        self._plain = False  # whether frames are made here, and not compressed
        self._ready = False  # whether the next message can be written: open, and nobody waits
        self._drained: asyncio.Event | None = None  # for which `send` waits
        self._owed = b""  # the last pong that waits for it, too
        self._timer: asyncio.TimerHandle | None = None  # of the next ping, or of a pong, or of the end
        self._pong: bytes | None = None  # what the client should answer
        self._pinged = 0.0
        self._held = False  # whether the app did not read when that was due

    # The event loop's side (asyncio.Protocol)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a connection."""
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(cast(Any, self))
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            # asyncio does it only where the socket names its protocol, and those of `--workers` do not.
            # Without it a small frame waits until the client has acknowledged the one before.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._trace("connection made")

    def data_received(self, data: bytes) -> None:
        """Take what the client has sent."""
        if self._phase is OPEN and self._pending is None:
            # Nearly always it is one short frame, whole and alone. `_parse` would do the same with it, but
            # would take longer to find that out.
            length = len(data) - 6
            if (
                0 <= length < 126
                and (first := data[0]) in PLAIN
                and data[1] == 0x80 + length
                and self._wire is None
                and self._fragments is None
                and not self._stopped
                and length <= self._max_size
            ):
                try:
                    self._deliver(first == TEXT, apply_mask(data[6:], data[2:6]))
                except UnicodeDecodeError as error:
                    self._fail_for(error)
            else:
                self._parse(data)
        elif self._phase <= CLOSING:
            self._take(data)

    def eof_received(self) -> None:
        """The client hangs up: the loop closes the transport, once what was written has gone out."""
        if self._phase is OPEN:
            self._abort_later()  # it may never go out

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        self._server.connections.discard(cast(Any, self))
        self._phase = LOST
        self._cancel_timer()
        self._release_senders()
        if not self._stopped or self._response:
            self._end(1006)  # else `receive` comes to it, after what had arrived
        if not self._response:
            logger.info("connection closed")
        self.scope = {}  # which refers to this object
        self._trace("connection lost")

    def pause_writing(self) -> None:
        """Let senders wait: the client does not read as fast as the app writes."""
        if self._phase is OPEN:
            self._drained = asyncio.Event()
            self._ready = False

    def resume_writing(self) -> None:
        """Let senders go on."""
        self._release_senders()
        if self._phase is OPEN:
            owed, self._owed = self._owed, b""
            self._write(owed)

    # uvicorn's side

    def shutdown(self) -> None:
        """The server stops: close with 1012 (service restart)."""
        if self._phase <= ASKED:
            self._refuse(503, b"", b"Service Unavailable", 1012)
        elif self._phase is OPEN:
            self._close(1012, None)

    async def _run(self, scope: dict[str, Any]) -> None:
        """Run the app, and end the connection when it has not."""
        code = 1000
        try:
            result = await self._config.loaded_app(scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            logger.exception("Exception in ASGI application\n")
            code = 1011
        except BaseException:
            code = 1011
            raise
        else:
            if self._phase is ASKED:
                logger.error("ASGI callable returned without completing handshake.")
            elif result is not None:
                logger.error("ASGI callable should return None, but returned '%s'.", result)
        finally:
            if self._phase is OPEN:
                self._close(code, "")
            elif self._phase is ASKED:
                self._refuse(500, b"", b"Internal Server Error", 1006)
            self._next = None
            self._later.clear()

    # The app's side

    async def receive(self) -> dict[str, Any]:
        """Wait for the next message of the client, or for the end.

        Cancelling loses nothing. At the end, every call returns the same `websocket.disconnect`.
        """
        while (message := self._next) is None:
            if self._ending is not None:
                if self._told:
                    await asyncio.sleep(0)  # an app that does not look would keep the loop for itself
                self._told = True
                return self._ending.copy()
            # `loop.create_future` makes the same, and takes longer.
            reader: asyncio.Future[None] = asyncio.Future()
            if self._reader is not None:  # of a call that goes on elsewhere: it is woken after this one
                reader.add_done_callback(partial(wake, self._reader))
            self._reader = reader
            await reader
        if self._later:
            self._next = self._later.pop(0)
        else:
            self._next = None
            if self._stopped:
                self._go_on()
        return message

    async def send(self, message: Any) -> None:
        """Do what the app says. `websocket.send` waits while the client does not read, the others never do.

        Cancelled, nothing was sent.

        Raises:
            ClientDisconnected: The connection has ended, and not by the app; an `OSError`.
            RuntimeError: The message has no place here, or nothing in it.
            ValueError: Something in the message cannot be sent.
        """
        if message["type"] != "websocket.send":
            return self._answer(message)
        if not self._ready:
            while self._drained is not None:
                await self._drained.wait()
            if self._phase is not OPEN:
                raise self._misplaced("websocket.send")
        transport = self._transport
        if self._plain and len(message) == 2 and (text := message.get("text")) is not None:
            data = text.encode()
            length = len(data)
            if length < 126:
                transport.write(TEXT_HEADS[length] + data)
            else:
                self._write_frame(TEXT, data)
        elif (prepared := message.get("prepared")) is not None:
            # Not compressed, for nobody: which messages are is the sender's choice (RFC 7692 section 6), and
            # with a context of its own, every connection would need a frame of its own.
            if (frame := prepared.get(FRAME)) is None:
                frame = prepared[FRAME] = b"".join(framed(*payload_of(message)))
            transport.write(frame)
        else:
            self._send_payload(*payload_of(message))
        if transport.is_closing():
            # The write has failed. An app that does nothing but send would never let the loop tell it.
            await asyncio.sleep(0)

    def watch(self, callback: Callable[[dict[str, Any]], object]) -> None:
        """Have the end told at once, whoever makes it: what the app has not received yet does not delay it.

        Args:
            callback: Called once, in the thread of the event loop, with the `websocket.disconnect`. What it
                raises is logged.
        """
        if self._ending is not None:
            self._tell(callback)
        elif self._watchers is None:
            self._watchers = [callback]
        else:
            self._watchers.append(callback)

    # What the app says

    def _answer(self, message: Any) -> None:
        kind = message["type"]
        if self._phase is ASKED and self._denial is None:
            if kind == "websocket.accept":
                self._accept(message)
            elif kind == "websocket.close":
                self._by_app = True
                self._log_answer("403")
                self._refuse(403, b"", b"", 1006)
            elif kind == f"{DENIAL}.start":
                self._deny(message)
            else:
                raise self._misplaced(kind)
        elif self._phase is ASKED and kind == f"{DENIAL}.body":
            self._deny_with(message)
        elif self._phase is OPEN and kind == "websocket.close":
            code, reason = message.get("code"), message.get("reason")
            self._close(1000 if code is None else code, reason or "")
            self._by_app = True
        else:
            raise self._misplaced(kind)

    def _misplaced(self, kind: str) -> Exception:
        """What to raise for a message out of turn."""
        if self._phase is ASKED and self._denial is not None:
            return RuntimeError(f"Expected ASGI message '{DENIAL}.body', but got '{kind}'.")
        if self._phase is ASKED:
            return RuntimeError(
                "Expected ASGI message 'websocket.accept', 'websocket.close' "
                f"or '{DENIAL}.start', but got '{kind}'."
            )
        if self._phase is OPEN:
            return RuntimeError(
                f"Expected ASGI message 'websocket.send' or 'websocket.close', but got '{kind}'."
            )
        if self._by_app:
            ended = "websocket.close" if self._denial is None else f"{DENIAL}.body"
            return RuntimeError(f"Unexpected ASGI message '{kind}', after the app sent its last '{ended}'.")
        return ClientDisconnected()

    def _log_answer(self, answer: str) -> None:
        scope = cast(Any, self.scope)
        logger.info(
            '%s - "WebSocket %s" %s', get_client_addr(scope), get_path_with_query_string(scope), answer
        )

    # The handshake (RFC 6455 section 4.2)

    def _ask(self, data: bytes | bytearray) -> None:
        """Take the request, and start the app with it."""
        head, blank, early = bytes(data).partition(b"\r\n\r\n")
        if not blank:
            if len(head) > MAX_HEAD:
                self._refuse(431, b"", b"Request Header Fields Too Large", 1006)
                return
            self._pending, self._missing = bytearray(data), 1
            return
        line, *lines = head.split(b"\r\n")
        if len(line) > MAX_LINE_LENGTH:
            self._refuse(414, b"", b"URI Too Long", 1006)
            return
        if len(lines) > MAX_NUM_HEADERS or any(len(line) > MAX_LINE_LENGTH for line in lines):
            self._refuse(431, b"", b"Request Header Fields Too Large", 1006)
            return
        wire = ServerProtocol(
            extensions=[DEFLATE] if self._config.ws_per_message_deflate else None,
            max_size=self._max_size,
            logger=logger,
        )
        wire.receive_data(head + blank)
        events = wire.events_received()
        if not events:
            self._refuse(400, b"", b"Bad Request", 1006)
            return
        request = cast(Request, events[0])
        if request.headers.get_all("Sec-WebSocket-Version") not in ([], ["13"]):
            self._refuse(426, b"sec-websocket-version: 13\r\n", b"Upgrade Required", 1006)  # section 4.4
            return
        if not all(value.isascii() for name, value in request.headers.raw_items() if name.lower() in PARSED):
            # None of them may have such a byte. `websockets` before its version 17 raises at it.
            self._refuse(400, b"", b"Bad Request", 1006)
            return
        answer = wire.accept(request)
        if answer.status_code != 101:
            wire.send_response(answer)
            self._transport.write(b"".join(wire.data_to_send()))
            self._finish(1006)
            return
        del answer.headers["Date"]  # uvicorn has its own
        self._response = answer.serialize()[:-2]
        if wire.extensions:
            self._deflate = Deflate(cast(PerMessageDeflate, wire.extensions[0]), self.compression_level)
        forget(wire)
        self.scope = self._scope_of(request)
        self._phase = ASKED
        self._next = {"type": "websocket.connect"}
        context = Context() if self._config.reset_contextvars else copy_context()
        task = context.run(self._loop.create_task, self._run(self.scope))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)
        if early:
            self._take(early)

    def _scope_of(self, request: Request) -> dict[str, Any]:
        raw_path, _, query_string = request.path.partition("?")
        root_path = self._config.root_path
        subprotocols: list[str] = []
        for value in request.headers.get_all("Sec-WebSocket-Protocol"):
            subprotocols += [token.strip() for token in value.split(",")]
        return {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self._transport) else "ws",
            "server": get_local_addr(self._transport),
            "client": get_remote_addr(self._transport),
            "root_path": root_path,
            "path": root_path + unquote(raw_path),
            "raw_path": root_path.encode("ascii") + raw_path.encode("ascii"),
            "query_string": query_string.encode("ascii"),
            "headers": [
                (name.lower().encode(), octets(value)) for name, value in request.headers.raw_items()
            ],
            "subprotocols": subprotocols,
            "state": self._app_state.copy(),
            "extensions": {DENIAL: {}, PREPARED: {}, END: {"watch": self.watch}},
        }

    def _accept(self, message: Any) -> None:
        lines = header_lines(message.get("headers") or ())
        if lines.startswith(b"sec-websocket-") or b"\nsec-websocket-" in lines:
            raise ValueError(
                "the headers of 'websocket.accept' contain one of the server's own, sec-websocket-*"
            )
        if subprotocol := message.get("subprotocol"):
            if not TOKEN.fullmatch(subprotocol.encode()):
                raise ValueError(f"{subprotocol!r} cannot be a subprotocol")
            lines += b"sec-websocket-protocol: %b\r\n" % subprotocol.encode()
        self._log_answer("[accepted]")
        defaults = b"".join(b"%b: %b\r\n" % pair for pair in self._server.default_headers)
        self._phase = OPEN
        self._plain = self._fast and self._deflate is None
        self._release_senders()
        # Not before: it may be too much for the transport, which says so at once.
        self._transport.write(b"".join((self._response, defaults, lines, b"\r\n")))
        self._response = b""
        logger.info("connection open")
        if not self._fast:
            self._wire = self._made_wire()
        if self._config.ws_ping_interval:
            self._timer = self._loop.call_later(self._config.ws_ping_interval, self._ping)
        self._go_on()

    def _deny(self, message: Any) -> None:
        status = message["status"]
        if not 200 <= status <= 599:
            raise RuntimeError(f"Invalid HTTP status code '{status}' in response.")
        # The whole body is sent at once: how long it is, is known better here.
        own = (b"connection", b"content-length", b"transfer-encoding")
        lines = header_lines(pair for pair in message.get("headers") or () if pair[0].lower() not in own)
        self._denial = (status, lines, [])
        self._log_answer(str(status))

    def _deny_with(self, message: Any) -> None:
        status, lines, body = cast("tuple[int, bytes, list[bytes]]", self._denial)
        body.append(message.get("body", b""))
        if not message.get("more_body", False):
            self._by_app = True
            self._refuse(status, lines, b"".join(body), 1006)

    def _refuse(self, status: int, lines: bytes, body: bytes, code: int) -> None:
        """Answer the request with an ordinary response, and end."""
        self._transport.write(response(status, self._server.default_headers, lines, body))
        self._finish(code)

    # Bytes from the client

    def _take(self, data: bytes | bytearray) -> None:
        """Add them to those that wait, and read if that is possible now."""
        if self._pending is not None:
            self._pending += data
            self._missing -= len(data)
            if self._missing > 0 or self._stopped:
                return
            data, self._pending = self._pending, None
        if self._phase >= OPEN:
            self._parse(data)
        elif self._phase is REQUEST:
            self._ask(data)
        else:
            # Sent before the answer: read once the app has accepted.
            self._pending = bytearray(data)
            if len(data) > MAX_HEAD:
                self._stop()

    # Frames from the client (RFC 6455 section 5)

    def _parse(self, data: bytes | bytearray) -> None:
        """Read frames, until there is no whole one or the app has enough."""
        at, end = 0, len(data)
        missing = 1
        while at < end and not self._stopped:
            if self._rest:
                stop = min(at + self._rest, end)
                self._rest -= stop - at
                self._parse_by_wire(data[at:stop])
                if self._ending is not None and self._phase is not CLOSING:
                    return
                at = stop
                continue
            if end - at < 2:
                break
            first, second = data[at], data[at + 1]
            length = second & 0x7F
            start = at + 6  # of the payload; the four bytes before it are the mask
            if length > 125:
                start = at + (8 if length == 126 else 14)
                if start > end:
                    break
                length = int.from_bytes(data[at + 2 : start - 4], "big")
            stop = start + length
            if (
                self._wire is None
                and self._fragments is None
                and second > 0x7F
                and length <= self._max_size
                and (first in PLAIN or (first in DEFLATED and self._deflate is not None))
            ):
                if stop > end:
                    missing = stop - end
                    break
                payload = apply_mask(
                    data[start:stop] if length < 4096 else memoryview(data)[start:stop],
                    data[start - 4 : start],
                )
                try:
                    if first & COMPRESSED:
                        payload = cast(Deflate, self._deflate).inflated(payload, self._max_size)
                    self._deliver(first & 0x0F == 1, payload)
                except (UnicodeDecodeError, PayloadTooBig, ProtocolError) as error:
                    self._fail_for(error)
                    return
                at = stop
            elif first in BEATS and self._wire is None and 0x7F < second <= 0xFD:
                # Whole and well-formed, as those that keep a connection alive are.
                if stop > end:
                    missing = stop - end
                    break
                payload = apply_mask(data[start:stop], data[start - 4 : start])
                if first == PONG:
                    self._ponged(payload)
                else:
                    self._answer_ping(b"%c%c%b" % (PONG, length, payload))
                at = stop
            elif first in PIECES and self._wire is None and second > 0x7F and self._continues(first, length):
                if stop > end:
                    missing = stop - end
                    break
                try:
                    self._defragment(
                        first & 0x0F, first > 0x7F, apply_mask(data[start:stop], data[start - 4 : start])
                    )
                except UnicodeDecodeError as error:
                    self._fail_for(error)
                    return
                at = stop
            else:
                # In whatever pieces it comes: what is wrong with it is found at once.
                self._rest = stop - at
                if first & 0x0F == Opcode.CLOSE:
                    # It may come inside a message (section 5.4); `websockets` would take it for a fault.
                    self._wire = self._wire or self._made_wire()
                    self._wire.current_size = None
        wire = self._wire
        if (
            wire is not None
            and self._fast
            and not self._rest
            and (self._fragments is None or self._deflate is None or not self._deflate.continued)
            and self._phase is not CLOSING
        ):
            # Here, not after the frame: many such frames that come at once share one.
            self._wire = None
            forget(wire)
        if at < end:
            self._pending = (
                data if at == 0 and isinstance(data, bytearray) else bytearray(memoryview(data)[at:])
            )
            self._missing = missing

    def _parse_by_wire(self, data: bytes | bytearray) -> None:
        """Give a part of a rare frame to `websockets`, and do what comes of it."""
        wire = self._wire
        if wire is None:
            wire = self._wire = self._made_wire()
        wire.receive_data(data)
        failure: Exception | None = None
        for frame in cast("list[Frame]", wire.events_received()):
            if frame.opcode is Opcode.PONG:
                self._ponged(bytes(frame.data))
            elif frame.opcode in DATA and self._phase is not CLOSING:
                try:
                    self._defragment(frame.opcode, frame.fin, bytes(frame.data))
                except UnicodeDecodeError as error:
                    failure = error
        answer = b"".join(wire.data_to_send())  # a pong, the answer to a close, or why it ends
        if answer[:1] == PONG_HEAD:
            self._answer_ping(answer)
        elif self._phase is not CLOSING:
            self._write(answer)
        if failure is not None:
            self._fail_for(failure)
        elif wire.parser_exc is not None:
            self._failed(wire)
        elif wire.close_rcvd is not None:
            self._finish(wire.close_rcvd.code, wire.close_rcvd.reason)

    def _continues(self, first: int, length: int) -> bool:
        """Whether a fragment may come now, and is not too much."""
        if self._fragments is None:
            return first not in CONTINUATIONS and length <= self._max_size
        return first in CONTINUATIONS and len(self._fragments) + length <= self._max_size

    def _defragment(self, opcode: int, fin: bool, data: bytes) -> None:
        """Put a message together (RFC 6455 section 5.4); text is checked as it comes (section 8.1)."""
        if opcode != Opcode.CONT:
            if fin:
                self._deliver(opcode == Opcode.TEXT, data)
                return
            # One piece of memory: a list of them may take many times what is in it.
            self._fragments = bytearray()
            self._decoder = codecs.getincrementaldecoder("utf-8")() if opcode == Opcode.TEXT else None
        fragments = cast(bytearray, self._fragments)
        fragments += data
        if self._decoder is not None:
            self._decoder.decode(data, fin)
        if fin:
            is_text, whole = self._decoder is not None, bytes(fragments)
            self._fragments = self._decoder = None
            self._deliver(is_text, whole)

    def _made_wire(self) -> ServerProtocol:
        """The `websockets` library's idea of a connection that is open, between two frames."""
        wire = ServerProtocol(state=State.OPEN, max_size=self._max_size, logger=logger)
        if self._deflate is not None:
            wire.extensions = [self._deflate]
        if self._fragments is not None:
            wire.current_size = len(self._fragments)
        return wire

    # Back-pressure

    def _deliver(self, is_text: bool, data: bytes) -> None:
        """Hand a message to the app, and stop when it has enough."""
        message: dict[str, Any]
        if is_text:
            message = {"type": "websocket.receive", "text": data.decode()}
        else:
            message = {"type": "websocket.receive", "bytes": data}
        if self._next is None:
            self._next = message
            self._size = len(data)
            if (reader := self._reader) is not None:
                self._reader = None
                try:
                    reader.set_result(None)
                except asyncio.InvalidStateError:
                    pass  # it was cancelled
        else:
            self._later.append(message)
            self._size += len(data)
        if self._size >= MAX_QUEUE or len(self._later) >= self._max_later:
            self._stop()

    def _stop(self) -> None:
        self._stopped = True
        if not self._paused and self._phase < DONE:
            self._paused = True
            self._transport.pause_reading()

    def _go_on(self) -> None:
        """Read on: first what is here, then from the transport."""
        if self._response:
            return  # not accepted yet, or never
        self._stopped = False
        data, self._pending = self._pending, None
        if data is not None:
            self._parse(data)
        if not self._stopped:
            if self._phase is LOST:
                self._end(1006)
            else:
                self._resume_reading()

    def _resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _release_senders(self) -> None:
        if self._drained is not None:
            self._drained.set()
            self._drained = None
        self._ready = self._phase is OPEN and self._ending is None

    # Frames to the client

    def _write(self, data: bytes) -> None:
        # asyncio logs each write after one that failed: a client that pings and resets would fill the log.
        if data and self._phase is not LOST and not self._transport.is_closing():
            self._transport.write(data)

    def _send_payload(self, first: int, data: bytes) -> None:
        if not self._fast:
            wire = cast(ServerProtocol, self._wire)
            (wire.send_text if first == TEXT else wire.send_binary)(data)
            self._write(b"".join(wire.data_to_send()))
        elif self._deflate is not None:
            self._write_frame(first | COMPRESSED, self._deflate.compressed(data))
        else:
            self._write_frame(first, data)

    def _write_frame(self, first: int, data: bytes) -> None:
        if len(data) < APART:
            self._transport.write(b"".join(framed(first, data)))
        else:
            self._transport.writelines(framed(first, data))  # does not copy it

    # Keep-alive (RFC 6455 section 5.5.2)

    def _answer_ping(self, pong: bytes) -> None:
        if self._drained is not None:
            # A client that pings and does not read would fill the memory. The last pong is enough (section
            # 5.5.3).
            self._owed = pong
        elif self._phase is not CLOSING:
            self._write(pong)

    def _ping(self) -> None:
        self._pong = getrandbits(32).to_bytes(4, "big")
        self._pinged = self._loop.time()
        if self._fast:
            self._transport.write(b"\x89\x04" + self._pong)
        else:
            wire = cast(ServerProtocol, self._wire)
            wire.send_ping(self._pong)
            self._write(b"".join(wire.data_to_send()))
        timeout = self._config.ws_ping_timeout
        if timeout is None:
            self._timer = self._loop.call_later(cast(float, self._config.ws_ping_interval), self._ping)
        else:
            self._timer = self._loop.call_later(timeout, self._unanswered)

    def _ponged(self, data: bytes) -> None:
        if data != self._pong or self._phase is not OPEN:
            return
        self._pong = None
        self._held = False
        if self._config.ws_ping_timeout is not None:
            self._cancel_timer()
            interval = cast(float, self._config.ws_ping_interval)
            taken = self._loop.time() - self._pinged
            self._timer = self._loop.call_later(max(0.0, interval - taken), self._ping)

    def _unanswered(self) -> None:
        stopped = self._stopped and self._drained is None
        if stopped or self._held:
            # It is our app that does not read: the answer may have come. A client that does not read
            # either is cut off all the same. If the app reads again, what was held back comes before the
            # answer: the client has the whole time once more.
            self._held = stopped
            self._timer = self._loop.call_later(cast(float, self._config.ws_ping_timeout), self._unanswered)
            return
        self._trace("keepalive ping timeout")
        self._end(1006)  # the client has gone without a word, and is told in case that it has not
        self._fail(1011, "keepalive ping timeout")

    # The end (RFC 6455 section 7)

    def _end(self, code: int, reason: str | None = None) -> None:
        """Tell the app, once: what it has not read yet comes before it. Without a frame, no reason."""
        if self._ending is not None:
            return
        self._ending = {"type": "websocket.disconnect", "code": code}
        if reason is not None:
            self._ending["reason"] = reason
        self._cancel_timer()
        self._release_senders()
        if self._reader is not None:
            wake(self._reader)
        watchers, self._watchers = self._watchers, None
        for watcher in watchers or ():
            self._tell(watcher)

    def _tell(self, watcher: Callable[[dict[str, Any]], object]) -> None:
        try:
            watcher(cast("dict[str, Any]", self._ending).copy())
        except Exception:
            logger.exception("what watches the end of a connection has failed\n")

    def _close(self, code: int, reason: str | None) -> None:
        """Send a close frame, and wait for the client's (section 7.1.2)."""
        wire = self._wire or self._made_wire()
        try:
            wire.send_close(code, reason or "")
        except Exception as error:  # of any kind, if they are of another type
            raise ValueError(
                f"cannot close with code {code!r} and reason {reason!r}: a code must be 1000-1003, 1007-1014 "
                "or 3000-4999, a reason at most 123 bytes of UTF-8"
            ) from error
        self._wire = wire
        self._transport.write(b"".join(wire.data_to_send()))
        self._phase = CLOSING
        self._end(code, reason)
        self._abort_later()
        self._go_on()

    def _fail_for(self, error: Exception) -> None:
        """Fail the connection (section 7.1.7) for what a frame contains, as `websockets` does."""
        if isinstance(error, UnicodeDecodeError):
            self._fail(1007, f"{error.reason} at position {error.start}")
        else:
            self._fail(1009 if isinstance(error, PayloadTooBig) else 1002, str(error))

    def _fail(self, code: int, reason: str) -> None:
        wire = self._wire = self._wire or self._made_wire()
        wire.fail(code, reason)
        self._write(b"".join(wire.data_to_send()))
        self._failed(wire)

    def _failed(self, wire: ServerProtocol) -> None:
        """End, but read on for a while, and throw it away: closed with data unread, TCP would answer with a
        reset, and the client might never see the close frame (section 7.1.1)."""
        close = cast(Close, wire.close_sent)
        self._end(close.code, close.reason)
        if self._phase is LOST:
            return
        self._phase = DONE
        self._abort_later()
        self._resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _finish(self, code: int, reason: str | None = None) -> None:
        """End, when everything has been said."""
        self._end(code, reason)
        if self._phase is LOST:
            return
        self._phase = DONE
        self._abort_later()
        self._transport.close()

    def _abort_later(self) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(self.close_timeout, self._transport.abort)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _trace(self, what: str) -> None:
        if logger.level <= TRACE_LOG_LEVEL:
            client = get_remote_addr(self._transport)
            prefix = f"{client[0]}:{client[1]} - " if client else ""
            logger.log(TRACE_LOG_LEVEL, "%sWebSocket %s", prefix, what)


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


class Deflate(Extension):
    """permessage-deflate (RFC 7692) as it was negotiated.

    Unlike the one of `websockets` it makes its contexts when they are first needed, since they are most of
    the memory of a connection, and it keeps no more of a message than a step before it knows its size.
    """

    name = ExtensionName("permessage-deflate")

    __slots__ = (
        "_compressor",
        "_decompressor",
        "_level",
        "_local_bits",
        "_local_once",
        "_remote_bits",
        "_remote_once",
        "continued",
    )

    def __init__(self, negotiated: PerMessageDeflate, level: int) -> None:
        self._level = level
        self._local_bits = negotiated.local_max_window_bits
        self._local_once = negotiated.local_no_context_takeover
        self._remote_bits = negotiated.remote_max_window_bits
        self._remote_once = negotiated.remote_no_context_takeover
        self._compressor: zlib._Compress | None = None
        self._decompressor: zlib._Decompress | None = None
        self.continued = False
        """Whether the message under way is compressed, of which there are fragments."""

    def compressed(self, data: bytes) -> bytes:
        """The payload of a message (section 7.2.1)."""
        compressor = self._compressor
        if compressor is None:
            compressor = zlib.compressobj(self._level, wbits=-self._local_bits, memLevel=MEM_LEVEL)
            if not self._local_once:
                self._compressor = compressor
        return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def inflated(self, data: bytes, max_size: int, final: bool = True) -> bytes:
        """What is in the payload of a frame (section 7.2.2).

        Raises:
            PayloadTooBig: It is more than `max_size`.
            ProtocolError: It is no such thing.
        """
        result = b""
        if final:
            data += EMPTY_BLOCK
        for _ in range(MAX_STREAMS):
            decompressor = self._decompressor
            if decompressor is None:
                decompressor = self._decompressor = zlib.decompressobj(wbits=-self._remote_bits)
            try:
                inflated = decompressor.decompress(data, STEP)
                if len(inflated) == STEP or decompressor.unconsumed_tail:
                    self._measure(decompressor, len(result) + len(inflated), max_size)
                    inflated += decompressor.decompress(decompressor.unconsumed_tail)
            except zlib.error as error:
                raise ProtocolError("decompression failed") from error
            result = result + inflated if result else inflated
            if len(result) > max_size:
                raise PayloadTooBig(None, max_size)
            if not decompressor.eof:
                if final and self._remote_once:
                    self._decompressor = None
                return result
            # A block with BFINAL set (section 7.2.1): zlib takes nothing more, but the message may go on.
            self._decompressor = None
            data = decompressor.unused_data
            if not data:
                return result
        raise ProtocolError(f"more than {MAX_STREAMS} blocks with BFINAL set in a frame")

    def _measure(self, decompressor: zlib._Decompress, size: int, max_size: int) -> None:
        """Inflate a copy of the context and keep nothing: 65 KB may become 64 MB."""
        copy, data = decompressor.copy(), decompressor.unconsumed_tail
        while piece := copy.decompress(data, 65536):
            size += len(piece)
            if size > max_size:
                raise PayloadTooBig(None, max_size)
            data = copy.unconsumed_tail

    def encode(self, frame: Frame) -> Frame:
        """Compress a whole message, as `websockets` asks for it."""
        if frame.opcode not in DATA:
            return frame
        return Frame(frame.opcode, self.compressed(bytes(frame.data)), rsv1=True)

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Inflate a frame, as `websockets` asks for it."""
        if frame.opcode is Opcode.CONT:
            if not self.continued:
                return frame
            if frame.rsv1:
                raise ProtocolError("RSV1 bit set in continuation frame")
        elif frame.opcode in DATA:
            self.continued = frame.rsv1
        if frame.opcode not in DATA or not self.continued:
            return frame
        if frame.fin:
            self.continued = False
        data = self.inflated(bytes(frame.data), cast(int, max_size), frame.fin)
        return Frame(frame.opcode, data, frame.fin, rsv2=frame.rsv2, rsv3=frame.rsv3)


class DeflateFactory(ServerPerMessageDeflateFactory):
    """The negotiation of `websockets`, for its versions before 17, too."""

    def process_request_params(self, params: Any, accepted_extensions: Any) -> Any:
        """Decline a window of 8 bits, which zlib cannot make; it would be an HTTP 500."""
        if ("server_max_window_bits", "8") in params:
            raise NegotiationError("unsupported server_max_window_bits = 8")
        return super().process_request_params(params, accepted_extensions)


# What uvicorn's own class and `websockets` negotiate: 12 bits are 4 KiB of window.
MEM_LEVEL = 5
DEFLATE: Final = DeflateFactory(server_max_window_bits=12, client_max_window_bits=12)
EMPTY_BLOCK: Final = b"\x00\x00\xff\xff"
DATA: Final = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


def wake(reader: asyncio.Future[None], _: object = None) -> None:
    """Let a call of `receive` go on, unless it was cancelled."""
    if not reader.done():
        reader.set_result(None)


def forget(wire: ServerProtocol) -> None:
    """Give its memory back at once: its parser is a generator, and refers to it."""
    vars(wire).clear()


# Messages of the app


def payload_of(message: Any) -> tuple[int, bytes]:
    """The first byte of a frame for a `websocket.send`, and its payload."""
    if (data := message.get("bytes")) is not None:
        return BINARY, data if type(data) is bytes else bytes(memoryview(data))
    if (text := message.get("text")) is not None:
        return TEXT, text.encode()
    raise RuntimeError("Expected 'text' or 'bytes' in ASGI message 'websocket.send', but got neither.")


def framed(first: int, data: bytes) -> tuple[bytes, bytes]:
    """A frame of the server (RFC 6455 section 5.2), in two parts."""
    length = len(data)
    if length < 126:
        return bytes((first, length)), data
    if length < 65536:
        return b"%c\x7e%b" % (first, length.to_bytes(2, "big")), data
    return b"%c\x7f%b" % (first, length.to_bytes(8, "big")), data


def response(status: int, defaults: Iterable[tuple[bytes, bytes]], lines: bytes, body: bytes) -> bytes:
    """An ordinary response, the last one of a connection."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    head = [f"HTTP/1.1 {status} {phrase}\r\n".encode()]
    head += [b"%b: %b\r\n" % pair for pair in defaults]
    head += [lines, b"connection: close\r\n"]
    if status in (204, 304):  # these have no body (RFC 9110 section 6.4.1)
        return b"".join((*head, b"\r\n"))
    if b"\ncontent-type: " not in b"\n" + lines:
        head.append(b"content-type: text/plain; charset=utf-8\r\n")
    return b"".join((*head, b"content-length: %d\r\n\r\n" % len(body), body))


def head_of(
    method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]], version: bytes = b"1.1"
) -> bytes:
    """The head of a request, as a parser has taken it apart."""
    lines = [b"%b: %b\r\n" % pair for pair in headers]
    return b"".join((method, b" ", target, b" HTTP/", version, b"\r\n", *lines, b"\r\n"))


TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
END_OF_HEAD = re.compile(rb"\n\r?\n")
VALUE = re.compile(rb"[^\x00\r\n]*")


def header_lines(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The lines of a response, with names in lower case.

    Raises:
        ValueError: A name or a value would be something else on the wire.
    """
    lines = []
    for name, value in pairs:
        if not TOKEN.fullmatch(name) or not VALUE.fullmatch(value):
            raise ValueError(f"{name!r}: {value!r} cannot be a header")
        lines.append(b"%b: %b\r\n" % (name.lower(), value))
    return b"".join(lines)


def octets(value: str) -> bytes:
    """The bytes of a header that `websockets` has decoded: before its version 17 to surrogates."""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("ascii", "surrogateescape")
