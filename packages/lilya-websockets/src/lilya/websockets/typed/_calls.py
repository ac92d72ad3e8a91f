"""Requests and answers over one connection.

The task that waits reads for all: a call that waits for its answer keeps other messages for a receive, and a
receive hands an answer to its call. There is one reader at a time. When it is done, it wakes the others, and
one of them reads on.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import WebSocketDataError, WebSocketRuntimeError
from ._kinds import is_struct, name_of, nearest

if TYPE_CHECKING:
    from ._typed import Typed

__all__ = ["Calls"]

_MOST: Final = 64  # messages that are kept while a call waits; then it stops to read
_NOTHING: Final[Any] = object()


class Calls:
    """The calls that wait, and the messages that wait for a receive.

    Args:
        typed: Which fields are the ids, and which name them.
        receive: Receives one message.
        keep_all: Whether answers to nobody are kept as messages.
    """

    def __init__(
        self, typed: Typed, receive: Callable[[], Awaitable[Any]], *, keep_all: bool = False
    ) -> None:
        from anyio import Event

        self._typed = typed
        self._receive = receive
        self._keep_all = keep_all
        self._new_event = Event
        self._changed = Event()
        self._answers: dict[str, Any] = {}
        self._kept: deque[Any] = deque()  # messages, and errors of messages
        self._reading = False
        self._taking = False
        self._ids = count(1)

    def identified(self, request: Any) -> tuple[Any, str]:
        """A request with its id: its own, or a new one.

        Raises:
            TypeError: It has no field for one.
            ValueError: A call with this id is under way.
        """
        ids = self._typed.ids
        cls = nearest(type(request), ids)
        if cls is None:
            raise TypeError(
                f"cannot call with {name_of(type(request))}: it has no field of the type CallId. Send it by "
                "send_message()"
            )
        field = ids[cls]
        id = _field(request, field)
        if id is None:
            id = next(each for each in map(str, self._ids) if each not in self._answers)
            request = _with(request, field, id)
        elif id in self._answers:
            raise ValueError(f"a call with the id {id!r} is under way: leave the id out, and it gets its own")
        return request, id

    async def call(self, id: str, send: Callable[[Any], Awaitable[None]], payload: str | bytes) -> Any:
        """Send a request, and wait for the message that answers it."""
        self._answers[id] = _NOTHING
        try:
            await send(payload)
            while (answer := self._answers[id]) is _NOTHING:
                if self._reading or len(self._kept) >= _MOST:
                    await self._changed.wait()
                else:
                    await self._read()
            return answer
        finally:
            del self._answers[id]

    async def next(self) -> Any:
        """The next message that does not answer a call."""
        if self._taking:
            raise WebSocketRuntimeError(
                "cannot receive a message: another task is already receiving. Receive in one task, and hand "
                "the messages on"
            )
        self._taking = True
        try:
            while not self._kept:
                if self._reading:
                    await self._changed.wait()
                else:
                    await self._read()
            item = self._kept.popleft()
        finally:
            self._taking = False
            self._change()  # there is room, and nobody reads
        if isinstance(item, WebSocketDataError):
            raise item
        return item

    async def _read(self) -> None:
        """Receive one message, and put it where it belongs."""
        self._reading = True
        try:
            message = await self._receive()
        except WebSocketDataError as error:
            self._kept.append(error)
        else:
            field = self._typed.replies.get(type(message))
            id = None if field is None else _field(message, field)
            if id is not None and self._answers.get(id) is _NOTHING:
                self._answers[id] = message
            elif id is None or self._keep_all:  # else it is late, or the second one, or to nobody
                self._kept.append(message)
        finally:
            self._reading = False
            self._change()

    def _change(self) -> None:
        changed, self._changed = self._changed, self._new_event()
        changed.set()


def _field(message: Any, field: str) -> Any:
    return message.get(field) if isinstance(message, dict) else getattr(message, field)


def _with(request: Any, field: str, value: str) -> Any:
    """A copy in which a field has another value."""
    if isinstance(request, dict):
        return {**request, field: value}
    if hasattr(request, "model_copy"):
        return request.model_copy(update={field: value})
    if is_struct(type(request)):
        from msgspec import structs

        return structs.replace(request, **{field: value})
    return dataclasses.replace(request, **{field: value})
