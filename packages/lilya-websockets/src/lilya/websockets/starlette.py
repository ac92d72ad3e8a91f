"""For Starlette: change two imports, and the rest of the app stays.

    from starlette.applications import Starlette

    from lilya.websockets.starlette import WebSocket, WebSocketRoute

    async def echo(websocket: WebSocket) -> None:
        async with websocket:
            async for text in websocket.iter_text():
                await websocket.send_text(text)

    app = Starlette(routes=[WebSocketRoute("/echo", echo)])

`WebSocketRoute` hands a function this package's object, and `WebSocketEndpoint` the methods of a class. In a
handler that takes Starlette's object, `WebSocket.wrap(websocket)` makes the same. `except` clauses for
Starlette's `WebSocketDisconnect` hold.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from functools import partial
from inspect import isfunction, ismethod
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from starlette import websockets
from starlette.routing import WebSocketRoute as StarletteWebSocketRoute
from starlette.routing import get_name, websocket_session
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketDisconnect as StarletteWebSocketDisconnect
from starlette.websockets import WebSocketState as StarletteWebSocketState

from ._shared import LEADING, Foreign, states_of
from ._state import CONNECTED, DISCONNECTED, WebSocketState
from ._websocket import WebSocket as BaseWebSocket
from .exceptions import WebSocketClosed as BaseWebSocketClosed
from .exceptions import WebSocketDisconnect as BaseWebSocketDisconnect
from .types import ASGIApp, In, Message, Out, Receive, Scope, Send

__all__ = ["WebSocket", "WebSocketClosed", "WebSocketDisconnect", "WebSocketEndpoint", "WebSocketRoute"]

W = TypeVar("W", bound="WebSocket[Any, Any]")


class WebSocketDisconnect(BaseWebSocketDisconnect, StarletteWebSocketDisconnect):
    """The connection ended; also the `WebSocketDisconnect` of Starlette and FastAPI."""


class WebSocketClosed(BaseWebSocketClosed, WebSocketDisconnect):
    """The WebSocket was used after its end; also the `WebSocketDisconnect` of Starlette and FastAPI."""


class WebSocket(BaseWebSocket[In, Out]):
    """`lilya.websockets.WebSocket`, whose exceptions are also Starlette's."""

    _disconnect_class = WebSocketDisconnect
    _closed_class = WebSocketClosed

    @classmethod
    def wrap(cls: type[W], other: Any) -> W:
        """A WebSocket of this class over Starlette's object; see `lilya.websockets.WebSocket.wrap`."""
        if not _is_plain(other):
            return super().wrap(other)
        websocket = cls(other.scope, other.receive, other.send)
        if type(other) is StarletteWebSocket:  # no router has been there, see `__init__`
            websocket._stand_behind(other, None, states_of(other))
        return websocket

    def _stand_behind(
        self, other: Any, foreign: Foreign | None, states: tuple[WebSocketState, WebSocketState] | None
    ) -> None:
        if not _is_plain(other):
            super()._stand_behind(other, foreign, states)
            return
        self._receive, self._send = other._receive, other._send
        self._start_at(states)
        other.websocket = self
        other.__class__ = _Led


class _Led(StarletteWebSocket):
    """Starlette's object over a connection of ours. The state is ours, and ours talks to the server."""

    websocket: WebSocket[Any, Any]

    def _states(self) -> tuple[WebSocketState, WebSocketState]:
        client, application = self.websocket._client_state, self.websocket._application_state
        if client is CONNECTED and application is DISCONNECTED and not self.websocket._ended_by_app:
            # The client has left a block, and what it sent before can still be received.
            return DISCONNECTED, CONNECTED
        return client, application

    @property
    def client_state(self) -> StarletteWebSocketState:
        return _STATES[self._states()[0]]

    @client_state.setter
    def client_state(self, state: StarletteWebSocketState) -> None:
        self.websocket.client_state = WebSocketState[state.name]

    @property
    def application_state(self) -> StarletteWebSocketState:
        return _STATES[self._states()[1]]

    @application_state.setter
    def application_state(self, state: StarletteWebSocketState) -> None:
        self.websocket.application_state = WebSocketState[state.name]

    async def receive(self) -> Message:
        return await self.websocket._next("receive")

    async def send(self, message: Message) -> None:
        await self.websocket._relay(message)


