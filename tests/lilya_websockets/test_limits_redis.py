"""Limits over all processes: on a real Redis, with what becomes of them when it or a process goes away."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

pytest.importorskip("redis", reason="the client of Redis is not installed: the extra `redis` brings it")

from lilya.websockets import WebSocketDisconnect
from lilya.websockets.limits import LimitGuard, Place, RateLimit, StoreUnavailable, Use
from lilya.websockets.redis import RedisStore
from lilya.websockets.testing import WebSocketDenialResponse, connect

from .redis_server import NO_SERVER, RedisServer, redis_binary
from .test_limits import echo, of_query, refused

pytestmark = [
    pytest.mark.skipif(redis_binary() is None, reason=NO_SERVER),
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),  # its client's
]

LIMIT = 10.0


@asynccontextmanager
async def stores(url: str, number: int = 1, **options: Any) -> AsyncIterator[Any]:
    """One store, or several, as in so many processes."""
    made = [RedisStore(url, **options) for _ in range(number)]
    try:
        yield made[0] if number == 1 else made
    finally:
        for store in made:
            await store.close()


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    redis_server.ask("FLUSHALL")
    return redis_server


async def until(condition: Callable[[], Any]) -> None:
    with anyio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110 - Redis tells nobody
            await anyio.sleep(0.01)


def keys_of(server: RedisServer) -> list[str]:
    return sorted(
        line for line in server.ask("KEYS", "*").decode().split("\r\n") if line and line[0] not in "*$"
    )


def number(answer: bytes) -> int:
    return int(answer.decode().strip().lstrip(":"))


# Rates


async def test_a_rate_is_one_for_all(server: RedisServer) -> None:
    use = Use("rate", "a", 0.001, 3)
    async with stores(server.url, 2) as (one, two):
        assert [await store.take([use]) for store in (one, two, one)] == [("", 0.0)] * 3
        for store in (one, two):
            name, wait = await store.take([use])
            assert name == "rate"
            assert 990 < wait <= 1000
        assert await one.take([use._replace(key="b")]) == ("", 0.0)
        assert await one.take([use._replace(limit="other")]) == ("", 0.0)
        assert await one.take([use._replace(key="c", amount=3)]) == ("", 0.0)
        assert (await one.take([use._replace(key="c", amount=0.5)]))[0] == "rate"
        assert await one.take([use._replace(key="d", amount=3.1)]) == ("rate", math.inf)
        assert await one.take([]) == ("", 0.0)


async def test_all_or_none(server: RedisServer) -> None:
    few, many = Use("few", "a", 0.001, 1), Use("many", "a", 0.001, 2)
    async with stores(server.url) as store:
        assert await store.take([many, few]) == ("", 0.0)
        for _ in range(3):
            assert (await store.take([many, few]))[0] == "few"
        assert await store.take([many]) == ("", 0.0)
        assert (await store.take([many, few]))[0] == "many"


async def test_whoever_comes_first(server: RedisServer) -> None:
    use = Use("rate", "a", 0.001, 20)
    async with stores(server.url, 3, timeout=LIMIT) as made:
        answers = await asyncio.gather(*(store.take([use]) for store in made * 30))
    assert [name for name, _ in answers].count("") == 20


async def test_a_key_ends_when_it_is_full_again(server: RedisServer) -> None:
    async with stores(server.url) as store:
        assert await store.take([Use("rate", "a", 20, 10)]) == ("", 0.0)
        assert 0 < number(server.ask("PTTL", "lilya:limits:rate:a")) <= 50
        await until(lambda: keys_of(server) == [])
        assert await store.take([Use("rate", "a", 1e-12, 10)]) == ("", 0.0)
        assert 0 < number(server.ask("PTTL", "lilya:limits:rate:a")) <= 31_536_000_000
        assert await store.take([Use("rate", "b", 1, 10, 0)]) == ("", 0.0)
        assert keys_of(server) == ["lilya:limits:rate:a"]


async def test_it_fills_with_time(server: RedisServer) -> None:
    use = Use("rate", "a", 50, 1)
    async with stores(server.url) as store:
        with anyio.fail_after(LIMIT):
            for _ in range(5):
                name, wait = await store.take([use])
                while name:
                    assert 0 < wait <= 0.02
                    await anyio.sleep(wait)
                    name, wait = await store.take([use])


# Places


async def test_places_are_one_number_for_all(server: RedisServer) -> None:
    mine, all_ = Place("per_key", "a", 2), Place("all", "", 3)
    async with stores(server.url, 2) as (one, two):
        assert await one.enter("1", [mine, all_]) == ""
        assert await two.enter("2", [mine, all_]) == ""
        assert await one.enter("3", [mine, all_]) == "per_key"
        assert await one.enter("3", [mine._replace(key="b"), all_]) == ""
        assert await two.enter("4", [mine._replace(key="b"), all_]) == "all"
        assert number(server.ask("ZCARD", "lilya:limits:per_key:b")) == 1  # all or none
        two.leave("2")
        two.leave("2")
        two.leave("nobody")
        await until(lambda: number(server.ask("ZCARD", "lilya:limits:all:")) == 2)
        assert await two.enter("4", [mine, all_]) == ""
        for store, id in ((one, "1"), (one, "3"), (two, "4")):
            store.leave(id)
        await until(lambda: keys_of(server) == [])
        await until(lambda: one._tending is None and two._tending is None)


async def test_whoever_enters_first(server: RedisServer) -> None:
    place = Place("all", "", 20)
    async with stores(server.url, 3, timeout=LIMIT) as made:
        answers = await asyncio.gather(*(store.enter(str(id), [place]) for id, store in enumerate(made * 30)))
    assert answers.count("") == 20


async def test_a_process_that_dies_counts_until_its_lease_ends(server: RedisServer) -> None:
    """And many dead ones are forgotten, some at each call."""
    work = f"""
