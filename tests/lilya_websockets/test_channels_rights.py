"""The rights that the page lists are enough for each feature on a real Redis, and none is too much."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import anyio.to_thread
import pytest

from lilya.websockets.channels import BrokerError, Channels, Publisher
from lilya.websockets.channels._redis import RedisBackend
from lilya.websockets.channels.backends import Status

from .redis_cluster import NO_CLUSTER, RedisCluster, SentinelServers, can_cluster
from .redis_server import NO_SERVER, RedisServer, redis_binary
from .server import Server

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),
    pytest.mark.skipif(redis_binary() is None, reason=NO_SERVER),
]

PAGE = next(Path(__file__).parents[2].glob("docs/**/redis-rights.md"))
COMMAND = re.compile(r"^ACL SETUSER (?P<name>\w+) .*$", re.MULTILINE)
ROW = re.compile(r"^\| (?P<feature>.+) \| `(?P<rights>\+[^`]+)` \|$", re.MULTILINE)

COMMANDS = {command["name"]: command[0].split() for command in COMMAND.finditer(PAGE.read_text("utf-8"))}
RIGHTS = {row["feature"]: row["rights"].split() for row in ROW.finditer(PAGE.read_text("utf-8"))}

PUBLISH = "`publish`, also by a `Publisher`"
LISTEN = "`subscribe`, `join`, `close`"
MEMBER = "`join` with `member`, `count`"
# Which other rows a feature needs, as the page says below the table.
NEEDS = {
    PUBLISH: [],
    LISTEN: [PUBLISH],
    "`idempotency_key`": [PUBLISH],
    "more than 64 processes that publish to one channel": [PUBLISH],
    MEMBER: [PUBLISH, LISTEN],
    "`join` with `key`": [PUBLISH, LISTEN, MEMBER],
    "`members`": [PUBLISH, LISTEN, MEMBER],
    "`python -m lilya.websockets channels list`": [PUBLISH, LISTEN],
}

# Seconds in which what is allowed is done, on any machine; and after which something refused is given up.
PLENTY, SHORT = 30.0, 1.0


class Way:
    """A user with some rights, on a server, and how a feature is tried with them."""

    def __init__(self, server: RedisServer, rights: list[str], timeout: float) -> None:
        self.server = server
        self.prefix = uuid4().hex
        self.timeout = timeout
        name = f"user-{self.prefix}"
        self.pattern = f"{{{self.prefix}:*"
        answer = server.ask(
            *("ACL", "SETUSER", name, "on", ">word", f"~{self.pattern}", "resetchannels", f"&{self.pattern}"),
            *rights,
        )
        assert answer == b"+OK\r\n", answer
        self.url = f"redis://{name}:word@127.0.0.1:{server.port}"

    def channels(self) -> Channels:
        return Channels(self.url, prefix=self.prefix, publish_timeout=self.timeout)

    def key(self, channel: str) -> str:
        return f"{{{self.prefix}:{channel}}}"


async def publish(way: Way) -> None:
    async with way.channels() as channels:
        await channels.publish("a", "1")
        await channels.publish("a", "2", max_age=60)
        way.server.ask("XADD", way.key("left"), "5-5", "of", "another life")
        await channels.publish("left", "1")
        # The answer was lost, and it is sent again: it is looked for among what is kept, and beyond.
        backend: Any = channels.backend
        parts = backend.publish_parts("a", "3", backend_wishes(), b"pone")
        for _ in range(2):
            await backend._ask(backend._publishing, "publish", (*parts, b"1"), backend._published)
        way.server.ask("XTRIM", way.key("a"), "MAXLEN", "1")
        way.server.ask("XDEL", way.key("a"), way.server.ask("XREVRANGE", way.key("a"), "+", "-").split()[3])
        await backend._ask(backend._publishing, "publish", (*parts, b"1"), backend._published)

    def outside() -> None:
        with Publisher(way.url, prefix=way.prefix, publish_timeout=way.timeout) as publisher:
            publisher.publish("a", "4")

    way.server.ask("SCRIPT", "FLUSH")
    await anyio.to_thread.run_sync(outside)


def backend_wishes() -> Any:
    from lilya.websockets.channels._backend import NO_WISHES

    return NO_WISHES


async def listen(way: Way) -> None:
    async with way.channels() as channels:
        first = await channels.publish("a", "1")
        server = Server()
        async with (
            channels.subscribe("a", "empty", since={"a": first}) as subscription,
            channels.join("a", await server.accepted(), latest=True),
        ):
            await channels.publish("a", "2")
            events = aiter(subscription)
            assert (await anext(events)).data == "2"  # type: ignore[union-attr]
            # A connection that is quiet is tried.
            backend: Any = channels.backend
            listener, before = backend._listener, channels.ready
            listener._quiet()
            await until(lambda: not listener._is_tried or channels.ready is not before)
            assert channels.ready is before
            async with channels.subscribe("a", since="1-0-00000000") as other:  # of an empty channel, once
                await anext(aiter(other))
            await channels.close("elsewhere")
        # What is left is unsubscribed from: else the connection is given up before something else is heard.
        async with channels.subscribe("b"):
            assert channels.ready is before


async def once(way: Way) -> None:
    async with way.channels() as channels:
        ids = [await channels.publish("a", data, idempotency_key="k") for data in "12"]
        assert ids[0] == ids[1]


async def many_publishers(way: Way) -> None:
    async with way.channels() as channels:
        await channels.publish("a", "1")
        for number in range(100):  # for longer than an hour, nobody has heard of them
            way.server.ask("HSET", way.key("a") + ":state", f"p{number}", "1 1")
    for _ in range(3):
        async with way.channels() as channels:
            await channels.publish("a", "2")


async def member(way: Way) -> None:
    async with way.channels() as channels:
        for _ in range(2):
            async with channels.join("a", await Server().accepted(), member={"user": 1}):
                assert await channels.count("a") == 1
            assert await channels.count("a") == 0


async def person(way: Way) -> None:
    async with way.channels() as channels:
        async with channels.join("a", await Server().accepted(), member=1, key="ada"):
            assert await channels.count("a", keys=True) == 1
        # Left behind by a process of an older version, and removed by the first who comes.
        way.server.ask("HSET", way.key("%00presence:a") + ":keys", "old", "1")
        async with channels.join("a", await Server().accepted(), member=1, key="ada"):
            assert await channels.count("a", keys=True) == 1


async def members(way: Way) -> None:
    async with way.channels() as channels, channels.join("a", await Server().accepted(), member=1):
        assert [member.json() for member in await channels.members("a")] == [1]


async def look(way: Way) -> None:
    async with way.channels() as channels, channels.subscribe("a"):
        await channels.publish("a", "1")
        assert set(await channels.backend.names()) == {"a"}
        (status,) = await channels.backend.status(["a"], way.timeout)
        assert (status.members, status.events, status.listeners, len(status.lags)) == (0, 1, 1, 1)
        assert status.bytes


TRIES: dict[str, Callable[[Way], Awaitable[None]]] = dict(
    zip(NEEDS, [publish, listen, once, many_publishers, member, person, members, look], strict=True)
)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await anyio.sleep(0.005)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@asynccontextmanager
async def nobody_complains(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    caplog.clear()
    yield
    assert [record.getMessage() for record in caplog.records] == []


def rights_for(feature: str) -> list[str]:
    return sorted({right for row in (*NEEDS[feature], feature) for right in RIGHTS[row]})


def test_the_table_is_whole(anyio_backend: str) -> None:
    assert list(RIGHTS) == list(NEEDS)


@pytest.mark.parametrize(
    ("name", "rows"), [("app", [row for row in NEEDS if not row.endswith("list`")]), ("publisher", [PUBLISH])]
)
async def test_the_commands_give_what_the_table_lists(
    name: str, rows: list[str], server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    command = COMMANDS[name]
    needed = {right for row in rows for right in RIGHTS[row]}
    optional = {"+info", "+role"}
    assert {word for word in command if word[0] == "+"} == needed | optional
    assert server.ask(*command) == b"+OK\r\n"
    url = f"redis://{name}:password@127.0.0.1:{server.port}"
    async with Channels(url, publish_timeout=PLENTY) as channels:
        async with nobody_complains(caplog):
            await channels.publish("a", "1")
            if name == "app":
                async with channels.join("a", await Server().accepted(), member=1, key="ada"):
                    assert len(await channels.members("a")) == 1
        if name == "publisher":
            with pytest.raises(BrokerError, match="subscribe"):
                await channels.subscribe("a").__aenter__()


def test_there_is_no_other_command(anyio_backend: str) -> None:
    assert list(COMMANDS) == ["app", "publisher"]


@pytest.mark.skipif(not can_cluster(), reason=NO_CLUSTER)
async def test_what_is_listed_for_sentinels(caplog: pytest.LogCaptureFixture) -> None:
    (said,) = re.findall(r"^## With Sentinel\n.*?(?=^## )", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    reader, publisher = re.findall(r"`(\+[^`]+)`", said)
    with SentinelServers(1) as servers:

        def allow(*rights: str) -> str:
            name = ("watcher", "reset", "on", ">word")
            assert servers.sentinels[0].ask("ACL", "SETUSER", *name, *rights) == b"+OK\r\n"
            return f"{servers.url}?sentinel_username=watcher&sentinel_password=word"

        def publish(*rights: str) -> str:
            with Publisher(allow(*rights), publish_timeout=SHORT) as outside:
                return outside.publish("a", "2")

        async with nobody_complains(caplog):
            async with Channels(allow(reader), publish_timeout=PLENTY) as channels:
                await channels.publish("a", "1")
            await anyio.to_thread.run_sync(publish, reader, publisher)
        with pytest.raises(BrokerError, match="masters"):
            await anyio.to_thread.run_sync(publish, reader)
        with pytest.raises(BrokerError, match=r"no sentinel names a primary .*get-master-addr-by-name"):
            await Channels(allow(publisher), publish_timeout=PLENTY).__aenter__()


@pytest.mark.parametrize("feature", NEEDS)
async def test_what_is_listed_is_enough(
    feature: str, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with nobody_complains(caplog):
        await TRIES[feature](Way(server, rights_for(feature), PLENTY))


# What the features before need as well is tried with them.
EACH = [(feature, right) for feature in NEEDS for right in RIGHTS[feature]]


@pytest.mark.parametrize(("feature", "right"), EACH)
async def test_nothing_listed_is_too_much(
    feature: str, right: str, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a right, the feature fails, or complains."""
    without = [other for other in rights_for(feature) if other != right]
    with pytest.raises((BrokerError, AssertionError)):
        async with nobody_complains(caplog):
            await TRIES[feature](Way(server, without, SHORT))


