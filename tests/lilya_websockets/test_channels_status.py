"""How channels are doing, for operators: members, lag and memory, and a process that stands still."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

import anyio
import anyio.to_thread
import pytest

from lilya.websockets.__main__ import main
from lilya.websockets.channels import BrokerError, Channels
from lilya.websockets.channels._memory import MemoryBackend
from lilya.websockets.channels._status import QUESTIONS, Answers, answer_to, question
from lilya.websockets.channels.backends import Backend, Status

from .redis_cluster import NO_CLUSTER, RedisCluster, can_cluster
from .redis_server import NO_SERVER, RedisServer, redis_binary

pytestmark = pytest.mark.anyio

on_redis = pytest.mark.skipif(redis_binary() is None, reason=NO_SERVER)
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

Make = Callable[..., Channels]

# Seconds in which a process must answer that is there: more than any needs on a machine that is busy.
PLENTY = 30.0


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await anyio.sleep(0.001)


async def status_of(channels: Channels, channel: str, within: float = PLENTY) -> Status:
    (status,) = await channels.backend.status([channel], within)
    assert status.channel == channel
    return status


# On every backend


async def test_a_channel_without_anything(make_channels: Make) -> None:
    async with make_channels() as channels:
        status = await status_of(channels, "a")
        assert (status.members, status.events, status.newest, status.age) == (0, 0, None, None)
        assert (status.bytes, status.listeners, status.lag, status.silent, status.behind) == (
            0,
            0,
            None,
            0,
            0,
        )
        assert await channels.backend.status([], PLENTY) == []


async def test_a_channel_with_everything(make_channels: Make) -> None:
    async with make_channels() as channels, channels.subscribe("a", presence=True) as subscription:
        ids = [await channels.publish("a", data) for data in ("x" * 500, b"y" * 500)]
        members = [channels._hub.roster.member("a", f"{n}") for n in range(3)]
        await channels._hub.roster.appear(members)
        await channels.publish("b", "1")
        await until(lambda: subscription.positions["a"] == ids[-1] or subscription.pending)
        status, other = await channels.backend.status(["a", "b"], PLENTY)
        assert (status.members, status.events, status.newest, status.listeners) == (3, 2, ids[-1], 1)
        assert status.age is not None
        assert 0 <= status.age < 60
        assert status.bytes is not None
        assert status.bytes >= 1000
        assert len(status.lags) == 1
        assert status.lag == max(status.lags.values()) >= 0
        assert (status.silent, status.behind) == (0, 0)
        assert (other.members, other.events, other.listeners, other.lag) == (0, 1, 0, None)
        await channels._hub.roster.vanish(members)
        assert (await status_of(channels, "a")).members == 0


async def test_a_backend_that_only_does_what_it_must() -> None:
    class Plain(MemoryBackend):
        status = Backend.status

    async with Channels(Plain(history=1, max_age=None)) as channels:
        await channels._hub.roster.appear([channels._hub.roster.member("a", "1")])
        assert await channels.backend.status(["a", "b"], PLENTY) == [Status("a", 1), Status("b", 0)]


async def test_events_in_memory_that_were_not_given() -> None:
    backend = MemoryBackend(history=9, max_age=None)
    await backend.start()
    await backend.watch(["a"])
    first = await backend.publish("a", "1")
    await backend.read({"a": first})  # it is given this mapping at each call, and knows it from then on
    for number in (2, 3):
        await backend.publish("a", f"{number}")
    (status,) = await backend.status(["a"], PLENTY)
    assert (status.behind, status.listeners, status.lag) == (2, 1, 0.0)


# Processes


LISTENER = """
import asyncio, sys
from lilya.websockets.channels import Channels

