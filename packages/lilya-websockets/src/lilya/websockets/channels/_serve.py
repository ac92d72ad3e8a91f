"""`serve`: a client uses channels over one WebSocket, with the subprotocol `lilya.channels.v1`.

It uses only what any app can use of `Channels` and `WebSocket`. Each channel of a client is a room. It joins
the channel with a WebSocket object of its own, which is a part of the client's connection. What is sent to
the part goes to the client, after the client has been told that it has joined. Closing the part ends this
room only.

The rules of this file:

- The task that receives never waits for the app, the broker or a channel. It waits only for the client: if a
  client does not read its answers, no more of its messages are read.
- Every message that asks for something gets one answer: what it asked for, or an `error`.
- Everything that a client can make the server store has a limit: rooms, unanswered messages, outboxes.
"""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast

import anyio
from anyio.abc import TaskGroup

from .._options import checked_count
from .._state import CONNECTED, CONNECTING
from .._websocket import WebSocket
from ..exceptions import WebSocketDataError, WebSocketDisconnect, WebSocketRuntimeError
from ..types import Message
from ._backend import BrokerError, checked_text_key
from ._channels import Channels
from ._outbox import Policy, checked_policy
from ._serve_messages import (
    SUBPROTOCOL,
    Join,
    Leave,
    Publish,
    Refused,
    Request,
    encoder_for,
    error_for,
    member_of,
    once,
    read,
    writable,
)

__all__ = ["Grant", "serve"]

logger: Final = logging.getLogger("lilya.websockets")

