"""`serve`: every message of the subprotocol, every error, and what a client can do to it."""

from __future__ import annotations

import base64
import gc
import json
import logging
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilya.websockets import WebSocket, WebSocketDisconnect, WebSocketRuntimeError
from lilya.websockets.channels import (
    SUBPROTOCOL,
    BrokerError,
    Channels,
    Dropped,
    Event,
    Gap,
    Grant,
    Refused,
    serve,
)
from lilya.websockets.channels._serve_messages import encoder_for, read
from lilya.websockets.tokens import bearer_token

from .server import DENIAL, ClientDisconnected, Server, data, disconnect, text

pytestmark = pytest.mark.anyio

Make = Callable[..., Channels]
ALL = Grant(publish=True, presence=True)
PREPARED = "lilya.websocket.prepared"


@pytest.fixture
def make(make_channels: Make) -> Make:
    return make_channels


def everything(channel: str) -> Grant:
    return ALL


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await anyio.sleep(0.001)


def is_clean(channels: Channels) -> bool:
    hub = channels._hub
    return not (
        hub._channels or hub._outboxes or hub.roster.members or hub.writers.ready or hub.writers.sockets
    )


class Peer:
    """A client: what it says, and what it hears, in order."""

    def __init__(self, server: Server | None = None) -> None:
        self.server = server or Server(subprotocols=[SUBPROTOCOL])
        self._next = 0
        self.over = False

    def say(self, kind: str, **fields: Any) -> None:
        self.server.push(text(json.dumps({"type": kind, **fields})))

    @property
    def heard(self) -> list[dict[str, Any]]:
        return [
            json.loads(message["text"]) for message in self.server.sent if message["type"] == "websocket.send"
        ]

    @property
    def closed(self) -> tuple[int, str] | None:
        return next(
            (
                (message["code"], message["reason"])
                for message in self.server.sent
                if message["type"] == "websocket.close"
            ),
            None,
        )

    async def hear(self) -> dict[str, Any]:
        """The next message."""
        await until(lambda: len(self.heard) > self._next or self.over)
        assert len(self.heard) > self._next, "it is over, and nothing more has come"
        self._next += 1
        return self.heard[self._next - 1]

    async def hears(self, *kinds: str) -> list[dict[str, Any]]:
        """The next messages, which are of these types."""
        messages = [await self.hear() for _ in kinds]
        assert [message["type"] for message in messages] == list(kinds)
        return messages

    async def join(self, channel: str = "a", **fields: Any) -> dict[str, Any]:
        self.say("join", channel=channel, **fields)
        return (await self.hears("joined"))[0]

    async def ping(self) -> None:
        """It is answered, and nothing came before the answer."""
        self.say("ping")
        await self.hears("pong")

    async def publish(self, value: Any, key: str, channel: str = "a") -> str:
        """The id of the event, which is heard as well."""
        self.say("publish", channel=channel, key=key, data=value)
        both = [await self.hear(), await self.hear()]
        assert {message["type"] for message in both} == {"published", "event"}
        assert both[0]["id"] == both[1]["id"]
        return str(both[0]["id"])

    def leave(self) -> None:
        self.server.push(disconnect())


def is_over(peer: Peer) -> bool:
    return peer.over


def hears_more(peer: Peer) -> bool:
    return len(peer.heard) > 1


@asynccontextmanager
async def served(
    channels: Channels,
    authorize: Callable[[str], Any] = everything,
    *,
    app: Callable[[WebSocket], Awaitable[None]] | None = None,
    peer: Peer | None = None,
    **options: Any,
) -> AsyncIterator[Peer]:
    """A client that is served, until the block is left."""
    peer = peer or Peer()

    async def run() -> None:
        websocket = peer.server.websocket()
        if app is None:
            await serve(websocket, channels, authorize, **options)
        else:
            await app(websocket)
        peer.over = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await until(lambda: peer.server.sent or peer.over)
        yield peer
        if not peer.over:
            peer.leave()
        await until(lambda: peer.over)


# Beginning


async def test_it_accepts_with_the_subprotocol_and_closes_at_the_end() -> None:
    async with Channels() as channels, served(channels) as peer:
        assert peer.server.sent[0] == {
            "type": "websocket.accept",
            "subprotocol": SUBPROTOCOL,
            "headers": [],
        }
        await peer.ping()
    assert peer.heard == [{"type": "pong"}]
    assert SUBPROTOCOL == "lilya.channels.v1"


@pytest.mark.parametrize("offered", [[], ["lilya.channels.v2", "chat"]])
async def test_who_does_not_offer_it_is_refused(offered: list[str]) -> None:
    peer = Peer(Server(subprotocols=offered))
    async with Channels() as channels, served(channels, peer=peer):
        await until(lambda: peer.over)
        start, body = peer.server.sent
        assert (start["type"], start["status"]) == (f"{DENIAL}.start", 400)
        assert body["body"] == b"Offer the WebSocket subprotocol lilya.channels.v1."


async def test_a_token_beside_it() -> None:
    tokens = []
    peer = Peer(Server(subprotocols=[SUBPROTOCOL, "bearer", "e30.sig"]))

    async def app(websocket: WebSocket) -> None:
        tokens.append(bearer_token(websocket, subprotocol="bearer"))
        await serve(websocket, channels, everything)

    async with Channels() as channels, served(channels, app=app, peer=peer):
        await peer.join()
    assert tokens == ["e30.sig"]
    assert peer.server.sent[0]["subprotocol"] == SUBPROTOCOL
    assert "e30" not in json.dumps(peer.heard)


@pytest.mark.parametrize("by", ["a block", "accept"])
async def test_the_app_may_accept(by: str) -> None:
    ended: list[Any] = []

    async def app(websocket: WebSocket) -> None:
        if by == "accept":
            await websocket.accept(SUBPROTOCOL)
            await serve(websocket, channels, everything)
        else:
            async with websocket.open(SUBPROTOCOL, max_message_size=100):
                await serve(websocket, channels, everything)
        ended.append(websocket.close_code)

    async with Channels() as channels, served(channels, app=app) as peer:
        await peer.join()
        if by == "a block":
            peer.say("publish", channel="a", key="1", data="x" * 100)
            await until(lambda: peer.over)
    assert ended == [1009 if by == "a block" else 1001]
    assert is_clean(channels)


async def test_the_options_of_a_block() -> None:
    async with Channels() as channels, served(channels, max_messages_per_second=2) as peer:
        for _ in range(10):
            peer.say("ping")
        await until(lambda: peer.over)
        assert peer.closed is not None
        assert peer.closed[0] == 1008

    server = Server(subprotocols=[SUBPROTOCOL])
    async with Channels() as channels:
        websocket = server.websocket()
        with pytest.raises(TypeError, match="idle_time"):
            await serve(websocket, channels, everything, idle_time=1)
        assert server.sent == []
        await websocket.accept(SUBPROTOCOL)
        with pytest.raises(TypeError, match="give heartbeat to the block that has done so"):
            await serve(websocket, channels, everything, heartbeat=1)


