"""What `benchmarks.soak` wears out: a block that echoes; at /tally it says what the process holds."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import Any

from lilya.websockets import WebSocket


def tally() -> dict[str, int]:
    """The tasks, the descriptors and the objects of this process."""
    gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "objects": len(gc.get_objects()),
    }


async def app(scope: Any, receive: Any, send: Any) -> None:
    async with WebSocket(scope, receive, send) as websocket:
        async for text in websocket.iter_text():
            if scope["path"] == "/tally":
                await websocket.send_json(tally())
            else:
                await websocket.send_text(text)
