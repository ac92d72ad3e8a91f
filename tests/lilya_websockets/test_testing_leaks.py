"""Two thousand sessions leave no task, no thread and no memory."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

CODE = """
import gc, sys, threading, tracemalloc
import anyio
from lilya.websockets import WebSocket
from lilya.websockets.testing import TestClient, connect

async def app(scope, receive, send):
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)

async def sessions(number):
    for _ in range(number):
        async with connect(app) as session:
            await session.send_text("a")
            assert await session.receive_text() == "a"

def sync_sessions(number):
    with TestClient(app, backend=sys.argv[1]) as client:
        for _ in range(number):
            with client.websocket_connect("/") as session:
                session.send_text("a")
                assert session.receive_text() == "a"

async def main():
    await sessions(1000)  # the interpreter's own caches fill up, and trio's heap of deadlines
    tasks = len(anyio.get_running_tasks())
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    await sessions(1000)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    return tasks, len(anyio.get_running_tasks()), grown

tracemalloc.start()
tasks, tasks_after, grown = anyio.run(main, backend=sys.argv[1])
sync_sessions(100)
gc.collect()
before = tracemalloc.get_traced_memory()[0]
threads = {thread for thread in threading.enumerate() if "lilya" in thread.name}
sync_sessions(1000)
gc.collect()
sync_grown = tracemalloc.get_traced_memory()[0] - before
threads |= {thread for thread in threading.enumerate() if "lilya" in thread.name}
print(tasks_after - tasks, len(threads), grown, sync_grown)
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_leaks(backend: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(CODE), backend]
    # Without the measuring of coverage, which keeps what it sees, and takes half of the time.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=env)
    assert done.returncode == 0, done.stderr
    tasks, threads, grown, sync_grown = map(int, done.stdout.split())
    assert (tasks, threads) == (0, 0)
    # One object kept per session would be 50 kB and more.
    assert grown < 30_000
    assert sync_grown < 30_000