async def test_channels_must_run() -> None:
    server = Server(subprotocols=[SUBPROTOCOL])
    channels = Channels()
    with pytest.raises(WebSocketRuntimeError, match="not started"):
        await serve(server.websocket(), channels, everything)
    assert server.sent == []  # the app can still answer


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"authorize": None}, TypeError, "authorize must be callable, got NoneType"),
        ({"on_publish": 1}, TypeError, "on_publish must be callable, got int"),
        ({"on_request": "f"}, TypeError, "on_request must be callable, got str"),
        ({"key": 1}, TypeError, "key must be str, got int"),
        ({"key": ""}, ValueError, "key must not be empty"),
        ({"max_channels": 0}, ValueError, "max_channels must be"),
        ({"max_history": -1}, ValueError, "max_history must be"),
        ({"max_members": 1.5}, TypeError, "max_members must be"),
        ({"max_message_size": 0}, ValueError, "max_message_size must be"),
        ({"max_waiting": 0}, ValueError, "max_waiting must be"),
        ({"policy": "drop"}, ValueError, "a policy is one of"),
        ({"max_messages": 0}, ValueError, "max_messages must be"),
        ({"max_bytes": 0}, ValueError, "max_bytes must be"),
    ],
)
async def test_wrong_arguments(options: dict[str, Any], error: type[Exception], said: str) -> None:
    server = Server(subprotocols=[SUBPROTOCOL])
    async with Channels() as channels:
        with pytest.raises(error, match=said):
            await serve(server.websocket(), channels, **{"authorize": everything, **options})
    assert server.sent == []


# Joining, events, leaving


async def test_events_of_every_kind(make: Make) -> None:
    async with make() as channels, served(channels) as peer:
        await peer.join("ä")
        for published, carried in (
            ('{"n": 1}', {"data": {"n": 1}}),
            ("null", {"data": None}),
            ("no JSON: \n", {"text": "no JSON: \n"}),
            ("NaN", {"text": "NaN"}),
            ("[" * 100_000, {"text": "[" * 100_000}),
            ("", {"text": ""}),
            (b"\xff\x00", {"bytes": base64.b64encode(b"\xff\x00").decode()}),
        ):
            id = await channels.publish("ä", published)
            assert await peer.hear() == {"type": "event", "channel": "ä", "id": id, **carried}
        peer.say("leave", channel="ä")
        assert await peer.hear() == {"type": "left", "channel": "ä"}
        await channels.publish("ä", "nobody")
        await peer.ping()
        assert is_clean(channels)


async def test_publishing(make: Make) -> None:
    async with make() as channels, channels.subscribe("a") as subscription, served(channels) as peer:
        joined = await peer.join()
        assert joined == {"type": "joined", "channel": "a", "position": joined["position"]}
        assert isinstance(joined["position"], str)
        values: list[Any] = [1, None, "ü\ud800", {"a": [True, 1.5]}, []]
        for number, value in enumerate(values):
            await peer.publish(value, f"k{number}")
            event = await anext(subscription)
            assert isinstance(event, Event)
            assert event.json() == value
        events = [message for message in peer.heard if message["type"] == "event"]
        assert [event["data"] for event in events] == values
        assert [event["key"] for event in events] == ["k0", "k1", "k2", "k3", "k4"]


async def test_publishes_are_in_order_also_before_the_client_has_joined(make: Make) -> None:
    async with make() as channels, served(channels) as peer:
        peer.say("join", channel="a")
        for number in range(60):
            peer.say("publish", channel="a", key=f"{number}", data=number)
        peer.say("leave", channel="a")  # not before all that was said before it
        await until(lambda: peer.heard and peer.heard[-1]["type"] == "left")
        published = [message["key"] for message in peer.heard if message["type"] == "published"]
        assert published == [f"{number}" for number in range(60)]
        assert peer.heard[0]["type"] == "joined"
        async with channels.subscribe("a", history=100) as subscription:
            found = [await anext(subscription) for _ in range(60)]
        assert [json.loads(event.data) for event in found] == list(range(60))  # type: ignore[union-attr]


@pytest.mark.parametrize("wanted", ["history", "since", "latest", "nothing"])
async def test_what_it_begins_with(wanted: str, make: Make) -> None:
    async with make() as channels:
        ids = [await channels.publish("a", f"{number}") for number in range(5)]
        async with served(channels) as peer:
            if wanted == "nothing":
                assert (await peer.join())["position"] == ids[-1]
                await peer.ping()
                return
            options: Any = {"history": {"history": 2}, "since": {"since": ids[2]}, "latest": {"latest": True}}
            joined = await peer.join(**options[wanted])
            assert joined["position"] == (ids[2] if wanted == "since" else None)
            expected = [4] if wanted == "latest" else [3, 4]
            assert [(await peer.hear())["data"] for _ in expected] == expected
            await peer.ping()


async def test_a_gap(make: Make) -> None:
    async with make(history=128) as channels:
        first = await channels.publish("a", "0")
        last = [await channels.publish("a", f"{number}", history=2) for number in range(1, 300)][-1]
        async with served(channels) as peer:
            await peer.join(since=first)
            gap, *events = await peer.hears("gap", "event", "event")
            assert gap == {"type": "gap", "channel": "a", "since": first, "id": gap["id"]}
            assert [event["data"] for event in events] == [298, 299]
        # From the gap on, nothing is missing.
        async with served(channels) as peer:
            await peer.join(since=gap["id"])
            await peer.hears(*(message["type"] for message in [gap, *events] if gap["id"] == first))
            await until(lambda: any(message.get("id") == last for message in peer.heard))


async def test_a_position_of_another_life(make: Make) -> None:
    async with make() as channels, served(channels) as peer:
        await channels.publish("a", "1")
        await peer.join(since="1764106141000-42-9f3c01d2")
        gap, event = await peer.hears("gap", "event")
        assert (gap["since"], event["data"]) == ("1764106141000-42-9f3c01d2", 1)


async def test_a_client_that_comes_back_misses_nothing_and_gets_nothing_twice(make: Make) -> None:
    async with make() as channels:
        position = None
        seen: list[int] = []
        number = 0
        for _ in range(5):
            async with served(channels) as peer:
                joined = await peer.join(since=position)
                position = joined["position"]
                for _ in range(3):
                    await channels.publish("a", f"{number}")
                    number += 1
                while not seen or seen[-1] != number - 1:
                    event = await peer.hear()
                    seen.append(event["data"])
                    position = event["id"]
            for _ in range(2):  # while it is away
                await channels.publish("a", f"{number}")
                number += 1
        assert seen == list(range(number - 2))


async def test_joined_comes_first_whatever_comes_meanwhile() -> None:
    """The channel is as loud as can be while the members are asked for."""
    async with Channels() as channels:
        members = channels.backend.members
        ask: Any = channels.backend

        async def slow(channel: str) -> Any:
            for number in range(50):
                await channels.publish("a", f"{number}")
            await until(lambda: next(iter(channels._hub._outboxes)).pending > 40)
            return await members(channel)

        ask.members = slow
        async with served(channels, lambda channel: Grant(presence=True, member="x")) as peer:
            peer.say("join", channel="a", presence=True)
            await until(lambda: len(peer.heard) == 52)
            assert [message["type"] for message in peer.heard] == ["joined"] + ["presence"] + ["event"] * 50