@pytest.mark.parametrize("right", ["+memory|usage", "+pubsub|numsub", "+zcount"])
async def test_what_may_not_be_seen_is_left_out(right: str, server: RedisServer) -> None:
    rights = rights_for("`python -m lilya.websockets channels list`")
    way = Way(server, [other for other in rights if other != right], PLENTY)
    async with way.channels() as channels:
        await channels.publish("a", "1")
        (status,) = await channels.backend.status(["a"], PLENTY)
        seen = {"+memory|usage": status.bytes, "+pubsub|numsub": status.listeners, "+zcount": status.members}
        assert [name for name, value in seen.items() if value is None] == [right]
        assert status.events == 1


def rights_in_a_cluster() -> list[str]:
    """Those of every row but for what the page says of clusters."""
    (said,) = re.findall(
        r"^## In a Redis Cluster\n.*?(?=^## )", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    instead = [right for rights in re.findall(r"`(\+[^`]+)`", said) for right in rights.split()]
    plain = {"+publish", "+subscribe", "+unsubscribe", "+pubsub|numsub"}
    return sorted({*instead, *(right for row in RIGHTS.values() for right in row)} - plain)


@pytest.mark.skipif(not can_cluster(), reason=NO_CLUSTER)
async def test_what_is_listed_for_a_cluster(caplog: pytest.LogCaptureFixture) -> None:
    rights = rights_in_a_cluster()
    assert "+pubsub|shardnumsub" in rights
    with RedisCluster() as cluster:

        def allow(*rights: str) -> str:
            for server in cluster.servers:
                name = ("user", "reset", "on", ">word", "~{lilya:*", "&{lilya:*")
                assert server.ask("ACL", "SETUSER", *name, *rights) == b"+OK\r\n"
            return cluster.url.replace("://", "://user:word@")

        def publish(*rights: str) -> str:
            with Publisher(allow(*rights), publish_timeout=PLENTY) as publisher:
                return publisher.publish("b", "1")

        async def status_with(*rights: str) -> Status:
            async with (
                Channels(allow(*rights), publish_timeout=PLENTY) as channels,
                channels.subscribe("a") as events,
                channels.join("a", await Server().accepted(), member=1),
            ):
                await channels.publish("a", "1")
                await anext(aiter(events))
                (status,) = await channels.backend.status(["a"], PLENTY)
                assert status.members == 1
                assert status.events
            return status

        async with nobody_complains(caplog):
            assert (await status_with(*rights)).listeners == 1
            others = [right for right in rights if right != "+pubsub|shardnumsub"]
            assert (await status_with(*others)).listeners is None
            await anyio.to_thread.run_sync(publish, *rights)
            of_channels = [right for right in rights if right != "+command"]
            await status_with(*of_channels)
        with pytest.raises(BrokerError, match="'command'"):
            await anyio.to_thread.run_sync(publish, *of_channels)
        # The start raises it for one node. The others may be logged by then.
        with pytest.raises(BrokerError, match="may not push events"):
            await status_with(*(right for right in rights if right != "+spublish"))


async def test_another_prefix_is_another_ones(server: RedisServer) -> None:
    way = Way(server, rights_for(LISTEN), PLENTY)
    backend = RedisBackend(way.url, prefix="other")
    with pytest.raises(BrokerError, match="may not push events"):
        await backend.start()
    await backend.stop()