import asyncio, os, signal
from lilya.websockets.limits import Place
from lilya.websockets.redis import RedisStore
async def main():
    store = RedisStore({server.url!r}, lease=1.0, timeout=10)
    for id in range(600):
        assert await store.enter(str(id), [Place("all", "", 600)]) == ""
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = await anyio.to_thread.run_sync(
        lambda: subprocess.run([sys.executable, "-c", work], timeout=60, capture_output=True)
    )
    assert done.returncode == -9, done.stderr
    async with stores(server.url, lease=1.0) as store:
        with anyio.fail_after(LIMIT):
            while await store.enter("a", [Place("all", "", 1)]):  # noqa: ASYNC110 - Redis tells nobody
                await anyio.sleep(0.02)


async def test_leases_are_renewed(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lilya.websockets.redis._BATCH", 2)
    places = [Place("all", "", 9)]

    def ends() -> list[float]:
        answer = server.ask("ZRANGE", "lilya:limits:all:", "0", "-1", "WITHSCORES").decode().split("\r\n")
        return [float(line) for line in answer if line.startswith("1") and len(line) == 13]

    async with stores(server.url, lease=1.0) as store:
        for id in "abcde":
            assert await store.enter(id, places) == ""
        first = max(ends())
        await until(lambda: len(ends()) == 5 and min(ends()) > first)
        for id in "abcde":
            store.leave(id)
        await until(lambda: keys_of(server) == [])


async def test_a_cancelled_handshake_counts_no_longer(server: RedisServer) -> None:
    async with stores(server.url, timeout=LIMIT) as store:
        await store.take([])
        server.pause()
        try:
            with anyio.move_on_after(0.05) as scope:
                await store.enter("a", [Place("all", "", 1)])
        finally:
            server.go_on()
        assert scope.cancelled_caught
        await until(lambda: store._tending is None)
        await until(lambda: keys_of(server) == [])


# Outages


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage().partition(": Redis")[0]
        for record in caplog.records
        if record.name == "lilya.websockets"
    ]


BEGINS = "limits are not counted over all processes"
ENDS = "limits are counted over all processes again"


