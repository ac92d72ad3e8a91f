"""Channels from outside: sockets closed in all processes, publishers without an event loop, and a shell."""

from __future__ import annotations

import asyncio
import io
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from redis.sentinel import MasterNotFoundError

from lilya.websockets import WebSocketRuntimeError
from lilya.websockets.__main__ import main
from lilya.websockets.channels import BrokerError, Channels, Event, Gap, Publisher
from lilya.websockets.channels._backend import CONTROL
from lilya.websockets.channels._memory import MemoryBackend
from lilya.websockets.channels._outbox import Entry
from lilya.websockets.channels._publisher import _CLIENTS
from lilya.websockets.channels.backends import Backend

from .redis_server import NO_SERVER, RedisServer, free_port, redis_binary
from .server import Server

pytestmark = pytest.mark.anyio

on_redis = pytest.mark.skipif(redis_binary() is None, reason=NO_SERVER)

Make = Callable[..., Channels]


@pytest.fixture
def make(make_channels: Make) -> Make:
    return make_channels


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await anyio.sleep(0.001)


def closed(server: Server) -> Any:
    """With what a socket was closed, if it was."""
    return next(
        ((m["code"], m.get("reason") or "") for m in server.sent if m["type"] == "websocket.close"), None
    )


# Closing


class Joined:
    """Sockets that have joined, each in a task, and how their blocks have ended."""

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}
        self.ids: dict[str, str] = {}
        self.ended: dict[str, Any] = {}

    async def join(self, channels: Channels, name: str, channel: Any, member: Any = None) -> None:
        server = self.servers[name] = Server()
        async with channels.join(channel, await server.accepted(), member=member) as membership:
            self.ids[name] = membership.members[0].id if member is not None else ""
            await anyio.sleep_forever()
        self.ended[name] = membership.ended


@pytest.mark.quiet
async def test_closing_everywhere(make: Make) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(make())
        # In memory, another one would see nothing of the first.
        other = one if isinstance(one.backend, MemoryBackend) else await stack.enter_async_context(make())
        joined = Joined()
        async with anyio.create_task_group() as tasks:
            everybody: list[tuple[Channels, str, Any, Any]] = [
                (one, "ann", "a", {"user": 1, "tab": 1}),
                (other, "ann again", ["b", "a"], {"user": 1, "tab": 2}),
                (other, "bob", "a", {"user": 2}),
                (one, "plain", "a", "text"),
                (one, "nobody", "a", None),
                (other, "elsewhere", "b", {"user": 1}),
            ]
            for channels, name, channel, member in everybody:
                tasks.start_soon(joined.join, channels, name, channel, member)
            await until(lambda: len(joined.ids) == 6)
            await other.close("a", member={"user": 1}, code=4001, reason="banned")
            await until(lambda: len(joined.ended) == 2)
            assert joined.ended == {"ann": "closed", "ann again": "closed"}
            assert closed(joined.servers["ann"]) == closed(joined.servers["ann again"]) == (4001, "banned")
            await one.close("a", member=joined.ids["bob"])
            await until(lambda: len(joined.ended) == 3)
            assert closed(joined.servers["bob"]) == (1000, "")
            await other.close("a")
            await until(lambda: len(joined.ended) == 5)
            assert sorted(set(joined.ids) - set(joined.ended)) == ["elsewhere"]
            await one.close("nothing")
            tasks.cancel_scope.cancel()
        assert not one._hub._channels
        assert not one._hub._positions


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"code": 1005}, ValueError, "a close code must be"),
        ({"reason": "x" * 124}, ValueError, "at most 123 bytes"),
        ({"member": 1}, TypeError, "member must be an id or a mapping, got int"),
        ({"member": {"user": {1}}}, TypeError, "set"),
    ],
)
async def test_wrong_arguments_of_close(
    options: dict[str, Any], error: type[Exception], words: str, make: Make
) -> None:
    async with make() as channels:
        with pytest.raises(error, match=words):
            await channels.close("a", **options)
        with pytest.raises(ValueError, match="must not be empty"):
            await channels.close("")


