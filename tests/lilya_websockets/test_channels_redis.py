"""What only Redis can do to channels: outages, lost answers, full and foreign memory, and names of keys."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilya.websockets.channels import BrokerError, Channels, Event, Gap, Member
from lilya.websockets.channels.backends import Id, presence_of

from .redis_server import NO_SERVER, RedisServer, free_port, redis_binary
from .server import Server

pytest.importorskip("redis", reason="the client of Redis is not installed: the extra `redis` brings it")

from lilya.websockets.channels import _feed, _link, _redis, _roster
from lilya.websockets.channels._backend import Wishes
from lilya.websockets.channels._keys import Keys
from lilya.websockets.channels._redis import RedisBackend
from lilya.websockets.channels._scripts import SCRIPTS, Script

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(redis_binary() is None, reason=NO_SERVER),
]

Make = Callable[..., Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # as the client of Redis


@asynccontextmanager
async def started(url: str, **options: Any) -> AsyncIterator[RedisBackend]:
    backend = RedisBackend(url, **options)
    await backend.start()
    try:
        yield backend
    finally:
        await backend.stop()


@pytest.fixture
async def backend(redis_server: RedisServer, prefix: str) -> AsyncIterator[RedisBackend]:
    async with started(redis_server.url, prefix=prefix) as backend:
        yield backend


@contextmanager
def redis(*options: str) -> Iterator[RedisServer]:
    with RedisServer(*options) as server:
        yield server


class Reader:
    """Reads channels as `Channels` does, from where they stand now, and keeps what comes."""

    def __init__(self, backend: RedisBackend) -> None:
        self.backend = backend
        self.positions: dict[str, str] = {}
        self.items: list[Event | Gap] = []
        self._came = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Reader:
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        assert self._task.cancelled(), self._task.exception()

    async def add(self, *channels: str) -> None:
        for channel in channels:
            await self.backend.watch([channel])
            self.positions[channel] = (await self.backend.history(channel)).position
            self.backend.wake(channel)

    def remove(self, *channels: str) -> None:
        for channel in channels:
            del self.positions[channel]
        self.backend.unwatch(channels)

    async def _read(self) -> None:
        while True:
            for item in await self.backend.read(self.positions):
                if item.channel in self.positions:
                    self.positions[item.channel] = item.id
                    self.items.append(item)
            self._came.set()

    async def until(self, count: int) -> list[Event | Gap]:
        """Wait for so many items; all that there are."""
        while len(self.items) < count:
            self._came.clear()
            await self._came.wait()
        return self.items

    async def data(self, count: int) -> list[str | bytes | None]:
        return [item.data if isinstance(item, Event) else None for item in await self.until(count)]


@asynccontextmanager
async def reading(backend: RedisBackend, *channels: str) -> AsyncIterator[Reader]:
    async with Reader(backend) as reader:
        await reader.add(*channels)
        yield reader


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110 - what is asked about is of others, who tell nobody
        await anyio.sleep(0.005)


def keys_of(server: RedisServer, pattern: str = "*") -> list[bytes]:
    answer = server.ask("KEYS", pattern)
    return answer.split(b"\r\n")[2::2]


# Names

NAMES = [
    "room:1",
    "room:1}",
    "{room:1}",
    "{}",
    "}:state",
    "room:1:state",
    "room:1}:state",
    ":",
    "",
    "%",
    "%3A",
    "a\0b",
    "a\0presence:room:1",
    "räume/größe 🦦",
    "*",
    "a\r\nb",
    "x" * 20_000,
]


async def test_no_name_reaches_another(backend: RedisBackend, redis_server: RedisServer, prefix: str) -> None:
    async with reading(backend, *NAMES) as reader:
        for name in NAMES:
            await backend.publish(name, name)
            await backend.appear([Member(name, "me", json.dumps(name))], 60)
        await reader.until(len(NAMES))
    for name in NAMES:
        got = [item for item in reader.items if item.channel == name]
        assert [item.data for item in got if isinstance(item, Event)] == [name]
        assert [member.json() for member in await backend.members(name)] == [name]
    for key in keys_of(redis_server, f"*{prefix}*"):
        assert key.startswith(b"{" + prefix.encode() + b":")


async def test_databases_see_nothing_of_each_other(redis_server: RedisServer, prefix: str) -> None:
    """Pushes know no databases, so the number is in what they are pushed on."""
    async with (
        started(redis_server.url, prefix=prefix) as one,
        started(redis_server.url.removesuffix("/0") + "/1", prefix=prefix) as other,
        reading(one, "room") as first,
        reading(other, "room") as second,
    ):
        for number in range(3):
            await one.publish("room", f"one {number}")
            await other.publish("room", f"other {number}")
        assert await first.data(3) == [f"one {number}" for number in range(3)]
        assert await second.data(3) == [f"other {number}" for number in range(3)]
        await until(lambda: at_rest(one) and at_rest(other))
        assert len(first.items) == len(second.items) == 3
    redis_server.ask("FLUSHALL")


async def test_prefixes_see_nothing_of_each_other(redis_server: RedisServer, prefix: str) -> None:
    pairs = [(prefix, "b:c"), (f"{prefix}:b", "c"), (f"{prefix}:b:c", ""), (f"{prefix}}}", "b:c")]
    async with AsyncExitStack() as stack:
        backends = [
            await stack.enter_async_context(started(redis_server.url, prefix=own)) for own, _ in pairs
        ]
        for backend, (own, channel) in zip(backends, pairs, strict=True):
            await backend.publish(channel, own)
        for backend, (own, channel) in zip(backends, pairs, strict=True):
            history = await backend.history(channel, last=10)
            assert [event.data for event in history.events] == [own]


def slot(key: bytes) -> bytes:
    """What a cluster takes of a key to find its slot, as in its specification."""
    opened = key.find(b"{")
    closed = key.find(b"}", opened + 1)
    return key[opened + 1 : closed] if opened != -1 and closed > opened + 1 else key


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.tuples(TEXT, TEXT), st.tuples(TEXT, TEXT))
def test_keys_are_told_apart_and_in_one_slot(one: tuple[str, str], other: tuple[str, str]) -> None:
    def keys(prefix: str, channel: str) -> set[bytes]:
        names = Keys(prefix, 0)
        events, state = names.of(channel)
        return {events, state, events + b":members", events + b":deadlines", names.pushed(channel)}

    mine = keys(*one)
    assert len({slot(key) for key in mine}) == 1
    if one != other:
        assert not mine & keys(*other)


# Options


@pytest.mark.parametrize(
    ("url", "options", "error", "words"),
    [
        ("redis://:secret@host:port", {}, ValueError, "not a URL of Redis"),
        ("redis://:sec/ret@host:1", {}, ValueError, "`%2F`"),
        ("http://secret@host", {}, ValueError, "not a URL of Redis, got http://…: expected redis://"),
        ("secret", {}, ValueError, "not a URL of Redis: expected redis://"),
        ("secret1://host", {}, ValueError, "not a URL of Redis: expected redis://"),
        ("redis://host/zero", {}, ValueError, "the database must be a number, got 'zero'"),
        ("redis://:secret@host?colour=red", {}, ValueError, "refuses: .*colour"),
        ("redis://host?db=x", {}, ValueError, "not a URL"),
        ("redis://", {"history": 0}, ValueError, "history must be at least 1, got 0"),
        ("redis://", {"history": True}, TypeError, "history must be int, got bool"),
        ("redis://", {"prefix": 1}, TypeError, "prefix must be str, got int"),
        ("redis://", {"prefix": ""}, ValueError, "prefix must not be empty"),
        ("redis://", {"max_age": 0}, ValueError, "max_age must be above 0"),
        ("redis://", {"publish_timeout": -1}, ValueError, "publish_timeout must be above 0"),
        ("redis://", {"expire": "1"}, TypeError, "expire must be a number, got str"),
    ],
)
def test_wrong_options(url: str, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        RedisBackend(url, **options)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_trio() -> None:
    backend = RedisBackend("redis://127.0.0.1:1")
    with pytest.raises(RuntimeError, match="need asyncio: its client does not run on trio"):
        anyio.run(backend.start, backend="trio")


async def test_nobody_there() -> None:
    backend = RedisBackend(f"redis://user:secret@127.0.0.1:{free_port()}")
    with pytest.raises(BrokerError, match=r"cannot use Redis at 127\.0\.0\.1:\d+: .*connect") as caught:
        await backend.start()
    assert "secret" not in str(caught.value)
    await backend.stop()


async def test_one_that_does_not_answer(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_link, "PATIENCE", 0.2)
    with redis() as server:
        server.pause()
        with pytest.raises(BrokerError, match=r"no answer within 0\.2 seconds"):
            await RedisBackend(server.url).start()


async def test_something_else_there() -> None:
    ended = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ready\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(BrokerError, match="cannot use Redis"):
            await RedisBackend(f"redis://127.0.0.1:{port}").start()
        await ended.wait()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://:not-it@127.0.0.1:{port}", "invalid username-password pair|WRONGPASS"),
        ("redis://127.0.0.1:{port}", "[Aa]uthentication required|NOAUTH"),
    ],
)
async def test_wrong_password(url: str, words: str) -> None:
    with redis("requirepass secret") as server:
        with pytest.raises(BrokerError, match=words) as caught:
            await RedisBackend(url.format(port=server.port)).start()
        assert "not-it" not in str(caught.value)
        async with started(f"redis://:secret@127.0.0.1:{server.port}") as backend:
            await backend.publish("room", "hello")


async def test_a_user_and_a_database(redis_server: RedisServer, prefix: str) -> None:
    with redis("user one on >se%cret ~* &* +@all") as server:
        async with started(f"redis://one:se%25cret@127.0.0.1:{server.port}/3", prefix=prefix) as backend:
            await backend.publish("room", "hello")
        assert keys_of(server) == []
        assert b"db3" in server.ask("INFO", "keyspace")


async def test_a_unix_socket(prefix: str) -> None:
    with redis("unixsocket FOLDER/socket") as server:
        path = os.path.join(server.folder, "socket")
        async with started(f"unix://{path}", prefix=prefix) as backend:
            await backend.publish("room", "hello")
            assert backend.where == path


def certificate_in(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on PATH to make a certificate with")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -batch"
    command += f" -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True, timeout=60)
    return certificate, key


def speaks_tls() -> bool:
    """Whether the server was built with it. Without a certificate it ends at once, and says why."""
    tried = subprocess.run(
        [redis_binary() or "", "--port", "0", "--tls-port", str(free_port())],
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = tried.stdout + tried.stderr
    return "Bad directive" not in said and "Failed finding TLS support" not in said


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    if not speaks_tls():
        pytest.skip("this server was built without TLS, as those in wheels are")
    return certificate_in(tmp_path)


async def test_tls(certificate: tuple[Path, Path], prefix: str) -> None:
    public, key = certificate
    port = free_port()
    options = (f"tls-port {port}", f"tls-cert-file {public}", f"tls-key-file {key}")
    with redis(*options, "tls-auth-clients no", f"tls-ca-cert-file {public}"):
        async with started(f"rediss://127.0.0.1:{port}?ssl_ca_certs={public}", prefix=prefix) as backend:
            await backend.publish("room", "hello")
            assert len((await backend.history("room", last=1)).events) == 1
        with pytest.raises(BrokerError, match="certificate"):  # not one that everybody trusts
            await RedisBackend(f"rediss://127.0.0.1:{port}").start()


async def test_an_old_server(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_redis, "_OLDEST", (99, 1))
    with pytest.raises(BrokerError, match=r"it is version \d.* and channels need 99\.1 or newer"):
        await RedisBackend(redis_server.url).start()


async def test_a_cluster() -> None:
    with redis("cluster-enabled yes") as server, pytest.raises(BrokerError, match="a node of a cluster"):
        await RedisBackend(server.url).start()


RULES = (
    "+evalsha +script|load +publish +subscribe +unsubscribe +xadd +xrange +xrevrange +xtrim +xlen "
    "+hmget +hset +hlen +time +pexpire +setnx +get +del +ping"
)


async def test_a_user_who_may_do_little(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    with redis(f"user few on >word ~{{{prefix}:* resetchannels &{{{prefix}:* {RULES}") as server:
        url = f"redis://few:word@127.0.0.1:{server.port}"
        async with started(url, prefix=prefix) as backend, reading(backend, "one") as reader:
            await reader.add("two")
            await backend.publish("two", "hello")
            assert await reader.data(1) == ["hello"]
            backend.wake()
            await until(lambda: at_rest(backend))
            assert len((await backend.history("two", last=1)).events) == 1
    assert not caplog.records


async def test_a_user_who_may_not_push(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is found out at the start, and not by events that come half a minute later."""
    with redis("user few on >word ~* resetchannels +@all") as server:
        url = f"redis://few:word@127.0.0.1:{server.port}"
        words = rf"this user may not push events: .*\. Allow it .* the channels `&\{{{prefix}:\*`"
        with pytest.raises(BrokerError, match=words) as caught:
            await RedisBackend(url, prefix=prefix).start()
        assert "word" not in str(caught.value)