async def main(url, prefix, names):
    async with Channels(url, prefix=prefix) as channels, channels.subscribe(*names) as subscription:
        print("ready", flush=True)
        async for event in subscription:
            if event.data == "block":
                sys.stdin.readline()  # the loop stands still, and the process with it
            elif event.data == "end":
                return

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
"""


class Process:
    """Another process that listens to channels."""

    def __init__(self, url: str, prefix: str, *names: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", LISTENER, url, prefix, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def ready(self) -> None:
        assert self.popen.stdout is not None
        assert await anyio.to_thread.run_sync(self.popen.stdout.readline) == "ready\n"


@contextmanager
def listening(url: str, prefix: str, *names: str) -> Iterator[Process]:
    process = Process(url, prefix, *names)
    with process.popen:
        try:
            yield process
        finally:
            process.popen.kill()


@on_redis
@on_asyncio
async def test_a_process_that_stands_still(redis_server: RedisServer, prefix: str) -> None:
    """It is seen in each of its channels, and in no other; and not any more when it goes on."""
    url = redis_server.url
    async with Channels(url, prefix=prefix) as channels, AsyncExitStack() as stack:
        still = stack.enter_context(listening(url, prefix, "a", "b"))
        well = stack.enter_context(listening(url, prefix, "b", "c"))
        for process in (still, well):
            await process.ready()
        found = await channels.backend.status(["a", "b", "c"], PLENTY)
        assert [(status.listeners, len(status.lags), status.silent) for status in found] == [
            (1, 1, 0),
            (2, 2, 0),
            (1, 1, 0),
        ]
        names = {name.split(":")[1] for name in found[1].lags}
        assert names == {str(still.popen.pid), str(well.popen.pid)}
        os.kill(still.popen.pid, signal.SIGSTOP)
        try:
            await channels.publish("a", "1")
            # As long as it takes the others to answer: on a busy machine, that may be a while.
            within = 0.5
            while True:
                stalled = await channels.backend.status(["a", "b", "c"], within)
                if stalled[2].lags:
                    break
                within *= 2
            assert [status.silent for status in stalled] == [1, 1, 0]
            assert stalled[0].lag is None
            assert [name.split(":")[1] for name in stalled[1].lags] == [str(well.popen.pid)]
        finally:
            os.kill(still.popen.pid, signal.SIGCONT)
        found = await channels.backend.status(["a", "b", "c"], PLENTY)
        assert [status.silent for status in found] == [0, 0, 0]


@on_redis
@on_asyncio
async def test_a_process_whose_loop_is_blocked(redis_server: RedisServer, prefix: str) -> None:
    """The connection is there, and nothing is read from it."""
    url = redis_server.url
    async with Channels(url, prefix=prefix) as channels:
        with listening(url, prefix, "a") as process:
            await process.ready()
            await channels.publish("a", "block")
            status = await status_of(channels, "a", within=0.2)
            while not status.silent:  # it had not come to the event yet
                status = await status_of(channels, "a", within=0.2)
            assert (status.listeners, status.lags) == (1, {})
            answers: list[Status] = []

            async def look() -> None:
                answers.append(await status_of(channels, "a"))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(look)
                await anyio.sleep(0.3)  # the lag that there is at least
                assert answers == []
                assert process.popen.stdin is not None
                process.popen.stdin.write("go on\n")
                process.popen.stdin.flush()
            assert answers[0].lag is not None
            assert answers[0].lag >= 0.2
            assert answers[0].silent == 0


@on_redis
@on_asyncio
async def test_an_answer_comes_after_what_was_published_before(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the time that it takes is how far the process is behind, and not how fast the broker is."""
    url = redis_server.url
    async with Channels(url, prefix=prefix) as one, Channels(url, prefix=prefix) as other:
        async with one.subscribe("a", max_messages=10**6, max_bytes=10**9):
            await one.publish("a", "0")
            gate = anyio.Event()
            turn = one._hub._turn

            async def slow() -> None:
                await turn()
                await gate.wait()

            monkeypatch.setattr(one._hub, "_turn", slow)
            for number in range(1, 20):
                last = await other.publish("a", f"{number}")
            status = await status_of(other, "a", within=0.2)
            assert (status.silent, status.lags) == (1, {})
            gate.set()
            status = await status_of(other, "a")
            assert (status.silent, status.behind) == (0, 0)
            assert one._hub._positions["a"] == last