# Close codes that are about the server and not about one channel. They close the whole connection.
_OF_SERVER: Final = frozenset((1001, 1012, 1013))
# The answer to publishes that wait when the app closes a channel. The first of them may have been stored: the
# same key ensures that it is not stored twice.
_CLOSED: Final = "the channel was closed before this was answered: join again, and publish with the same key"
# The seconds to finish what a client has sent before it left.
_LEAVING: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a client may do in a channel, besides receiving its events.

    Args:
        publish: Whether it may publish.
        presence: Whether it may see who is in the channel: the `member` and the `key` of each.
        member: What other clients see of it, any value that JSON can hold. `None`: it is not a member.
    """

    publish: bool = False
    presence: bool = False
    member: Any = None


Authorize: TypeAlias = Callable[[str], "Grant | Awaitable[Grant | None] | None"]


async def serve(
    websocket: Any,
    channels: Channels,
    authorize: Authorize,
    *,
    key: str | None = None,
    on_publish: Callable[[str, Any], Any] | None = None,
    on_request: Callable[[Any], Any] | None = None,
    max_channels: int = 100,
    max_history: int = 100,
    max_members: int = 1000,
    max_message_size: int = 65_536,
    max_waiting: int = 64,
    max_waiting_bytes: int = 262_144,
    policy: Policy = "close",
    max_messages: int = 256,
    max_bytes: int = 1_048_576,
    **block: Any,
) -> None:
    """Serve a client by the subprotocol `lilya.channels.v1` until it leaves.

    The client joins channels, receives their events, publishes, and sends requests. `serve` accepts the
    WebSocket with the subprotocol, and closes it at the end. It refuses a client that does not offer the
    subprotocol, with 400. If you accept the WebSocket before, closing it is up to you.

    The three functions may be `async`. Each may raise `Refused`, whose text the client receives. Any other
    exception is logged, and the client is told that its message failed.

    If cancelled, the client leaves all channels.

    Args:
        websocket: The client's WebSocket, also as the object of a framework, see `WebSocket.wrap`.
        channels: The channels, started.
        authorize: A function that gets a channel's name when the client wants to join. It returns a `Grant`,
            or `None` if the client may not join.
        key: Identifies the person, see `Channels.join`. The idempotency keys of a client with a `key` are
            separate from those of all other persons. Clients that may see who is in a channel see this key.
        on_publish: A function that gets a channel's name and the data that the client wants to publish. It
            returns what is published instead. Default: the data is published unchanged.
        on_request: A function that gets the data of a request. It returns the answer, any value that JSON can
            hold. Default: requests are refused.
        max_channels: The number of channels that the client may be in at a time, 1 or more.
        max_history: The number of earlier events that it may start with in a channel, 0 or more. A client
            that continues after a position gets all events after it that the channel keeps.
        max_members: The number of members that are listed when it joins, 0 or more. The client always gets
            the total number.
        max_message_size: Bytes in a message from the client, 1 or more. A larger message is refused.
        max_waiting: The number of publishes and requests that are not answered yet, 1 or more.
        max_waiting_bytes: The bytes in these messages, 1 or more. A single message may be larger.
        policy: What happens when `max_messages` or `max_bytes` of a channel wait for the client, see
            `Channels.join`.
        max_messages: See `Channels.join`, as `max_bytes`.
        **block: Options of `WebSocket.open`, such as `heartbeat` and `max_messages_per_second`.

    Raises:
        TypeError: An argument of another type; or `block` for a WebSocket that was accepted before.
        ValueError: An argument out of range.
        WebSocketRuntimeError: The channels are not running.
        Exception: What the server raises.
    """
    wrapped = WebSocket.wrap(websocket)
    for name, hook in (("authorize", authorize), ("on_publish", on_publish), ("on_request", on_request)):
        if not callable(hook) and (hook is not None or name == "authorize"):
            raise TypeError(f"{name} must be callable, got {type(hook).__name__}")
    client = _Client(
        wrapped,
        channels,
        authorize,
        on_publish,
        on_request,
        key=None if key is None else checked_text_key("key", key),
        max_channels=checked_count("max_channels", max_channels, least=1),
        max_history=checked_count("max_history", max_history),
        max_members=checked_count("max_members", max_members),
        max_message_size=checked_count("max_message_size", max_message_size, least=1),
        max_waiting=checked_count("max_waiting", max_waiting, least=1),
        max_waiting_bytes=checked_count("max_waiting_bytes", max_waiting_bytes, least=1),
        outbox={
            "policy": checked_policy(policy),
            "max_messages": checked_count("max_messages", max_messages, least=1),
            "max_bytes": checked_count("max_bytes", max_bytes, least=1),
        },
    )
    channels.ready  # noqa: B018 - raises unless the channels are running
    if wrapped.application_state is CONNECTING:
        opening = wrapped.open(SUBPROTOCOL, **block)
        if wrapped.select_subprotocol((SUBPROTOCOL,)) is None:
            await wrapped.deny(400, f"Offer the WebSocket subprotocol {SUBPROTOCOL}.")
            return
        async with opening:
            await client.run()
    elif block:
        raise TypeError(f"the WebSocket is accepted: give {', '.join(block)} to the block that has done so")
    else:
        await client.run()


class _Client:
    """A connection of a client, and its rooms."""

    def __init__(
        self,
        websocket: WebSocket,
        channels: Channels,
        authorize: Authorize,
        on_publish: Callable[[str, Any], Any] | None,
        on_request: Callable[[Any], Any] | None,
        *,
        key: str | None,
        max_channels: int,
        max_history: int,
        max_members: int,
        max_message_size: int,
        max_waiting: int,
        max_waiting_bytes: int,
        outbox: dict[str, Any],
    ) -> None:
        self.websocket = websocket
        self.channels = channels
        self.authorize = authorize
        self.on_publish = on_publish
        self._on_request = on_request
        self.key = key
        self._max_channels = max_channels
        self._max_history = max_history
        self.max_members = max_members
        self._max_message_size = max_message_size
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self.outbox = outbox
        self._rooms: dict[str, _Room] = {}  # by channel, the newest room
        self._entered = 0  # the number of rooms that are not over
        self._waiting = 0  # the number of unanswered publishes and requests
        self._waiting_bytes = 0  # in these
        self._requests: set[str] = set()  # the ids of unanswered requests
        self._tasks: TaskGroup
        self._reading = anyio.CancelScope()
        self._one_left = anyio.Event()
        self._unsent = 0  # the number of answers that the client has not taken yet
        self._one_sent = anyio.Event()

    async def run(self) -> None:
        """Serve the client until the connection ends."""
        async with anyio.create_task_group() as self._tasks:
            with self._reading:
                await self._read()
            # Publish what the client has sent before it left. Cancel everything else.
            with anyio.move_on_after(_LEAVING):
                await self._leave_all()
            self._tasks.cancel_scope.cancel()

    async def _read(self) -> None:
        while True:
            # Answers are sent by other tasks, so this task must check by itself whether the client takes
            # them.
            while self._unsent >= self._max_waiting:
                self._one_sent = anyio.Event()
                await self._one_sent.wait()
            try:
                text = await self.websocket.receive_text()
            except WebSocketDataError:
                await self.refuse(Refused("a message must be text, got a binary one", "invalid"), {})
                continue
            except WebSocketDisconnect:
                return
            message, fields = read(text, max_size=self._max_message_size, max_history=self._max_history)
            try:
                if isinstance(message, Refused):
                    raise message
                await self._obey(message)
            except Refused as refused:
                await self.refuse(refused, fields)

    async def _leave_all(self) -> None:
        for room in list(self._rooms.values()):
            room.leave()
        while self._entered:
            self._one_left = anyio.Event()
            await self._one_left.wait()

    async def _obey(self, message: Any) -> None:
        """Start what a message asks for."""
        if isinstance(message, Join):
            self._join(message)
        elif isinstance(message, Leave):
            room = self._rooms.get(message.channel)
            if room is None:
                await self.tell({"type": "left", "channel": message.channel})
            else:
                room.leave()
        elif isinstance(message, Publish):
            room = self._rooms.get(message.channel)
            if room is None or room.leaving:
                raise Refused("join the channel before you publish to it", "left")
            self._wait(message)
            room.put(message)
        elif isinstance(message, Request):
            if message.id in self._requests:
                raise Refused("a request with this id is not answered yet", "invalid")
            self._wait(message)
            self._requests.add(message.id)
            self._tasks.start_soon(self._answer, message)
        else:
            await self.tell({"type": "pong"})

    def _join(self, message: Join) -> None:
        before = self._rooms.get(message.channel)
        if before is not None and not before.leaving:
            raise Refused("the channel was joined already: leave it first", "invalid")
        if self._entered >= self._max_channels:
            raise Refused(f"at most {self._max_channels} channels can be joined at once", "too_many")
        self._entered += 1
        room = self._rooms[message.channel] = _Room(self, message, before)
        self._tasks.start_soon(room.run)

    def _wait(self, message: Publish | Request) -> None:
        if self._waiting >= self._max_waiting:
            raise Refused(f"at most {self._max_waiting} messages can wait for their answers", "too_many")
        if self._waiting and self._waiting_bytes + message.size > self._max_waiting_bytes:
            raise Refused(f"at most {self._max_waiting_bytes} bytes can wait for their answers", "too_many")
        self._waiting += 1
        self._waiting_bytes += message.size

    # Called by rooms

    def answered(self, message: Publish | Request) -> None:
        """Note that a publish or a request was answered, or is about to be."""
        self._waiting -= 1
        self._waiting_bytes -= message.size

    def left(self, room: _Room) -> None:
        """Note that a room is over. The client is about to be told."""
        self._entered -= 1
        self._one_left.set()

    def told(self, room: _Room) -> None:
        """Note that the client was told that a room is over. A newer room of the channel waits for that."""
        if self._rooms[room.name] is room:
            del self._rooms[room.name]

    async def end(self, code: int, reason: str) -> None:
        """Close the connection."""
        try:
            await self.websocket.close(code, reason)
        except WebSocketRuntimeError:
            pass  # it was closed meanwhile
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop receiving, because the connection has ended. Not every server reports this to a receiver."""
        self._reading.cancel()

    # Sending to the client

    async def send(self, text: str) -> None:
        """Send a message. If the client has left, stop."""
        self._unsent += 1
        try:
            await self.websocket.send_text(text)
        except WebSocketDisconnect:
            self.stop()
        finally:
            self._unsent -= 1
            self._one_sent.set()

    async def tell(self, message: dict[str, Any]) -> None:
        """Send a message of the subprotocol."""
        await self.send(writable(message))

    async def refuse(self, refused: Refused, fields: Mapping[str, str | int]) -> None:
        """Send the error for a refused message."""
        await self.tell(error_for(refused, fields))

    # Calling the app

    async def ask(self, hook: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of the app, and return its result.

        Raises:
            Refused: The function has raised it, or has failed.
        """
        try:
            result = hook(*arguments)
            return await result if inspect.isawaitable(result) else result
        except Refused:
            raise
        except Exception as error:
            if self.websocket.close_code is not None:
                raise Refused("the connection has ended") from None  # this is not sent to anybody
            raise _failed(error, getattr(hook, "__qualname__", type(hook).__name__)) from None

    async def _answer(self, request: Request) -> None:
        fields = {"id": request.id}
        try:
            if self._on_request is None:
                raise Refused("this server takes no requests")
            data = await self.ask(self._on_request, request.data)
            try:
                text = writable({"type": "answer", **fields, "data": data})
            except (TypeError, ValueError) as error:
                raise _failed(error, "encoding the answer to a request") from None
        except Refused as refused:
            text = writable(error_for(refused, {"action": "request", **fields}))
        self.answered(request)
        self._requests.remove(request.id)
        await self.send(text)


class _Room:
    """A channel of a client.

    Args:
        client: The client.
        wanted: The message with which the client joins.
        before: The client's previous room of this channel, if it is not over yet.
    """

    def __init__(self, client: _Client, wanted: Join, before: _Room | None) -> None:
        self._client = client
        self._wanted = wanted
        self._before = before
        self.name = wanted.channel
        self.leaving = False  # also true when it is over
        self._asked_to_leave = False  # by the client
        self._over = anyio.Event()
        self._asking = anyio.CancelScope()  # around the call of `authorize`
        self._queue: deque[Publish] = deque()  # the first one is being published
        self._changed = anyio.Event()
        self._told = anyio.Event()  # set when the client was told that it has joined
        self._closed: tuple[int, str] | None = None  # the code and the reason, if the channels have closed it
        self._encoder = encoder_for(wanted.channel)
        # The part of the connection to which the channels send. Its scope is not that of a route.
        scope = {name: value for name, value in client.websocket.scope.items() if name != "path_params"}
        self._part = WebSocket(scope, anyio.sleep_forever, self._send)  # type: ignore[arg-type]  # never asked
        self._part.client_state = self._part.application_state = CONNECTED

    # Called for messages of the client

    def put(self, publish: Publish) -> None:
        """Publish, after everything that was put before."""
        self._queue.append(publish)
        self._changed.set()

    def leave(self) -> None:
        """Leave, after everything that was put before."""
        self.leaving = self._asked_to_leave = True
        if not self._queue:
            self._asking.cancel()
        self._changed.set()

    async def run(self) -> None:
        """Join, stay until the client or the server ends the room, and answer everything that is open."""
        client = self._client
        fields = {"channel": self.name}
        if self._before is not None:
            # Otherwise, the client could get `joined` of this room before `left` of the previous one, and
            # would take the latter for the end of this room.
            await self._before._over.wait()
            self._before = None
        try:
            await self._stay()
            last: dict[str, Any] = {"type": "left", **fields}
            refused = Refused(_CLOSED, "left")
            if self._closed is not None:
                code, reason = self._closed
                last |= {"code": code, "reason": reason}
        except Refused as error:
            last = error_for(error, {"action": "join", **fields})
            refused = error
        self.leaving = True
        client.left(self)
        for publish in self._queue:
            client.answered(publish)
            await client.refuse(refused, {"action": "publish", **fields, "key": publish.key})
        await client.tell(last)
        if self._asked_to_leave and last["type"] == "error":
            await client.tell({"type": "left", **fields})
        client.told(self)
        self._over.set()

    async def _stay(self) -> None:
        """Ask the app, join, and publish until the room ends.

        Raises:
            Refused: The client may not join, or joining has failed.
        """
        client, wanted = self._client, self._wanted
        grant = None
        with self._asking:
            grant = await client.ask(client.authorize, self.name)
        if self.leaving and not self._queue:
            return
        if grant is None:
            raise Refused("you may not join this channel")
        if not isinstance(grant, Grant):
            raise _failed(TypeError(f"a Grant or None, got {type(grant).__name__}"), "authorize")
        if wanted.presence and not grant.presence:
            raise Refused("you may not see who is in this channel")
        try:
            joining = client.channels.join(
                self.name,
                self._part,
                member=grant.member,
                key=client.key,
                history=wanted.history,
                since=wanted.since,
                latest=wanted.latest,
                presence=cast('bool | Literal["keys"]', wanted.presence),
                encode=self._encoder,
                **client.outbox,
            )
        except (TypeError, ValueError) as error:  # the member cannot be encoded as JSON
            raise _failed(error, "authorize") from None
        async with AsyncExitStack() as stack:
            try:
                membership = await stack.enter_async_context(joining)
                members = await client.channels.members(self.name) if wanted.presence else None
            except ValueError as error:
                raise Refused(str(error), "invalid") from None  # `since` is not a valid id
            except (BrokerError, WebSocketRuntimeError):
                raise _unavailable() from None
            joined: dict[str, Any] = {
                "type": "joined",
                "channel": self.name,
                "position": membership.positions.get(self.name),
            }
            if membership.members:
                joined["member"] = membership.members[0].id
            if members is not None:
                joined["members"] = [member_of(member) for member in members[: client.max_members]]
                joined["count"] = len(members)
            await client.tell(joined)
            self._told.set()
            await self._publish_all(grant)
        if membership.ended == "stopped" and self._closed is not None:
            await client.end(*self._closed)

    # Publishing

    async def _publish_all(self, grant: Grant) -> None:
        """Publish the client's messages, one after the other, until the room is left."""
        client = self._client
        while True:
            while self._queue and self._closed is None:
                publish = self._queue[0]
                fields = {"channel": self.name, "key": publish.key}
                try:
                    id = await self._publish(publish, grant)
                    answer = {"type": "published", **fields, "id": id}
                except Refused as refused:
                    answer = error_for(refused, {"action": "publish", **fields})
                self._queue.popleft()
                client.answered(publish)
                await client.tell(answer)
            if self.leaving:
                return
            self._changed = anyio.Event()
            await self._changed.wait()

    async def _publish(self, publish: Publish, grant: Grant) -> str:
        client = self._client
        if not grant.publish:
            raise Refused("you may not publish to this channel")
        data = publish.data
        if client.on_publish is not None:
            data = await client.ask(client.on_publish, self.name, data)
        try:
            text = writable(data)
        except (TypeError, ValueError) as error:
            raise _failed(error, "encoding what on_publish returns") from None
        try:
            return await client.channels.publish(
                self.name, text, idempotency_key=once(client.key, publish.key)
            )
        except (BrokerError, WebSocketRuntimeError):
            raise _unavailable() from None

    # The ASGI server of the part

    async def _send(self, message: Message) -> None:
        """Send what the channels send to the part to the client, after it was told that it has joined."""
        if message["type"] == "websocket.close":
            await self._close(message["code"], message["reason"])
            return
        await self._told.wait()
        try:
            await self._client.websocket.send_prepared(self._encoder.prepared(message["text"]))
        except WebSocketDisconnect:
            self._client.stop()

    async def _close(self, code: int, reason: str) -> None:
        self._closed = code, reason
        if code in _OF_SERVER:
            await self._client.end(code, reason)


def _unavailable() -> Refused:
    return Refused("channels are not available at the moment: try again", "unavailable")


def _failed(error: Exception, what: str) -> Refused:
    """Log an error of the app. The client is only told that there was one."""
    if not isinstance(error, BrokerError):
        logger.error("%s failed", what, exc_info=error)
        return Refused("the server could not do this", "failed")
    return _unavailable()
