"""For FastAPI: change one import, and the rest of the app stays.

    from fastapi import FastAPI

    from lilya.websockets.fastapi import WebSocket, WebSocketDisconnect

    app = FastAPI()

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        async with websocket:
            async for text in websocket.iter_text():
                await websocket.send_text(text)

`WebSocket` is an annotation: `Annotated`, with a dependency that makes the object. `except` clauses for
FastAPI's own `WebSocketDisconnect` hold.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import Depends
from fastapi import WebSocket as FastAPIWebSocket

from .starlette import WebSocket as WebSocketClass
from .starlette import WebSocketClosed, WebSocketDisconnect

__all__ = ["WebSocket", "WebSocketClass", "WebSocketClosed", "WebSocketDisconnect", "get_websocket"]


async def get_websocket(websocket: FastAPIWebSocket) -> WebSocketClass:
    """The dependency behind `WebSocket`: the key for `app.dependency_overrides`.

    Args:
        websocket: FastAPI's own object. The two are one in state.

    Returns:
        The WebSocket of this connection: the same one for the handler and for all its dependencies.
    """
    return WebSocketClass.wrap(websocket)


WebSocket: TypeAlias = Annotated[WebSocketClass, Depends(get_websocket)]
"""The annotation of a parameter: FastAPI hands it a `WebSocketClass`."""