LEADING.add(_Led)

_STATES: Final = tuple(StarletteWebSocketState[state.name] for state in WebSocketState)
# By the file of their code: what somebody has put in their place may do more.
_OWN: Final = frozenset(
    method
    for method in (StarletteWebSocket.receive, StarletteWebSocket.send)
    if getattr(getattr(method, "__code__", None), "co_filename", None) == websockets.__file__
)


def _is_plain(other: Any) -> bool:
    """Whether it is Starlette's object, and nobody has changed what its `receive` and `send` do."""
    return (
        type(other) is StarletteWebSocket
        and "receive" not in other.__dict__
        and "send" not in other.__dict__
        and StarletteWebSocket.receive in _OWN
        and StarletteWebSocket.send in _OWN
    )


class WebSocketRoute(StarletteWebSocketRoute):
    """Starlette's route, whose function gets this package's `WebSocket`.

    Args:
        path: See Starlette, also for the other arguments.
        endpoint: A coroutine function that takes the WebSocket. It may also be a `WebSocketEndpoint` or an
            ASGI app, as for Starlette's route.
        **options: `name` and `middleware`.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[[WebSocket], Awaitable[None]] | type[WebSocketEndpoint] | ASGIApp,
        **options: Any,
    ) -> None:
        function: Any = endpoint
        while isinstance(function, partial):
            function = function.func
        if not (isfunction(function) or ismethod(function)):
            super().__init__(path, endpoint, **options)
            return
        handler: Any = endpoint

        async def session(websocket: StarletteWebSocket) -> None:
            await handler(WebSocket.wrap(websocket))

        options["name"] = options.get("name") or get_name(endpoint)
        super().__init__(path, session, **options)
        self.endpoint = endpoint  # what a middleware finds in the scope


if TYPE_CHECKING:

    class _Endpoint:
        """Starlette's, whose methods take Starlette's object: a subclass of both could not be typed."""

        encoding: Literal["text", "bytes", "json"] | None = None
        scope: Scope
        receive: Receive
        send: Send

        def __init__(self, scope: Scope, receive: Receive, send: Send) -> None: ...
        def __await__(self) -> Generator[Any, None, None]: ...
        async def decode(self, websocket: WebSocket, message: Message) -> Any: ...

else:
    from starlette.endpoints import WebSocketEndpoint as _Endpoint


class WebSocketEndpoint(_Endpoint):
    """Starlette's endpoint, whose methods get this package's `WebSocket`.

    `on_connect`, `on_receive` and `on_disconnect` are called as in Starlette. The code that `on_disconnect`
    gets is the WebSocket's `close_code`.
    """

    async def dispatch(self) -> None:
        """Run one connection."""
        # In a session of Starlette's: the handlers of exceptions get its object.
        await websocket_session(self._converse)(self.scope, self.receive, self.send)

    async def _converse(self, session: StarletteWebSocket) -> None:
        websocket = WebSocket.wrap(session)
        await self.on_connect(websocket)
        close_code = 1000
        try:
            while (message := await websocket.receive())["type"] != "websocket.disconnect":
                await self.on_receive(websocket, await self.decode(websocket, message))
            close_code = websocket.close_code or close_code
        except Exception:
            close_code = 1011
            raise
        finally:
            await self.on_disconnect(websocket, close_code)

    async def on_connect(self, websocket: WebSocket) -> None:
        """Called first. It accepts the connection, unless you override it."""
        await websocket.accept()

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        """Called with each message, decoded according to `encoding`."""

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        """Called at the end. After an exception, the code is 1011."""
