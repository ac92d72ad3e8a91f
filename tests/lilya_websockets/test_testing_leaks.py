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
from trio.testing import MockClock

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

async def memory():
    if clock:
        # trio keeps up to a thousand deadlines that are not needed any more, until their time has come.
        clock.jump(3600)
    await anyio.lowlevel.checkpoint()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]

async def main():
    await sessions(1000)  # the interpreter's own caches fill up
    tasks = len(anyio.get_running_tasks())
    before = await memory()
    await sessions(1000)
    grown = await memory() - before
    return tasks, len(anyio.get_running_tasks()), grown

clock = MockClock() if sys.argv[1] == "trio" else None
tracemalloc.start()
options = {"clock": clock} if clock else {}
tasks, tasks_after, grown = anyio.run(main, backend=sys.argv[1], backend_options=options)
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
    # The smallest object kept per session would be 16 kB.
    assert grown < 10_000
    assert sync_grown < 10_000