async def test_one_frame_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that keeps frames in `prepared` gets the same place for them from every client."""
    monkeypatch.setattr(Server, "_judged", lambda self, message: "open")
    peers = [Peer(Server(subprotocols=[SUBPROTOCOL], extensions={PREPARED: {}})) for _ in range(3)]
    async with Channels() as channels:
        async with (
            served(channels, peer=peers[0]),
            served(channels, peer=peers[1]),
            served(channels, peer=peers[2]),
        ):
            for peer in peers:
                await peer.join()
            for number in range(3):
                await channels.publish("a", f"{number}")
                for peer in peers:
                    await peer.hears("event")
                frames = [peer.server.sent[-1]["prepared"] for peer in peers]
                assert frames[0] is frames[1] is frames[2]
                assert frames[0] is not peers[0].server.sent[-2].get("prepared")


async def test_the_channels_of_a_client_have_nothing_to_do_with_each_other(make: Make) -> None:
    async with make() as channels, served(channels) as peer:
        for name in ("a", "b", "c"):
            await peer.join(name)
        peer.say("leave", channel="b")
        await peer.hears("left")
        for name in ("a", "b", "c"):
            await channels.publish(name, f'"{name}"')
        assert {(await peer.hear())["data"], (await peer.hear())["data"]} == {"a", "c"}
        await peer.ping()


# Presence


def as_member(name: str, **rights: Any) -> Callable[[str], Grant]:
    return lambda channel: Grant(member={"name": name}, presence=True, publish=True, **rights)


async def test_who_is_here(make: Make) -> None:
    async with make() as channels, served(channels, as_member("ann"), key="a7") as ann:
        joined = await ann.join(presence=True)
        me = {"id": joined["member"], "info": {"name": "ann"}, "key": "a7"}
        assert (joined["members"], joined["count"]) == ([me], 1)
        assert await ann.hear() == {
            "type": "presence",
            "channel": "a",
            "event": "join",
            "member": me,
            "sockets": 1,
        }
        async with served(channels, as_member("bob")) as bob:
            joined = await bob.join(presence=True)
            him = {"id": joined["member"], "info": {"name": "bob"}}
            assert (joined["members"], joined["count"]) == ([me, him], 2)
            told = await ann.hear()
            assert (told["event"], told["member"], told["sockets"]) == ("join", him, 1)
        told = await ann.hear()
        assert (told["event"], told["member"], told["sockets"]) == ("leave", him, 0)


async def test_who_is_here_is_told_up_to_a_number(make: Make) -> None:
    async with make() as channels, served(channels, as_member("ann")) as ann:
        first = await ann.join()
        assert "members" not in first
        assert "count" not in first
        async with served(channels, as_member("bob"), max_members=1) as bob:
            joined = await bob.join(presence=True)
            assert [member["id"] for member in joined["members"]] == [first["member"]]
            assert joined["count"] == 2


async def test_persons(make: Make) -> None:
    async with make() as channels, served(channels, as_member("ann"), key="a7") as watcher:
        await watcher.join(presence="keys")
        await watcher.hears("presence")
        async with served(channels, as_member("ann"), key="a7") as again:
            await again.join()
        async with served(channels, as_member("bob"), key="b8") as bob:
            await bob.join()
        come, gone = await watcher.hears("presence", "presence")
        assert (come["member"]["key"], come["sockets"]) == ("b8", 1)
        assert (gone["member"]["key"], gone["sockets"]) == ("b8", 0)
        await watcher.ping()


async def test_who_may_not_see_who_is_here(make: Make) -> None:
    async with make() as channels, served(channels, lambda channel: Grant(member=1)) as peer:
        peer.say("join", channel="a", presence=True)
        error = await peer.hear()
        assert (error["code"], error["action"], error["channel"]) == ("forbidden", "join", "a")
        assert await channels.members("a") == []
        joined = await peer.join()
        assert joined["member"] == (await channels.members("a"))[0].id


# What is invalid


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        ("", "invalid", "a message must be JSON: "),
        ("{", "invalid", "a message must be JSON: "),
        ('{"type":"ping"} x', "invalid", "a message must be JSON: "),
        ("NaN", "invalid", "a message must be JSON: NaN"),
        ("1" * 5000, "invalid", "a message must be JSON: "),
        ("[" * 60_000, "invalid", "a message must not be nested so deep"),
        ("[]", "invalid", 'a message must be an object with a "type", got a list'),
        ("null", "invalid", 'a message must be an object with a "type", got nothing'),
        ('"join"', "invalid", 'a message must be an object with a "type", got "join"'),
        ("{}", "invalid", '"type" must be one of join, leave, publish, request and ping, got nothing'),
        (
            '{"type":{}}',
            "invalid",
            '"type" must be one of join, leave, publish, request and ping, got an obj',
        ),
        (
            '{"type":"shout"}',
            "invalid",
            '"type" must be one of join, leave, publish, request and ping, got "s',
        ),
        ('{"type":"join"}', "invalid", '"channel" must be text of 1 to 1024'),
        ('{"type":"join","channel":"%s"}' % ("c" * 1025), "invalid", '"channel" must be text of 1 to 1024'),
        ('{"type":"join","channel":""}', "invalid", 'with a NUL, got ""'),
        ('{"type":"join","channel":"\\u0000control"}', "invalid", 'with a NUL, got "\\u0000control"'),
        ('{"type":"join","channel":"\\ud800"}', "invalid", 'with a NUL, got "\\ud800"'),
        ('{"type":"join","channel":7}', "invalid", "with a NUL, got 7"),
        ('{"type":"leave","channel":[]}', "invalid", "with a NUL, got a list"),
        ('{"type":"join","channel":"b","since":1}', "invalid", '"since" must be the id of an event, got 1'),
        ('{"type":"join","channel":"b","since":"1"}', "invalid", "an event's id looks like"),
        (
            '{"type":"join","channel":"b","since":"%s"}' % ("1" * 129),
            "invalid",
            '"since" must be the id of an',
        ),
        ('{"type":"join","channel":"b","history":"5"}', "invalid", 'integer from 0 to 100, got "5"'),
        ('{"type":"join","channel":"b","history":101}', "invalid", "integer from 0 to 100, got 101"),
        ('{"type":"join","channel":"b","history":-1}', "invalid", "integer from 0 to 100, got -1"),
        ('{"type":"join","channel":"b","history":true}', "invalid", "integer from 0 to 100, got true"),
        ('{"type":"join","channel":"b","history":1.0}', "invalid", "integer from 0 to 100, got 1.0"),
        ('{"type":"join","channel":"b","latest":1}', "invalid", '"latest" must be true or false, got 1'),
        ('{"type":"join","channel":"b","latest":true,"history":1}', "invalid", 'leave out "history", got 1'),
        ('{"type":"join","channel":"b","presence":"all"}', "invalid", 'true, false or "keys", got "all"'),
        ('{"type":"publish","channel":"a","data":1}', "invalid", '"key" must be text of 1 to 128'),
        ('{"type":"publish","channel":"a","key":"","data":1}', "invalid", '"key" must be text of 1 to 128'),
        ('{"type":"publish","channel":"a","key":5,"data":1}', "invalid", '"key" must be text of 1 to 128'),
        ('{"type":"publish","channel":"a","key":"%s","data":1}' % ("k" * 129), "invalid", '"key" must be'),
        ('{"type":"publish","channel":"a","key":"k"}', "invalid", '"publish" must have "data"'),
        ('{"type":"publish","channel":"b","key":"k","data":1}', "left", "join the channel before"),
        ('{"type":"request","data":1}', "invalid", '"id" must be text of 1 to 128 characters, got nothing'),
        ('{"type":"request","id":"1"}', "invalid", '"request" must have "data"'),
        ('{"type":"request","id":"1","data":1}', "forbidden", "this server takes no requests"),
        ('{"type":"join","channel":"a"}', "invalid", "the channel was joined already: leave it first"),
        (" " * 70_000, "too_large", "a message must have at most 65536 bytes, got 70000"),
        ("ü" * 40_000, "too_large", "a message must have at most 65536 bytes, got 80000"),
        (b"{}", "invalid", "a message must be text, got a binary one"),
    ],
)
async def test_a_message_that_is_invalid_loses_nothing(message: str | bytes, code: str, said: str) -> None:
    async with Channels() as channels, served(channels) as peer:
        await peer.join()
        peer.server.push(text(message) if isinstance(message, str) else data(message))
        error = await peer.hear()
        assert (error["type"], error["code"]) == ("error", code)
        assert said in error["message"]
        assert len(error["message"]) < 300
        try:
            told = json.loads(message)
        except (RecursionError, ValueError):
            told = {}
        assert error.get("size") == (len(message.encode()) if code == "too_large" else None)  # type: ignore[union-attr]
        for name in ("channel", "key", "id"):
            value = told.get(name) if isinstance(told, dict) else None
            assert error.get(name) == (value if isinstance(value, str) and len(value) <= 1024 else None)
        assert error.get("action") == (
            told["type"]
            if isinstance(told, dict) and told.get("type") in ("join", "leave", "publish", "request")
            else None
        )
        await peer.publish("still here", "k")


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "-Infinity"])
async def test_a_number_that_could_not_be_sent(number: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is the client's fault, and fills no log."""
    async with Channels() as channels, served(channels, on_request=lambda told: told) as peer:
        await peer.join()
        for begin in ('"type":"publish","channel":"a","key":"k"', '"type":"request","id":"1"'):
            peer.server.push(text(f'{{{begin},"data":[1.5e3,{number}]}}'))
            error = await peer.hear()
            assert error["code"] == "invalid"
            assert error["message"] == f"a message must be JSON: {number} is not a finite number"
    assert not caplog.records


