"""A test client for the WebSockets of any ASGI app, which never hangs.

    from lilya.websockets.testing import connect

    async def test_echo() -> None:
        async with connect(app, "/chat?room=blue") as session:
            await session.send_text("hello")
            assert await session.receive_text() == "You said: hello"

`connect` and `AsyncTestClient` run the app in the event loop of the test, asyncio or trio. `TestClient` is
for tests without one. Everything that waits has a time limit, and the app is held to the rules of ASGI.
"""

from ..exceptions import WebSocketClosed, WebSocketDataError, WebSocketDisconnect
from ._client import AsyncTestClient, TestClient, WebSocketTestSession
from ._connection import MemoryConnection, websocket_scope
from ._errors import (
    ASGIViolation,
    ASGIWarning,
    ClientDisconnected,
    LifespanError,
    UnexpectedMessage,
    WebSocketDenialResponse,
    WebSocketTimeout,
)
from ._lifespan import Lifespan
from ._loop import LoopThread
from ._messages import MessageSession, MessageTestSession
from ._routes import unguarded_routes
from ._session import WebSocketSession, connect
from ._where import describe_frames, frames_of

__all__ = [
    "ASGIViolation",
    "ASGIWarning",
    "AsyncTestClient",
    "ClientDisconnected",
    "Lifespan",
    "LifespanError",
    "LoopThread",
    "MemoryConnection",
    "MessageSession",
    "MessageTestSession",
    "TestClient",
    "UnexpectedMessage",
    "WebSocketClosed",
    "WebSocketDataError",
    "WebSocketDenialResponse",
    "WebSocketDisconnect",
    "WebSocketSession",
    "WebSocketTestSession",
    "WebSocketTimeout",
    "connect",
    "describe_frames",
    "frames_of",
    "unguarded_routes",
    "websocket_scope",
]
