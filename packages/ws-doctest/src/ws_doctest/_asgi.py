"""The server in memory that replays stand on.

The wheel has it inside, so that it needs no other package of ours. In an editable installation it is that of
`lilya.websockets.testing`, which is its source.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lilya.websockets.testing import (
        Lifespan,
        LifespanError,
        LoopThread,
        MemoryConnection,
        WebSocketTimeout,
        describe_frames,
        frames_of,
        websocket_scope,
    )
else:
    try:
        from ws_doctest._in_memory.testing._connection import MemoryConnection, websocket_scope
        from ws_doctest._in_memory.testing._errors import LifespanError, WebSocketTimeout
        from ws_doctest._in_memory.testing._lifespan import Lifespan
        from ws_doctest._in_memory.testing._loop import LoopThread
        from ws_doctest._in_memory.testing._where import describe_frames, frames_of
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("ws_doctest._in_memory"):
            raise
        from lilya.websockets.testing import (
            Lifespan,
            LifespanError,
            LoopThread,
            MemoryConnection,
            WebSocketTimeout,
            describe_frames,
            frames_of,
            websocket_scope,
        )

__all__ = [
    "FOLDER",
    "ASGIApp",
    "Lifespan",
    "LifespanError",
    "LoopThread",
    "MemoryConnection",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "WebSocketTimeout",
    "describe_frames",
    "frames_of",
    "websocket_scope",
]

# The folder of its code, which is no part of an app's traceback.
FOLDER = Path(describe_frames.__code__.co_filename).parent

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