def test_an_encoder_is_forgotten_with_the_last_who_uses_it() -> None:
    """A client can make names as long as a message, without end."""
    encode = encoder_for("a")
    assert encoder_for("a") is encode
    forgotten = weakref.ref(encode)
    del encode
    gc.collect()
    assert forgotten() is None


async def test_data_as_deep_as_can_be() -> None:
    """What can be read may be too deep to be written, and is refused then; nobody is told of a failure."""
    async with Channels() as channels, served(channels, on_request=lambda data: data) as peer:
        await peer.join()
        for depth in (10, 100, 300, 500, 700, 900, 1000, 2000, 5000, 20_000):
            deep = "[" * depth + "]" * depth
            for message in (
                f'{{"type":"publish","channel":"a","key":"k{depth}","data":{deep}}}',
                f'{{"type":"request","id":"{depth}","data":{deep}}}',
            ):
                before = len(peer.server.sent)
                peer.server.push(text(message))
                await until(lambda: len(peer.server.sent) > before)  # noqa: B023 - called here
        sent = [message["text"] for message in peer.server.sent if message["type"] == "websocket.send"]
        assert not any('"failed"' in each for each in sent)
        assert any("must not be nested so deep" in each for each in sent)
        assert any('"published"' in each for each in sent)
        peer.say("ping")
        await until(lambda: peer.server.sent[-1]["text"] == '{"type":"pong"}')


JSONS: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES: Any = st.sampled_from(
    ["type", "channel", "key", "id", "data", "since", "history", "latest", "presence"]
)
KINDS: Any = st.sampled_from(["join", "leave", "publish", "request", "ping"])


@given(st.text() | JSONS.map(json.dumps) | st.dictionaries(NAMES, KINDS | JSONS).map(json.dumps))
def test_whatever_comes_is_read_or_refused(message: str) -> None:
    found, fields = read(message, max_size=1000, max_history=10)
    if isinstance(found, Refused):
        assert found.code in ("invalid", "too_large")
        assert len(found.message) < 300
    assert set(fields) <= {"action", "channel", "key", "id", "size"}
    json.dumps(fields).encode()


@given(st.lists(st.dictionaries(NAMES, KINDS | JSONS | st.sampled_from(["a", "b"]), min_size=2), max_size=8))
def test_whatever_a_client_says_it_is_answered_and_leaves_nothing_behind(said: list[dict[str, Any]]) -> None:
    async def main() -> None:
        async with Channels() as channels:
            async with served(channels, on_request=lambda data: data) as peer:
                for message in said:
                    peer.server.push(text(json.dumps(message)))
                peer.say("leave", channel="a")
                peer.say("leave", channel="b")
                peer.say("ping")
                await until(lambda: {"type": "pong"} in peer.heard)
                assert len([message for message in peer.heard if message["type"] == "left"]) >= 0
            assert is_clean(channels)

    anyio.run(main)


# What the app says


async def test_the_app_says_who_may_join() -> None:
    async def authorize(channel: str) -> Grant | None:
        await anyio.lowlevel.checkpoint()
        if channel == "secret":
            raise Refused("members only", code="payment_required")
        return Grant() if channel == "a" else None

    async with Channels() as channels, served(channels, authorize) as peer:
        peer.say("join", channel="b")
        assert await peer.hear() == {
            "type": "error",
            "code": "forbidden",
            "message": "you may not join this channel",
            "action": "join",
            "channel": "b",
        }
        peer.say("join", channel="secret")
        assert await peer.hear() == {
            "type": "error",
            "code": "payment_required",
            "message": "members only",
            "action": "join",
            "channel": "secret",
        }
        await peer.join("a")
        peer.say("publish", channel="a", key="k", data=1)
        assert await peer.hear() == {
            "type": "error",
            "code": "forbidden",
            "message": "you may not publish to this channel",
            "action": "publish",
            "channel": "a",
            "key": "k",
        }
        await channels.publish("b", "1")
        await channels.publish("a", "2")
        assert (await peer.hear())["data"] == 2


