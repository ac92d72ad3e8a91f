"""For FastAPI: change one import, and the rest of the app stays.

    from fastapi import FastAPI

    from lilya.websockets.fastapi import WebSocket, WebSocketDisconnect

    app = FastAPI()

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        async with websocket:
            async for text in websocket.iter_text():
                await websocket.send_text(text)

`WebSocket` is an annotation: `Annotated`, with a dependency that makes the object. `WebSocket[In, Out]` is
one for typed messages. `except` clauses for FastAPI's own `WebSocketDisconnect` hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from fastapi import Depends
from fastapi import WebSocket as FastAPIWebSocket

from .starlette import WebSocket as WebSocketClass
from .starlette import WebSocketClosed, WebSocketDisconnect
from .types import In, Out

__all__ = ["WebSocket", "WebSocketClass", "WebSocketClosed", "WebSocketDisconnect", "get_websocket"]


async def get_websocket(websocket: FastAPIWebSocket) -> WebSocketClass:
    """The dependency behind `WebSocket`: the key for `app.dependency_overrides`.

    Args:
        websocket: FastAPI's own object. Both objects share one state.

    Returns:
        The WebSocket of this connection, the same one for the handler and all its dependencies.
    """
    return WebSocketClass.wrap(websocket)


if TYPE_CHECKING:
    WebSocket: TypeAlias = Annotated[WebSocketClass[In, Out], Depends(get_websocket)]
else:
    # `typing` wants to be asked by `_root` before one of its classes is subclassed.
    class _Annotation(type(Annotated[None, None]), _root=True):
        """What `Annotated[…]` is, whose types get a dependency that makes a WebSocket of these types."""

        def __getitem__(self, types: Any) -> Any:
            cls = WebSocketClass[types]

            async def get_typed_websocket(websocket: WebSocket) -> WebSocketClass:
                return cls.wrap(websocket)

            return Annotated[cls, Depends(get_typed_websocket)]

    WebSocket = _Annotation(WebSocketClass, (Depends(get_websocket),))
"""The annotation of a parameter: FastAPI hands it a `WebSocketClass`, with `[In, Out]` one of these types."""
