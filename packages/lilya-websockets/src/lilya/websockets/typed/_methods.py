"""What a `WebSocket[In, Out]` can do that a `WebSocket` cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar, Final, Literal

from .._websocket import WebSocket, _limited
from ..exceptions import WebSocketDataError, WebSocketDisconnect
from ._calls import Calls
from ._codecs import Codec
from ._kinds import Library
from ._typed import Typed

__all__ = ["TypedWebSocket"]

_ON_ERROR: Final = ("raise", "answer", "close")


class TypedWebSocket(WebSocket):
    """The methods of typed messages. What they promise stands in `WebSocket`."""

    _typed: ClassVar[Typed]  # type: ignore[misc]  # here it is of the class, and there
    _calls: Calls | None = None

    def __init_subclass__(
        cls, *, codec: Codec | None = None, library: Library | None = None, **options: Any
    ) -> None:
        super().__init_subclass__(**options)
        if codec is None and library is None:
            return
        if codec is not None and not isinstance(codec, Codec):
            raise TypeError(f"codec must be a Codec, got {type(codec).__name__}")
        if library not in (None, "pydantic", "msgspec"):
            raise ValueError(f"library must be 'pydantic' or 'msgspec', got {library!r}")
        typed = cls._typed
        cls._typed = Typed(typed.received, typed.sent, codec or typed.codec, library or typed.library)

    def iter_messages(self, on_error: Literal["raise", "answer", "close"] = "raise") -> AsyncIterator[Any]:
        if on_error not in _ON_ERROR:
            raise ValueError(f"on_error must be 'raise', 'answer' or 'close', got {on_error!r}")
        return _Messages(self, on_error)

    async def receive_message(self, timeout: float | None = None) -> Any:
        if timeout is not None:
            return await _limited(timeout, TypedWebSocket.receive_message, self)
        if self._typed.replies:
            return await self._calling().next()
        return await self._receive_one()

    async def send_message(self, message: Any, timeout: float | None = None) -> None:
        payload = self._encoded(message)
        if isinstance(payload, str):
            await self.send_text(payload, timeout)
        else:
            await self.send_bytes(payload, timeout)

    async def call(self, request: Any, timeout: float | None = 30.0) -> Any:
        if timeout is not None:
            return await _limited(timeout, TypedWebSocket.call, self, request, None)
        typed = self._typed
        if not typed.ids or not typed.replies:
            raise TypeError(
                "cannot call: a model of Out must have a field of the type CallId, and a model of In one of "
                "the type ReplyTo; both are in lilya.websockets.typed"
            )
        calls = self._calling()
        request, id = calls.identified(request)
        payload = self._encoded(request)
        return await calls.call(id, self.send_text if isinstance(payload, str) else self.send_bytes, payload)

    async def _receive_one(self) -> Any:
        typed = self._typed
        payload = await (self.receive_text() if typed.key == "text" else self.receive_bytes())
        try:
            return typed.decode(payload)
        except typed.failures as error:
            raise typed.refused(payload, error) from error

    def _encoded(self, message: Any) -> str | bytes:
        try:
            return self._typed.encode(message)  # type: ignore[no-any-return]
        except RecursionError as error:
            raise ValueError("the message is nested too deep, or holds itself") from error
        except (OverflowError, UnicodeError) as error:
            raise ValueError(f"the message cannot be encoded: {error}") from error

    def _calling(self) -> Calls:
        if self._calls is None:
            self._calls = Calls(self._typed, self._receive_one)
        return self._calls


class _Messages(AsyncIterator[Any]):
    """Messages until the conversation ends."""

    __slots__ = ("_decode", "_next", "_on_error", "_websocket")

    def __init__(self, websocket: TypedWebSocket, on_error: str) -> None:
        self._websocket = websocket
        self._on_error = on_error
        typed = websocket._typed
        payloads: AsyncIterator[Any] = (
            websocket.iter_text() if typed.key == "text" else websocket.iter_bytes()
        )
        self._next = self._routed if typed.replies else payloads.__anext__
        self._decode = _as_it_is if typed.replies else typed.decode

    async def _routed(self) -> Any:
        try:
            return await self._websocket._calling().next()
        except WebSocketDisconnect:
            raise StopAsyncIteration from None

    async def __anext__(self) -> Any:
        while True:
            try:
                payload = await self._next()
                try:
                    return self._decode(payload)
                except self._websocket._typed.failures as error:
                    raise self._websocket._typed.refused(payload, error) from error
            except WebSocketDataError as error:
                if self._on_error == "raise":
                    raise
                await self._respond(error)

    async def _respond(self, error: WebSocketDataError) -> None:
        """Raise, answer or close for an invalid message, as `on_error` says, and go on."""
        websocket = self._websocket
        try:
            if self._on_error == "close":
                await websocket.close(1007)
                raise StopAsyncIteration
            answer = websocket._typed.answer(error)
            await (websocket.send_text(answer) if isinstance(answer, str) else websocket.send_bytes(answer))
        except WebSocketDisconnect:
            raise StopAsyncIteration from None


def _as_it_is(message: Any) -> Any:
    return message
