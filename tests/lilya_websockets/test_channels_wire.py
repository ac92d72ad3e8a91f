"""The format on Redis, as its page describes it: with the page's own example in Node, and key by key."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest

from lilya.websockets.channels import Channels, Event
from lilya.websockets.channels._status import ANSWERS

from .redis_server import RedisServer
from .server import Server
from .test_channels import data_of, take

NODE = shutil.which("node")
ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs_src" / "guides" / "wire" / "channels.mjs"
PAGE = ROOT / "docs" / "guides" / "wire.md"
LIMIT = 20.0  # seconds for Node, which needs a tenth of one

NAMES = ["room:1", "ä b/c !'()*~%{} 🎈"]

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]
needs_node = pytest.mark.skipif(NODE is None, reason="the example is for Node.js, which is not installed")


async def node(server: RedisServer, *arguments: str, script: Path = EXAMPLE) -> list[str]:
    """The lines that the example writes."""
    assert NODE is not None
    command = [NODE, str(script), f"127.0.0.1:{server.port}", *arguments]
    with anyio.fail_after(LIMIT):
        done = await anyio.run_process(command, stderr=None)
    return done.stdout.decode().splitlines()


@needs_node
async def test_node_publishes(redis_server: RedisServer) -> None:
    """To channels that are new and to others, and in one order with what Python publishes."""
    redis_server.ask("FLUSHALL")
    async with Channels(redis_server.url) as channels, channels.subscribe(*NAMES) as subscription:
        for name in NAMES:
            ids = [
                (await node(redis_server, "publish", name, "from Node: ü 🎈"))[0],
                await channels.publish(name, "from Python"),
                (await node(redis_server, "publish", name, ""))[0],
            ]
            events = await take(subscription, 3)
            assert events == [
                Event(name, id, data)
                for id, data in zip(ids, ["from Node: ü 🎈", "from Python", ""], strict=True)
            ]
            assert [id.split("-")[1] for id in ids] == ["1", "2", "3"]
            async with channels.subscribe(name, since=ids[0]) as later:
                assert data_of(await take(later, 2)) == ["from Python", ""]
        assert await channels.backend.names() == set(NAMES)


@needs_node
async def test_node_reads(redis_server: RedisServer) -> None:
    redis_server.ask("FLUSHALL")
    async with Channels(redis_server.url) as channels:
        for name in NAMES:
            expected: list[dict[str, Any]] = []

            async def publish(name: str = name, expected: list[dict[str, Any]] = expected) -> None:
                for data, wishes in (
                    ("ü 🎈", {}),
                    (b"\0\xff", {}),
                    ("with wishes", {"exclude": "ada", "history": 9}),
                    (b"1 {}", {"max_age": 60}),
                ):
                    id = await channels.publish(name, data, **wishes)
                    text = data if isinstance(data, str) else base64.b64encode(data).decode()
                    expected.append({"id": id, "data": text, **wishes})

            await publish()
            assert [json.loads(line) for line in await node(redis_server, "read", name)] == expected
            assert NODE is not None
            expected.clear()
            command = [NODE, str(EXAMPLE), f"127.0.0.1:{redis_server.port}", "follow", name, "4"]
            with anyio.fail_after(LIMIT):
                async with await anyio.open_process(command, stderr=subprocess.DEVNULL) as process:
                    assert process.stdout is not None
                    said = b""
                    async for data in process.stdout:
                        if not said:
                            await publish()
                        said += data
            first, *lines = said.decode().splitlines()
            assert first == "listening"
            assert [json.loads(line) for line in lines] == expected


@needs_node
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("'d', payload", "'e', payload"),
        ("found[1] .. kind, 'd'", "found[1] .. string.upper(kind), 'd'"),
        ("found[3] + 1", "found[3] + 2"),
    ],
)
async def test_planted_faults_in_the_example(
    old: str, new: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    """What does not keep the format is not taken for an event in its place."""
    redis_server.ask("FLUSHALL")
    source = EXAMPLE.with_name("publish.lua").read_text(encoding="utf-8")
    assert old in source
    (tmp_path / "publish.lua").write_text(source.replace(old, new), encoding="utf-8")
    script = tmp_path / EXAMPLE.name
    script.write_bytes(EXAMPLE.read_bytes())
    async with Channels(redis_server.url) as channels:
        begin = (await channels.backend.history("a")).position
        (id,) = await node(redis_server, "publish", "a", "x", script=script)
        found = await channels.backend.history("a", since=begin)
        assert (data_of(list(found.events)), id.split("-")[1], found.complete) != (["x"], "1", True)


def keys_on_the_page(page: str) -> set[str]:
    """What follows the braces in the names of the page's table of keys, a companion's own marked as such."""
    rows = re.findall(
        r"^\| `\{prefix:(%00presence:|%00ask|%00answer:word)?(?:channel)?\}([^`]*)` \|", page, re.MULTILINE
    )
    return {f"{companion}{suffix}" for companion, suffix in rows}


async def test_the_keys_are_those_of_the_page(redis_server: RedisServer) -> None:
    """Every key that there is after everything was used, and every push, is in the table; and no other."""
    redis_server.ask("FLUSHALL")
    found = set()
    async with Channels(redis_server.url) as channels, channels.subscribe("a", presence=True) as listening:
        async with channels.join("a", await Server().accepted(), member=1, key="ada"):
            await channels.publish("a", "x", idempotency_key="k", max_age=60)
            await take(listening, 2)
            await channels.backend._feed.hear(ANSWERS + "word", print)  # type: ignore[attr-defined]
            answer = redis_server.ask("KEYS", "*") + redis_server.ask("PUBSUB", "CHANNELS")
            for name in re.findall(r"^\{.*$", answer.decode(), re.MULTILINE):
                parts = re.fullmatch(
                    r"\{lilya:(%00presence:|%00control|%00ask|%00answer:word)?a?\}(.*?)\r?", name
                )
                assert parts is not None, name
                companion, suffix = parts.groups("")
                if companion != "%00control":
                    found.add(f"{companion}{suffix}".replace(":once:k", ":once:key"))
    page = PAGE.read_text(encoding="utf-8")
    shown = keys_on_the_page(page)
    companion_as_a_channel = {"%00presence:" + suffix for suffix in (":state", ":push:0")}
    assert found - companion_as_a_channel == shown
    # Planted faults.
    for row in (":members", ":once:key", ":memory"):
        assert found - companion_as_a_channel != keys_on_the_page(page.replace(row, ":elsewhere"))


async def test_the_state_is_that_of_the_page(redis_server: RedisServer) -> None:
    redis_server.ask("FLUSHALL")
    async with Channels(redis_server.url) as channels:
        id = await channels.publish("a", "x", exclude="ada")
        ms, seq, epoch = id.split("-")
        for field, value in (("epoch", epoch), ("ms", ms), ("seq", seq)):
            assert f"`{field}`" in PAGE.read_text(encoding="utf-8")
            assert redis_server.ask("HGET", "{lilya:a}:state", field) == b"$%d\r\n%b\r\n" % (
                len(value), value.encode()
            )  # fmt: skip
        entry = redis_server.ask("XRANGE", "{lilya:a}", "-", "+").decode()
        assert f"\r\n{ms}-{seq}\r\n" in entry
        assert "\r\nh\r\n" in entry
        assert f"\r\n{epoch}Sp" in entry
        assert '\r\n18 {"exclude": "ada"}x\r\n' in entry
