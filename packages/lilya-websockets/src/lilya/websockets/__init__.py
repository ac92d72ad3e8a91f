"""One WebSocket class for every ASGI app on every ASGI server."""

from ._messages import PreparedMessage
from ._state import WebSocketState
from ._websocket import WebSocket, WebSocketClose
from .datastructures import URL, Address, Header, QueryParam, State
from .exceptions import (
    WebSocketClosed,
    WebSocketDataError,
    WebSocketDisconnect,
    WebSocketRuntimeError,
)

__all__ = [
    "URL",
    "Address",
    "Header",
    "PreparedMessage",
    "QueryParam",
    "State",
    "WebSocket",
    "WebSocketClose",
    "WebSocketClosed",
    "WebSocketDataError",
    "WebSocketDisconnect",
    "WebSocketRuntimeError",
    "WebSocketState",
]

__version__ = "0.1.0"