@pytest.mark.parametrize(
    "wishes", [Wishes(), Wishes(idempotency_key="k")], ids=["the short way", "the long way"]
)
async def test_a_user_who_may_push_no_longer(
    wishes: Wishes, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with redis("user app on >word ~* &* +@all") as server:
        url = f"redis://app:word@127.0.0.1:{server.port}"
        async with started(url, prefix=prefix) as backend:
            await backend.publish("room", "one")
            server.ask("ACL", "SETUSER", "app", "-publish")
            second = await backend.publish("room", "two", wishes)  # it is kept
            await until(lambda: not backend.ready.is_set())
            server.ask("ACL", "SETUSER", "app", "+publish")
            await backend.ready.wait()
            history = await backend.history("room", last=9)
            assert history.position == second
    away, back = [record.getMessage() for record in caplog.records]
    assert "is away: this user may not push events" in away
    assert "is back" in back


@pytest.mark.parametrize("right", ["subscribe", "xrevrange", "xrange"])
async def test_a_user_who_may_not_read(
    right: str, prefix: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither connections nor lines in the log without end; and others publish as before."""
    monkeypatch.setattr(_feed, "_CHECK", 0.3)
    with redis(f"user few on >word ~* &* +@all -{right}") as server:
        url = f"redis://few:word@127.0.0.1:{server.port}"
        async with started(url, prefix=prefix) as backend, Reader(backend) as reader:
            asked = reads_of(backend, monkeypatch)
            if right == "xrange":
                await reader.add("room")
                backend.wake()
                await backend.publish("room", "one")
                await until(lambda: caplog.records)
            else:
                await backend.publish("room", "one")
                with pytest.raises(BrokerError, match=r"Redis refuses: .*(no permissions|can't run)"):
                    await reader.add("room")
                    await backend.history("room", last=1)
            for number in range(200):
                await backend.publish("room", f"{number}")
                await anyio.sleep(0.005)
            assert backend.ready.is_set()
            connected = int(re.search(rb"total_connections_received:(\d+)", server.ask("INFO"))[1])  # type: ignore[index]
            assert connected < 20
            assert len(caplog.records) < 5
            assert len(asked) < 250  # not more often than something is published
            server.ask("ACL", "SETUSER", "few", f"+{right}")
            if right == "subscribe":
                await reader.add("room")
            before = len(reader.items)
            await backend.publish("room", "last")
            await reader.until(before + 1)
            while not isinstance(reader.items[-1], Event) or reader.items[-1].data != "last":
                await reader.until(len(reader.items) + 1)


def reads_of(backend: RedisBackend, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The channels of which it reads the stream from now on, once for each time."""
    asked: list[str] = []
    original = backend._feed._read_after

    def read_after(name: str, at: str) -> tuple[bytes, ...]:
        asked.append(name)
        return original(name, at)

    monkeypatch.setattr(backend._feed, "_read_after", read_after)
    return asked


def at_rest(backend: RedisBackend) -> bool:
    """Whether everything that has come was given, and nothing is looked at."""
    feed = backend._feed
    looked = any(watched.looking for watched in feed._watched.values())
    return not (looked or feed._arrived or feed._found or feed._noticed or feed._to_look)


# Gaps, and what is in the memory of the broker


async def test_numbers_have_no_holes_across_processes(redis_server: RedisServer, prefix: str) -> None:
    async with AsyncExitStack() as stack:
        backends = [
            await stack.enter_async_context(started(redis_server.url, prefix=prefix)) for _ in range(3)
        ]
        readers = [await stack.enter_async_context(reading(backend, "room")) for backend in backends]
        for number in range(100):
            await asyncio.gather(*(backend.publish("room", f"{number}") for backend in backends))
        for reader in readers:
            items = await reader.until(300)
            assert [Id.parse(item.id).seq for item in items] == list(range(1, 301))
            assert items == readers[0].items


async def test_a_reader_that_is_far_behind(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_redis, "_KEPT", 10)
    async with started(redis_server.url, prefix=prefix, history=10) as backend:
        begin = (await backend.history("room")).position
        await asyncio.gather(*(backend.publish("room", f"{n}") for n in range(1000)))
        await backend.watch(["room"])
        backend.wake()
        found = await backend.read({"room": begin})
        while len(found) < 2:
            found = await backend.read({"room": begin})
        assert isinstance(found[0], Gap)
        assert isinstance(found[1], Event)
        assert found[0].since == begin
        gap, first = Id.parse(found[0].id), Id.parse(found[1].id)
        assert gap == first._replace(seq=first.seq - 1)
        history = await backend.history("room", since=found[0].id)
        assert history.events[-1].data == "999"
        assert len(history.events) == 10
        assert not history.complete
        assert (await backend.history("room", since=history.events[0].id)).complete


async def test_much_at_once_is_given_in_parts(backend: RedisBackend) -> None:
    await backend.watch([f"{n}" for n in range(10)])
    positions = {f"{n}": (await backend.history(f"{n}")).position for n in range(10)}
    for _ in range(3):
        await asyncio.gather(*(backend.publish(name, f"{n}") for name in positions for n in range(100)))
    got: dict[str, list[str | bytes]] = {name: [] for name in positions}
    gone = False
    while sum(map(len, got.values())) < 2700 + (0 if gone else 300):
        items = await backend.read(positions)
        assert len(items) < 1000
        for item in items:
            assert isinstance(item, Event)
            if item.channel in positions:
                positions[item.channel] = item.id
                got[item.channel].append(item.data)
        if not gone and "9" in positions and not got["9"]:
            del positions["9"]  # what was received of it already is not given any more
            backend.unwatch(["9"])
            gone = True
    assert gone
    assert got.pop("9") == []
    assert all(data == [f"{n}" for n in range(100)] * 3 for data in got.values())


@pytest.mark.parametrize("loss", ["FLUSHALL", "DEL"])
async def test_a_channel_that_begins_anew(
    loss: str, backend: RedisBackend, redis_server: RedisServer, prefix: str
) -> None:
    async with reading(backend, "room") as reader:
        await backend.publish("room", "one")
        (event,) = await reader.until(1)
        if loss == "DEL":
            redis_server.ask("DEL", f"{{{prefix}:room}}", f"{{{prefix}:room}}:state")
        else:
            redis_server.ask("FLUSHALL")
        await backend.publish("room", "two")
        assert await reader.data(3) == ["one", None, "two"]
        gap = reader.items[1]
        assert isinstance(gap, Gap)
        assert gap.since == event.id
        assert Id.parse(gap.id)[1] == 0
    history = await backend.history("room", since=event.id)
    assert not history.complete
    assert [event.data for event in history.events] == ["two"]
    assert (await backend.history("room", since=gap.id)).complete


async def test_a_broker_that_forgot_everything_tells_a_gap_at_once(prefix: str) -> None:
    with redis() as server:
        async with started(server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
            await backend.publish("room", "one")
            await reader.until(1)
            server.kill()
            await anyio.to_thread.run_sync(server.start)
            assert await reader.data(2) == ["one", None]
            await backend.publish("room", "two")
            assert await reader.data(3) == ["one", None, "two"]


async def test_an_empty_channel_of_a_broker_that_forgot_everything(prefix: str) -> None:
    """Its first event is the first of another life: there may have been others before that."""
    with redis() as server:
        async with (
            Proxy(server.port) as proxy,
            started(proxy.url, prefix=prefix) as backend,
            reading(backend, "room") as reader,
        ):
            position = reader.positions["room"]
            proxy.hold(b"ROLE")  # it comes back after that
            server.kill()
            await anyio.to_thread.run_sync(server.start)
            async with started(server.url, prefix=prefix) as other:
                id = await other.publish("room", "one")
            proxy.release()
            gap, event = await reader.until(2)
            assert (type(gap), getattr(gap, "since", None), event.id) == (Gap, position, id)


async def test_a_broker_that_lost_the_end(
    backend: RedisBackend, redis_server: RedisServer, prefix: str
) -> None:
    """As one with `appendfsync everysec` does in a power cut."""
    ids = [await backend.publish("room", f"{n}") for n in range(5)]
    fourth = Id.parse(ids[3])
    for id in ids[3:]:
        redis_server.ask("XDEL", f"{{{prefix}:room}}", id.rpartition("-")[0])
    third = Id.parse(ids[2])
    redis_server.ask("HSET", f"{{{prefix}:room}}:state", "ms", f"{third.ms}", "seq", f"{third.seq}")
    await backend.watch(["room"])
    backend.wake()
    found = await backend.read({"room": ids[4]})
    assert found == [Gap("room", ids[4], ids[2])]
    history = await backend.history("room", since=ids[4])
    assert not history.complete
    assert [event.data for event in history.events] == ["0", "1", "2"]
    # Numbers are given again, and are not taken for those of before.
    redis_server.ask("XTRIM", f"{{{prefix}:room}}", "MAXLEN", "3")
    await anyio.sleep(0.002)
    again = Id.parse(await backend.publish("room", "other"))
    assert again.seq == fourth.seq
    assert again.ms > fourth.ms
    history = await backend.history("room", since=ids[3])
    assert not history.complete
    assert [event.data for event in history.events] == ["0", "1", "2", "other"]


async def test_entries_that_are_no_events(
    backend: RedisBackend, redis_server: RedisServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of ours is missing where they stand, so there is no gap."""
    key = f"{{{prefix}:room}}"
    async with reading(backend, "room", "other") as reader:
        first = Id.parse(await backend.publish("room", "one"))
        await reader.until(1)
        foreign: list[tuple[str | bytes, ...]] = [
            ("what", "ever"),
            ("h", f"{first.epoch}s", "d", b"\xff"),
            ("h", f"{first.epoch}x", "d", "kind"),
            ("h", "nothex..s", "d", "epoch"),
            ("a", "1", "b", "2", "c", "3"),
        ]
        for number, fields in enumerate(foreign):
            assert redis_server.ask("XADD", key, f"{first.ms + 1}-{number + 10}", *fields).startswith(b"$")
        backend.wake()
        await until(lambda: len(caplog.records) == 5)
        await backend.publish("other", "nobody else is affected")
        await backend.publish("room", "two")
        assert await reader.data(3) == ["one", "nobody else is affected", "two"]
        assert Id.parse(reader.items[-1].id).seq == 2
        # One of the future, after which Redis takes no smaller id.
        redis_server.ask("XADD", key, "18446744073709551000-18446744073709551000", "what", "ever")
        await backend.publish("room", "three")
        assert (await reader.data(5))[3:] == [None, "three"]
    assert [record.getMessage().partition(" of ")[2] for record in caplog.records] == [
        "channel 'room' is no event"
    ] * 5


async def test_a_damaged_event(backend: RedisBackend, redis_server: RedisServer, prefix: str) -> None:
    begin = (await backend.history("room")).position
    first = Id.parse(await backend.publish("room", "one"))
    key = f"{{{prefix}:room}}"
    redis_server.ask("XADD", key, f"{first.ms}-{first.seq + 1}", "h", "", "d", "")
    redis_server.ask("HSET", f"{key}:state", "seq", f"{first.seq + 1}")
    await backend.watch(["room"])
    await backend.publish("room", "three")
    one, gap, three = await backend.read({"room": begin})
    third = Id.parse(three.id)
    assert third.seq == 3
    assert gap == Gap("room", one.id, str(first._replace(seq=2)))
    # Whoever goes on after the gap has nothing to be told of.
    backend.wake()
    assert await backend.read({"room": gap.id}) == [three]
    assert (await backend.history("room", since=gap.id)).complete
    history = await backend.history("room", since=begin)
    assert not history.complete
    assert [event.data for event in history.events] == ["one", "three"]


async def test_a_key_that_is_something_else(
    backend: RedisBackend,
    redis_server: RedisServer,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = f"{{{prefix}:room}}"
    async with reading(backend, "room", "other") as reader:
        redis_server.ask("SET", key, "a string")
        with pytest.raises(BrokerError, match="cannot publish to 'room': Redis refuses: WRONGTYPE"):
            await backend.publish("room", "one")
        with pytest.raises(BrokerError, match="cannot read the history of 'room': Redis refuses: WRONGTYPE"):
            await backend.history("room")
        for number in range(3):
            backend.wake()
            await until(lambda: caplog.records and at_rest(backend))
            await backend.publish("other", f"nobody else is affected {number}")
            await reader.until(number + 1)
        assert redis_server.ask("GET", key) == b"$8\r\na string\r\n"
        redis_server.ask("DEL", key)
        await backend.publish("room", "two")
        assert (await reader.data(4))[-1] == "two"
    (error,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert error.startswith("channel 'room' cannot be read: WRONGTYPE")


async def test_a_full_broker(prefix: str) -> None:
    with redis("maxmemory-policy noeviction") as server:
        async with started(server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
            await backend.publish("room", "one")
            server.ask("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(BrokerError, match=r"cannot publish to 'room': Redis refuses: .*maxmemory"):
                await backend.publish("room", "two")
            with pytest.raises(BrokerError, match="maxmemory"):
                await backend.appear([Member("room", "me", "null")], 60)
            assert await backend.members("room") == []
            # What is there is there.
            assert [event.data for event in (await backend.history("room", last=9)).events] == ["one"]
            server.ask("CONFIG", "SET", "maxmemory", "0")
            await backend.publish("room", "three")
            assert await reader.data(2) == ["one", "three"]
            assert backend.ready.is_set()
            # A channel that cannot begin anew for want of memory goes on when there is some.
            server.ask("DEL", f"{{{prefix}:room}}:state")
            server.ask("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(BrokerError, match="maxmemory"):
                await backend.publish("room", "lost")
            server.ask("CONFIG", "SET", "maxmemory", "0")
            await backend.publish("room", "four")
            assert await reader.data(4) == ["one", "three", None, "four"]


async def comes_back(backend: RedisBackend, proxy: Proxy) -> None:
    """Cut all connections, and wait until all channels were read again."""
    ready = backend.ready
    proxy.cut()
    await until(lambda: backend.ready is not ready and backend.ready.is_set() and at_rest(backend))


async def test_a_broker_that_was_always_full(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot store an id of its memory. As nothing can be published either, nothing is missing."""
    monkeypatch.setattr(_link, "IDLE", 0.02)  # an idle connection notices soon that it is cut
    with redis("maxmemory-policy noeviction") as server:
        server.ask("CONFIG", "SET", "maxmemory", "1")
        async with (
            Proxy(server.port) as proxy,
            started(proxy.url, prefix=prefix) as backend,
            reading(backend, "room", "empty") as reader,
        ):
            begin = (await backend.history("room")).position
            await comes_back(backend, proxy)
            assert (await backend.history("room", since=begin)).complete
            async with started(server.url, prefix=prefix) as other:
                assert (await other.history("room", since=begin)).complete
                server.ask("CONFIG", "SET", "maxmemory", "0")
                id = await other.publish("room", "one")
                await reader.until(1)
                assert [item.id for item in reader.items] == [id]
            # Now the memory gets an id. What was published before it had one, and was deleted, is unknown.
            await comes_back(backend, proxy)
            await reader.until(2)
            assert [(type(item), item.channel) for item in reader.items[1:]] == [(Gap, "empty")]
            assert not (await backend.history("room", since=begin)).complete


async def test_a_full_broker_that_does_not_say_which_it_is(prefix: str) -> None:
    """It may have restarted. So somebody who comes back to an empty channel gets a gap."""
    with redis("maxmemory-policy noeviction") as server:
        server.ask("CONFIG", "SET", "maxmemory", "1")
        server.ask("ACL", "SETUSER", "default", "-info")
        async with started(server.url, prefix=prefix) as one, started(server.url, prefix=prefix) as other:
            # First the id that each has from connecting, then the one from asking again.
            for _ in range(2):
                begin = (await one.history("room")).position
                assert begin.split("-")[2] != (await other.history("room")).position.split("-")[2]
                for backend in (one, other):
                    assert not (await backend.history("room", since=begin)).complete


async def test_an_id_of_the_memory_that_was_deleted(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a server does that evicts keys: who comes back to an empty channel may have missed something."""
    monkeypatch.setattr(_link, "IDLE", 0.02)
    with redis() as server:
        async with (
            Proxy(server.port) as proxy,
            started(proxy.url, prefix=prefix) as backend,
            reading(backend, "empty", "room") as reader,
        ):
            await backend.publish("room", "one")
            await reader.until(1)
            server.ask("DEL", f"{{{prefix}:}}:memory")
            proxy.cut()
            await reader.until(2)
            await until(lambda: at_rest(backend))
            gap = reader.items[-1]
            assert (type(gap), gap.channel, len(reader.items)) == (Gap, "empty", 2)
            await backend.publish("empty", "one")
            assert await reader.data(3) == ["one", None, "one"]


async def test_what_is_trimmed_and_what_expires(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = f"{{{prefix}:room}}"
    monkeypatch.setattr(_redis, "_KEPT", 20)
    async with started(redis_server.url, prefix=prefix, history=20, max_age=0.2, expire=1) as backend:
        for number in range(500):
            last = await backend.publish("room", f"{number}")
        assert int(redis_server.ask("XLEN", key)[1:]) < 200
        for name in (key, f"{key}:state"):
            ttl = int(redis_server.ask("PTTL", name)[1:])
            assert 30_000 < ttl <= 61_200  # a minute more than the oldest event
        before = Id.parse(last)._replace(seq=499)
        await anyio.sleep(0.3)
        assert (await backend.history("room", last=5)).events == []
        assert not (await backend.history("room", since=str(before))).complete
        assert (await backend.history("room", since=last)).complete
        redis_server.ask("CONFIG", "SET", "stream-node-max-entries", "1")
        for number in range(50):
            await backend.publish("room", f"{number}")
        assert int(redis_server.ask("XLEN", key)[1:]) <= 20
        redis_server.ask("CONFIG", "SET", "stream-node-max-entries", "100")


async def test_who_reads_keeps_a_channel_from_expiring(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_feed, "_CHECK", 0.3)
    async with started(redis_server.url, prefix=prefix, expire=1.0) as backend, reading(backend, "read"):
        last = await backend.publish("read", "one")
        await backend.publish("unread", "one")
        await until(lambda: not keys_of(redis_server, f"{{{prefix}:unread*"))
        history = await backend.history("read", last=1)
        assert history.position == last
        assert len(history.events) == 1


async def test_a_name_that_nobody_publishes_to_leaves_nothing(
    backend: RedisBackend, redis_server: RedisServer, prefix: str
) -> None:
    async with reading(backend, *map(str, range(50))):
        await backend.history("other", last=1)
        await backend.members("other")
        backend.wake()
        await until(lambda: at_rest(backend))
    assert keys_of(redis_server, f"*{prefix}*") == [backend._keys.memory_of(0)]


async def test_the_position_of_an_empty_channel(
    backend: RedisBackend, redis_server: RedisServer, prefix: str
) -> None:
    begin = (await backend.history("room")).position
    nothing = await backend.history("room", since=begin)
    assert nothing.complete
    ids = [await backend.publish("room", f"{n}") for n in range(3)]
    history = await backend.history("room", since=begin)
    assert history.complete
    assert [event.id for event in history.events] == ids
    # Another memory: whatever was published meanwhile is gone.
    redis_server.ask("DEL", *map(bytes.decode, keys_of(redis_server, f"*{prefix}*")))
    assert not (await backend.history("room", since=begin)).complete
    again = await backend.publish("room", "again")
    history = await backend.history("room", since=begin)
    assert not history.complete
    assert [event.id for event in history.events] == [again]
    # So long ago that a channel can have come and gone.
    old = Id.parse((await backend.history("empty")).position)
    old = old._replace(ms=old.ms - int(backend._expire) - 1)
    assert not (await backend.history("empty", since=str(old))).complete


async def test_a_position_where_nothing_is_kept(
    backend: RedisBackend, redis_server: RedisServer, prefix: str
) -> None:
    """With the number of the newest event, but another time, it is of another branch."""
    last = Id.parse(await backend.publish("room", "one"))
    redis_server.ask("XTRIM", f"{{{prefix}:room}}", "MAXLEN", "0")
    assert (await backend.history("room", since=str(last))).complete
    assert not (await backend.history("room", since=str(last._replace(ms=last.ms - 1)))).complete


async def test_publishers_of_long_ago_are_forgotten(
    backend: RedisBackend, redis_server: RedisServer, prefix: str
) -> None:
    state = f"{{{prefix}:room}}:state"
    redis_server.ask("HSET", state, "epoch", "0badcafe", "ms", "1000", "seq", "0")
    for number in range(70):
        redis_server.ask("HSET", state, f"p{number}", f"5 {1_000 if number else 9_999_999_999_999}")
    await backend.publish("room", "one")
    # Its own, one that was heard of lately, and the three of the channel.
    assert int(redis_server.ask("HLEN", state)[1:]) == 5


async def test_the_names_of_many_channels(backend: RedisBackend, redis_server: RedisServer) -> None:
    names = {f"room:{n}" for n in range(700)}
    await asyncio.gather(*(backend.publish(name, "x") for name in names))
    assert await backend.names() == names


# Scripts


async def test_a_broker_that_forgot_the_scripts(backend: RedisBackend, redis_server: RedisServer) -> None:
    async with reading(backend, "room") as reader:
        for number in range(3):
            redis_server.ask("SCRIPT", "FLUSH")
            await asyncio.gather(
                *(backend.publish("room", f"{number}{letter}") for letter in "abc"), backend.history("x")
            )
        assert sorted(map(str, await reader.data(9))) == [
            f"{n}{letter}" for n in range(3) for letter in "abc"
        ]
        assert [Id.parse(item.id).seq for item in reader.items] == list(range(1, 10))
        assert backend.ready.is_set()


def without_the_short_way() -> Script:
    """The script that publishes, with nothing but what it does where its short way does not apply."""
    source = SCRIPTS["publish"].source.decode()
    begin, end = source.index("local call ="), source.index("local function text")
    return Script(source[:begin] + "local found, last\n" + source[end:])


class Scene:
    """Some channels, in each of the states in which a publish can find one.

    Args:
        backend: Whose keys they are.
        server: Where.
        ways: The scripts that publish, in turns.
    """

    def __init__(self, backend: RedisBackend, server: RedisServer, ways: list[Script]) -> None:
        self.backend = backend
        self.server = server
        self.ways = ways
        seconds = int(self.ask("TIME").split(b"\r\n")[2])
        self.before, self.ahead = f"{seconds - 5}000", "9999999999000"

    def ask(self, *parts: str | bytes) -> bytes:
        answer = self.server.ask(*parts)
        assert not answer.startswith(b"-"), answer
        return answer

    def publish(self, channel: str, number: int, who: bytes = b"p1") -> None:
        parts = list(self.backend.publish_parts(channel, f"{number}", Wishes(), who))
        parts[1] = self.ways[number % len(self.ways)].sha
        parts[5] = b"0badcafe"  # the life, if it begins
        self.ask(*parts, b"%d" % number)

    def know(self, channel: str, ms: str, *more: str) -> None:
        """Let a channel have had seven events, the last one then, and one of them ours."""
        _, state = self.backend._keys.of(channel)
        self.ask("HSET", state, "epoch", "0badcafe", "ms", ms, "seq", "7", "p1", "1 1", *more)

    def play(self) -> dict[str, Any]:
        """Publish, and tell what each channel has after that."""
        for number in (2, 3, 4):
            self.publish("new", number)
        self.publish("two publishers", 2)
        self.publish("two publishers", 2, b"p2")
        self.publish("two publishers", 5)
        self.publish("again", 2)
        self.publish("again", 2)  # its answer was lost
        self.ask("XADD", self.backend._keys.of("left")[0], "5-5", "of", "another life")
        self.publish("left", 2)
        self.know("ahead of the clock", self.ahead)
        self.publish("ahead of the clock", 2)
        self.know("with an age of its own", self.before, "age", "7200000")
        self.publish("with an age of its own", 2)
        self.know("quiet", self.before)
        for seq in range(1, 7):
            self.ask("XADD", self.backend._keys.of("quiet")[0], f"1-{seq}", "h", "0badcafesp1:1", "d", "old")
        self.publish("quiet", 2)
        return {channel: self.left_in(channel) for channel in sorted(self.backend_names())}

    def backend_names(self) -> set[str]:
        keys = keys_of(self.server, f"{self.backend._keys.pattern}*:state")
        return {self.backend._keys.channel_of(key) for key in keys}

    def left_in(self, channel: str) -> tuple[Any, ...]:
        events, state = self.backend._keys.of(channel)
        fields = self._values("HGETALL", state)
        # In a day, or in an hour and a minute: ten seconds do not matter.
        ttl = [round(int(self.ask("PTTL", key)[1:]), -4) for key in (events, state)]
        return (
            self._values("XRANGE", events, "-", "+"),
            dict(zip(fields[::2], fields[1::2], strict=True)),
            ttl,
        )

    def _values(self, *command: str | bytes) -> list[bytes]:
        """The texts in an answer, with `now` for each time: nothing else may differ between two scenes."""
        answer = re.sub(rb"\b[1-8]\d{12}\b", b"now", self.ask(*command))
        return [line for line in answer.split(b"\r\n") if line[:1] not in (b"*", b"$", b"")]


@pytest.mark.parametrize(
    "said",
    [
        "WRONGTYPE of the wrong kind",
        "Error running script (call to f_0a): @user_script:1: @user_script: 1: WRONGTYPE of the wrong kind",
        "Error running script (call to f_0a): @user_script:7: WRONGTYPE of the wrong kind",
        "WRONGTYPE of the wrong kind script: 0a1b, on @user_script:112.",
        "WRONGTYPE of the wrong kind script: on @user_script:112.",
        "user_script:7: WRONGTYPE of the wrong kind script: on @user_script:7",
    ],
)
def test_errors_do_not_say_where_in_a_script_they_came_from(said: str) -> None:
    assert _link.reason(Exception(said)) == "WRONGTYPE of the wrong kind"


async def test_a_memory_of_another_type(redis_server: RedisServer, prefix: str) -> None:
    """The error says which key it is, because nobody can read anything then."""
    memory = f"{{{prefix}:}}:memory"
    redis_server.ask("LPUSH", memory, "of another program")
    async with started(redis_server.url, prefix=prefix, publish_timeout=0.3) as backend:
        assert await backend.publish("room", "one")
        with pytest.raises(BrokerError, match=rf"cannot read its key '{re.escape(memory)}': WRONGTYPE"):
            await backend.history("room")
        redis_server.ask("DEL", memory)
        await backend.ready.wait()
        assert len((await backend.history("room", last=1)).events) == 1


@pytest.mark.parametrize("age", [None, 3600.0])
async def test_the_short_way_to_publish_does_what_the_long_one_does(
    redis_server: RedisServer, prefix: str, age: float | None
) -> None:
    long, short = without_the_short_way(), SCRIPTS["publish"]
    redis_server.ask("SCRIPT", "LOAD", long.source)
    redis_server.ask("CONFIG", "SET", "stream-node-max-entries", "1")  # trimmed is a whole node, or nothing
    found = []
    for number, ways in enumerate(([long], [short], [short, long], [long, short])):
        async with started(redis_server.url, prefix=f"{prefix}{number}", max_age=age) as backend:
            found.append(await anyio.to_thread.run_sync(Scene(backend, redis_server, ways).play))
    redis_server.ask("CONFIG", "SET", "stream-node-max-entries", "100")
    first = found[0]
    assert len(first) == 7
    assert len(first["quiet"][0]) == (5 if age else 35)  # an id, and two names with their values
    # Time does not go back in a channel. It goes ahead a little, once: see `append`.
    assert b"%d-8" % (9999999999001 + 0x0BADCAFE % 1000) in first["ahead of the clock"][0]
    assert found == [first] * 4


@pytest.mark.parametrize(("history", "wishes"), [(1, Wishes()), (1000, Wishes(history=1))])
async def test_a_short_history_keeps_little(
    history: int, wishes: Wishes, redis_server: RedisServer, prefix: str
) -> None:
    async with started(redis_server.url, prefix=prefix, history=history, publish_timeout=30) as backend:
        await asyncio.gather(*(backend.publish("room", "x", wishes) for _ in range(3000)))
    # Redis trims whole nodes, of 100 entries.
    assert int(redis_server.ask("XLEN", f"{{{prefix}:room}}")[1:]) <= 300


async def test_publishers_that_come_and_go_cost_the_same(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there were: each new one has a part of the others looked at, and not all."""
    state = f"{{{prefix}:room}}:state"
    async with started(redis_server.url, prefix=prefix) as backend:
        first = Id.parse(await backend.publish("room", "one"))
        fields = [part for n in range(20_000) for part in (f"p{n:012x}", f"1 {first.ms}")]
        redis_server.ask("HSET", state, *fields)
        redis_server.ask("CONFIG", "RESETSTAT")
        for number in range(20):
            backend._publisher = b"p-new-%d" % number
            await backend.publish("room", "one")
        statistics = redis_server.ask("INFO", "commandstats").decode()
        assert "cmdstat_hgetall" not in statistics
        assert "cmdstat_hscan:calls=20" in statistics
        # In the end those that were not heard of for long are gone, all the same.
        redis_server.ask("DEL", state + ":x")
        for number in range(0, 20_000, 2):
            fields[number + 1] = "1 1000"
        redis_server.ask("HSET", state, *[part for n in range(20_000) for part in (f"p{n:012x}", "1 1000")])
        backend._publisher = b"p-newest"
        await backend.publish("room", "one")
        assert int(redis_server.ask("HLEN", state)[1:]) > 19_000
        for number in range(2000):
            backend._publisher = b"p-newer-%d" % number
            await backend.publish("room", "one")
        assert int(redis_server.ask("HLEN", state)[1:]) < 2_100


async def test_a_primary_that_becomes_a_replica(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    with redis() as server:
        async with started(server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
            server.ask("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(BrokerError, match="read only replica"):
                await backend.publish("room", "one")
            with pytest.raises(BrokerError, match="it is a replica, which cannot be published to"):
                await RedisBackend(server.url).start()
            await until(lambda: cast(Any, backend._servers).attempts > 2)
            server.ask("REPLICAOF", "NO", "ONE")
            await backend.ready.wait()
            await backend.publish("room", "two")
            assert await reader.data(1) == ["two"]
    assert len([record for record in caplog.records if "is away" in record.getMessage()]) == 1


# Watching


async def test_a_new_channel_is_read_at_once(redis_server: RedisServer, prefix: str) -> None:
    async with started(redis_server.url, prefix=prefix) as backend, Reader(backend) as reader:
        for number in range(50):
            await reader.add(f"{number}")
            await backend.publish(f"{number}", f"{number}")
            assert (await reader.until(number + 1))[-1].channel == f"{number}"
            if number % 3 == 0:
                reader.remove(f"{number}")
                await backend.publish(f"{number}", "to nobody")
                await reader.add(f"{number}")
        assert len(reader.items) == 50


def count_of(server: RedisServer, name: str, section: str = "stats") -> int:
    """A number that the server tells of itself; 0 if it tells none."""
    found = re.search(rf"^{name}[:=](?:calls=)?(\d+)", server.ask("INFO", section).decode(), re.MULTILINE)
    return int(found[1]) if found else 0


async def test_joining_costs_the_same_however_many_channels_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To the byte: neither commands nor the names in them become more. And what was left is left."""
    monkeypatch.setattr(_feed, "_CHECK", 3600.0)  # nothing else is sent meanwhile
    monkeypatch.setattr(_link, "IDLE", 3600.0)
    with redis() as server:
        async with Channels(server.url) as channels, AsyncExitStack() as stack:
            listener = cast(RedisBackend, channels.backend)._listener
            assert listener is not None

            async def cost() -> int:
                before = count_of(server, "total_net_input_bytes")
                async with (
                    channels.subscribe("one", presence=True),
                    channels.join("two", await Server().accepted(), member=1),
                ):
                    pass
                await until(lambda: not listener._changes and not listener._commands)
                return count_of(server, "total_net_input_bytes") - before

            costs = []
            for begin, end in ((0, 5), (5, 300)):
                for number in range(begin, end):
                    await stack.enter_async_context(channels.subscribe(f"{number}"))
                costs.append(await cost())
            assert costs[0] == costs[1]
            await stack.aclose()
            with anyio.fail_after(10):
                await until(lambda: server.ask("PUBSUB", "CHANNELS") == b"*0\r\n")


async def test_many_channels_in_few_commands(redis_server: RedisServer, prefix: str) -> None:
    """After an outage, when a process subscribes to all of its channels again."""
    names = [f"{n}" for n in range(300)]
    async with started(redis_server.url, prefix=prefix) as backend, reading(backend, *names) as reader:
        before = backend.ready
        redis_server.ask("CONFIG", "RESETSTAT")
        redis_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: backend.ready is not before)
        await backend.ready.wait()
        assert 1 <= count_of(redis_server, "cmdstat_subscribe", "commandstats") <= 5
        await backend.publish("299", "one")
        assert await reader.data(1) == ["one"]


# Outages


async def test_a_full_server_can_be_read(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from the position of an empty channel, and after a new connection."""
    monkeypatch.setattr(_link, "IDLE", 0.02)  # the loss of a connection is noticed soon
    with redis() as server:
        async with started(server.url, prefix=prefix) as backend:
            await backend.publish("room", "one")
            empty = (await backend.history("empty")).position
            server.ask("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(BrokerError, match="maxmemory"):
                await backend.publish("room", "two")
            for lost in (False, True):
                assert [event.data for event in (await backend.history("room", last=5)).events] == ["one"]
                assert (await backend.history("empty", since=empty)).complete is not lost
                server.ask("DEL", backend._keys.memory_of(0))  # as if nobody had listened yet
                before = backend.ready
                server.ask("CLIENT", "KILL", "TYPE", "normal")
                await until(lambda before=before: backend.ready is not before)  # type: ignore[misc]
                await backend.ready.wait()
            assert [event.data for event in (await backend.history("room", last=5)).events] == ["one"]


async def test_a_server_without_its_replica_can_be_read(
    prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With `min-replicas-to-write`, it refuses all writes, also those that postpone an expiry."""
    monkeypatch.setattr(_link, "IDLE", 0.02)
    monkeypatch.setattr(_feed, "_CHECK", 0.05)
    with redis() as server:
        async with started(server.url, prefix=prefix) as backend:
            await backend.publish("room", "one")
            empty = (await backend.history("empty")).position
            server.ask("CONFIG", "SET", "min-replicas-to-write", "1")
            with pytest.raises(BrokerError, match="NOREPLICAS"):
                await backend.publish("room", "two")
            async with reading(backend, "room") as reader:
                assert [event.data for event in (await backend.history("room", last=5)).events] == ["one"]
                assert (await backend.history("empty", since=empty)).complete
                await anyio.sleep(0.2)  # the channels are compared
                assert await backend.members("room") == []
                server.ask("CONFIG", "SET", "min-replicas-to-write", "0")
                server.ask("DEL", backend._keys.memory_of(0))
                server.ask("CONFIG", "SET", "min-replicas-to-write", "1")
                before = backend.ready
                server.ask("CLIENT", "KILL", "TYPE", "normal")
                await until(lambda: backend.ready is not before)
                await backend.ready.wait()
                assert not (await backend.history("empty", since=empty)).complete
                server.ask("CONFIG", "SET", "min-replicas-to-write", "0")
                await backend.publish("room", "three")
                assert await reader.data(1) == ["three"]
    assert "could not compare" not in caplog.text


async def test_a_flush_between_two_reads(
    backend: RedisBackend, redis_server: RedisServer, prefix: str
) -> None:
    """The position of an empty channel is compared with the memory that the events were read from."""
    async with Proxy(redis_server.port) as proxy, started(proxy.url, prefix=prefix) as slow:
        position = (await slow.history("room")).position
        proxy.hold(SCRIPTS["history"].sha)
        task = asyncio.create_task(slow.history("room", since=position))
        await proxy.held.wait()
        await backend.publish("room", "lost")
        redis_server.ask("FLUSHALL")
        await backend.publish("room", "kept")
        proxy.release()
        history = await task
    assert [event.data for event in history.events] == ["kept"]
    assert not history.complete


async def test_a_receiver_that_joins_before_the_loss_is_noticed(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its history is of after the loss. It does not get that, nor the gap, once more with the others."""
    async with (
        Channels(redis_server.url, prefix=prefix) as channels,
        channels.subscribe("room") as first,
    ):
        await channels.publish("room", "old")
        old = await anext(first)
        assert isinstance(old, Event)
        await anyio.sleep(0.002)  # the loss has a time of its own
        redis_server.ask("FLUSHALL")
        feed: Any = channels.backend._feed  # type: ignore[attr-defined]
        look, noticed = feed._look_into, asyncio.Event()

        async def later(watched: Any) -> None:
            await noticed.wait()
            await look(watched)

        monkeypatch.setattr(feed, "_look_into", later)
        await channels.publish("room", "new")
        async with channels.subscribe("room", since=old.id) as second:
            noticed.set()
            await channels.publish("room", "next")
            for subscription in (first, second):
                items = [await anext(subscription) for _ in range(3)]
                assert isinstance(items[0], Gap)
                assert [item.data for item in items[1:] if isinstance(item, Event)] == ["new", "next"]
            await channels.publish("room", "last")
            for subscription in (first, second):
                item = await anext(subscription)
                assert isinstance(item, Event)
                assert item.data == "last"


async def test_an_id_of_the_memory_that_is_out_of_date(backend: RedisBackend) -> None:
    """It is not stored if all ids were forgotten during the question, as when a slot has moved."""
    await backend.history("room")
    task = asyncio.create_task(backend._memory_now("ask", 0))
    await asyncio.sleep(0)
    backend._feed.forget()
    memory = await task
    assert backend._feed.known_memory(0) == ""
    assert await backend._memory_now("ask", 0) == memory == backend._feed.known_memory(0)


async def test_an_app_that_seeds_random(prefix: str) -> None:
    """The id of the server's memory is another one after a loss, so the loss is noticed."""
    position = None
    with redis() as server:
        for _ in range(2):
            random.seed(7)
            async with started(server.url, prefix=prefix) as backend:
                await backend.history("another")
                history = await backend.history("room", since=position)
                assert history.complete is (position is None)
                position = history.position
            server.kill()
            server.start()
    random.seed()


@pytest.mark.parametrize("policy", ["close", "drop_oldest", "drop_newest"])
async def test_a_receiver_is_not_slow_while_its_history_is_read(
    policy: Any, redis_server: RedisServer, prefix: str
) -> None:
    """More comes meanwhile than fits into its outbox, and it could not take any of it."""
    async with (
        Proxy(redis_server.port) as proxy,
        Channels(proxy.url, prefix=prefix) as channels,
        channels.subscribe("room", max_messages=1000),
        anyio.create_task_group() as tasks,
    ):
        server, ended = Server(), []
        await channels.publish("room", "first")
        proxy.hold(SCRIPTS["history"].sha)

        async def join() -> None:
            socket = await server.accepted()
            names = ["room", "other"]
            async with channels.join(names, socket, history=1, policy=policy, max_messages=4) as membership:
                await anyio.sleep_forever()
            ended.append(membership.ended)

        tasks.start_soon(join)
        await proxy.held.wait()
        proxy.release()
        proxy.hold(SCRIPTS["history"].sha)  # that of the other channel
        await proxy.held.wait()
        last = [await channels.publish("room", f"{number}") for number in range(20)][-1]
        await until(lambda: channels._hub._positions["room"] == last)
        proxy.release()
        await until(lambda: ended or len(server.sent) >= 21)
        texts = [message["text"] for message in server.sent if message["type"] == "websocket.send"]
        assert texts == ["first", *(f"{number}" for number in range(20))]
        assert not ended
        tasks.cancel_scope.cancel()


async def test_a_flush_is_one_gap(backend: RedisBackend, redis_server: RedisServer) -> None:
    """The connection goes on, and what it knew of the memory does not."""
    async with reading(backend, "room") as reader:
        position = reader.positions["room"]
        redis_server.ask("FLUSHALL")
        history = await backend.history("room", since=position)
        assert not history.complete
        reader.remove("room")
        await reader.add("room")
        assert (await backend.history("room", since=reader.positions["room"])).complete
        backend.wake()
        await until(lambda: at_rest(backend))
        await backend.publish("room", "one")
        assert await reader.data(1) == ["one"]


async def test_a_long_outage_fills_no_memory(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What callers have given up is not kept until the server is back."""
    monkeypatch.setattr(_link, "_CROWD", 8)

    async def listen(backend: RedisBackend, channel: str) -> None:
        try:
            await backend.watch([channel])
        finally:
            backend.unwatch([channel])

    with redis() as server:
        async with (
            started(server.url, prefix=prefix) as backend,
            reading(backend, "room") as reader,
        ):
            server.kill()
            await until(lambda: not backend.ready.is_set())
            with monkeypatch.context() as patch:  # a short time limit, and only while nothing answers
                for pipe in (backend._publishing, backend._asking):
                    patch.setattr(pipe, "timeout", 0.05)
                for turn in range(6):
                    calls: list[Any] = [backend.publish("room", "in vain") for _ in range(20)]
                    calls += [listen(backend, f"{turn} {number}") for number in range(20)]
                    found = await asyncio.gather(*calls, return_exceptions=True)
                    assert all(isinstance(error, BrokerError) for error in found), found
            assert len(cast(Any, backend._publishing)._queue) <= 40
            assert backend._listener is not None
            assert not backend._listener._changes
            server.start()
            await backend.ready.wait()
            await reader.until(1)  # the gap
            await backend.publish("room", "on")
            assert (await reader.data(2))[-1] == "on"
            assert (await backend.history("room", last=100)).events[0].id == reader.items[-1].id


async def test_a_watch_that_is_cancelled_leaves_nothing(
    backend: RedisBackend, redis_server: RedisServer
) -> None:
    redis_server.pause()
    try:
        task = asyncio.create_task(backend.watch(["room"]))
        await until(lambda: "room" in backend._feed._watched)
        task.cancel()
        await asyncio.wait([task])
        assert not backend._feed._watched["room"].waiters
    finally:
        redis_server.go_on()
    await backend.watch(["room"])


async def test_an_error_says_that_a_publish_may_have_been_kept(
    redis_server: RedisServer, prefix: str
) -> None:
    """Also if the server refuses the second try, and if the channels are stopped before the answer."""
    async with Proxy(redis_server.port) as proxy:
        backend = RedisBackend(proxy.url, prefix=prefix)
        await backend.start()
        await backend.publish("room", "one")
        proxy.lose = SCRIPTS["publish"].sha
        proxy.hold(SCRIPTS["publish"].sha)
        refused = asyncio.create_task(backend.publish("room", "two"))
        await proxy.held.wait()
        proxy.release()
        proxy.hold(SCRIPTS["publish"].sha)  # the second try
        await proxy.held.wait()
        assert proxy.lost == 1
        redis_server.ask("ACL", "SETUSER", "default", "-evalsha")
        proxy.release()
        try:
            with pytest.raises(BrokerError, match=r"Redis refuses: .*evalsha.* It may have been kept before"):
                await refused
        finally:
            redis_server.ask("ACL", "SETUSER", "default", "+evalsha")
        proxy.lose = SCRIPTS["publish"].sha
        stopped = asyncio.create_task(backend.publish("room", "three"))
        await until(lambda: proxy.lost == 2)
        await backend.stop()
        with pytest.raises(
            BrokerError, match=r"stopped before Redis answered\. It was sent, and may have been"
        ):
            await stopped
    async with started(redis_server.url, prefix=prefix) as backend:
        kept = (await backend.history("room", last=9)).events
    assert [event.data for event in kept] == ["one", "two", "three"]


class Proxy:
    """Between a client and a server: cuts the connection, and loses answers."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._to_clients: list[asyncio.StreamWriter] = []
        self.lose: bytes | None = None
        self.lost = 0
        self._held: bytes | None = None
        self.held = asyncio.Event()
        self._released = asyncio.Event()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.release()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def writers_to_clients(self) -> list[asyncio.StreamWriter]:
        return [writer for writer in self._to_clients if not writer.transport.is_closing()]

    def hold(self, command: bytes) -> None:
        """The next request with this in it goes on only when it is released."""
        self._held = command
        self.held.clear()
        self._released.clear()

    def release(self) -> None:
        self._released.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            there, onwards = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers |= {writer, onwards}
            self._to_clients.append(writer)
            answers = asyncio.create_task(self._answers(there, writer))
            self._tasks.add(answers)
            try:
                while data := await reader.read(65536):
                    if self._held is not None and self._held in data:
                        self._held = None
                        self.held.set()
                        await self._released.wait()
                    loses = self.lose is not None and self.lose in data
                    if loses:
                        self.lose = None
                        answers.cancel()
                        await asyncio.wait([answers])
                    onwards.write(data)
                    if loses:
                        await there.read(1)  # it was done
                        self.lost += 1
                        return
            finally:
                answers.cancel()
                writer.transport.abort()
                onwards.transport.abort()
        except OSError:
            writer.transport.abort()

    async def _answers(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await there.read(65536):
                writer.write(data)
        except OSError:
            pass
        writer.transport.abort()


async def test_a_lost_answer_neither_loses_nor_doubles(redis_server: RedisServer, prefix: str) -> None:
    async with (
        Proxy(redis_server.port) as proxy,
        started(proxy.url, prefix=prefix) as backend,
        started(redis_server.url, prefix=prefix) as other,
        reading(backend, "room", "elsewhere") as reader,
    ):
        ids: list[str] = []
        for number in range(10):
            proxy.lose = SCRIPTS["publish"].sha
            ids += await asyncio.gather(
                *(backend.publish("room", f"{number}{letter}") for letter in "abc"),
                backend.publish("elsewhere", f"{number}"),
            )
            await other.publish("room", "between")
            assert proxy.lost == number + 1
            await backend.ready.wait()
        await reader.until(50)
        room = [item for item in reader.items if item.channel == "room"]
        assert [item.data for item in room if isinstance(item, Event) and item.data != "between"] == [
            f"{n}{letter}" for n in range(10) for letter in "abc"
        ]
        assert [Id.parse(item.id).seq for item in room] == list(range(1, 41))
        # And each publish was told the id of its own event.
        told = dict(zip([f"{n}{c}" for n in range(10) for c in ("a", "b", "c", "")], ids, strict=True))
        for item in reader.items:
            assert isinstance(item, Event)
            if item.data != "between":
                assert told[str(item.data)] == item.id


@pytest.mark.parametrize("kept", [True, False])
async def test_a_lost_answer_about_an_event_that_is_trimmed(
    kept: bool, redis_server: RedisServer, prefix: str
) -> None:
    async with Proxy(redis_server.port) as proxy, started(proxy.url, prefix=prefix) as backend:
        await backend.publish("room", "before")
        proxy.lose = SCRIPTS["publish"].sha
        proxy.hold(b"SCRIPT")  # of the next connection
        async with anyio.create_task_group() as group:
            answer: list[str] = []

            async def publish() -> None:
                answer.append(await backend.publish("room", "one"))

            group.start_soon(publish)
            await proxy.held.wait()
            async with started(redis_server.url, prefix=prefix) as other:
                following = await other.publish("room", "two")
            redis_server.ask("XTRIM", f"{{{prefix}:room}}", "MAXLEN", "1" if kept else "0")
            proxy.release()
        history = await backend.history("room", since=answer[0])
        if kept:
            assert history.complete
            assert [event.id for event in history.events] == [following]
        else:
            assert answer == [following]  # nothing is kept, and nothing comes after it
        assert Id.parse(history.position).seq == 3


async def test_an_answer_that_is_lost_with_the_scripts(redis_server: RedisServer, prefix: str) -> None:
    """What was refused cannot be sent again in its place, so it fails."""
    async with Proxy(redis_server.port) as proxy, started(proxy.url, prefix=prefix) as backend:
        connection = cast(Any, backend._publishing).line.connection
        assert connection is not None
        read, count = connection.read_response, 0

        async def read_response() -> Any:
            nonlocal count
            count += 1
            if count == 2:
                raise ConnectionResetError("planted")
            return await read()

        connection.read_response = read_response
        redis_server.ask("SCRIPT", "FLUSH")
        results = await asyncio.gather(
            *(backend.publish("room", letter) for letter in "ab"), return_exceptions=True
        )
        assert isinstance(results[0], BrokerError)
        assert "scripts were lost" in str(results[0])
        assert isinstance(results[1], str)
        assert [event.data for event in (await backend.history("room", last=9)).events] == ["b"]


async def test_what_waits_while_the_broker_is_away(prefix: str) -> None:
    with redis("appendonly yes", "appendfsync always") as server:
        async with (
            started(server.url, prefix=prefix, publish_timeout=0.3) as hasty,
            started(server.url, prefix=prefix, publish_timeout=None) as patient,
            reading(patient, "room") as reader,
        ):
            server.kill()
            words = (
                r"cannot publish to 'room': no answer from Redis at 127\.0\.0\.1:\d+ within 0\.3 seconds: \S"
            )
            with pytest.raises(BrokerError, match=words):
                await hasty.publish("room", "hasty")
            with pytest.raises(BrokerError, match="cannot read the history of 'room'"):
                await hasty.history("room")
            with pytest.raises(BrokerError, match="cannot list the members of 'room'"):
                await hasty.members("room")
            assert not hasty.ready.is_set()
            async with anyio.create_task_group() as group:
                for number in range(5):
                    group.start_soon(patient.publish, "room", f"{number}")
                    await anyio.lowlevel.checkpoint()
                with anyio.move_on_after(0.1) as scope:
                    await patient.publish("room", "cancelled")
                assert scope.cancelled_caught
                await anyio.to_thread.run_sync(server.start)
            await patient.ready.wait()
            await hasty.ready.wait()
            await patient.publish("room", "last")
            assert await reader.data(6) == [*map(str, range(5)), "last"]


@pytest.mark.limit(20)
@pytest.mark.parametrize("known", [True, False], ids=["known to be away", "silent"])
async def test_stopping_without_a_broker(known: bool, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for nothing if there is nobody to be told who has left, and not for long if nobody answers."""
    monkeypatch.setattr(_roster, "_PATIENCE", 30.0 if known else 0.2)
    with redis() as server:
        async with Channels(server.url, prefix=prefix, publish_timeout=None) as channels:
            await channels._hub.roster.appear([channels._hub.roster.member("room", "1")])
            if known:
                server.kill()
                while channels.ready.is_set():  # noqa: ASYNC110 - the end of readiness has no event
                    await anyio.sleep(0.01)
            else:
                server.pause()


async def test_each_waits_for_its_own_time(prefix: str) -> None:
    gave_up: list[tuple[str, float]] = []

    async def publish(backend: RedisBackend, text: str) -> None:
        began = anyio.current_time()
        with pytest.raises(BrokerError, match=r"within 0\.4 seconds"):
            await backend.publish("room", text)
        gave_up.append((text, anyio.current_time() - began))

    with redis() as server:
        async with started(server.url, prefix=prefix, publish_timeout=0.4) as backend:
            server.kill()
            async with anyio.create_task_group() as group:
                group.start_soon(publish, backend, "first")
                await anyio.sleep(0.2)
                group.start_soon(publish, backend, "second")
            assert [text for text, _ in gave_up] == ["first", "second"]
            assert all(took >= 0.39 for _, took in gave_up)


async def test_a_limit_that_is_moved() -> None:
    over: list[float] = []
    limit = _link.Limit(lambda: over.append(anyio.current_time()))
    began = anyio.current_time()
    limit.set(3600.0)
    limit.set(0.05)  # sooner than its timer
    limit.set(0.1)  # later
    await until(lambda: len(over) == 1)
    assert over[0] - began >= 0.09
    limit.set(0.01)
    limit.lift()
    await anyio.sleep(0.05)
    limit.set(3600.0)
    limit.stop()
    assert len(over) == 1
    assert limit._timer is not None
    assert limit._timer.cancelled()


async def test_a_broker_that_stands_still(
    prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_link, "PATIENCE", 2.0)  # also for connecting, on a machine with much to do
    monkeypatch.setattr(_link, "IDLE", 0.1)
    with redis() as server:
        async with started(server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
            server.pause()
            backend._publishing.timeout = 0.2
            with pytest.raises(BrokerError, match="It was sent, and may have been kept"):
                await backend.publish("room", "one")
            backend._publishing.timeout = 5.0
            await until(lambda: not backend.ready.is_set())
            server.go_on()
            await backend.ready.wait()
            await backend.publish("room", "two")
            await reader.until(2)
            assert await reader.data(2) == ["one", "two"]
    assert len([record for record in caplog.records if "is away" in record.getMessage()]) == 1


async def test_answers_that_nobody_waits_for(prefix: str) -> None:
    with redis() as server:
        server.ask("SET", f"{{{prefix}:wrong}}", "no stream")
        async with started(server.url, prefix=prefix) as backend, reading(backend, "room") as reader:
            server.pause()
            async with anyio.create_task_group() as group:
                group.start_soon(backend.publish, "room", "one")
                group.start_soon(backend.publish, "wrong", "two")
                await until(lambda: len(cast(Any, backend._publishing).sent) == 2)
                group.cancel_scope.cancel()
            server.go_on()
            await backend.publish("room", "three")
            assert await reader.data(2) == ["one", "three"]
        assert server.ask("GET", f"{{{prefix}:wrong}}") == b"$9\r\nno stream\r\n"


async def restarts(server: RedisServer, prefix: str, cycles: int, caplog: pytest.LogCaptureFixture) -> None:
    """Kill and restart while two backends publish steadily: all that is kept comes, once, in order."""
    async with (
        started(server.url, prefix=prefix, publish_timeout=None) as one,
        started(server.url, prefix=prefix, publish_timeout=None) as two,
        reading(one, "room", "quiet") as reader,
        reading(two, "room") as second,
    ):
        kept: list[str] = []
        stopped = False

        async def publish(backend: RedisBackend, name: str) -> None:
            number = 0
            while not stopped:
                kept.append(await backend.publish("room", f"{name}{number}"))
                number += 1

        async with anyio.create_task_group() as group:
            group.start_soon(publish, one, "a")
            group.start_soon(publish, two, "b")
            for _ in range(cycles):
                begun = len(kept)
                await until(lambda begun=begun: len(kept) >= begun + 50)  # type: ignore[misc]
                server.kill()
                await until(lambda: not one.ready.is_set() and not two.ready.is_set())
                await anyio.to_thread.run_sync(server.start)
                await one.ready.wait()
                await two.ready.wait()
            stopped = True
        for got in (reader, second):
            items = await got.until(len(kept))
            assert not [item for item in items if isinstance(item, Gap)]
            assert [item.id for item in items] == sorted(kept, key=one.order_of)
            for name in "ab":
                numbers = [
                    int(str(item.data)[1:])
                    for item in items
                    if isinstance(item, Event) and str(item.data)[0] == name
                ]
                assert numbers == list(range(len(numbers)))
    away = [record for record in caplog.records if "is away" in record.getMessage()]
    back = [record for record in caplog.records if "is back after" in record.getMessage()]
    assert len(away) == len(back) == 2 * cycles


async def test_restarts(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    with redis("appendonly yes", "appendfsync always") as server:
        await restarts(server, prefix, 2, caplog)


def connections(server: RedisServer) -> int:
    """How many a server has, without that on which it is asked."""
    lines = server.ask("CLIENT", "LIST").decode().splitlines()
    asking = ("cmd=client|list ", "cmd=client ")  # the latter before Redis 7
    return sum(line.startswith("id=") and not any(each in line for each in asking) for line in lines)


async def test_how_many_connections_there_are() -> None:
    """One to publish; one more for history and one for pushes when somebody listens, to whatever channels."""
    with redis() as server:
        async with Channels(server.url) as channels, AsyncExitStack() as stack:
            assert connections(server) == 1
            await channels.publish("room", "x")
            assert connections(server) == 1
            for number in range(50):
                await stack.enter_async_context(channels.subscribe(f"{number}", presence=True, history=1))
                await channels.publish(f"{number}", "x")
                assert connections(server) == 3
            await stack.aclose()
            assert connections(server) == 3  # they stay for whoever comes next
        await until(lambda: connections(server) == 0)


async def test_one_connection_takes_the_others_with_it(redis_server: RedisServer, prefix: str) -> None:
    """Else there would be two outages, or a reader that waits where nothing comes any more."""
    async with (
        Proxy(redis_server.port) as proxy,
        started(proxy.url, prefix=prefix) as backend,
        reading(backend, "room") as reader,
    ):
        lines = cast(Any, backend._servers).lines
        before = [line.connection for line in lines]
        proxy.lose = SCRIPTS["publish"].sha
        await backend.publish("room", "one")
        await backend.ready.wait()
        assert not any(line.connection in before for line in lines)
        assert await reader.data(1) == ["one"]


async def test_an_outage_that_is_seen_while_nothing_is_read(
    redis_server: RedisServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Proxy(redis_server.port) as proxy, started(proxy.url, prefix=prefix) as backend:
        await backend.watch(["room"])
        positions = {"room": (await backend.history("room")).position}
        await backend.publish("room", "one")
        (event,) = await backend.read(positions)
        positions["room"] = event.id
        proxy.cut()
        await backend.publish("room", "two")
        (event,) = await backend.read(positions)
        assert isinstance(event, Event)
        assert event.data == "two"
    assert len([record for record in caplog.records if "is away" in record.getMessage()]) == 1
    assert len([record for record in caplog.records if "is back" in record.getMessage()]) == 1


async def test_a_read_that_is_cancelled_in_an_outage(prefix: str) -> None:
    with redis() as server:
        async with started(server.url, prefix=prefix) as backend:
            async with reading(backend, "room"):
                server.kill()
                await until(lambda: not backend.ready.is_set())
            await anyio.to_thread.run_sync(server.start)
            await backend.ready.wait()  # though nobody reads


async def test_idle_connections_are_tried(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_link, "IDLE", 0.01)
    async with Proxy(redis_server.port) as proxy, started(proxy.url, prefix=prefix) as backend:
        before = backend.ready
        proxy.cut()
        await until(lambda: backend.ready is not before)
        await backend.ready.wait()


async def test_stopping_with_work_to_do(redis_server: RedisServer, prefix: str) -> None:
    backend = RedisBackend(redis_server.url, prefix=prefix)
    for _ in range(2):  # it can be started again
        await backend.start()
        async with anyio.create_task_group() as group:

            async def publish() -> None:
                with pytest.raises(BrokerError, match="stopped before Redis answered"):
                    await backend.publish("room", "one")

            group.start_soon(publish)
            await anyio.lowlevel.checkpoint()
            await backend.stop()
        await backend.stop()
        with pytest.raises(BrokerError, match="cannot publish to 'room': the channels were stopped"):
            await backend.publish("room", "one")
    await backend.start()
    assert await backend.members("room") == []
    await backend.stop()


# Presence


async def test_each_leave_is_told_once(redis_server: RedisServer, prefix: str) -> None:
    companion = presence_of("room")
    async with AsyncExitStack() as stack:
        backends = [
            await stack.enter_async_context(started(redis_server.url, prefix=prefix)) for _ in range(3)
        ]
        begin = (await backends[0].history(companion)).position
        crashed = [Member("room", f"ünit {n}", json.dumps({"n": n, "text": "é\n"})) for n in range(3)]
        alive = Member("room", "alive", "null")
        await backends[0].appear(crashed, 60)
        await backends[1].appear([alive, Member("elsewhere", "alive", "1", "ada")], 60)
        await backends[1].appear([alive], 60)
        assert await backends[2].members("room") == [*crashed, alive]
        for member in crashed:
            redis_server.ask("ZADD", f"{{{prefix}:%00presence:room}}:deadlines", "1", member.id)
        while len(await backends[2].members("room")) > 1:
            await asyncio.gather(*(backend.reap(["room", "elsewhere"]) for backend in backends))
        await asyncio.gather(*(backend.vanish([alive, *crashed]) for backend in backends))
        history = await backends[1].history(companion, since=begin)
        told = [json.loads(event.data) for event in history.events]
        assert [(event["type"], event["id"]) for event in told] == [
            *(("join", member.id) for member in [*crashed, alive]),
            *(("leave", member.id) for member in [*crashed, alive]),
        ]
        assert [event["info"] for event in told[4:7]] == [member.json() for member in crashed]
        assert [member.info for member in await backends[1].members("elsewhere")] == ["1"]
    for name in ("", ":state", ":members", ":deadlines", ":keys"):
        ttl = int(redis_server.ask("PTTL", f"{{{prefix}:%00presence:elsewhere}}{name}")[1:])
        assert 60_000 < ttl <= 86_460_000


async def test_many_join_and_leave_in_few_requests(redis_server: RedisServer, prefix: str) -> None:
    """What comes while one is under way goes with the next, however many there are."""
    entered: list[Any] = []
    async with Proxy(redis_server.port) as proxy, Channels(proxy.url, prefix=prefix) as channels:
        roster = channels._hub.roster

        async def live() -> None:
            async with channels.join("room", await Server().accepted(), member=1) as membership:
                entered.append(membership)
                await anyio.sleep_forever()

        async with anyio.create_task_group() as group:
            redis_server.ask("CONFIG", "RESETSTAT")
            proxy.hold(SCRIPTS["presence"].sha)
            for _ in range(300):
                group.start_soon(live)
            await until(lambda: len(roster.members) == 300)
            proxy.release()
            await until(lambda: len(entered) == 300)
            proxy.hold(SCRIPTS["presence"].sha)
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await until(lambda: not roster.members)
                proxy.release()
        # Each asks once for those whose time is over.
        assert count_of(redis_server, "cmdstat_zrangebyscore", "commandstats") <= 6
        assert await channels.members("room") == []


async def test_counting_lists_nobody(backend: RedisBackend, redis_server: RedisServer, prefix: str) -> None:
    await backend.appear([Member("room", f"{n}", "1", f"{n % 10}") for n in range(100)], 60)
    redis_server.ask("CONFIG", "RESETSTAT")
    assert await backend.count("room") == 100
    assert await backend.count("room", keys=True) == 10
    statistics = redis_server.ask("INFO", "commandstats").decode()
    assert "cmdstat_hlen" in statistics
    assert not re.search(r"cmdstat_(hgetall|hvals|hscan|zrange:)", statistics)


@pytest.mark.parametrize("seconds", [0.1, None])
async def test_who_leaves_while_the_broker_is_away(
    seconds: float | None, redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait for a moment only. That they have left is told when the broker is back."""
    monkeypatch.setattr(_link, "IDLE", 0.02)  # an idle connection notices soon that it is cut
    async with (
        Proxy(redis_server.port) as proxy,
        Channels(proxy.url, prefix=prefix, publish_timeout=None, presence_ttl=3600) as channels,
        started(redis_server.url, prefix=prefix) as other,
    ):
        roster, backend = channels._hub.roster, cast(RedisBackend, channels.backend)
        members = [roster.member("room", f"{n}") for n in range(100)]
        await roster.appear(members)
        with monkeypatch.context() as patch:
            patch.setattr(_roster, "_PATIENCE", 0.01)
            patch.setattr(backend._publishing, "timeout", seconds or backend.timeout)
            proxy.hold(b"ROLE")  # of the next connection
            proxy.cut()
            await until(lambda: not channels.ready.is_set())
            async with anyio.create_task_group() as group:
                for member in members:
                    group.start_soon(roster.vanish, [member])
            if seconds is not None:
                await until(lambda: roster._failures)
            assert await other.members("room") == members
        proxy.release()
        with anyio.fail_after(20):
            while await other.members("room"):  # noqa: ASYNC110 - until it is told
                await anyio.sleep(0.01)


async def test_who_was_leaving_when_the_process_stopped(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(members: Any) -> None:
        raise BrokerError("planted")

    monkeypatch.setattr(_roster, "_RETRY", (3600.0, 3600.0))
    async with Channels(redis_server.url, prefix=prefix) as other:
        async with Channels(redis_server.url, prefix=prefix) as channels:
            roster = channels._hub.roster
            leaving, staying = (roster.member("room", f"{n}") for n in range(2))
            await roster.appear([leaving, staying])
            with monkeypatch.context() as patch:
                patch.setattr(channels.backend, "vanish", refuse)
                await roster.vanish([leaving])
            assert await other.members("room") == [leaving, staying]
        assert await other.members("room") == []


async def test_many_whose_time_is_over(redis_server: RedisServer, prefix: str) -> None:
    """More than one script removes."""
    async with started(redis_server.url, prefix=prefix) as backend:
        begin = (await backend.history(presence_of("room"))).position
        await backend.appear([Member("room", f"{n}", "1") for n in range(1_200)], 60)
        deadlines = f"{{{prefix}:%00presence:room}}:deadlines"
        redis_server.ask("ZUNIONSTORE", deadlines, "1", deadlines, "WEIGHTS", "0")  # all in the past
        assert await backend.members("room") == []
        assert Id.parse((await backend.history(presence_of("room"))).position).seq == 2_400
        assert Id.parse(begin).seq == 0
        # Who joins then is sent once, however many scripts it takes.
        await backend.appear([Member("room", f"{n}", "1") for n in range(700)], 0.1)
        await anyio.sleep(0.2)
        redis_server.ask("CONFIG", "RESETSTAT")
        await backend.appear([Member("room", "late", "1")], 60)
        assert count_of(redis_server, "cmdstat_zadd", "commandstats") == 1
        assert await backend.members("room") == [Member("room", "late", "1")]


async def test_members_with_large_infos(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    """20 MB of members take many small commands, on a server that ends connections with large answers."""
    caplog.set_level(logging.WARNING, "lilya.websockets")
    members = [Member("room", f"{n}", json.dumps("x" * 100_000)) for n in range(200)]
    with redis("client-output-buffer-limit normal 4mb 0 0") as server:
        async with started(server.url, prefix=prefix) as backend:

            async def scripts(what: Any) -> int:
                server.ask("CONFIG", "RESETSTAT")
                await what
                return count_of(server, "cmdstat_evalsha", "commandstats")

            assert await scripts(backend.appear(members, 60)) >= 20_000_000 / 524_288
            await backend.appear(members, 60)  # they are renewed
            found: list[Member] = []

            async def listing() -> None:
                found.extend(await backend.members("room"))

            assert await scripts(listing()) >= 20
            assert found == members
            assert await scripts(backend.vanish(members[:100])) >= 10_000_000 / 524_288
            deadlines = f"{{{prefix}:%00presence:room}}:deadlines"
            server.ask("ZUNIONSTORE", deadlines, "1", deadlines, "WEIGHTS", "0")  # the others have expired
            assert await scripts(backend.reap(["room"])) >= 20
            assert await backend.members("room") == []
            assert Id.parse((await backend.history(presence_of("room"))).position).seq == 400
    assert caplog.messages == []


async def test_members_that_a_clock_has_stored_that_was_ahead(redis_server: RedisServer, prefix: str) -> None:
    """They expire after the longest time that a process has asked for, and not decades later."""
    crashed = [Member("room", f"{n}", "null") for n in range(1_200)]
    deadlines = f"{{{prefix}:%00presence:room}}:deadlines"

    def times() -> list[int]:
        return [int(part) for part in redis_server.ask(*asked).split(b"\r\n")[4::4]]

    asked = "ZRANGE", deadlines, "0", "-1", "WITHSCORES"
    async with started(redis_server.url, prefix=prefix) as backend:
        await backend.appear(crashed, 1)
        patient = Member("room", "patient", "null")
        await backend.appear([patient], 600)
        before = times()
        redis_server.ask("ZUNIONSTORE", deadlines, "1", deadlines, "WEIGHTS", "2")  # in decades
        assert min(times()) > max(before)
        # A server without free memory cannot correct the times. Everything else goes on.
        redis_server.ask("CONFIG", "SET", "maxmemory", "1")
        try:
            assert await backend.count("room") == 1_201
            await backend.vanish(crashed[:1])
            assert len(await backend.members("room")) == 1_200
        finally:
            redis_server.ask("CONFIG", "SET", "maxmemory", "0")
        await backend.reap(["room"])
        now = int(redis_server.ask("TIME").split(b"\r\n")[2]) * 1000
        assert max(times()) < now + 602_000
        # Nobody's time is cut short.
        await backend.appear([patient], 600)
        await backend.appear([Member("room", "impatient", "null")], 1)
        await backend.reap(["room"])
        assert max(times()) > now + 598_000
        # An existing state gets no field that would keep it for ever.
        redis_server.ask("DEL", f"{{{prefix}:%00presence:room}}:state")
        await backend.appear([patient], 600)
        assert redis_server.ask("EXISTS", f"{{{prefix}:%00presence:room}}:state") == b":0\r\n"


async def test_members_of_processes_with_a_longer_ttl(redis_server: RedisServer, prefix: str) -> None:
    """They keep their time, also if the state with the longest `ttl` is new, or of an older version."""
    key = f"{{{prefix}:%00presence:room}}"
    async with started(redis_server.url, prefix=prefix) as backend:

        async def left(patient: Member) -> int:
            """The seconds that a member has left after others have joined, and have removed the expired."""
            await backend.appear([Member("room", uuid4().hex, "null")], 1)
            await backend.reap(["room"])
            now = int(redis_server.ask("TIME").split(b"\r\n")[2])
            return int(redis_server.ask("ZSCORE", f"{key}:deadlines", patient.id).split()[1]) // 1000 - now

        patient = Member("room", "patient", "null")
        for lose in (("DEL", f"{key}:state"), ("HDEL", f"{key}:state", "ttl")):
            await backend.appear([patient], 600)
            redis_server.ask(*lose)
            assert await left(patient) > 590
        # A renewal stores a longer one, because the members of its process had less time left.
        redis_server.ask("HSET", f"{key}:state", "ttl", "400000")
        await backend.appear([patient], 600)
        assert redis_server.ask("HGET", f"{key}:state", "ttl") == b"$6\r\n600000\r\n"
        assert await left(patient) > 590


async def test_listing_members_during_a_failover(prefix: str) -> None:
    """The cursor of the server before is of no use to the one after."""
    members = [Member("room", f"{n}", json.dumps(f"{n} {'x' * 500}")) for n in range(2_000)]
    with redis() as server:
        async with Proxy(server.port) as proxy, started(proxy.url, prefix=prefix) as backend:
            await backend.appear(members, 60)
            server.ask("SAVE")
            listed: list[Member] = []

            async def listing() -> None:
                listed.extend(await backend.members("room"))

            async with anyio.create_task_group() as group:
                sha = SCRIPTS["presence"].sha
                proxy.hold(sha)
                group.start_soon(listing)
                await proxy.held.wait()
                proxy.release()
                proxy.hold(sha)  # the second page
                await proxy.held.wait()
                server.kill()
                await anyio.to_thread.run_sync(server.start)
                proxy.release()
            assert listed == members


async def test_a_part_of_the_members_that_is_refused(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are stored all the same. In an outage, they are not even tried."""
    monkeypatch.setattr(_redis, "_INFOS", 1)
    monkeypatch.setattr(_link, "IDLE", 0.02)  # an idle connection notices soon that it is cut
    redis_server.ask("SET", f"{{{prefix}:%00presence:bad}}:members", "of somebody else")
    members = [Member(name, name, "1") for name in ("bad", "good")]
    async with (
        Proxy(redis_server.port) as proxy,
        started(proxy.url, prefix=prefix, publish_timeout=1.0) as backend,
    ):
        with pytest.raises(BrokerError, match=r"add members to 'bad': Redis refuses: .*wrong kind"):
            await backend.appear(members, 60)
        assert await backend.members("good") == members[1:]
        monkeypatch.setattr(backend._publishing, "timeout", 0.01)
        proxy.hold(b"ROLE")  # of the next connection
        proxy.cut()
        await until(lambda: not backend.ready.is_set())
        tried: list[str] = []
        about = backend._about_members

        async def seen(action: str, channel: str, *arguments: Any, **options: Any) -> Any:
            tried.append(channel)
            return await about(action, channel, *arguments, **options)

        monkeypatch.setattr(backend, "_about_members", seen)
        with pytest.raises(BrokerError, match="remove members of 'good': no answer"):
            await backend.vanish(members[::-1])
        assert tried == ["good"]


# What the figure above stands on: the fixture ends what it starts


def test_a_server_is_gone_with_its_block() -> None:
    with redis() as server:
        process = server.process
        assert process is not None
        folder = Path(server.folder)
        assert folder.exists()
    assert process.poll() is not None
    assert not folder.exists()
    assert server.ask("PING") == b""


def test_a_server_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.lilya_websockets.redis_server.LIMIT", 0.2)
    with pytest.raises(RuntimeError, match=re.escape("no Redis after 0.2 seconds")):
        RedisServer("no-such-option 1").__enter__()