async def test_a_server_that_dies_and_comes_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged once, and what is open counts again on a server that has forgotten it."""
    monkeypatch.setattr("lilya.websockets.redis._PAUSE", 0.05)
    place = Place("all", "", 5)
    with RedisServer() as server:
        async with stores(server.url, timeout=LIMIT, lease=1.0) as store:
            assert await store.enter("a", [place]) == ""
            assert await store.enter("b", [place]) == ""
            server.kill()
            for id in "cd":
                with pytest.raises(StoreUnavailable):
                    await store.enter(id, [place])
            store.leave("b")
            store.leave("c")
            await until(lambda: not store._left)
            assert said(caplog) == [BEGINS]
            server.start()
            await until(lambda: number(server.ask("ZCARD", "lilya:limits:all:")) == 2)
            assert await store.take([Use("rate", "a", 1, 1)]) == ("", 0.0)
            assert said(caplog) == [BEGINS, ENDS]


async def test_a_server_that_stands_still_holds_nobody_up(
    server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lilya.websockets.redis._PAUSE", 0.3)
    use = [Use("rate", "a", 0.001, 1)]
    async with stores(server.url, timeout=0.1) as store:
        assert await store.take([]) == ("", 0.0)
        server.pause()
        try:
            with pytest.raises(StoreUnavailable, match="cannot be used"):
                await store.take(use)
            for _ in range(100):
                with pytest.raises(StoreUnavailable, match="a moment ago"):
                    await store.take(use)
            await anyio.sleep(0.3)
            answers = await asyncio.gather(*(store.take(use) for _ in range(5)), return_exceptions=True)
            # One tries, and the others do not wait for it.
            assert [str(answer) for answer in answers].count("the server cannot be used") == 1
        finally:
            server.go_on()
        with anyio.fail_after(LIMIT):
            while True:
                try:
                    assert (await store.take(use))[0] in ("", "rate")
                    break
                except StoreUnavailable:
                    await anyio.sleep(0.02)
    assert said(caplog) == [BEGINS, ENDS]


async def test_a_password_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer("requirepass right") as server:
        async with stores(f"redis://:wrong-secret@127.0.0.1:{server.port}/0") as store:
            with pytest.raises(StoreUnavailable) as caught:
                await store.take([])
    assert said(caplog) == [BEGINS]
    assert "secret" not in caplog.text
    assert "secret" not in str(caught.value)


# With the guard


async def test_connections_over_two_processes(server: RedisServer) -> None:
    async with stores(server.url, 2) as (first, second):
        one = LimitGuard(echo, connections=3, connections_per_key=2, key=of_query, store=first, retry_after=7)
        two = LimitGuard(echo, connections=3, connections_per_key=2, key=of_query, store=second)
        async with connect(one, "/?a"), connect(two, "/?a"):
            with pytest.raises(WebSocketDenialResponse) as caught:
                async with connect(one, "/?a"):
                    raise AssertionError("accepted")
            assert caught.value.status_code == 429
            assert caught.value.headers["retry-after"] == "7"
            async with connect(one, "/"):
                assert await refused(two) == (503, "10", "There are too many connections.")
        await until(lambda: keys_of(server) == [])
        assert (one.refused["connections_per_key"], two.refused["connections"]) == (1, 1)
        async with connect(one, "/?a"), connect(one, "/?a"):
            pass
        assert (one.open, two.open) == (0, 0)


async def test_handshakes_and_messages_over_two_processes(server: RedisServer) -> None:
    options: Any = {
        "handshakes_per_second": RateLimit(0.001, burst=3),
        "messages_per_second": RateLimit(0.001, burst=2),
        "bytes_per_second": RateLimit(0.001, burst=100),
        "key": of_query,
    }
    async with stores(server.url, 2) as (first, second):
        one, two = LimitGuard(echo, store=first, **options), LimitGuard(echo, store=second, **options)
        async with connect(one, "/?a") as tab, connect(two, "/?a") as other:
            for session in (tab, other):
                await session.send_text("hi")
                assert await session.receive_text() == "hi"
            await other.send_text("hi")
            with pytest.raises(WebSocketDisconnect) as caught:
                await other.receive_text()
            assert (caught.value.code, caught.value.reason) == (1008, "too many messages")
        async with connect(one, "/?a"):
            pass
        with pytest.raises(WebSocketDenialResponse) as denial:
            async with connect(two, "/?a"):
                raise AssertionError("accepted")
        assert denial.value.status_code == 429
        assert two.refused == {
            **dict.fromkeys(two.refused, 0),
            "messages_per_second": 1,
            "handshakes_per_second": 1,
        }
        async with connect(one, "/?b") as session:
            await session.send_text("x" * 60)
            assert await session.receive_text() == "x" * 60
        async with connect(two, "/?b") as session:
            await session.send_text("x" * 60)
            with pytest.raises(WebSocketDisconnect) as caught:
                await session.receive_text()
            assert caught.value.reason == "too many bytes"
        assert two.refused["bytes_per_second"] == 1


async def test_what_is_kept_shows_no_address(server: RedisServer) -> None:
    async with stores(server.url) as store:
        guard = LimitGuard(
            echo,
            connections=5,
            connections_per_key=5,
            handshakes_per_second=RateLimit(0.001),
            key=lambda scope: "192.0.2.1\r\n" * 1000,
            store=store,
        )
        async with connect(guard, "/"):
            kept = keys_of(server)
    assert len(kept) == 3
    assert all(len(key) < 80 and "192" not in key.rpartition(":")[2][:3] + "." for key in kept)


@pytest.mark.parametrize("outage", ["open", "closed"])
async def test_a_guard_without_its_store(outage: Any, caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer() as server:
        async with stores(server.url) as store:
            guard = LimitGuard(
                echo,
                connections=2,
                messages_per_second=RateLimit(0.001, burst=3),
                key=of_query,
                store=store,
                outage=outage,
            )
            async with connect(guard, "/?a") as session:
                await session.send_text("a")
                assert await session.receive_text() == "a"
                server.kill()
                await session.send_text("b")
                if outage == "open":
                    assert await session.receive_text() == "b"
                    await session.send_text("c")
                    assert await session.receive_text() == "c"
                    await session.send_text("d")  # the limit of this process
                    with pytest.raises(WebSocketDisconnect) as caught:
                        await session.receive_text()
                    assert caught.value.code == 1008
                    async with connect(guard, "/?b"), connect(guard, "/?b"):
                        assert (await refused(guard))[0] == 503
                else:
                    with pytest.raises(WebSocketDisconnect) as caught:
                        await session.receive_text()
                    assert (caught.value.code, caught.value.reason) == (1013, "try again later")
                    assert await refused(guard) == (503, "10", "Try again later.")
                    assert guard.refused["store"] == 2
    assert said(caplog) == [BEGINS]


async def test_it_disconnects_when_the_app_shuts_down(server: RedisServer) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await echo(scope, receive, send)
        elif scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})

    store = RedisStore(server.url)
    guard = LimitGuard(app, connections=1, store=store)
    async with connect(guard, "/"):
        assert store._client is not None
    await guard({"type": "http"}, None, None)
    assert store._client is not None
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        pass

    await guard({"type": "lifespan"}, receive, send)
    assert store._client is None
    await LimitGuard(app)({"type": "lifespan"}, *_again())


def _again() -> tuple[Any, Any]:
    async def receive() -> Any:
        return {"type": "lifespan.shutdown"}

    async def send(message: Any) -> None:
        pass

    return receive, send


# What cannot be


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"url": "http://localhost"}, ValueError, "the client of Redis refuses the URL: expected redis://"),
        ({"url": 5}, ValueError, "the client of Redis refuses the URL"),
        ({"url": "redis://localhost:secret/x"}, ValueError, "the client of Redis refuses the URL"),
        ({"url": "redis://localhost?odd=1"}, ValueError, "the client of Redis refuses the URL"),
        ({"prefix": b"x"}, TypeError, "prefix must be str, got bytes"),
        ({"timeout": 0}, ValueError, "timeout must be above 0"),
        ({"lease": "1"}, TypeError, "lease must be a number"),
        ({"lease": 0.5}, ValueError, "lease must be at least 1, got 0.5"),
    ],
)
def test_stores_that_cannot_be(
    anyio_backend: str, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        RedisStore(**{"url": "redis://localhost", **options})
    assert "secret" not in str(caught.value)


def test_it_goes_from_one_event_loop_to_the_next(anyio_backend: str, server: RedisServer) -> None:
    store = RedisStore(server.url)
    for id in "ab":

        async def look(id: str = id) -> None:
            assert await store.enter(id, [Place("all", "", 2)]) == ""
            await store._client.aclose()

        asyncio.run(look())


def test_not_on_trio(anyio_backend: str) -> None:
    store = RedisStore("redis://localhost")

    async def look() -> None:
        with pytest.raises(RuntimeError, match="limits on Redis need asyncio"):
            await store.take([])
        await store.close()

    anyio.run(look, backend="trio")


async def test_a_tender_that_fails_is_replaced(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails() -> None:
        raise LookupError

    async with stores(server.url) as store:
        assert await store.enter("a", [Place("all", "", 2)]) == ""
        task = store._tending
        with monkeypatch.context() as patched:
            patched.setattr(store, "_give_back", fails)
            store.leave("a")
            with pytest.raises(LookupError):
                await task
        assert await store.enter("b", [Place("all", "", 2)]) == ""
        assert store._tending is not task
        await until(lambda: number(server.ask("ZCARD", "lilya:limits:all:")) == 1)
