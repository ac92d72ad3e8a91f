"""For Quart: one call, one import, and the rest of the app stays.

    from quart import Quart

    from lilya.websockets.quart import init_app, websocket

    app = Quart(__name__)
    init_app(app)

    @app.websocket("/echo")
    async def echo() -> None:
        async with websocket:
            async for text in websocket.iter_text():
                await websocket.send_text(text)

`websocket` is this package's `WebSocket` of the connection that is being handled, where Quart's own takes and
gives payloads. Quart's own goes on working, over the same connection. Routing, `before_websocket`, the
context and the handlers of errors stay Quart's. A client that leaves does not cancel the handler: the handler
learns of it as on every other server and framework.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final

from quart import Quart, Response
from quart.asgi import ASGIWebsocketConnection
from quart.signals import websocket_received, websocket_sent
from quart.wrappers import Websocket as QuartWebSocket
from werkzeug.local import LocalProxy

from ._state import CONNECTED, CONNECTING
from ._websocket import WebSocket
from .exceptions import WebSocketClosed, WebSocketDataError, WebSocketDisconnect
from .types import Receive, Send

__all__ = [
    "WebSocket",
    "WebSocketClosed",
    "WebSocketConnection",
    "WebSocketDataError",
    "WebSocketDisconnect",
    "init_app",
    "websocket",
]

_current: Final[ContextVar[WebSocket]] = ContextVar("lilya.websockets.quart")

websocket: WebSocket = LocalProxy(  # type: ignore[assignment]
    _current,
    unbound_message="there is no WebSocket here: use `websocket` in a handler of `@app.websocket`, and call "
    "init_app(app) first",
)
"""The WebSocket of the connection that is being handled; elsewhere it raises `RuntimeError`."""


def init_app(app: Quart) -> None:
    """Let an app's WebSockets use this package.

    Args:
        app: The app. Call this before you serve it.
    """
    app.asgi_websocket_class = WebSocketConnection  # type: ignore[assignment]
    app.register_error_handler(WebSocketDisconnect, _left)


async def _left(error: Exception) -> Response:
    return Response(status=204)  # nobody sees it


class WebSocketConnection(ASGIWebsocketConnection):
    """One connection of a Quart app: what `init_app` sets as `app.asgi_websocket_class`."""

    async def __call__(self, receive: Receive, send: Send) -> None:  # type: ignore[override]
        """Run the app's handler."""
        self._ours = WebSocket(self.scope, receive, send)  # type: ignore[arg-type]
        if type(getattr(receive, "__self__", None)).__module__ == "quart.testing.connections":
            self._ours.client_state = CONNECTED  # Quart's test client sends no `websocket.connect`
        token = _current.set(self._ours)
        self.queue = _Payloads(self._ours)  # type: ignore[assignment]
        try:
            await self.handle_websocket(self._create_websocket_from_scope(send), send)  # type: ignore[arg-type]
        finally:
            _current.reset(token)

    async def handle_websocket(self, websocket: QuartWebSocket, send: Any) -> None:
        """Run the handler, and answer or close as its response says."""
        ours = self._ours
        response = await self.app.handle_websocket(websocket)
        if response is not None and ours.application_state is CONNECTING:
            body = response.get_data(as_text=False)
            await ours.deny(
                response.status_code,
                body if isinstance(body, bytes) else await body,
                list(response.headers.items()),
            )
        elif ours.application_state is ours.client_state is CONNECTED:
            await ours.close(1011 if response is not None and response.status_code >= 500 else 1000)

    # What Quart's own object calls

    async def accept_connection(self, send: Any, headers: Any, subprotocol: str | None) -> None:
        """Accept, unless that was done."""
        if self._ours.application_state is CONNECTING:
            await self._ours.accept(subprotocol, list(headers.items()))

    async def send_data(self, send: Any, data: str | bytes) -> None:
        """Send one message."""
        await (self._ours.send_text(data) if isinstance(data, str) else self._ours.send_bytes(data))
        await websocket_sent.send_async(data)

    async def close_connection(self, send: Any, code: int, reason: str) -> None:
        """Close."""
        await self._ours.close(code, reason)


class _Payloads:
    """What Quart's own object receives from."""

    def __init__(self, ours: WebSocket) -> None:
        self._ours = ours

    async def get(self) -> str | bytes:
        try:
            payload: str | bytes = await self._ours.receive_text()
        except WebSocketDataError as error:
            payload = error.message["bytes"]
        await websocket_received.send_async(payload)
        return payload
