"""Two processes of uvicorn on one Redis: their clients chat with each other, whatever is killed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as client

from .redis_server import NO_SERVER, RedisServer, free_port, redis_binary

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(redis_binary() is None, reason=NO_SERVER),
    pytest.mark.skipif(
        importlib.util.find_spec("redis") is None, reason="the client of Redis is not installed"
    ),
]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # as uvicorn, and the client of Redis


class Worker:
    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    @asynccontextmanager
    async def connected(self, name: str) -> AsyncIterator[ClientConnection]:
        """A client of it; waits until it is there."""
        while True:
            try:
                connection = await client(f"ws://127.0.0.1:{self.port}/{name}", proxy=None)
                break
            except OSError:
                assert self.process.poll() is None, "the worker has ended"
                await anyio.sleep(0.02)
        async with connection:
            yield connection


@contextmanager
def worker(url: str, presence_ttl: float = 30) -> Iterator[Worker]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.lilya_websockets.chat_app:app", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--log-level", "critical", "--ws", "websockets-sansio"],
        cwd=ROOT,
        env=os.environ | {"CHANNELS": url, "PRESENCE_TTL": str(presence_ttl)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Worker(process, port)
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()


async def until_there_are(connection: ClientConnection, *names: str) -> None:
    """Ask who is in the room until it is these."""
    while True:
        await connection.send("who?")
        if json.loads(await connection.recv()) == [*names]:
            return
        await anyio.sleep(0.02)


async def test_two_workers() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer("appendonly yes", "appendfsync always"))
        workers = [stack.enter_context(worker(server.url)) for _ in range(2)]
        async with workers[0].connected("ann") as ann, workers[1].connected("bob") as bob:
            await until_there_are(ann, "ann", "bob")
            everything: list[str] = []
            for part in range(2):
                for number in range(20):
                    await ann.send(f"ann {part} {number}")
                    await bob.send(f"bob {part} {number}")
                seen = [str(await ann.recv()) for _ in range(40)]
                assert [str(await bob.recv()) for _ in range(40)] == seen
                for name in ("ann", "bob"):
                    mine = [text for text in seen if text.startswith(name)]
                    assert mine == [f"{name} {part} {number}" for number in range(20)]
                everything += seen
                if not part:
                    server.kill()
                    await anyio.to_thread.run_sync(server.start)
            assert len(everything) == 80


async def test_a_worker_that_crashes() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        one, other = (stack.enter_context(worker(server.url, presence_ttl=0.5)) for _ in range(2))
        async with one.connected("ann") as ann:
            async with other.connected("bob"):
                await until_there_are(ann, "ann", "bob")
                other.process.kill()
                await until_there_are(ann, "ann")