def test_a_refusal_says_what_it_is() -> None:
    assert str(Refused("members only")) == "forbidden: members only"
    assert repr(Refused("a", "b")) == "Refused('a', 'b')"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (({1, 2},), "the message of Refused must be str, got set"),
        ((b"no",), "the message of Refused must be str, got bytes"),
        (("no", 403), "the code of Refused must be str, got int"),
    ],
)
async def test_a_refusal_that_could_not_be_sent(
    arguments: tuple[Any, ...], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It fails where it is made, and the connection goes on."""

    def refuse(data: Any) -> None:
        raise Refused(*arguments)

    def authorize(channel: str) -> Grant:
        if channel == "b":
            refuse(channel)
        return ALL

    async with Channels() as channels, served(channels, authorize, on_request=refuse) as peer:
        await peer.join()
        peer.say("request", id="1", data=1)
        peer.say("join", channel="b")
        for error in await peer.hears("error", "error"):
            assert (error["code"], error["message"]) == ("failed", "the server could not do this")
        await peer.publish("still here", "k")
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [said] * 2


async def test_a_refusal_with_a_text_that_is_no_unicode() -> None:
    def refuse(data: Any) -> None:
        raise Refused("no such file: \udcff", "\udcff")

    async with Channels() as channels, served(channels, on_request=refuse) as peer:
        peer.say("request", id="1", data=1)
        error = await peer.hear()
        assert (error["code"], error["message"]) == ("\udcff", "no such file: \udcff")


class Hook:
    """A function of the app that has no name."""

    def __call__(self, *arguments: Any) -> Any:
        raise LookupError("the password is hunter2")


@pytest.mark.parametrize("hook", [Hook(), lambda *arguments: [][1]])
async def test_a_failure_of_the_app_is_logged_and_not_told(
    hook: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with Channels() as channels, served(channels, hook, on_request=hook) as peer:
        peer.say("join", channel="a")
        error = await peer.hear()
        assert (error["code"], error["action"]) == ("failed", "join")
        peer.say("request", id="1", data=1)
        error = await peer.hear()
        assert (error["code"], error["action"], error["id"]) == ("failed", "request", "1")
        assert "hunter2" not in json.dumps(peer.heard)
        await peer.ping()
    async with Channels() as channels, served(channels, on_publish=hook) as peer:
        await peer.join()
        peer.say("publish", channel="a", key="1", data=1)
        error = await peer.hear()
        assert (error["code"], error["action"], error["key"]) == ("failed", "publish", "1")
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failures) == 3
    assert all(record.exc_info and issubclass(record.exc_info[0], LookupError) for record in failures)  # type: ignore[arg-type]


@pytest.mark.parametrize("grant", [True, "yes", Grant(member=object()), Grant(member={"n": float("nan")})])
async def test_a_grant_that_is_none(grant: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with Channels() as channels, served(channels, lambda channel: grant) as peer:
        peer.say("join", channel="a")
        assert (await peer.hear())["code"] == "failed"
        await peer.ping()
        assert is_clean(channels)
    assert "authorize failed" in caplog.text


async def test_what_the_app_makes_of_a_publish(caplog: pytest.LogCaptureFixture) -> None:
    async def on_publish(channel: str, data: Any) -> Any:
        if data == "rude":
            raise Refused("mind your words", "rude")
        return object() if data == "broken" else {"from": "ann", "in": channel, "said": data}

    async with Channels() as channels, served(channels, on_publish=on_publish) as peer:
        await peer.join()
        peer.say("publish", channel="a", key="1", data="rude")
        peer.say("publish", channel="a", key="2", data="broken")
        codes = [(message["key"], message["code"]) for message in await peer.hears("error", "error")]
        assert codes == [("1", "rude"), ("2", "failed")]
        await peer.publish("hello", "3")
        event = next(message for message in peer.heard if message["type"] == "event")
        assert event["data"] == {"from": "ann", "in": "a", "said": "hello"}
    assert "encoding what on_publish returns failed" in caplog.text


async def test_requests(caplog: pytest.LogCaptureFixture) -> None:
    going = anyio.Event()

    async def on_request(data: Any) -> Any:
        if data == "wait":
            await going.wait()
        if data in ("broken", "no number"):
            return object() if data == "broken" else float("nan")
        if data == "no":
            raise Refused("no such thing", "not_found")
        return {"you said": data}

    async with Channels() as channels, served(channels, on_request=on_request) as peer:
        peer.say("request", id="1", data="wait")
        peer.say("request", id="2", data=None)
        assert await peer.hear() == {"type": "answer", "id": "2", "data": {"you said": None}}
        peer.say("request", id="1", data=1)
        error = await peer.hear()
        assert (error["code"], error["id"]) == ("invalid", "1")
        assert error["message"] == "a request with this id is not answered yet"
        peer.say("request", id="3", data="no")
        assert await peer.hear() == {
            "type": "error",
            "code": "not_found",
            "message": "no such thing",
            "action": "request",
            "id": "3",
        }
        for broken in ("broken", "no number"):
            peer.say("request", id="4", data=broken)
            assert (await peer.hear())["code"] == "failed"
        going.set()
        assert await peer.hear() == {"type": "answer", "id": "1", "data": {"you said": "wait"}}
        peer.say("request", id="1", data=2)  # answered, so its id is free again
        assert (await peer.hear())["data"] == {"you said": 2}
    assert "encoding the answer to a request failed" in caplog.text


async def test_a_slow_answer_of_the_app_keeps_nobody_waiting() -> None:
    never = anyio.Event()
    asked = []

    async def authorize(channel: str) -> Grant:
        asked.append(channel)
        if channel == "slow":
            await never.wait()
        return ALL

    async with Channels() as channels, served(channels, authorize) as peer:
        peer.say("join", channel="slow")
        await peer.join("a")
        await peer.publish(1, "k")
        await peer.ping()
        assert sorted(asked) == ["a", "slow"]
        peer.say("leave", channel="slow")  # which ends it
        assert await peer.hear() == {"type": "left", "channel": "slow"}
        # What the client has said before it left is done before it leaves.
        peer.say("join", channel="slow")
        peer.say("publish", channel="slow", key="1", data=1)
        peer.say("leave", channel="slow")
        await peer.ping()
        never.set()
        messages = [await peer.hear() for _ in range(3)]
        assert [message["type"] for message in messages] == ["joined", "published", "left"]


async def test_what_waits_for_a_join_that_fails_is_answered() -> None:
    async with Channels() as channels, served(channels, lambda channel: None) as peer:
        peer.say("join", channel="a")
        for number in range(3):
            peer.say("publish", channel="a", key=f"{number}", data=1)
        errors = [await peer.hear() for _ in range(4)]
        assert [(error["action"], error["code"]) for error in errors] == [
            *[("publish", "forbidden")] * 3,
            ("join", "forbidden"),
        ]
        await peer.ping()


@pytest.mark.parametrize("where", ["join", "members", "publish", "authorize", "request"])
async def test_a_broker_that_is_away(where: str, caplog: pytest.LogCaptureFixture) -> None:
    async def away(*arguments: Any, **options: Any) -> Any:
        raise BrokerError("redis://secret.example is away")

    async with Channels() as channels:
        hooks: Any = {"authorize": away if where == "authorize" else everything, "on_request": away}
        async with served(channels, **hooks) as peer:
            backend: Any = channels.backend
            if where in ("join", "members"):
                name = "watch" if where == "join" else "members"
                usual = getattr(backend, name)
                setattr(backend, name, away)
                peer.say("join", channel="a", presence=True)
                peer.say("publish", channel="a", key="1", data=1)
                errors = await peer.hears("error", "error")
                assert [error["action"] for error in errors] == ["publish", "join"]
                setattr(backend, name, usual)
                await peer.join()  # and now it can
            elif where == "publish":
                await peer.join()
                usual, backend.publish = backend.publish, away
                peer.say("publish", channel="a", key="1", data=1)
                errors = await peer.hears("error")
                backend.publish = usual
                await peer.publish(1, "1")  # with the key that has failed
            else:
                peer.say("join", channel="a") if where == "authorize" else peer.say("request", id="1", data=1)
                errors = await peer.hears("error")
            assert {error["code"] for error in errors} == {"unavailable"}
            assert "secret" not in json.dumps(peer.heard)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# Exactly once


async def test_a_key_is_published_once(make: Make) -> None:
    async with make() as channels, served(channels) as peer:
        await peer.join()
        id = await peer.publish("x", "k")
        for _ in range(3):
            peer.say("publish", channel="a", key="k", data="x")
            assert await peer.hear() == {"type": "published", "channel": "a", "key": "k", "id": id}
        await peer.ping()


async def test_a_key_is_that_of_a_person(make: Make) -> None:
    """The same key of another person, of the app and in another channel is another one."""
    async with make() as channels:
        ids = [await channels.publish("a", "app", idempotency_key="k")]
        for person in ("ann", "bob", None):
            for _ in range(2):  # and again, over another connection
                async with served(channels, key=person) as peer:
                    await peer.join()
                    peer.say("publish", channel="a", key="k", data=person)
                    id = (await peer.hear())["id"]
                    ids.append(id)
        assert len(set(ids)) == 4
        async with served(channels, key="ann") as peer:
            await peer.join("b")
            assert await peer.publish("elsewhere", "k", "b") not in ids
        async with channels.subscribe("a", history=10) as subscription:
            events = [await anext(subscription) for _ in range(4)]
            assert subscription.pending == 0
        assert [event.data for event in events] == ["app", '"ann"', '"bob"', "null"]  # type: ignore[union-attr]


@pytest.mark.parametrize("leaving", [0.0, 1.0])
async def test_exactly_once_over_connections_that_break(
    leaving: float, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each publish is said again until it is answered, over connections that break at any point of it."""
    monkeypatch.setattr("lilya.websockets.channels._serve._LEAVING", leaving)
    async with make() as channels:
        position = None
        events: list[Any] = []
        answered: set[str] = set()
        backend: Any = channels.backend
        publish = backend.publish
        for attempt in range(40):
            if len(answered) == 20:
                break

            async def breaking(*arguments: Any, attempt: int = attempt) -> Any:
                if attempt % 3 == 0:
                    peer.leave()
                id = await publish(*arguments)
                if attempt % 3 == 1:
                    peer.leave()
                return id

            backend.publish = breaking
            async with served(channels, key="ann") as peer:
                peer.say("join", channel="a", since=position, history=100 if position is None else 0)
                for number in range(20):
                    if f"{number}" not in answered:
                        peer.say("publish", channel="a", key=f"{number}", data=number)
                if attempt % 3 == 2:
                    await until(partial(hears_more, peer))
                    peer.leave()
                await until(partial(is_over, peer))
            for message in peer.heard:
                if message["type"] == "published":
                    answered.add(message["key"])
                elif message["type"] == "event":
                    events.append(message["data"])
                    position = message["id"]
                elif message["type"] == "joined" and position is None:
                    position = message["position"]
        backend.publish = publish
        assert len(answered) == 20
        async with channels.subscribe("a", history=100) as subscription:
            kept = [json.loads((await anext(subscription)).data) for _ in range(20)]  # type: ignore[union-attr]
            assert subscription.pending == 0
        assert kept == list(range(20))
        assert events == kept[: len(events)]


async def test_data_of_the_app_as_deep_as_can_be(caplog: pytest.LogCaptureFixture) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    def hook(*arguments: Any) -> Any:
        return deep

    async with Channels() as channels, served(channels, on_publish=hook, on_request=hook) as peer:
        await peer.join()
        peer.say("publish", channel="a", key="1", data=1)
        peer.say("request", id="1", data=1)
        for error in await peer.hears("error", "error"):
            assert (error["code"], error["message"]) == ("invalid", '"data" must not be nested so deep')
        while deep:  # else its end would be nested as deep
            deep = deep.pop()


@pytest.mark.parametrize("key", ["", "[1]", "{}", "[null,5]", "[" * 5000, "5", "x"])
async def test_a_key_of_the_app_is_not_told(key: str) -> None:
    """Also if it looks like those of clients."""
    async with Channels() as channels, served(channels) as peer:
        await peer.join()
        await channels.publish("a", "1", idempotency_key=f"{SUBPROTOCOL} {key}")
        assert "key" not in await peer.hear()


# Taking a right away


@pytest.mark.quiet
@pytest.mark.parametrize("who", ["all", "one"])
async def test_a_channel_is_closed_and_the_connection_goes_on(who: str, make: Make) -> None:
    grants = [Grant(publish=True, member={"user": 7})]
    async with make() as channels, served(channels, lambda channel: (grants and grants[0]) or None) as peer:
        joined = await peer.join()
        await peer.join("b")
        grants.clear()
        member = {"all": None, "one": joined["member"]}[who]
        await channels.close("a", member=member, code=4001, reason="banned")
        assert await peer.hear() == {"type": "left", "channel": "a", "code": 4001, "reason": "banned"}
        peer.say("publish", channel="a", key="1", data=1)
        assert (await peer.hear())["code"] == "left"
        peer.say("join", channel="a")  # and the app is asked anew
        assert (await peer.hear())["code"] == "forbidden"
        await channels.publish("a", "1")
        await channels.publish("b", "2")
        assert (await peer.hear())["data"] == 2
        assert await channels.members("a") == []
        assert peer.closed is None


@pytest.mark.quiet
async def test_what_waits_to_be_published_when_a_channel_is_closed_is_answered() -> None:
    asked = anyio.Event()
    published = []

    async def on_publish(channel: str, data: Any) -> Any:
        published.append(data)
        asked.set()
        await anyio.sleep_forever()

    async with Channels() as channels, served(channels, on_publish=on_publish, max_waiting=3) as peer:
        await peer.join()
        for number in range(3):
            peer.say("publish", channel="a", key=f"{number}", data=number)
        await asked.wait()
        await peer.ping()
        await channels.close("a", code=4001)
        messages = await peer.hears("error", "error", "error", "left")
        assert [message.get("key") for message in messages] == ["0", "1", "2", None]
        # The client may: it need not take this for a refusal, and can join again.
        assert [message["code"] for message in messages[:3]] == ["left"] * 3
        assert (messages[-1]["code"], messages[-1]["reason"]) == (4001, "")
        assert published == [0]
        # None of them counts any more.
        await peer.join("b")
        for number in range(4):
            peer.say("publish", channel="b", key=f"{number}", data=number)
        error = await peer.hear()
        assert (error["code"], error["key"]) == ("too_many", "3")


@pytest.mark.quiet
async def test_nothing_is_published_to_a_channel_that_is_closed() -> None:
    """Also while the sockets of others are still being closed."""
    async with Channels() as channels, served(channels) as peer:
        await peer.join()
        other = Server()
        async with channels.join("a", await other.accepted()):
            other.held.add("websocket.close")
            await channels.close("a", code=4001)
            await other.holding.wait()
            await peer.ping()
            peer.say("publish", channel="a", key="1", data=1)
            await peer.ping()
            other.release()
            error, left = await peer.hears("error", "left")
            assert (error["code"], error["key"], left["code"]) == ("left", "1", 4001)
        assert (await channels.backend.history("a", last=1)).events == []


@pytest.mark.quiet("perhaps")
@pytest.mark.parametrize("code", [1001, 1012, 1013])
async def test_some_codes_close_the_connection(code: int) -> None:
    async with Channels() as channels, served(channels) as peer:
        await peer.join()
        await peer.join("b")
        await channels.close("a", code=code, reason="bye")
        await until(lambda: peer.over)
        assert peer.closed == (code, "bye")
        assert is_clean(channels)


@pytest.mark.quiet("perhaps")
@pytest.mark.parametrize("code", [1012, 4000])
async def test_draining_closes_the_connection(code: int) -> None:
    async with Channels() as channels, served(channels) as peer:
        await peer.join()
        await peer.join("b")
        await channels.drain(code, "later")
        await until(lambda: peer.over)
        assert peer.closed == (code, "later")


@pytest.mark.quiet("perhaps")
async def test_stopping_the_channels_closes_the_connection() -> None:
    peer = Peer()
    async with anyio.create_task_group() as tasks:
        async with Channels() as channels:

            async def run() -> None:
                await serve(peer.server.websocket(), channels, everything)
                peer.over = True

            tasks.start_soon(run)
            await peer.join()
        await until(lambda: peer.over)
    assert peer.closed == (1012, "")


async def test_a_client_without_a_channel_outlives_the_channels() -> None:
    """It is told that they are not there; its server closes it."""
    peer = Peer()
    async with anyio.create_task_group() as tasks:
        async with Channels() as channels:
            tasks.start_soon(serve, peer.server.websocket(), channels, everything)
            await peer.ping()
        peer.say("join", channel="a")
        assert (await peer.hear())["code"] == "unavailable"
        peer.leave()


# Bounds


async def test_channels_of_a_client() -> None:
    async with Channels() as channels, served(channels, max_channels=2) as peer:
        await peer.join("a")
        await peer.join("b")
        peer.say("join", channel="c")
        error = await peer.hear()
        assert (error["code"], error["channel"]) == ("too_many", "c")
        assert error["message"] == "at most 2 channels can be joined at once"
        peer.say("leave", channel="a")
        await peer.hears("left")
        await peer.join("c")


async def test_what_waits_for_an_answer() -> None:
    going = anyio.Event()

    async def wait(*arguments: Any) -> Any:
        await going.wait()
        return arguments[-1]

    options: Any = {"on_publish": wait, "on_request": wait, "max_waiting": 4}
    async with Channels() as channels, served(channels, **options) as peer:
        await peer.join()
        for number in range(2):
            peer.say("publish", channel="a", key=f"{number}", data=number)
            peer.say("request", id=f"{number}", data=number)
        peer.say("publish", channel="a", key="2", data=2)
        peer.say("request", id="2", data=2)
        errors = await peer.hears("error", "error")
        assert [error["code"] for error in errors] == ["too_many"] * 2
        assert errors[0]["message"] == "at most 4 messages can wait for their answers"
        going.set()
        await until(lambda: len(peer.heard) == 3 + 6)
        peer.say("request", id="2", data=2)
        await until(lambda: peer.heard[-1] == {"type": "answer", "id": "2", "data": 2})
        for number in range(3, 10):  # what is answered waits no longer
            peer.say("publish", channel="a", key=f"{number}", data=number)
            await until(lambda: len([each for each in peer.heard if each["type"] == "published"]) == number)  # noqa: B023
            assert len([each for each in peer.heard if each["type"] == "error"]) == 2


async def test_the_bytes_that_wait_for_an_answer() -> None:
    going = anyio.Event()

    async def wait(*arguments: Any) -> Any:
        await going.wait()

    options: Any = {"on_publish": wait, "on_request": wait, "max_waiting_bytes": 2000}
    async with Channels() as channels, served(channels, **options) as peer:
        await peer.join()
        large = "x" * 900
        for turn in range(2):  # what is answered waits no longer
            peer.say("request", id="1", data=large)
            peer.say("publish", channel="a", key=f"k{turn}", data=large)
            peer.say("request", id="2", data=large)
            peer.say("publish", channel="a", key="l", data=large)
            errors = await peer.hears("error", "error")
            assert [error["code"] for error in errors] == ["too_many"] * 2
            assert (errors[0]["id"], errors[1]["key"]) == ("2", "l")
            assert errors[0]["message"] == "at most 2000 bytes can wait for their answers"
            peer.say("request", id="3", data=1)  # a small one finds room
            going.set()
            answers = [await peer.hear() for _ in range(4)]
            assert sorted(answer["type"] for answer in answers) == ["answer", "answer", "event", "published"]
            going = anyio.Event()
        peer.say("request", id="1", data="x" * 3000)  # alone, also a larger one is taken
        going.set()
        await peer.hears("answer")


async def test_the_memory_that_waits_for_an_answer() -> None:
    """Decoded, the worst of JSON takes many times the bytes that it had."""
    worst = "[" + "{}," * 21_000 + "{}]"
    taken = []

    async def wait(data: Any) -> Any:
        taken.append(len(data))
        await anyio.sleep_forever()

    async with Channels() as channels, served(channels, on_request=wait) as peer:
        await peer.ping()
        tracemalloc.start()
        try:
            for number in range(64):
                peer.server.push(text(f'{{"type":"request","id":"{number}","data":{worst}}}'))
            await peer.hears(*["error"] * 60)
            assert len(taken) == 4
            assert tracemalloc.get_traced_memory()[0] < 8 * 2**20
        finally:
            tracemalloc.stop()


async def test_the_history_that_a_client_may_begin_with() -> None:
    async with Channels() as channels, served(channels, max_history=1) as peer:
        await channels.publish("a", "1")
        peer.say("join", channel="a", history=2)
        assert (await peer.hear())["code"] == "invalid"
        await peer.join(history=1)
        await peer.hears("event")


@pytest.mark.quiet
async def test_a_client_that_does_not_read_is_closed() -> None:
    async with Channels() as channels, served(channels, max_messages=5) as slow, served(channels) as peer:
        await slow.join()
        await peer.join()
        slow.server.held.add("websocket.send")
        for number in range(20):
            await channels.publish("a", f"{number}")
        await until(lambda: slow.over)
        assert slow.closed == (1013, "too slow")
        assert [(await peer.hear())["data"] for _ in range(20)] == list(range(20))


async def test_what_is_dropped_is_told() -> None:
    options: Any = {"max_messages": 5, "policy": "drop_oldest"}
    async with Channels() as channels, served(channels, **options) as slow:
        await slow.join()
        slow.server.held.add("websocket.send")
        for number in range(20):
            await channels.publish("a", f"{number}")
        await slow.server.holding.wait()
        slow.server.release()
        await until(lambda: slow.heard[-1].get("data") == 19)
        _, *messages = slow.heard
        dropped = [message for message in messages if message["type"] == "dropped"]
        assert dropped
        assert set(dropped[0]) == {"type", "channel", "count"}
        events = [message["data"] for message in messages if message["type"] == "event"]
        assert len(events) + sum(message["count"] for message in dropped) == 20
        assert events == sorted(events)


async def test_a_client_that_does_not_read_its_answers_is_not_read() -> None:
    async with Channels() as channels, served(channels) as peer:
        await peer.ping()
        peer.server.held.add("websocket.send")
        for _ in range(100):
            peer.say("ping")
        await peer.server.holding.wait()
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert len(peer.heard) == 2  # the one that waits is among them
        peer.server.release()
        await until(lambda: len(peer.heard) == 101)


@pytest.mark.parametrize("asked", ["request", "join"])
async def test_answers_that_a_client_does_not_read_have_a_bound(asked: str) -> None:
    """Also those that the task that receives does not send itself."""
    async with Channels() as channels, served(channels, lambda channel: None, max_waiting=4) as peer:
        await peer.ping()
        peer.server.held.add("websocket.send")
        for number in range(50):
            peer.say(asked, channel=f"{number}", id=f"{number}", data=1)
            for _ in range(20):  # so that it is answered before the next one is read
                await anyio.lowlevel.checkpoint()
        assert len(peer.heard) == 1 + 4 + 1  # one was asked for before the fourth was answered
        peer.server.release()
        await until(lambda: len(peer.heard) == 1 + 50)
        said = {each["channel" if asked == "join" else "id"] for each in peer.heard[1:]}
        assert said == {f"{number}" for number in range(50)}


# Joining and leaving in any order


async def test_leaving_what_was_not_joined() -> None:
    async with Channels() as channels, served(channels) as peer:
        for _ in range(2):
            peer.say("leave", channel="a")
            assert await peer.hear() == {"type": "left", "channel": "a"}


async def test_leaving_and_joining_in_a_row(make: Make) -> None:
    """Every join is answered, in order, and at the end there is one member."""
    async with make() as channels, served(channels, as_member("ann")) as peer:
        for _ in range(20):
            peer.say("join", channel="a")
            peer.say("leave", channel="a")
        peer.say("join", channel="a")
        await until(lambda: len([each for each in peer.heard if each["type"] == "left"]) == 20)
        await until(lambda: peer.heard[-1]["type"] == "joined")
        # One that was left before it was joined is answered by `left` alone.
        before = "left"
        for message in peer.heard:
            assert not (message["type"] == "joined" and before == "joined")
            before = message["type"]
        assert len(await channels.members("a")) == 1
        await channels.publish("a", "1")
        await peer.hear()
        await until(lambda: peer.heard[-1]["type"] == "event")
        assert len([each for each in peer.heard if each["type"] == "event"]) == 1


async def test_leaving_what_could_not_be_joined() -> None:
    """Each of the messages is answered, the last one as well."""
    async with Channels() as channels, served(channels, lambda channel: None) as peer:
        peer.say("join", channel="a")
        peer.say("publish", channel="a", key="k", data=1)
        peer.say("leave", channel="a")
        errors = await peer.hears("error", "error", "left")
        assert [each.get("action") for each in errors] == ["publish", "join", None]
        peer.say("leave", channel="a")
        await peer.hears("left")


async def test_joining_again_while_the_end_is_being_told() -> None:
    """What is told of the end comes before the answer to the next join."""
    asked = 0

    def authorize(channel: str) -> Grant | None:
        nonlocal asked
        asked += 1
        return None if asked == 1 else ALL

    async with Channels() as channels, served(channels, authorize) as peer:
        await peer.ping()
        peer.server.held.add("websocket.send")
        peer.say("join", channel="a")
        for number in range(3):
            peer.say("publish", channel="a", key=f"{number}", data=1)
        await peer.server.holding.wait()
        peer.say("join", channel="a")
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        peer.server.release()
        told = await peer.hears("error", "error", "error", "error", "joined")
        assert [each.get("action") for each in told] == ["publish", "publish", "publish", "join", None]
        await peer.publish("joined", "k")


async def test_a_flood_of_joins_while_one_does_not_end() -> None:
    """Those that wait for it count."""
    async with Channels() as channels, served(channels, max_channels=5) as peer:
        await peer.join()
        peer.server.held.add("websocket.send")
        await channels.publish("a", "1")
        await peer.server.holding.wait()
        for _ in range(50):
            peer.say("leave", channel="a")
            peer.say("join", channel="a")
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        peer.server.release()
        await until(lambda: not peer.server.events)
        await until(lambda: len([each for each in peer.heard if each.get("code") == "too_many"]) > 0)


@pytest.mark.quiet
async def test_a_channel_that_is_closed_while_it_is_joined() -> None:
    async with Channels() as channels:
        asked = anyio.Event()
        backend: Any = channels.backend

        async def slow(channel: str) -> Any:
            asked.set()
            await anyio.sleep_forever()

        backend.members = slow
        async with served(channels) as peer:
            peer.say("join", channel="a", presence=True)
            await asked.wait()
            await channels.close("a", code=4001, reason="banned")
            assert await peer.hear() == {"type": "left", "channel": "a", "code": 4001, "reason": "banned"}


# The end


@pytest.mark.parametrize("where", ["authorize", "publish", "request", "members"])
async def test_a_client_that_leaves_ends_everything(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lilya.websockets.channels._serve._LEAVING", 0.01)
    waiting = anyio.Event()
    ended = []

    async def hang(*arguments: Any) -> Any:
        waiting.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(where)

    async with Channels() as channels:
        options: dict[str, Any] = {}
        if where == "authorize":
            options["authorize"] = hang
        elif where == "members":
            backend: Any = channels.backend
            backend.members = hang
        else:
            options[f"on_{where}"] = hang
        async with served(channels, **options) as peer:
            if where in ("publish", "request"):
                await peer.join()
            peer.say("join", channel="a", presence=where == "members")
            peer.say("publish", channel="a", key="1", data=1)
            peer.say("request", id="1", data=1)
            await waiting.wait()
            peer.leave()
            await until(lambda: peer.over)
        assert ended == [where]
        assert is_clean(channels)


async def test_what_a_client_has_said_before_it_left_is_published(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lilya.websockets.channels._serve._LEAVING", float("inf"))  # it ends by itself
    async with make() as channels:
        async with served(channels) as peer:
            peer.say("join", channel="a")
            for number in range(20):
                peer.say("publish", channel="a", key=f"{number}", data=number)
            peer.leave()
            await until(lambda: peer.over)
        async with channels.subscribe("a", history=50) as subscription:
            assert subscription.pending == 20


async def test_a_send_that_finds_the_client_gone() -> None:
    async with Channels() as channels:
        for join in (True, False):
            async with served(channels) as peer:
                if join:
                    await peer.join()
                    peer.server.fail(ClientDisconnected())
                    await channels.publish("a", "1")
                else:
                    peer.server.fail(ClientDisconnected())
                    peer.say("ping")
                await until(partial(is_over, peer))
            assert is_clean(channels)


async def test_a_server_that_fails() -> None:
    """That is no end that anybody expects."""
    server = Server(subprotocols=[SUBPROTOCOL])
    peer = Peer(server)
    failures: list[BaseException] = []

    async def run() -> None:
        try:
            await serve(server.websocket(), channels, everything)
        except Exception as error:
            failures.append(error)
        peer.over = True

    async with Channels() as channels, anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await peer.join()
        server.fail(LookupError("no such frame"))
        await channels.publish("a", "1")
        await until(lambda: peer.over)
        assert is_clean(channels)
    assert "no such frame" in repr(failures[0]) or "no such frame" in repr(failures[0].exceptions)  # type: ignore[attr-defined]
    assert peer.closed == (1011, "")


async def test_cancelled() -> None:
    async with Channels() as channels, anyio.create_task_group() as tasks:
        peer = Peer()
        tasks.start_soon(partial(serve, peer.server.websocket(), channels, as_member("ann")))
        await peer.join()
        await peer.join("b")
        tasks.cancel_scope.cancel()
    assert is_clean(channels)
    assert peer.closed == (1011, "")


@pytest.mark.parametrize("then", ["returns", "fails"])
async def test_the_app_closes(then: str, caplog: pytest.LogCaptureFixture) -> None:
    async def app(websocket: WebSocket) -> None:
        async def on_request(data: Any) -> None:
            await websocket.close(4003, "enough")
            if then == "fails":
                raise WebSocketDisconnect(4003)

        await serve(websocket, channels, everything, on_request=on_request)

    async with Channels() as channels, served(channels, app=app) as peer:
        await peer.join()
        peer.say("request", id="1", data=1)
        await until(lambda: peer.over)
        assert peer.closed == (4003, "enough")
        assert is_clean(channels)
    assert not caplog.records


@pytest.mark.quiet("perhaps")
async def test_the_app_closes_and_then_the_channels_do() -> None:
    async def app(websocket: WebSocket) -> None:
        async def on_request(data: Any) -> None:
            await websocket.close(4003, "enough")
            await channels.close("a", code=1012)
            await anyio.sleep_forever()

        await serve(websocket, channels, everything, on_request=on_request)

    async with Channels() as channels, served(channels, app=app) as peer:
        await peer.join()
        peer.say("request", id="1", data=1)
        await until(lambda: peer.over)
        assert peer.closed == (4003, "enough")


def test_what_the_encoder_makes_of_a_channel() -> None:
    encode = encoder_for('"ä')
    assert json.loads(encode(Event('"ä', "1-1-0", "1"))) == {
        "type": "event",
        "channel": '"ä',
        "id": "1-1-0",
        "data": 1,
    }
    assert json.loads(encode(Gap('"ä', "1", "2"))) == {
        "type": "gap",
        "channel": '"ä',
        "since": "1",
        "id": "2",
    }
    assert json.loads(encode(Dropped(3))) == {"type": "dropped", "channel": '"ä', "count": 3}
    assert encoder_for('"ä') is encode