@on_redis
@on_asyncio
async def test_a_channel_that_cannot_be_read(redis_server: RedisServer, prefix: str) -> None:
    """The process answers, and says where it is: before what it cannot get."""
    url = redis_server.url
    async with Channels(url, prefix=prefix) as channels, channels.subscribe("a") as subscription:
        await channels.publish("a", "1")
        await anext(aiter(subscription))
        key = f"{{{prefix}:a}}"
        # Kept, and not pushed.
        redis_server.ask("HINCRBY", f"{key}:state", "seq", "2")
        status = await status_of(channels, "a")
        assert (status.behind, status.silent) == (2, 0)


@on_redis
@on_asyncio
async def test_nothing_is_changed(redis_server: RedisServer, prefix: str) -> None:
    """Not even members are removed whose time is over."""
    url = redis_server.url

    def keys() -> dict[bytes, bytes]:
        names = sorted(redis_server.ask("KEYS", f"{{{prefix}:*").split(b"\r\n")[2::2])
        return {name: redis_server.ask("DUMP", name) for name in names}

    async with Channels(url, prefix=prefix) as channels:
        await channels.publish("a", "1", idempotency_key="x")
        # One whose time is over, and one whose time is not.
        await channels.backend.appear([channels._hub.roster.member("a", "1")], 0.001)
        late = channels._hub.roster.member("a", "2")
        await channels.backend.appear([late], 600)
        await anyio.sleep(0.01)
        deadlines = f"{{{prefix}:%00presence:a}}:deadlines"
        redis_server.ask("ZADD", deadlines, "1", "gone")
        await channels.backend.history("a")  # whoever asks anything makes the key that tells of the memory
        before = keys()
        assert len(before) >= 7
        status = await status_of(channels, "a")
        assert status.members == 1
        assert keys() == before
        async with channels.subscribe("a"):
            assert (await status_of(channels, "a")).lag is not None
        assert keys() == before


@on_redis
@on_asyncio
async def test_somebody_elses_keys(redis_server: RedisServer, prefix: str) -> None:
    async with Channels(redis_server.url, prefix=prefix) as channels:
        redis_server.ask("SET", f"{{{prefix}:a}}", "no stream")
        redis_server.ask("SET", f"{{{prefix}:a}}:state", "no hash")
        status = await status_of(channels, "a")
        assert (status.events, status.newest, status.listeners) == (None, None, 0)
        assert status.bytes


@on_redis
@on_asyncio
async def test_many_channels(redis_server: RedisServer, prefix: str) -> None:
    """More than are looked at together, or asked about in one question."""
    names = [f"room {number}" for number in range(600)]
    async with Channels(redis_server.url, prefix=prefix) as channels, channels.subscribe(*names):
        for name in names[::100]:
            await channels.publish(name, "1")
        found = await channels.backend.status(names, PLENTY)
        assert [status.channel for status in found] == names
        assert all(len(status.lags) == 1 for status in found)
        assert [status.events for status in found[::100]] == [1] * 6


@on_redis
@on_asyncio
async def test_a_question_that_cannot_be_asked(prefix: str) -> None:
    """Without the right to push, nobody is asked; nothing is left behind."""
    with RedisServer("user app on >word ~* &* +@all") as server:
        url = f"redis://app:word@127.0.0.1:{server.port}"
        async with Channels(url, prefix=prefix) as channels, channels.subscribe("a"):
            server.ask("ACL", "SETUSER", "app", "-publish")
            with pytest.raises(BrokerError, match="cannot ask the processes: Redis refuses"):
                await status_of(channels, "a")
            feed = channels.backend._feed  # type: ignore[attr-defined]
            assert set(feed._hearers) == {QUESTIONS}
            assert set(feed._watched) == {"a", QUESTIONS}


