"""For Litestar: change two imports, and the rest of the app stays.

    from litestar import Litestar

    from lilya.websockets.litestar import WebSocket, websocket

    @websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        async with socket:
            async for text in socket.iter_text():
                await socket.send_text(text)

    app = Litestar([echo])

`WebSocket` is this package's and Litestar's in one: the conversation is ours, and what is known of the
request (`url`, `headers`, `query_params`, `state`, `user`, `route_handler`, …) is Litestar's. Guards and
dependencies get the same object. `except` clauses for Litestar's `WebSocketDisconnect` hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar.connection import ASGIConnection
from litestar.connection import WebSocket as LitestarWebSocket
from litestar.exceptions import WebSocketDisconnect as LitestarWebSocketDisconnect
from litestar.handlers import WebsocketRouteHandler
from litestar.serialization import encode_json

from ._state import CONNECTING, DISCONNECTED
from ._websocket import WebSocket as BaseWebSocket
from .exceptions import WebSocketClosed as BaseWebSocketClosed
from .exceptions import WebSocketDisconnect as BaseWebSocketDisconnect
from .types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["WebSocket", "WebSocketClosed", "WebSocketDisconnect", "websocket"]


class WebSocketDisconnect(BaseWebSocketDisconnect, LitestarWebSocketDisconnect):
    """The connection ended; also the `WebSocketDisconnect` of Litestar."""

    def __init__(self, code: int = 1000, reason: str | None = None) -> None:
        LitestarWebSocketDisconnect.__init__(self, detail=reason or "", code=code)
        self.args = (code, reason or "")
        self.reason = reason or ""


class WebSocketClosed(BaseWebSocketClosed, WebSocketDisconnect):
    """The WebSocket was used after its end; also the `WebSocketDisconnect` of Litestar."""


class WebSocket(BaseWebSocket, LitestarWebSocket[Any, Any, Any]):  # type: ignore[misc]
    """`lilya.websockets.WebSocket`, which is also Litestar's."""

    _disconnect_class = WebSocketDisconnect
    _closed_class = WebSocketClosed

    # What is known of the request is Litestar's, which reads it for parameters.
    app: Any = LitestarWebSocket.app
    url: Any = LitestarWebSocket.url
    base_url: Any = LitestarWebSocket.base_url
    headers: Any = LitestarWebSocket.headers
    query_params: Any = LitestarWebSocket.query_params
    path_params: Any = LitestarWebSocket.path_params
    cookies: Any = LitestarWebSocket.cookies
    state: Any = LitestarWebSocket.state
    client: Any = LitestarWebSocket.client
    auth: Any = LitestarWebSocket.auth
    user: Any = LitestarWebSocket.user
    session: Any = LitestarWebSocket.session
    set_session: Any = LitestarWebSocket.set_session
    clear_session: Any = LitestarWebSocket.clear_session
    dumps = staticmethod(encode_json)
    """Litestar's: models, dataclasses, dates."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ASGIConnection.__init__(self, scope, receive, send)  # type: ignore[arg-type]
        del self.receive, self.send  # they are methods here
        BaseWebSocket.__init__(self, scope, receive, send)

    @property
    def connection_state(self) -> str:  # type: ignore[override]
        """The state of the connection, as Litestar names it."""
        if DISCONNECTED in (self._client_state, self._application_state):
            return "disconnect"
        return "init" if self._client_state is CONNECTING else "connect"

    async def accept(  # type: ignore[override]
        self, subprotocol: str | None = None, headers: Any = None, *, subprotocols: str | None = None
    ) -> None:
        """Accept the connection.

        Args:
            subprotocol: See `lilya.websockets.WebSocket.accept`.
            headers: See `lilya.websockets.WebSocket.accept`; also Litestar's `Headers`.
            subprotocols: Litestar's name for `subprotocol`.
        """
        await super().accept(subprotocols if subprotocol is None else subprotocol, headers)

    async def receive_data(self, mode: Any) -> Any:
        """Receive one message. This accepts the connection first if necessary, as Litestar's method does.

        Args:
            mode: `"text"` or `"binary"`.
        """
        if self._application_state is CONNECTING:
            await self.accept()
        return await (self.receive_text() if mode == "text" else self.receive_bytes())

    async def send_data(self, data: Any, mode: Any = "text", encoding: str = "utf-8") -> None:
        """Send one message. This accepts the connection first if necessary, as Litestar's method does.

        Args:
            data: Text or bytes.
            mode: `"text"` or `"binary"`.
            encoding: The encoding of text in a binary message, and of bytes in a text message.
        """
        if self._application_state is CONNECTING:
            await self.accept()
        if mode == "text":
            await self.send_text(data if isinstance(data, str) else data.decode(encoding))
        else:
            await self.send_bytes(data.encode(encoding) if isinstance(data, str) else data)


# Where Litestar keeps what it has parsed: slots, which the attributes of our class would hide.
for _name in ("_url", "_base_url", "_cookies"):
    setattr(WebSocket, _name, vars(ASGIConnection)[_name])


def websocket(
    path: str | list[str] | None = None, *, middleware: Sequence[Any] = (), **options: Any
) -> WebsocketRouteHandler:
    """Litestar's decorator `websocket`, whose handlers get this package's `WebSocket`.

    Args:
        path: See Litestar, also for the other arguments.
        middleware: The middleware of this handler.
        **options: `dependencies`, `guards`, `name`, `opt`, …
    """
    return WebsocketRouteHandler(
        path, middleware=[*middleware, _one_end], **{"websocket_class": WebSocket, **options}
    )


def _one_end(app: ASGIApp) -> Any:
    """Around Litestar's handling of exceptions, which closes past the object: there is one end."""

    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        over = False

        async def once(message: Message) -> None:
            nonlocal over
            if message["type"] != "websocket.close":
                await send(message)
                over = message["type"] == "websocket.http.response.body" and not message.get("more_body")
            elif not over:
                over = True
                try:
                    await send(message)
                except OSError:
                    pass  # the client is gone: the goal is reached

        await app(scope, receive, once)

    return around
