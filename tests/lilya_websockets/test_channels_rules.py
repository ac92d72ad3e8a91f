"""Rules that the first lines of the modules of channels state, each with a planted fault that breaks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from itertools import groupby
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from lilya.websockets.channels import Channels, _writers

from .redis_server import RedisServer, redis_binary
from .server import Server
from .test_channels import until

pytestmark = pytest.mark.anyio

Make = Callable[..., Channels]

# Writers


async def longest_row(channels: Channels, *, sockets: int, events: int) -> int:
    """The most sends to sockets that take everything at once, without a turn for another task."""
    turns, sends = 0, []

    async def send(message: Any) -> None:
        sends.append(turns)

    async def other() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:
        tasks.start_soon(other)
        for _ in range(sockets):
            websocket = await Server().accepted()
            websocket._use(websocket._receive, send)
            await stack.enter_async_context(channels.join("a", websocket, history=events))
        if not channels._hub.writers.ready and not sends:
            await channels.publish("a", "1")
        await until(lambda: len(sends) == sockets * events)
        await stack.aclose()
        tasks.cancel_scope.cancel()
    return max(len(list(row)) for _, row in groupby(sends))


@pytest.mark.parametrize(("sockets", "events"), [(100, 1), (1, 100)])
@pytest.mark.parametrize("turn", [5, 1_000_000])
async def test_a_writer_gives_others_a_turn(
    sockets: int, events: int, turn: int, make_channels: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many sends in a row. The planted fault is a writer that never does."""
    monkeypatch.setattr(_writers, "_TURN", turn)
    async with make_channels() as channels:
        for number in range(events if sockets == 1 else 0):
            await channels.publish("a", str(number))
        row = await longest_row(channels, sockets=sockets, events=events)
    if turn == 5:
        assert row <= 2 * turn  # two writers may have their turns one after the other
    else:
        assert row == 100


# The connection to Redis


class Relay:
    """Between a client and a server of Redis: hands on one command after the other, or refuses one."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.refuse: bytes | None = None
        """Part of the command that is answered as if its script were unknown, once."""

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, onwards = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            while True:
                command = await self._whole(reader)
                if self.refuse is not None and self.refuse in command:
                    self.refuse = None
                    writer.write(b"-NOSCRIPT No matching script. Please use EVAL.\r\n")
                    continue
                onwards.write(command)
                writer.write(await self._whole(there))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            onwards.transport.abort()

    async def _whole(self, reader: asyncio.StreamReader) -> bytes:
        """One value of the protocol, as it came."""
        line = await reader.readuntil(b"\n")
        if line[:1] == b"$" and line != b"$-1\r\n":
            return line + await reader.readexactly(int(line[1:]) + 2)
        for _ in range(int(line[1:]) if line[:1] == b"*" else 0):
            line += await self._whole(reader)
        return line


@pytest.mark.parametrize("planted", [False, True])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.skipif(redis_binary() is None, reason="no redis-server")
async def test_a_refused_request_gets_a_new_number(
    planted: bool, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the server takes it for one that it has kept, because what came after it has a higher number."""
    from lilya.websockets.channels._link import Pipe

    if planted:
        packed, numbers = Pipe._packed, dict[Any, Any]()

        def stubborn(self: Pipe, request: Any) -> bytes:
            request.number = numbers.get(request, request.number)
            data = packed(self, request)
            numbers[request] = request.number
            return data

        monkeypatch.setattr(Pipe, "_packed", stubborn)
    async with Relay(redis_server.port) as relay, Channels(relay.url, prefix=f"rules-{planted}") as channels:
        await channels.publish("a", "known")
        relay.refuse = b"refused"
        ids: dict[str, str] = {}

        async def publish(data: str) -> None:
            ids[data] = await channels.publish("a", data)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish, "refused")
            tasks.start_soon(publish, "accepted")
        assert relay.refuse is None
        kept = await channels.backend.history("a", last=9)
        found = {str(event.data): event.id for event in kept.events}
        if planted:
            assert "refused" not in found  # and yet it was acknowledged
        else:
            assert found.keys() == {"known", "refused", "accepted"}
            assert {data: found[data] for data in ids} == ids


@pytest.mark.parametrize("planted", [False, True])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.skipif(redis_binary() is None, reason="no redis-server")
async def test_the_back_off_is_not_reset_before_all_lines_are_back(
    planted: bool, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes one connection and cuts the others is not tried again in a hurry."""
    from lilya.websockets.channels import _link

    from .test_channels_redis import Proxy

    class Cutting(Proxy):
        """Cuts each connection that would listen, as long as that is wanted."""

        cuts = False

        @property
        def lose(self) -> bytes | None:
            return b"SUBSCRIBE" if self.cuts else None

        @lose.setter
        def lose(self, value: bytes | None) -> None:
            pass

    limits: list[float] = []

    def uniform(least: float, most: float) -> float:
        limits.append(most)
        return 0.0

    monkeypatch.setattr(_link, "random", SimpleNamespace(uniform=uniform))
    if planted:
        reached = _link.Link.reached

        def hasty(self: Any) -> None:
            reached(self)
            self.attempts = 0

        monkeypatch.setattr(_link.Link, "reached", hasty)
    growing = [min(0.1 * 2**number, 5.0) for number in range(8)]
    proxy = Cutting(redis_server.port)
    async with (
        proxy,
        Channels(proxy.url, prefix=f"back-off-{planted}") as channels,
        channels.subscribe("a") as subscription,
    ):
        proxy.cuts = True
        proxy.cut()
        await until(lambda: len(limits) >= len(growing))
        assert (limits[: len(growing)] == growing) is not planted
        proxy.cuts = False
        await until(lambda: channels.ready.is_set())
        await channels.publish("a", "back")
        assert getattr(await anext(subscription), "data", None) == "back"
        limits.clear()
        proxy.cut()
        await until(lambda: limits)
        assert limits[0] == 0.1  # all were back, so it is small again
        await until(lambda: channels.ready.is_set())