@on_redis
@on_asyncio
async def test_an_answer_that_cannot_be_given(
    redis_server: RedisServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer("user app on >word ~* &* +@all") as server:
        url = f"redis://app:word@127.0.0.1:{server.port}"
        async with (
            Channels(url, prefix=prefix) as one,
            Channels(server.url, prefix=prefix) as other,
            one.subscribe("a"),
        ):
            server.ask("ACL", "SETUSER", "app", "-publish")
            status = await status_of(other, "a", within=0.2)
            assert (status.listeners, status.silent) == (1, 1)
            await until(lambda: "could not say how far this process is" in caplog.text)


@on_redis
@on_asyncio
async def test_questions_that_are_none(redis_server: RedisServer, prefix: str) -> None:
    """Whoever may push can push anything: nothing comes of it."""
    async with Channels(redis_server.url, prefix=prefix) as channels, channels.subscribe("a") as subscription:
        pushed = channels.backend._keys.pushed(QUESTIONS)  # type: ignore[attr-defined]
        for what in (b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"to":1,"channels":["a"]}'):
            assert redis_server.ask("PUBLISH", pushed, what) == b":1\r\n"
        await channels.publish("a", "1")
        assert (await anext(aiter(subscription))).data == "1"  # type: ignore[union-attr]
        assert (await status_of(channels, "a")).silent == 0


@on_redis
@on_asyncio
async def test_another_program(redis_server: RedisServer, prefix: str) -> None:
    """It is silent, until it answers as the page on the format says."""
    from redis.asyncio import Redis

    url, keys = redis_server.url, f"{{{prefix}:"
    async with Channels(url, prefix=prefix) as channels, Redis.from_url(url) as client:
        id = await channels.publish("a", "1")
        async with client.pubsub() as listening:
            await listening.subscribe(f"{keys}a}}:push:0", f"{keys}%00ask}}:push:0")
            for _ in range(2):
                await listening.get_message(timeout=PLENTY)
            status = await status_of(channels, "a", within=0.1)
            assert (status.listeners, status.silent) == (1, 1)
            await listening.get_message(timeout=PLENTY)  # the question that it did not answer

            async def answer() -> None:
                asked = json.loads((await listening.get_message(timeout=PLENTY))["data"])
                assert asked["channels"] == ["a"]
                said = {"process": "host:4711", "positions": {"a": id}}
                await client.publish(f"{keys}%00answer:{asked['to']}}}:push:0", json.dumps(said))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(answer)
                status = await status_of(channels, "a")
            assert (list(status.lags), status.silent, status.behind) == (["host:4711"], 0, 0)


def test_what_is_answered() -> None:
    positions = {"a": "1-2-00000000", "b": "1-3-00000000"}
    answer = answer_to(question("word", ["a", "x"]), "me", positions)
    assert answer is not None
    assert answer[0] == "word"
    assert json.loads(answer[1]) == {"process": "me", "positions": {"a": "1-2-00000000"}}
    for nobodys in (
        question("word", ["x"]),
        question("no word", ["a"]),
        question("", ["a"]),
        b'{"to":"word","channels":[["a"]]}',
        b'{"to":"word","channels":5}',
        b'{"to":["word"],"channels":["a"]}',
    ):
        assert answer_to(nobodys, "me", positions) is None


async def test_answers_that_are_none() -> None:
    answers = Answers({"a": 1, "b": 1})
    for what in (
        b"",
        b"[]",
        b"{}",
        b'{"process":"x","positions":[1]}',
        b'{"process":"x","positions":{"a":"1"}}',
        b'{"process":"x","positions":{"a":1}}',
        b'{"process":"x","positions":{"other":"1-2-00000000"}}',
        b"[" * 100_000,
    ):
        answers.hear(what)
    assert answers.found == {"a": {}, "b": {}}
    for _ in range(2):  # the same one twice is one
        answers.hear(b'{"process":"x","positions":{"a":"1-2-00000000"}}')
        assert not answers.done.is_set()
    answers.hear(b'{"process":"x","positions":{"b":"1-2-00000000"}}')
    assert answers.done.is_set()


@on_asyncio
@pytest.mark.skipif(not can_cluster(), reason=NO_CLUSTER)
async def test_in_a_cluster(prefix: str) -> None:
    names = ["a", "b", "c", "d"]  # on all of its nodes
    with RedisCluster() as cluster:
        async with (
            Channels(cluster.url, prefix=prefix) as one,
            Channels(cluster.url, prefix=prefix) as other,
            one.subscribe(*names),
            other.subscribe("d"),
        ):
            slots = {one.backend._keys.slot_of(one.backend._keys.pushed(name)) for name in names}  # type: ignore[attr-defined]
            assert len(slots) == 4
            for name in names:
                await one.publish(name, "1")
            await one._hub.roster.appear([one._hub.roster.member("a", "1")])
            found = await other.backend.status(names, PLENTY)
            assert [status.listeners for status in found] == [1, 1, 1, 2]
            assert [len(status.lags) for status in found] == [1, 1, 1, 2]
            assert [(status.events, status.members) for status in found] == [(1, 1), (1, 0), (1, 0), (1, 0)]
            assert all(status.bytes for status in found)


# The shell


async def listed(*arguments: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    status = await anyio.to_thread.run_sync(main, ["channels", *arguments])
    said = capsys.readouterr()
    assert (status, said.err) == (0, "")
    return said.out.splitlines()


@on_redis
@on_asyncio
async def test_the_command(
    redis_server: RedisServer, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--url", redis_server.url, "--prefix", prefix)
    plenty = ("--within", f"{PLENTY}")
    async with Channels(redis_server.url, prefix=prefix) as channels, channels.subscribe("a room"):
        id = await channels.publish("a room", "x" * 100)
        await channels.publish("other", "1")
        await channels._hub.roster.appear([channels._hub.roster.member("a room", "1")])
        lines = await listed(*where, "list", *plenty, capsys=capsys)
        assert lines[0].split() == [
            "MEMBERS",
            "PROCESSES",
            "LAG",
            "BEHIND",
            "EVENTS",
            "AGE",
            "BYTES",
            "CHANNEL",
        ]
        members, processes, lag, behind, events, age, size, *name = lines[1].split()
        assert (members, processes, behind, events, name) == ("1", "1", "0", "1", ["a", "room"])
        assert lag.endswith("s")
        assert float(lag[:-1]) >= 0
        assert age.endswith("s")
        assert int(size) > 100
        assert lines[2].split()[-1] == "other"
        names = ("CHANNEL", "a room", "other")  # one below the other
        assert len({line.rindex(name) for line, name in zip(lines, names, strict=True)}) == 1
        (line,) = await listed(*where, "--json", "list", "room", *plenty, capsys=capsys)
        told = json.loads(line)
        (process,) = told.pop("lags")
        assert process.split(":")[1] == f"{os.getpid()}"
        assert told.pop("lag") >= 0
        assert told.pop("age") >= 0
        assert told.pop("bytes") > 100
        assert told == {
            "channel": "a room",
            "members": 1,
            "processes": 1,
            "silent": 0,
            "behind": 0,
            "events": 1,
            "newest": id,
        }
        with listening(redis_server.url, prefix, "other") as process_:
            await process_.ready()
            os.kill(process_.popen.pid, signal.SIGSTOP)
            lines = await listed(*where, "list", "other", "--within", "0.25", capsys=capsys)
            assert ">0.25s (1 silent)" in lines[1]


def test_a_time_limit_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["channels", "--url", "memory://", "list", "--within", "-1"]) == 1
    assert "within must be above 0" in capsys.readouterr().err
