"""One WebSocket connection of uvicorn: bytes in, ASGI messages out, and back.

The rules of this file:

- A client's frames are read by `Reader`, which knows RFC 6455 section 5. `_read` does what its events say.
- One short message that comes alone, which is nearly every message, is read in `data_received`, and one short
  text is written in `send`: both without a call that could be saved. The reader would do the same with it.
- `_phase` says what may happen, and moves in `_move` only, by the table in `_phases.py`. `_ending` is what
  the app is told at the end, once.
- `_read` stops at a frame when the app has enough to read, or when the client has had its share of this turn
  of the loop. What is left waits in the reader, and reading from the transport is paused, until the app has
  taken all of it, or until the next turn. So there is one pause for many messages, and none for one at a
  time.
- `send` waits before it writes, never after it: a send that is cancelled has written nothing, and each waits
  for an event, not for a future of another. `close` never waits.
- Whatever waits for the peer is bounded: after every end `_timer` aborts the transport.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from contextvars import Context
from functools import partial
from http import HTTPStatus
from random import getrandbits
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast
from urllib.parse import quote

from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import (
    ClientDisconnected,
    get_client_addr,
    get_local_addr,
    get_remote_addr,
    is_ssl,
)

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from .._extensions import DENIAL, END, PREPARED, Counts
from ._deflate import Deflate
from ._frames import (
    BINARY,
    CLOSE,
    COMPRESSED,
    FINAL,
    NO_CODE,
    OPCODE,
    PING,
    PLAIN,
    PONG,
    TEXT,
    TEXT_FRAME,
    TEXT_HEADS,
    Fault,
    Reader,
    apply_mask,
    close_payload,
    framed,
    not_utf_8,
    payload_of,
)
from ._handshake import MAX_LINE_LENGTH, Agreement, Ends, Refusal, agreed, answer_lines, read
from ._heads import MAX_HEAD, default_lines, header_lines, response
from ._phases import ASKED, CLOSING, DONE, LOST, OPEN, REQUEST, after

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:  # httptools is not installed
    HttpToolsProtocol = None  # type: ignore[assignment, misc]

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

logger = logging.getLogger("uvicorn.error")  # where uvicorn's own protocols write, access lines included

# The key of a prepared message's frame. No other server uses it.
FRAME: Final = "lilya.websockets.uvicorn"

MAX_QUEUE = 262144  # bytes of messages that wait for the app, which is what one read of a loop brings
# Frames of one client that are read between two turns of the loop: of control frames, which are no larger
# than 131 bytes, 16 KiB. It takes a millisecond or two, and what a turn costs is little beside it. What is no
# frame of its own is a payload, and reaches the app.
SHARE = 128
# Why reading has stopped
FULL: Final = 1  # the app has enough, and reads on when it has taken all of it
SHARED: Final = 2  # the client has had its share, and `_next_turn` reads on
# Bytes from which a payload is not copied into its frame. In these Pythons asyncio never says `pause_writing`
# after `writelines` (CVE-2024-12254): there, all are.
PAUSES = not ((3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2))
APART = 16384 if PAUSES else sys.maxsize


class WebSocketProtocol(asyncio.Protocol):
    """One WebSocket connection of uvicorn, created from the HTTP request that asks for it.

    Args:
        config: uvicorn's configuration. Its `ws_*` settings apply here.
        server_state: uvicorn's connections and tasks, which a shutdown waits for.
        app_state: The state of the app's lifespan; each connection gets a copy.
    """

    close_timeout: ClassVar[float] = 10.0
    """Seconds in which a client must answer a close, or read what is left. After that, it is disconnected."""

    compression_level: ClassVar[int] = 3
    """zlib's level for messages that are sent: 1 takes the least time, 9 makes them smallest, 6 is zlib's own
    default. In our measurements, 3 takes a quarter less time than 6, and messages are a tenth larger."""

    log_query: ClassVar[bool] = False
    """Whether query strings are in the access log. They often contain tokens, because a browser cannot add
    headers to a handshake."""

    max_fragments: ClassVar[int] = 65536
    """The number of frames that a message may have; with more, the connection is closed with 1008. The
    default allows 4 MiB in frames of 64 bytes, the smallest that Autobahn uses for a large message. At most
    1,024 of the frames may be empty."""

    __slots__ = (
        "_app_state",
        "_by_app",
        "_config",
        "_counts",
        "_deflate",
        "_denial",
        "_drained",
        "_ending",
        "_frames",
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
        "_response",
        "_server",
        "_size",
        "_stopped",
        "_timer",
        "_told",
        "_traced",
        "_transport",
        "_watchers",
        "is_ready",
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
        self._traced = logger.isEnabledFor(logging.DEBUG)  # whether every frame is logged
        self._max_size = config.ws_max_size
        self.scope: dict[str, Any] = {}
        self._phase = REQUEST
        self._response = b"?"  # to the request; empty once it is out
        self._by_app = False  # whether the app has ended it
        self._denial: tuple[int, bytes, list[bytes]] | None = None  # status, header lines, body so far
        self._deflate: Deflate | None = None
        # From the client
        self._pending: bytearray | None = None  # what came of the request, or before its answer
        self._missing = 0  # bytes without which nothing can be done with it
        # To the app
        self._next: dict[str, Any] | None = None  # the oldest message
        self._later: list[dict[str, Any]] = []  # the others: for one, a list would allocate and free
        self._max_later = config.ws_max_queue - 1
        self._size = 0  # bytes in both, since they were empty
        self._counts: Counts | None = None  # of what comes, if somebody wants to know
        self._stopped = 0  # whether frames wait in the reader: FULL or SHARED
        self._paused = False  # and the transport knows
        self._reader: asyncio.Future[None] | None = None  # the last call of `receive` that waits
        self._ending: dict[str, Any] | None = None  # the `websocket.disconnect`
        self._watchers: list[Callable[[dict[str, Any]], object]] | None = None  # who are told it at once
        self._told = False  # whether a call of `receive` has returned it
        # To the client
        self._plain = False  # whether frames are made here, and not compressed
        self.is_ready = False
        """Whether a message would be written at once: it is open, and nobody waits to send."""
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
        if sock is not None:
            # asyncio does it only where the socket names its protocol, and those of `--workers` do not.
            # Without it a small frame waits until the client has acknowledged the one before.
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                pass  # a Unix socket; to look at its family takes longer
        self._trace("connection made")

    def data_received(self, data: bytes) -> None:
        """Take what the client has sent."""
        if self._phase is OPEN and self._frames.at_rest and not self._stopped:
            # Nearly always it is one message in one frame, whole and alone.
            length = len(data) - 6
            try:
                if (
                    0 <= length < 126
                    and (first := data[0]) in PLAIN
                    and data[1] == 0x80 + length
                    and length <= self._max_size
                ):
                    payload = apply_mask(data[6:], data[2:6])
                    if first == TEXT_FRAME:
                        self._deliver("text", payload.decode(), length)
                    else:
                        self._deliver("bytes", payload, length)
                elif (whole := self._frames.alone(data)) is None:
                    self._read(data)
                elif data[0] & TEXT:
                    self._deliver("text", whole.decode(), len(whole))
                else:
                    self._deliver("bytes", whole, len(whole))
            except UnicodeDecodeError as error:
                self._fail(not_utf_8(error))
            except Fault as fault:
                self._fail(fault)
        elif self._phase <= ASKED:
            self._take(data)
        elif self._stopped:
            self._frames.keep(data)  # reading is paused, but TLS may still bring something
        elif self._phase <= CLOSING:
            self._read(data)

    def eof_received(self) -> None:
        """The client hangs up: the loop closes the transport, once what was written has gone out."""
        if self._phase is OPEN:
            self._abort_later()  # it may never go out

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        self._server.connections.discard(cast(Any, self))
        self._move("lost")
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
            self.is_ready = False

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
            reader: asyncio.Future[None] = asyncio.Future(loop=self._loop)
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
        if not self.is_ready:
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
                self._write_frame(TEXT_FRAME, data)
        elif (prepared := message.get("prepared")) is not None:
            # Not compressed, for nobody: which messages are is the sender's choice (RFC 7692 section 6), and
            # with a context of its own, every connection would need a frame of its own.
            if (frame := prepared.get(FRAME)) is None:
                frame = prepared[FRAME] = b"".join(framed(*payload_of(message)))
            if self._traced:
                log_frame(">", *payload_of(message))
            transport.write(frame)
        else:
            self._send_payload(*payload_of(message))
        if transport.is_closing():
            # The write has failed. An app that does nothing but send would never let the loop tell it.
            await asyncio.sleep(0)

    def watch(self, callback: Callable[[dict[str, Any]], object]) -> None:
        """Report the end at once, whichever side makes it, even before the app has received everything.

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

    def count(self) -> Counts:
        """Count the messages that come from now on, and those that the app has not received yet.

        Returns:
            The counts, which go on. What the app sends is not in them.
        """
        counts = self._counts = Counts()
        for message in (self._next, *self._later):
            if message is not None and message["type"] == "websocket.receive":
                counts.messages_received += 1
                counts.bytes_received += len(payload_of(message)[1])
        return counts

    def is_open(self) -> bool:
        """Whether the connection is still there, also after the end of the conversation."""
        return self._phase is not LOST

    def abort(self) -> None:
        """Drop the connection at once. What the client has not taken by now is lost."""
        self._transport.abort()

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
        """Write the access line of a connection, unless uvicorn was told not to write any."""
        if self._config.access_log and logger.isEnabledFor(logging.INFO):
            scope = cast(Any, self.scope)
            path = quote(scope["path"])
            if self.log_query and (query := scope["query_string"]):
                path += f"?{query.decode()}"
            logger.info('%s - "WebSocket %s" %s', get_client_addr(scope), path, answer)

    # The handshake (RFC 6455 section 4.2)

    def _ask(self, data: bytes | bytearray) -> None:
        """Take the request."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > MAX_HEAD:
                self._reject(Refusal(431, f"the head of the request is longer than {MAX_HEAD} bytes"))
                return
            self._pending, self._missing = bytearray(data), 1
            return
        door: Any = self._transport.get_protocol()
        if type(door) is HttpToolsProtocol and door.cycle is not None and not door.cycle.response_complete:
            # A request before this one has no answer yet, and its app would write that among our frames. A
            # client has to wait for it (RFC 6455 section 4.1). h11 waits by itself.
            self._finish(1006)
            return
        deflate = self._config.ws_per_message_deflate
        try:
            if (
                type(door) is HttpToolsProtocol
                and end + 4 == len(data) <= MAX_LINE_LENGTH
                and b" \r\n" not in data
                and b"\t" not in data
            ):
                # uvicorn has just made these bytes of what its parser has found. The parser has checked all
                # that `read` checks, but it may keep blanks at the end of a value.
                agreement = agreed(
                    door.scope["method"].encode(),
                    door.url,
                    door.scope["http_version"],
                    door.headers,
                    deflate,
                )
                ends = Ends(door.server, door.client, door.scheme == "https")
            else:
                request = read(bytes(data[:end]))
                if type(door) in (HttpToolsProtocol, H11Protocol):
                    request = request._replace(version=door.scope["http_version"])  # it has written 1.1
                agreement = agreed(*request, deflate)
                ends = ends_of(self._transport)
        except Refusal as refusal:
            self._reject(refusal)
        else:
            self.begin(agreement, ends, bytes(data[end + 4 :]))

    def begin(self, agreement: Agreement, ends: Ends, early: bytes) -> None:
        """Start the app with a request that was found to be a handshake.

        Args:
            agreement: What was found.
            ends: Of the connection.
            early: What the client has sent after it.
        """
        transport, config = self._transport, self._config
        self._response = agreement.answer
        if agreement.deflate is not None:
            self._deflate = Deflate(cast(PerMessageDeflate, agreement.deflate), self.compression_level)
        self.scope = scope = agreement.scope(
            config.root_path,
            config.asgi_version,
            ends,
            state=self._app_state.copy(),
            extensions={DENIAL: {}, PREPARED: {}, END: {"watch": self.watch, "connection": self}},
        )
        self._move("asked")
        self._next = {"type": "websocket.connect"}
        # uvicorn's HTTP protocols do the same when this one has returned. With eager tasks the app runs here:
        # the transport would tell them, not this one, that the client does not read.
        transport.set_protocol(self)
        if config.reset_contextvars:
            task = Context().run(self._loop.create_task, self._run(scope))
        else:
            task = self._loop.create_task(self._run(scope))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)
        if early:
            self.data_received(early)

    def _reject(self, refusal: Refusal) -> None:
        """Answer a request that is not a handshake."""
        phrase = HTTPStatus(refusal.status).phrase
        logger.info("connection rejected (%d %s)", refusal.status, phrase)
        self._refuse(refusal.status, refusal.lines, refusal.reason.encode(), 1006)

    def _accept(self, message: Any) -> None:
        headers, subprotocol = message.get("headers"), message.get("subprotocol")
        lines = answer_lines(headers or (), subprotocol) if headers or subprotocol else b""
        self._log_answer("[accepted]")
        defaults = default_lines(tuple(self._server.default_headers))
        self._move("accepted")
        self._frames = Reader(
            self._max_size,
            self.max_fragments,
            SHARE,
            self._deflate,
            partial(log_frame, "<") if self._traced else None,
        )
        self._plain = self._deflate is None and not self._traced
        self._release_senders()
        # Not before: it may be too much for the transport, which says so at once.
        self._transport.write(b"".join((self._response, defaults, lines, b"\r\n")))
        self._response = b""
        logger.info("connection open")
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
        if self._phase is REQUEST:
            self._ask(data)
        else:
            # Sent before the answer: read once the app has accepted.
            self._pending = bytearray(data)
            if len(data) > MAX_HEAD:
                self._stop(FULL)

    def _move(self, step: str) -> None:
        """Move to the next phase. Nothing else does."""
        self._phase = after(self._phase, step)

    # Frames from the client (RFC 6455 section 5)

    def _read(self, data: bytes | bytearray = b"") -> None:
        """Read frames, until there is no whole one or a reason to stop."""
        frames = self._frames
        pongs = b""
        try:
            while (event := frames.next(data)) is not None:
                opcode, payload, size = event
                if opcode <= BINARY:
                    self._deliver("text" if opcode == TEXT else "bytes", payload, size)
                elif opcode == PING:
                    pongs += self._pong_for(payload)
                elif opcode == PONG:
                    self._ponged(payload)
                else:
                    self._write(pongs)
                    self._closed(payload, size)
                    return
                if frames.at_rest or self._stopped:
                    break
                data = b""
        except Fault as fault:
            self._write(pongs)
            self._fail(fault)
            return
        if pongs:
            self._write(pongs)  # in one piece: each write is a call of the system
        if not frames.left and not self._stopped:
            self._stop(SHARED)
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        """Read on, now that all others have had their turn."""
        self._frames.left = SHARE
        self._stopped = 0
        self._go_on()

    # Back-pressure

    def _deliver(self, kind: str, payload: str | bytes, size: int) -> None:
        """Hand a message to the app, and stop when it has enough."""
        message = {"type": "websocket.receive", kind: payload}
        if (counts := self._counts) is not None:
            counts.messages_received += 1
            counts.bytes_received += size
        if self._next is None:
            self._next = message
            self._size = size
            if (reader := self._reader) is not None:
                self._reader = None
                try:
                    reader.set_result(None)
                except asyncio.InvalidStateError:
                    pass  # it was cancelled
        else:
            self._later.append(message)
            self._size += size
        if self._size >= MAX_QUEUE or len(self._later) >= self._max_later:
            self._stop(FULL)

    def _stop(self, reason: int) -> None:
        """Read no more frames, and nothing from the transport."""
        self._stopped = reason
        if not self._paused and self._phase < DONE:
            self._paused = True
            self._transport.pause_reading()

    def _go_on(self) -> None:
        """Read on: first what is here, then from the transport."""
        if self._response or self._stopped == SHARED:
            return  # not accepted yet, or never; or the next turn does it
        self._stopped = 0
        early, self._pending = self._pending, None
        self._read(early or b"")
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
        self.is_ready = self._phase is OPEN and self._ending is None

    # Frames to the client

    def _write(self, data: bytes) -> None:
        # asyncio logs each write after one that failed: a client that pings and resets would fill the log.
        if data and self._phase is not LOST and not self._transport.is_closing():
            self._transport.write(data)

    def _send_payload(self, first: int, data: bytes) -> None:
        if self._traced:
            log_frame(">", first, data)
        if self._deflate is not None:
            self._write_frame(first | COMPRESSED, self._deflate.compressed(data))
        else:
            self._write_frame(first, data)

    def _write_frame(self, first: int, data: bytes) -> None:
        if len(data) < APART:
            self._transport.write(b"".join(framed(first, data)))
        else:
            self._transport.writelines(framed(first, data))  # does not copy it

    def _control(self, opcode: int, payload: bytes) -> bytes:
        """A control frame (RFC 6455 section 5.5)."""
        if self._traced:
            log_frame(">", FINAL | opcode, payload)
        return b"%c%c%b" % (FINAL | opcode, len(payload), payload)

    # Keep-alive (RFC 6455 section 5.5.2)

    def _pong_for(self, payload: bytes) -> bytes:
        """The answer to a ping, if it can be written now."""
        if self._phase is not OPEN:
            return b""  # after a close frame, nothing is sent (section 5.5.1)
        pong = self._control(PONG, payload)
        if self._drained is None:
            return pong
        # A client that pings and does not read would fill the memory. The last pong is enough (section
        # 5.5.3).
        self._owed = pong
        return b""

    def _ping(self) -> None:
        # Of 32 bits: an answer that was guessed, or is to an earlier ping, is none.
        self._pong = getrandbits(32).to_bytes(4, "big")
        self._pinged = self._loop.time()
        self._write(self._control(PING, self._pong))
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
        stopped = self._stopped == FULL and self._drained is None
        if stopped or self._held:
            # It is our app that does not read: the answer may have come. A client that does not read
            # either is cut off all the same. If the app reads again, what was held back comes before the
            # answer: the client has the whole time once more.
            self._held = stopped
            self._timer = self._loop.call_later(cast(float, self._config.ws_ping_timeout), self._unanswered)
            return
        self._trace("keepalive ping timeout")
        self._end(1006)  # the client has gone without a word, and is told in case that it has not
        self._fail(Fault(1011, "keepalive ping timeout"))

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
        try:
            payload = close_payload(code, reason or "")
        except Exception as error:  # of any kind, if they are of another type
            raise ValueError(
                f"cannot close with code {code!r} and reason {reason!r}: a code must be 1000-1003, 1007-1014 "
                "or 3000-4999, a reason at most 123 bytes of UTF-8"
            ) from error
        self._transport.write(self._control(CLOSE, payload))
        self._move("closed")
        self._frames.ignore_data()
        self._end(code, reason)
        self._abort_later()
        self._go_on()

    def _closed(self, code: int, reason: str) -> None:
        """Take the client's close frame, and answer it unless it is an answer (section 5.5.1)."""
        if self._phase is OPEN:
            self._write(self._control(CLOSE, b"" if code == NO_CODE else close_payload(code, reason)))
        self._finish(code, reason)

    def _fail(self, fault: Fault) -> None:
        """Fail the connection (section 7.1.7).

        Nothing is read any more, but the bytes are still taken and thrown away for a while: if a socket is
        closed with data unread, TCP answers with a reset, and the client might never see the close frame
        (section 7.1.1).
        """
        if self._phase is OPEN:  # there is no second close frame (section 5.5.1)
            self._write(self._control(CLOSE, close_payload(fault.code, fault.reason)))
        self._end(fault.code, fault.reason)
        self._frames.end()
        self._move("failed")
        if self._phase is LOST:
            return
        self._abort_later()
        self._resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _finish(self, code: int, reason: str | None = None) -> None:
        """End, when everything has been said."""
        self._end(code, reason)
        if self._phase >= OPEN:
            self._frames.end()
        self._move("finished")
        if self._phase is LOST:
            return
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


def ends_of(transport: asyncio.Transport) -> Ends:
    """Ask a transport what it connects."""
    return Ends(get_local_addr(transport), get_remote_addr(transport), is_ssl(transport))


def wake(reader: asyncio.Future[None], _: object = None) -> None:
    """Let a call of `receive` go on, unless it was cancelled."""
    if not reader.done():
        reader.set_result(None)


def log_frame(direction: str, first: int, payload: bytes) -> None:
    """Log a frame as `websockets` does: of a compressed message, what is in it."""
    logger.debug("%s %s", direction, Frame(Opcode(first & OPCODE), payload, first >= FINAL))