@pytest.mark.quiet
async def test_orders_that_cannot_be_read(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    async with make() as channels:
        joined = Joined()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(joined.join, channels, "ann", "a")
            await until(lambda: joined.ids)
            orders: list[str | bytes] = [
                "",
                "[]",
                "{}",
                '{"close":"a"}',
                '{"close":"a","code":1,"reason":""}',
                b"\xff",
                "[" * 99_999,
            ]
            orders.append('{"close":"a","code":1000,"reason":"","member":7}')
            for data in orders:
                await channels.backend.publish(CONTROL, data)
            await until(lambda: len(caplog.records) == len(orders))
            await channels.close("a")
            await until(lambda: joined.ended)
    assert all("cannot be read" in record.getMessage() for record in caplog.records)


@pytest.mark.quiet
async def test_a_member_whose_info_is_nested_too_deep(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """It was encoded with few calls on the stack. One client must not end the channels of all."""
    async with (
        make() as channels,
        channels.subscribe("a", presence=True) as subscription,
        anyio.create_task_group() as tasks,
    ):
        ended: list[str | None] = []

        async def join() -> None:
            membership = channels.join("a", await Server().accepted(), member={})
            membership._info = '{"user":' + "[" * 99_999 + "]" * 99_999 + "}"
            async with membership:
                await anyio.sleep_forever()
            ended.append(membership.ended)

        tasks.start_soon(join)
        assert isinstance(await anext(subscription), Gap)
        assert "none of ours" in caplog.text
        [member] = await channels.members("a")
        with pytest.raises(ValueError, match="nested too deep"):
            member.json()
        await channels.close("a", member={"user": 7})
        await channels.publish("a", "goes on")
        event = await anext(subscription)
        assert isinstance(event, Event)
        assert event.data == "goes on"
        assert not ended
        await channels.close("a", member=member.id)
        await until(lambda: ended)
        assert ended == ["closed"]


async def test_an_order_that_was_missed(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody knows who was meant, so it is said."""
    async with make() as channels, channels.join("a", await Server().accepted()):
        position = channels._hub._positions[CONTROL]
        gap = Gap(CONTROL, position, position)
        channels._hub._deliver(gap, Entry(gap, 0, gap))
    assert "may have been told to be closed" in caplog.text


# Looking


async def test_counting_and_names(make: Make) -> None:
    async with make() as channels:
        assert await channels.count("a") == 0
        assert await channels.backend.names() == set()
        for name in ("a", "b*[x]", "ä:/b", "{c}", "%61"):
            await channels.publish(name, "1")
        members = [channels._hub.roster.member("d", f"{n}") for n in range(3)]
        await channels._hub.roster.appear(members)
        await channels.close("a")
        assert await channels.count("d") == 3
        assert set(await channels.backend.names()) == {"a", "b*[x]", "ä:/b", "{c}", "%61", "d"}
        await channels._hub.roster.vanish(members)
        assert await channels.count("d") == 0
        with pytest.raises(ValueError, match="must not be empty"):
            await channels.count("")


async def test_a_backend_that_only_does_what_it_must() -> None:
    class Plain(MemoryBackend):
        count = Backend.count
        names = Backend.names

    async with Channels(Plain(history=1, max_age=None)) as channels:
        await channels._hub.roster.appear([channels._hub.roster.member("a", "1")])
        assert await channels.count("a") == 1
        with pytest.raises(BrokerError, match="Plain cannot tell which channels there are"):
            await channels.backend.names()


# Threads


async def test_publishing_from_a_thread(make: Make) -> None:
    async with make() as channels, channels.subscribe("a") as subscription:
        ids: list[str] = []

        def work(name: int) -> None:
            ids.extend(channels.publish_from_thread("a", f"{name}:{n}") for n in range(10))

        threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
        for thread in threads:
            thread.start()
        got = [await anext(subscription) for _ in range(30)]
        for thread in threads:
            await anyio.to_thread.run_sync(thread.join)
        assert sorted(ids) == sorted(event.id for event in got if isinstance(event, Event))
        with pytest.raises(WebSocketRuntimeError, match="would wait for itself"):
            channels.publish_from_thread("a", "1")
        with pytest.raises(ValueError, match="must not be empty"):
            await anyio.to_thread.run_sync(channels.publish_from_thread, "", "1")
    with pytest.raises(WebSocketRuntimeError, match="not started, or were stopped"):
        channels.publish_from_thread("a", "1")


async def test_publishing_from_a_thread_when_the_stop_has_begun(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look of the thread and that of the event loop. What the loop says is told."""

    def check(attempted: str) -> None:
        raise WebSocketRuntimeError(f"cannot {attempted} any longer")

    async with make() as channels:
        monkeypatch.setattr(channels._hub, "check", check)
        with pytest.raises(WebSocketRuntimeError, match="cannot publish any longer"):
            await anyio.to_thread.run_sync(channels.publish_from_thread, "a", "1")


async def test_a_start_that_is_cancelled_at_its_end(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all is started but the way for threads. It leaves nothing behind, and can be repeated."""
    channels = make()
    serve = channels._serve_threads
    with anyio.CancelScope() as scope:

        async def cancelled(*, task_status: Any) -> None:
            scope.cancel()
            await anyio.sleep_forever()

        monkeypatch.setattr(channels, "_serve_threads", cancelled)
        async with channels:
            raise AssertionError("not reached")
    assert scope.cancelled_caught
    monkeypatch.setattr(channels, "_serve_threads", serve)
    async with channels:
        await channels.publish("a", "1")


async def test_publishing_from_a_thread_while_the_channels_stop(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = anyio.Event()
    errors: list[Any] = []

    async def never(*_: object) -> str:
        asked.set()
        await anyio.sleep_forever()
        raise AssertionError

    def work() -> None:
        with pytest.raises(BrokerError) as caught:
            channels.publish_from_thread("a", "1")
        errors.append(str(caught.value))

    async with make() as channels:
        portal = channels._portal
        assert portal is not None  # so a thread can publish from now on
        monkeypatch.setattr(channels.backend, "publish", never)
        thread = threading.Thread(target=work)
        thread.start()
        await asked.wait()
    await anyio.to_thread.run_sync(thread.join)
    assert [error.partition(": ")[2][:26] for error in errors] == ["the channels were stopped "]
    assert "may have been kept" in errors[0]
    channels._portal = portal  # as a thread sees it that has asked for it just before
    with pytest.raises(WebSocketRuntimeError, match="the channels were stopped"):
        await anyio.to_thread.run_sync(channels.publish_from_thread, "a", "1")


@on_redis
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_publisher(redis_server: RedisServer, prefix: str) -> None:
    async with Channels(redis_server.url, prefix=prefix) as channels, channels.subscribe("a") as subscription:

        def work() -> list[str]:
            with Publisher(redis_server.url, prefix=prefix) as publisher:
                redis_server.ask("SCRIPT", "FLUSH")
                ids = [publisher.publish("a", "text"), publisher.publish("a", b"data")]
                redis_server.ask("CLIENT", "KILL", "TYPE", "normal")
                ids.append(publisher.publish_json("a", {"n": [1]}))
                publisher.close()
                ids.append(publisher.publish("a", "connected again"))
                with pytest.raises(ValueError, match="must not be empty"):
                    publisher.publish("", "1")
                with pytest.raises(TypeError, match="bytes-like"):
                    publisher.publish("a", 1)  # type: ignore[arg-type]
            return ids

        ids = await anyio.to_thread.run_sync(work)
        events = [await anext(subscription) for _ in range(4)]
        assert [event.id for event in events if isinstance(event, Event)] == ids
        assert [event.data for event in events if isinstance(event, Event)] == [
            *("text", b"data", '{"n":[1]}', "connected again")
        ]


@on_redis
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_publisher_whose_answer_is_lost(redis_server: RedisServer, prefix: str) -> None:
    """It sends the same again, and that is kept once."""
    pytest.importorskip("redis")
    from lilya.websockets.channels._scripts import SCRIPTS

    from .test_channels_redis import Proxy

    async with (
        Proxy(redis_server.port) as proxy,
        Channels(redis_server.url, prefix=prefix) as channels,
        channels.subscribe("a") as subscription,
    ):
        publisher = Publisher(proxy.url, prefix=prefix)
        ids = [await anyio.to_thread.run_sync(publisher.publish, "a", "0")]
        for number in range(1, 4):
            proxy.lose = SCRIPTS["publish"].sha
            ids.append(await anyio.to_thread.run_sync(publisher.publish, "a", f"{number}"))
        assert proxy.lost == 3
        await channels.publish("a", "last")
        events = [await anext(subscription) for _ in range(5)]
        assert [event.id for event in events if isinstance(event, Event)][:4] == ids
        await anyio.to_thread.run_sync(publisher.close)


@on_redis
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_threads_that_share_a_publisher(redis_server: RedisServer, prefix: str) -> None:
    """The numbers of its publishes rise. Else the server would take some for what it has kept."""
    ids: list[str] = []
    with Publisher(redis_server.url, prefix=prefix) as publisher:

        def work(name: int) -> None:
            ids.extend(publisher.publish("a", f"{name}:{number}") for number in range(50))

        async with anyio.create_task_group() as tasks:
            for name in range(4):
                tasks.start_soon(anyio.to_thread.run_sync, work, name)
    async with Channels(redis_server.url, prefix=prefix) as channels:
        kept = (await channels.backend.history("a", last=1000)).events
    assert sorted(ids) == sorted(event.id for event in kept)
    assert len(kept) == len({event.data for event in kept}) == 200


@on_redis
def test_a_publisher_after_a_fork(redis_server: RedisServer, prefix: str) -> None:
    """It is not taken for its parent, whose publishes have the same numbers."""
    program = (
        "import os, sys\n"
        "from lilya.websockets.channels import Publisher\n"
        "publisher = Publisher(sys.argv[1], prefix=sys.argv[2])\n"
        "publisher.publish('a', 'parent')\n"
        "for name in ('one', 'other'):\n"
        "    process = os.fork()\n"
        "    if not process:\n"
        "        publisher.publish('a', name)\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(process, 0)[1] == 0\n"
        "publisher.publish('a', 'parent again')\n"
    )
    subprocess.run([sys.executable, "-c", program, redis_server.url, prefix], check=True, timeout=60)
    # The same in this process, where coverage sees it.
    with Publisher(redis_server.url, prefix=prefix) as publisher:
        publisher.publish("a", "before")
        name, publisher._state.process = publisher._state.publisher, 0
        publisher.publish("a", "after")
        assert publisher._state.publisher != name
    kept = redis_server.ask("XRANGE", f"{{{prefix}:a}}", "-", "+")
    for data in ("before", "parent", "one", "other", "parent again", "after"):
        assert kept.count(f"\r\n{data}\r\n".encode()) == 1


@on_redis
def test_threads_that_publish_first_after_a_fork(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them publishes under the parent's name, also while another one is choosing a new name."""
    with Publisher(redis_server.url, prefix=prefix) as publisher:
        publisher.publish("a", "parent")
        parent = publisher._state.publisher
        publisher._state.process = 0
        choosing, chosen, token_hex = threading.Event(), threading.Event(), secrets.token_hex

        def choose(size: int) -> str:
            if not choosing.is_set():
                choosing.set()
                assert chosen.wait(20)
            return token_hex(size)

        monkeypatch.setattr(secrets, "token_hex", choose)
        first = threading.Thread(target=publisher.publish, args=("a", "first"))
        first.start()
        try:
            assert choosing.wait(20)
            publisher.publish("a", "second")
        finally:
            chosen.set()
            first.join()
    kept = redis_server.ask("XRANGE", f"{{{prefix}:a}}", "-", "+")
    assert kept.count(parent + b":") == 1
    for data in ("first", "second"):
        assert f"\r\n{data}\r\n".encode() in kept


@on_redis
def test_a_publisher_without_a_time_limit(redis_server: RedisServer, prefix: str) -> None:
    with Publisher(redis_server.url, prefix=prefix, publish_timeout=None) as publisher:
        assert publisher.publish("a", "1")


@on_redis
def test_a_publish_that_is_interrupted(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer is not taken for that of the next publish."""
    from redis.connection import Connection as SynchronousConnection

    with Publisher(redis_server.url, prefix=prefix) as publisher:
        publisher.publish("a", "0")
        pool = publisher._state.client.connection_pool
        (connection,) = pool._available_connections

        def interrupted(name: str, *arguments: bytes) -> None:
            connection.send_command(name, *arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(publisher._state.client, "execute_command", interrupted)
        redis_server.pause()
        try:
            with pytest.raises(KeyboardInterrupt):
                publisher.publish("a", "1")
            monkeypatch.undo()
            read = SynchronousConnection.read_response

            # The server answers when the next publish waits for its answer.
            def read_response(self: Any, *arguments: Any, **options: Any) -> Any:
                redis_server.go_on()
                return read(self, *arguments, **options)

            monkeypatch.setattr(SynchronousConnection, "read_response", read_response)
            id = publisher.publish("a", "2")
        finally:
            redis_server.go_on()
    kept = redis_server.ask("XREVRANGE", f"{{{prefix}:a}}", "+", "-", "COUNT", "1")
    assert id.rpartition("-")[0].encode() in kept
    assert b"\r\n2\r\n" in kept


class Alarm(Exception):
    pass


@on_redis
@pytest.mark.parametrize("raised", [Alarm, TimeoutError])
def test_a_signal_handler_that_raises(
    raised: type[Exception], redis_server: RedisServer, prefix: str
) -> None:
    """It ends the publish, unless its error looks like one of the connection."""

    def handle(*_: object) -> None:
        redis_server.go_on()
        raise raised

    before = signal.signal(signal.SIGALRM, handle)
    try:
        with Publisher(redis_server.url, prefix=prefix, publish_timeout=20) as publisher:
            publisher.publish("a", "0")
            redis_server.pause()
            with pytest.raises(Alarm) if raised is Alarm else nullcontext():
                signal.setitimer(signal.ITIMER_REAL, 0.3)
                publisher.publish("a", "1")
            publisher.publish("a", "2")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        redis_server.go_on()
    kept = redis_server.ask("XRANGE", f"{{{prefix}:a}}", "-", "+")
    assert kept.count(b"\r\n2\r\n") == 1
    # It is sent again, and kept once. If the publish has ended, the event may have been kept or not.
    assert kept.count(b"\r\n1\r\n") in ((0, 1) if raised is Alarm else (1,))


@on_redis
def test_a_publish_that_is_interrupted_when_it_has_the_lock(redis_server: RedisServer, prefix: str) -> None:
    """Others can publish after that. So can the same thread, once its first publish has ended."""

    class Interrupted:
        def __init__(self, lock: Any) -> None:
            self.lock = lock
            self.release = lock.release

        def acquire(self, timeout: float) -> bool:
            self.lock.acquire(timeout=timeout)
            raise KeyboardInterrupt

    with Publisher(redis_server.url, prefix=prefix, publish_timeout=1) as publisher:
        lock: Any = publisher._state.lock
        publisher._state.lock = Interrupted(lock)  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            publisher.publish("a", "0")
        publisher._state.lock = lock
        ids: list[str] = []
        other = threading.Thread(target=lambda: ids.append(publisher.publish("a", "1")))
        other.start()
        other.join()
        assert len(ids) == 1


@on_redis
def test_a_signal_handler_that_publishes(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a publish of the same thread, that is an error, and not a wait for itself."""
    with Publisher(redis_server.url, prefix=prefix, publish_timeout=None) as publisher:
        publisher.publish("a", "0")
        ask = publisher._state.client.execute_command

        def handled(*command: Any) -> Any:
            with pytest.raises(
                WebSocketRuntimeError, match="a signal handler has interrupted another publish"
            ):
                publisher.publish("a", "by a handler")
            return ask(*command)

        monkeypatch.setattr(publisher._state.client, "execute_command", handled)
        id = publisher.publish("a", "1")
        monkeypatch.undo()
        assert publisher.publish("a", "2") > id


@on_redis
def test_a_publisher_that_is_refused_when_it_tries_again(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try may have succeeded, and the error says so."""
    with Publisher(redis_server.url, prefix=prefix) as publisher:
        publisher.publish("a", "1")
        ask, tries = publisher._state.client.execute_command, 0

        def lose(*command: Any) -> Any:
            nonlocal tries
            tries += 1
            answer = ask(*command)
            if tries == 1:
                redis_server.ask("ACL", "SETUSER", "default", "-evalsha")
                raise OSError("the answer is lost")
            return answer

        monkeypatch.setattr(publisher._state.client, "execute_command", lose)
        try:
            with pytest.raises(BrokerError, match=r"Redis refuses: .*evalsha.* It may have been kept before"):
                publisher.publish("a", "2")
        finally:
            redis_server.ask("ACL", "SETUSER", "default", "+evalsha")
    assert b"\r\n2\r\n" in redis_server.ask("XRANGE", f"{{{prefix}:a}}", "-", "+")


def test_threads_of_a_publisher_without_a_server(prefix: str) -> None:
    """A thread that waits for another one has the same time limit."""
    publisher = Publisher(f"redis://127.0.0.1:{free_port()}", prefix=prefix, publish_timeout=0.2)
    others = threading.Thread(target=publisher._state.lock.acquire)
    others.start()
    others.join()
    with pytest.raises(BrokerError, match=r"other threads have waited .* It was not sent"):
        publisher.publish("a", "1")


def test_a_publisher_without_a_server(prefix: str) -> None:
    publisher = Publisher(f"redis://:secret@127.0.0.1:{free_port()}", prefix=prefix, publish_timeout=0.2)
    with pytest.raises(
        BrokerError, match=r"no answer from Redis at .* within 0\.2 seconds.*refused\. It was not sent$"
    ) as caught:
        publisher.publish("a", "1")
    assert "secret" not in str(caught.value)
    publisher.close()
    publisher.close()


@pytest.mark.parametrize("count", [1, 2])
def test_a_publisher_without_sentinels(count: int, prefix: str) -> None:
    """The error says why, and does not show the clients of redis-py, which have the sentinels' password."""
    hosts = ",".join(f"127.0.0.1:{free_port()}" for _ in range(count))
    url = f"redis+sentinel://{hosts}/the-primary?sentinel_password=secret"
    with Publisher(url, prefix=prefix, publish_timeout=0.2) as publisher:
        with pytest.raises(
            BrokerError, match=r"No master found for 'the-primary' : .*\. It was not sent$"
        ) as caught:
            publisher.publish("a", "1")
    shown = "".join(traceback.format_exception(caught.value))
    assert str(caught.value).count("ConnectionError") == count
    assert "Connection(" not in shown
    assert "secret" not in shown


@pytest.mark.parametrize("version", ["5", "6", "8"])
def test_the_clients_in_an_error_about_sentinels(version: str) -> None:
    shows = {
        "5": "host=a,port=1",
        "6": "password=se>cret,retry=<redis.retry.Retry object at 0x0>",
        "8": "password=<REDACTED>",
    }
    client = (
        f"<redis.client.Redis(<redis.connection.ConnectionPool(<redis.connection.X({shows[version]})>)>)>"
    )
    said = f"No master found for 'x' : {client} - TimeoutError('1 (s)'), {client} - ConnectionError('2')"
    assert _CLIENTS.sub("", said) == "No master found for 'x' : TimeoutError('1 (s)'), ConnectionError('2')"


@on_redis
def test_a_publisher_with_a_wrong_password(redis_server: RedisServer, prefix: str) -> None:
    url = redis_server.url.replace("redis://", "redis://:secret@")
    with Publisher(url, prefix=prefix, publish_timeout=0.2) as publisher:
        with pytest.raises(BrokerError, match=r"(password|AUTH).*[^.]\. It was not sent$"):
            publisher.publish("a", "1")


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (OSError("the answer is lost"), r"the answer is lost\. It may have been kept$"),
        (MasterNotFoundError("nobody"), r"nobody\. It was not sent$"),
    ],
)
def test_a_publisher_that_gets_no_answer(
    error: Exception, end: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says whether the event was sent."""
    with Publisher(f"redis://127.0.0.1:{free_port()}", prefix=prefix, publish_timeout=0.2) as publisher:

        def lose(*command: Any) -> Any:
            raise error

        state = publisher._state
        monkeypatch.setattr(state, "client", publisher._backend.synchronous_client(1))
        monkeypatch.setattr(state.client, "execute_command", lose)
        with pytest.raises(BrokerError, match=end):
            publisher.publish("a", "1")


def test_a_publisher_for_channels_in_memory() -> None:
    with pytest.raises(ValueError, match=r"needs a URL of Redis.*`channels\.publish_from_thread`"):
        Publisher("memory://")


@on_redis
def test_a_publisher_that_is_refused(redis_server: RedisServer, prefix: str) -> None:
    redis_server.ask("SET", f"{{{prefix}:a}}", "no stream")
    with Publisher(redis_server.url, prefix=prefix) as publisher:
        with pytest.raises(BrokerError, match="cannot publish to 'a': Redis refuses: WRONGTYPE"):
            publisher.publish("a", "1")


def test_a_publisher_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lilya.websockets.channels._redis", None)
    with pytest.raises(ImportError, match=r"install lilya-websockets\[redis\]"):
        Publisher("redis://localhost")


# The shell


async def command(*arguments: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    status = await anyio.to_thread.run_sync(main, ["channels", *arguments])
    said = capsys.readouterr()
    assert (status, said.err) == (0, "")
    return said.out.splitlines()


@on_redis
@pytest.mark.quiet
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_command(
    redis_server: RedisServer,
    prefix: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where = ("--url", redis_server.url, "--prefix", prefix)
    async with Channels(redis_server.url, prefix=prefix) as channels, anyio.create_task_group() as tasks:
        joined = Joined()
        tasks.start_soon(joined.join, channels, "ann", "a", {"user": 1})
        await until(lambda: joined.ids)
        (id,) = await command(*where, "publish", "a", "from a shell", capsys=capsys)
        monkeypatch.setattr(sys, "stdin", io.StringIO("from a pipe"))
        (line,) = await command(*where, "--json", "publish", "b", capsys=capsys)
        assert json.loads(line)["channel"] == "b"
        lines = await command(*where, "list", capsys=capsys)
        assert [line.split()[-1] for line in lines] == ["CHANNEL", "a", "b"]
        (line,) = await command(*where, "--json", "list", "b", capsys=capsys)
        assert json.loads(line)["channel"] == "b"
        ann = joined.ids["ann"]
        assert await command(*where, "members", "a", capsys=capsys) == [f'{ann} {{"user":1}}']
        assert await command(*where, "members", "a", "--count", capsys=capsys) == ["1"]
        (line,) = await command(*where, "--json", "members", "a", capsys=capsys)
        assert json.loads(line) == {"id": ann, "info": {"user": 1}}
        tail = ("tail", "a", "--history", "1", "--count", "1")
        assert await command(*where, *tail, capsys=capsys) == [f"a {id} from a shell"]
        await channels.publish("a", b"\x01\xff")
        (line,) = await command(*where, "--json", *tail, capsys=capsys)
        assert json.loads(line)["hex"] == "01ff"
        await command(
            *where, "close", "a", "--member", ann, "--code", "4001", "--reason", "go", capsys=capsys
        )
        await until(lambda: joined.ended)
        assert closed(joined.servers["ann"]) == (4001, "go")


@pytest.mark.parametrize("given", [True, False])
def test_where_the_command_finds_the_url(
    given: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHANNELS_URL", "memory://" if not given else "redis://:secret@nowhere")
    option = ("--url", "memory://") if given else ()
    for age in ("none", "60"):
        assert main(["channels", *option, "publish", "a", "1", "--max-age", age]) == 0
    assert main(["channels", *option, "publish", "a", "1", "--max-age", "0"]) == 1
    assert "max_age must be above 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["channels", "--help"])
    assert "secret" not in capsys.readouterr().out
    monkeypatch.delenv("CHANNELS_URL")
    with pytest.raises(SystemExit):
        main(["channels", "publish", "a", "1"])
    assert "required: --url" in capsys.readouterr().err


@on_redis
@pytest.mark.parametrize(
    ("options", "least", "most"),
    [
        ((), 3_000, 3_661),
        (("--max-age", "7200"), 7_000, 7_261),
        (("--max-age", "none"), 86_000, 86_401),
        (("--max-age", "none", "--expire", "200000"), 199_000, 200_001),
    ],
)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_how_long_a_publish_of_the_command_keeps(
    options: tuple[str, ...],
    least: int,
    most: int,
    redis_server: RedisServer,
    prefix: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = ("--url", redis_server.url, "--prefix", prefix)
    await command(*where, "publish", "a", "1", *options, capsys=capsys)
    assert least < int(redis_server.ask("TTL", f"{{{prefix}:a}}")[1:]) <= most


@on_redis
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_how_many_events_a_publish_of_the_command_keeps(
    redis_server: RedisServer, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--url", redis_server.url, "--prefix", prefix)
    async with Channels(redis_server.url, prefix=prefix, history=2000) as channels:
        await asyncio.gather(*(channels.publish("a", f"{number}") for number in range(1600)))
        await command(*where, "publish", "a", "1", "--history", "2000", capsys=capsys)
        assert len((await channels.backend.history("a", last=2000)).events) == 1601
        await command(*where, "publish", "a", "1", "--history", "200", capsys=capsys)
        assert 200 <= len((await channels.backend.history("a", last=2000)).events) < 1600


@pytest.mark.parametrize("json_lines", [False, True])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_lines_of_everything_that_may_come(
    json_lines: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from argparse import Namespace

    from lilya.websockets.channels import Dropped, Gap, Member, Presence, _command

    items = [
        Gap("a", "1-1-00000000", "1-2-00000000"),
        Dropped(3),
        Presence("join", Member("a", "me", "1"), 1),
        Event("a", "1-3-00000000", "x"),
    ]

    class Source:
        def subscribe(self, *_: Any, **__: Any) -> Any:
            return self

        async def __aenter__(self) -> Any:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def __aiter__(self) -> Any:
            for item in items:
                yield item

    options = Namespace(channels=["a"], history=0, presence=True, count=0, json=json_lines)
    await _command._tail(Source(), options)  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    if json_lines:
        assert list(map(json.loads, lines)) == [
            {"channel": "a", "gap": "1-2-00000000"},
            {"dropped": 3},
            {"channel": "a", "join": "me", "info": 1},
            {"channel": "a", "id": "1-3-00000000", "text": "x"},
        ]
    else:
        assert lines == ["a gap 1-1-00000000 1-2-00000000", "dropped 3", "a join me 1", "a 1-3-00000000 x"]


@pytest.mark.parametrize(
    ("url", "words"),
    [("nonsense://x", "starts with one of"), ("redis://127.0.0.1:PORT", "cannot use Redis at")],
)
def test_a_command_that_fails(url: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("redis")
    assert main(["channels", "--url", url.replace("PORT", str(free_port())), "list"]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("anyio.run", KeyboardInterrupt),
        ("anyio.run", asyncio.CancelledError),  # on Python 3.10
        ("lilya.websockets.__main__.import_module", KeyboardInterrupt),
    ],
)
def test_a_command_that_is_interrupted(
    where: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it runs, and while it imports what it needs."""

    def interrupted(*_: Any) -> None:
        raise error

    monkeypatch.setattr(where, interrupted)
    assert main(["channels", "--url", "memory://", "list"]) == 130


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_following_ends_with_ctrl_c(redis_server: RedisServer, prefix: str) -> None:
    command = [sys.executable, "-m", "lilya.websockets", "channels", "--url", redis_server.url]
    process = await asyncio.create_subprocess_exec(
        *(*command, "--prefix", prefix, "tail", "a"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A test command that runs in the background of a shell ignores the signal, and its children do, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout is not None
        async with Channels(redis_server.url, prefix=prefix) as channels, anyio.create_task_group() as group:

            async def publish() -> None:
                while True:
                    await channels.publish("a", "1")
                    await anyio.sleep(0.05)

            group.start_soon(publish)
            assert (await process.stdout.readline()).startswith(b"a ")
            process.send_signal(signal.SIGINT)
            _, said = await process.communicate()
            group.cancel_scope.cancel()
        assert (process.returncode, said) == (130, b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("closed", [1, 2])
@pytest.mark.parametrize(
    "words",
    [
        ["channels", "--url", "memory://", "publish", "a", "1"],
        ["channels", "--url", "memory://", "list"],
        ["channels", "--url", "memory://", "members", "a", "--count"],
        ["channels", "--url", "memory://", "close", "a"],
        ["asyncapi", "tests.lilya_websockets.asyncapi_app:handlers"],
        ["asyncapi", "--help"],
    ],
    ids=" ".join,
)
def test_a_command_without_an_output(words: list[str], closed: int) -> None:
    """`>&-` closes it. The command does what it is to do, and what it writes goes nowhere."""
    told = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}>&-', "sh", sys.executable, "-m", "lilya.websockets", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0
    assert (told.stdout if closed == 1 else told.stderr) == ""
    assert "Error" not in told.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["channels", "--url", "memory://", "publish", "a", "1"],
        ["channels", "--help"],
        ["asyncapi", "tests.lilya_websockets.asyncapi_app:handlers"],
    ],
    ids=["channels", "help", "asyncapi"],
)
@pytest.mark.parametrize("kind", ["a reader that has ended", "a full disk"])
def test_a_command_whose_output_cannot_be_written(words: list[str], kind: str) -> None:
    """`| head` says nothing, and nothing has a traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    if kind == "a full disk":
        os.close(writing)
        if not Path("/dev/full").exists():
            pytest.skip("this system has no /dev/full")
        writing = os.open("/dev/full", os.O_WRONLY)
    try:
        told = subprocess.run(
            [sys.executable, "-m", "lilya.websockets", *words],
            stdout=writing,
            stderr=subprocess.PIPE,
            # With it, argparse ignores that its help cannot be written.
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert told.returncode == 1
    assert told.stderr == {"a full disk": "[Errno 28] No space left on device\n"}.get(kind, "")


def test_an_output_that_is_none_becomes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    try:
        assert main(["channels", "--url", "memory://", "list"]) == 0
    finally:
        sys.stdout.close()
        sys.stderr.close()


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left")])
def test_what_could_not_be_written_goes_nowhere(
    error: OSError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with (tmp_path / "stands for the pipe").open("wb", buffering=0) as output:

        class Output:
            def write(self, text: str) -> None:
                raise error

            flush = fileno = output.fileno

        monkeypatch.setattr(sys, "stdout", Output())
        assert main(["channels", "--url", "memory://", "publish", "a", "1"]) == 1
        output.write(b"what was in the buffer")
    assert (tmp_path / "stands for the pipe").read_bytes() == b""
    assert capsys.readouterr().err == ("" if isinstance(error, BrokenPipeError) else f"{error}\n")


def test_publishing_can_be_interrupted_while_it_reads() -> None:
    """A program with a prompt that waits for input ends with Ctrl+C."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import signal, sys; from lilya.websockets.__main__ import main\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "class Input:\n"
            "    def read(self):\n"
            "        print('reading', flush=True); return sys.__stdin__.read()\n"
            "sys.stdin = Input()\n"
            "sys.exit(main(['channels', '--url', 'memory://', 'publish', 'a']))",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"reading\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        assert process.communicate(timeout=60)[1] == b""


def test_publishing_without_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["channels", "--url", "memory://", "publish", "a"]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("a b é 日本 \U0001f600", "utf-8", "a b é 日本 \U0001f600"),
        ("\x1b[31mred\x07", "utf-8", "\\u001b[31mred\\u0007"),
        ("one\ntwo\r\tthree\u2028", "utf-8", "one\\ntwo\\r\\tthree\\u2028"),
        ("\x9b2J, from the right: \u202efdp.exe", "utf-8", "\\u009b2J, from the right: \\u202efdp.exe"),
        ("a lone surrogate: \ud800", "utf-8", "a lone surrogate: \\ud800"),
        ("é€", "latin-1", "é\\u20ac"),
        ("é\U0001f600", "ascii", "\\u00e9\\ud83d\\ude00"),
    ],
)
@pytest.mark.parametrize("json_lines", [False, True])
def test_what_a_terminal_is_shown(
    text: str, encoding: str, shown: str, json_lines: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No name and no event writes a second line, or does anything to a terminal."""
    from argparse import Namespace

    from lilya.websockets.channels import _command

    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding))
    _command._write(Namespace(json=json_lines), f"room {text}", name=text)
    written = output.getvalue().decode(encoding)
    if json_lines:
        assert json.loads(written) == {"name": text}
        assert written == f'{{"name": "{shown}"}}\n'
    else:
        assert written == f"room {shown}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list"], "no channels with the prefix 'lilya'. OWN"),
        (
            ["--json", "list", "room"],
            "no channels with the prefix 'lilya' and with 'room' in their names. OWN",
        ),
        (["tail", "a", "--count", "-1"], "count must be at least 0, got -1"),
    ],
)
def test_what_the_command_says_besides(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["channels", "--url", "memory://", *words]) == (words[0] == "tail")
    own = "Channels in memory are seen only by their own process"
    assert capsys.readouterr() == ("", said.replace("OWN", own) + "\n")


def test_what_the_command_says_where_there_are_no_channels() -> None:
    from argparse import Namespace

    from lilya.websockets.channels import _command

    options = Namespace(url="redis://localhost", prefix="shop", pattern="")
    assert _command._nothing(options) == "no channels with the prefix 'shop'"


def test_the_module_as_a_program() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "lilya.websockets", "channels", "--url", "memory://", "list"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert told.stdout == b""
    assert asyncio.iscoroutinefunction(Channels.close)
