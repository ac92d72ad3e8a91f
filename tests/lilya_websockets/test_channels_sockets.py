"""Sockets in channels: each gets what is published, and none keeps another one waiting."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from lilya.websockets import (
    WebSocket,
    WebSocketClosed,
    WebSocketDisconnect,
    WebSocketRuntimeError,
)
from lilya.websockets.channels import (
    Channels,
    Dropped,
    Event,
    Gap,
    Membership,
    Presence,
    _hub,
)
from lilya.websockets.channels._backend import CONTROL
from lilya.websockets.channels._memory import MemoryBackend
from lilya.websockets.channels.backends import History

from .server import ClientDisconnected, Server, disconnect, text

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

pytestmark = pytest.mark.anyio

Make = Callable[..., Channels]


@pytest.fixture
def make(make_channels: Make) -> Make:
    return make_channels


class Boom(Exception):
    """What a broken body, server or encoder raises."""


async def until(condition: Callable[[], object]) -> None:
    """Let the others run until something is so; the time limit of each test ends it."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await anyio.sleep(0.001)


def sent(server: Server) -> list[Any]:
    """What a client saw: payloads, and the code of a close."""
    return [
        message.get("text", message.get("bytes", message.get("code")))
        for message in server.sent
        if message["type"] != "websocket.accept"
    ]


def is_clean(channels: Channels) -> bool:
    return not (
        channels._hub._channels
        or channels._hub._outboxes
        or channels._hub._positions
        or channels._hub.roster.members
        or channels._hub.writers.ready
        or channels._hub.writers.sockets
    )


@asynccontextmanager
async def joined(
    channels: Channels, *, held: bool = False, **options: Any
) -> AsyncIterator[tuple[Membership, Server]]:
    """A socket in the channel `a`; one whose sends block, if that is asked for."""
    server = Server()
    websocket = await server.accepted()
    if held:
        server.held.add("websocket.send")
    async with channels.join("a", websocket, **options) as member:
        yield member, server


@pytest.mark.parametrize("planted", [False, True], ids=["as it is", "planted fault"])
async def test_the_history_of_orders_is_asked_for_once(
    planted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each socket listens to them. Only the first one needs to know where they stand."""
    if planted:
        monkeypatch.setattr(_hub, "CONTROL", "another")
    asked: list[str] = []

    class Asked(MemoryBackend):
        async def history(self, channel: str, **options: Any) -> History:
            asked.append(channel)
            return await super().history(channel, **options)

    async with Channels(Asked(history=10, max_age=None)) as channels:
        for _ in range(2):  # when all sockets have left, they are not read any more
            async with AsyncExitStack() as stack:
                for _ in range(3):
                    websocket = await Server().accepted()
                    await stack.enter_async_context(channels.join("room", websocket))
    assert [asked.count(name) for name in ("room", CONTROL)] == [6, 6 if planted else 2]


# Forwarding


async def test_what_is_published_is_forwarded(make: Make) -> None:
    async with make() as channels, joined(channels) as (member, server):
        for payload in ("text", b"data", "", "grüße"):
            await channels.publish("a", payload)
        await channels.publish_json("a", {"n": 1})
        await until(lambda: len(server.sent) == 5)
        assert sent(server) == ["text", b"data", "", "grüße", '{"n":1}']
        assert (member.sent, member.pending, member.dropped, member.ended) == (5, 0, 0, None)
    assert member.ended == "left"


async def test_until_the_block_ends(make: Make) -> None:
    async with make() as channels:
        async with joined(channels) as (_, server):
            await channels.publish("a", "1")
            await until(lambda: server.sent)
        await channels.publish("a", "2")
        assert is_clean(channels)
    assert sent(server) == ["1"]  # and it was not closed


async def test_in_a_block_of_its_own(make: Make) -> None:
    """The handler of a chat, with all that a handler does."""
    async with make() as channels:

        async def app(websocket: WebSocket) -> None:
            async with websocket, channels.join("a", websocket):
                async for message in websocket.iter_text():
                    await channels.publish("a", message)

        servers = [Server() for _ in range(3)]
        async with anyio.create_task_group() as tasks:
            for server in servers:
                tasks.start_soon(app, server.websocket())
            await until(lambda: len(channels._hub._outboxes) == 3)
            servers[0].push(text("1"))
            await until(lambda: all(len(server.sent) == 2 for server in servers))
            for server in servers:
                server.push(disconnect())
        assert [sent(server) for server in servers] == [["1"]] * 3
        assert is_clean(channels)


@pytest.mark.parametrize(
    "body",
    [
        "iterates",
        "iterates, by hand",
        pytest.param("waits", marks=pytest.mark.quiet),
        pytest.param("waits, by hand", marks=pytest.mark.quiet),
        pytest.param("waits in a group", marks=pytest.mark.quiet),
    ],
)
async def test_a_body_that_only_sends_ends_with_its_client(
    body: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lilya.websockets.channels._membership._GRACE", 0.01)
    entered: list[Any] = []
    ended: list[Any] = []

    async def app(channels: Channels, websocket: WebSocket) -> None:
        async with AsyncExitStack() as stack:
            if "by hand" in body:
                await websocket.accept()
            else:
                await stack.enter_async_context(websocket)
            membership = await stack.enter_async_context(channels.join("a", websocket, member=1))
            entered.append(membership)
            if body in ("waits", "waits, by hand"):
                await anyio.sleep_forever()
            elif body == "waits in a group":
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(anyio.sleep_forever)
            else:
                async for _ in membership:
                    pass
        ended.append(membership.ended)

    async with make() as channels, anyio.create_task_group() as tasks:
        servers = [Server() for _ in range(20)]
        for server in servers:
            tasks.start_soon(app, channels, server.websocket())
        await until(lambda: len(entered) == 20)
        for server in servers:
            if "by hand" in body:
                server.fail(ClientDisconnected())  # the next send tells it
            else:
                server.push(disconnect())
        if "by hand" in body:
            await channels.publish("a", "1")
        await until(lambda: len(ended) == 20)
        assert ended == ["client"] * 20
        assert await channels.members("a") == []
        assert is_clean(channels)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # on trio all is done by tasks
@pytest.mark.parametrize("body", [pytest.param("waits", marks=pytest.mark.quiet), "receives"])
async def test_a_server_tells_the_end_outside_of_any_task(
    body: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a transport does, in a context of its own: there AnyIO does not know the event loop."""
    monkeypatch.setattr("lilya.websockets.channels._membership._GRACE", 0.01)
    monkeypatch.setattr(Server, "announces", True)
    entered: list[Any] = []
    ended: list[Any] = []
    looked_at: list[Any] = []
    cancel_body = Membership._cancel_body

    def looking(membership: Membership) -> None:
        cancel_body(membership)
        looked_at.append(membership)

    monkeypatch.setattr(Membership, "_cancel_body", looking)

    async def app(channels: Channels, websocket: WebSocket) -> None:
        async with websocket, channels.join("a", websocket) as membership:
            entered.append(membership)
            if body == "waits":
                await anyio.sleep_forever()
            async for _ in websocket.iter_text():
                pass
        ended.append(membership.ended)

    loop = asyncio.get_running_loop()
    async with Channels("memory://") as channels, anyio.create_task_group() as tasks:
        for number in (1, 2):
            server = Server()
            tasks.start_soon(app, channels, server.websocket())
            await until(lambda: len(entered) == number)  # noqa: B023 - awaited here
            loop.call_soon(server.push, disconnect(), context=contextvars.Context())
            await until(lambda: len(ended) == number)  # noqa: B023
            # A body that receives has left by itself by then, and is left alone.
            await until(lambda: len(looked_at) == number)  # noqa: B023
        assert ended == ["client"] * 2
        assert is_clean(channels)
    assert not caplog.records


async def test_a_body_that_is_not_to_be_cancelled(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lilya.websockets.channels._membership._GRACE", 0.0)
    done: list[str] = []

    async def app(channels: Channels, websocket: WebSocket) -> None:
        async with websocket, channels.join("a", websocket, cancel_on_disconnect=False) as membership:
            # It receives, and so it is told of the end.
            done.extend([text async for text in websocket.iter_text()])
            async for _ in membership:
                pass
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
            done.append("at work")

    async with make() as channels, anyio.create_task_group() as tasks:
        server = Server()
        tasks.start_soon(app, channels, server.websocket())
        await until(lambda: channels._hub._outboxes)
        server.push(text("1"))
        server.push(disconnect())
        await until(lambda: len(done) == 2)
    assert done == ["1", "at work"]


async def test_a_body_that_ends_in_time_is_not_cancelled(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a second to do so."""
    monkeypatch.setattr("lilya.websockets.channels._membership._GRACE", 3600.0)
    finish = anyio.Event()
    done: list[Any] = []

    async def app(channels: Channels, websocket: WebSocket) -> None:
        async with websocket, channels.join("a", websocket) as membership:
            await finish.wait()
            done.append(membership.ended)

    async with make() as channels, anyio.create_task_group() as tasks:
        server = Server()
        tasks.start_soon(app, channels, server.websocket())
        await until(lambda: channels._hub._outboxes)
        server.push(disconnect())
        await until(lambda: not channels._hub._outboxes)
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        finish.set()
    assert done == ["client"]


async def test_an_end_of_ones_own_cancels_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lilya.websockets.channels._membership._GRACE", 0.0)
    async with make() as channels:
        server = Server()
        websocket = server.websocket()
        async with websocket, channels.join("a", websocket) as membership:
            await websocket.close()
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
            assert membership.ended is None
        assert membership.ended == "left"


async def test_positions_from_the_beginning(make: Make) -> None:
    """What a client needs to come back to channels in which nothing was published yet."""
    async with make() as channels:
        before = await channels.publish("a", "0")
        server = Server()
        async with channels.join(["a", "b", "c"], await server.accepted(), presence=True) as membership:
            positions = dict(membership.positions)
        async with channels.subscribe("a", "b", "c", since={"c": positions["c"]}) as subscription:
            assert subscription.positions | {"b": positions["b"]} == positions
        assert list(positions) == ["a", "b", "c"]
        assert positions["a"] == before
        for name in "abc":
            await channels.publish(name, name)
        async with channels.subscribe("a", "b", "c", since=positions) as subscription:
            items = [await anext(subscription) for _ in range(3)]
            assert [item.data for item in items if isinstance(item, Event)] == ["a", "b", "c"]


async def test_several_channels_and_history(make: Make) -> None:
    async with make() as channels:
        ids = [await channels.publish("ab"[number % 2], str(number)) for number in range(6)]
        server = Server()
        async with channels.join(["a", "b"], await server.accepted(), history=1, since={"a": ids[0]}):
            await channels.publish("b", "6")
            await until(lambda: len(server.sent) == 4)
            assert sent(server) == ["2", "4", "5", "6"]


@pytest.mark.parametrize(
    "handover", ["wait_disconnected", "iterate", pytest.param("receive", marks=pytest.mark.quiet)]
)
@pytest.mark.parametrize("block", [True, False])
async def test_a_client_that_leaves_ends_the_block_quietly(make: Make, handover: str, block: bool) -> None:
    codes: list[int | None] = []
    async with make() as channels:
        server = Server()
        websocket = await server.accepted()
        async with AsyncExitStack() as stack:
            if block:
                await stack.enter_async_context(websocket)
            server.push(disconnect(1001))
            async with channels.join("a", websocket):
                if handover == "receive":
                    await websocket.receive_text()
                elif handover == "iterate" or not block:
                    assert [message async for message in websocket.iter_text()] == []
                else:
                    await websocket.wait_disconnected()
            codes.append(websocket.close_code)
        assert codes == [1001]
        assert is_clean(channels)


@pytest.mark.quiet
async def test_a_client_that_left_before(make: Make) -> None:
    async with make() as channels:
        server = Server(disconnect(1001))
        websocket = await server.accepted()
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()
        with pytest.raises(WebSocketClosed, match="cannot join any longer: the client closed it"):
            async with channels.join("a", websocket):
                raise AssertionError("it was entered")
        # In a block, that is how the block ends.
        server = Server(disconnect(1001), connecting=False)
        async with server.websocket() as websocket, channels.join("a", websocket):
            raise AssertionError("it was entered")
        assert websocket.close_code == 1001
        assert is_clean(channels)


async def test_the_end_of_another_socket_is_none_of_ours(make: Make) -> None:
    async with make() as channels:
        other = await Server(disconnect(1001)).accepted()
        server = Server()
        with pytest.raises(WebSocketDisconnect):
            async with await server.accepted() as websocket, channels.join("a", websocket):
                await other.receive_text()
        assert sent(server) == [1011]
        server = Server()
        with pytest.raises(WebSocketDisconnect) as caught:
            async with await server.accepted() as websocket, channels.join("a", websocket):
                server.push(disconnect(1001))
                await websocket.wait_disconnected()
                raise WebSocketDisconnect(4000)  # of another one, though this one has ended, too
        assert caught.value.code == 4000


@pytest.mark.quiet
async def test_an_end_in_a_group(make: Make) -> None:
    async with make() as channels:
        websocket = await Server(disconnect(1001)).accepted()
        async with channels.join("a", websocket), anyio.create_task_group() as tasks:
            tasks.start_soon(websocket.receive_text)
        websocket = await Server(disconnect(1001)).accepted()
        with pytest.raises(ExceptionGroup) as caught:
            async with channels.join("a", websocket), anyio.create_task_group() as tasks:

                async def fail() -> None:
                    try:
                        await websocket.receive_text()
                    finally:
                        raise Boom

                tasks.start_soon(fail)
                await anyio.lowlevel.checkpoint()
                tasks.start_soon(_raise, WebSocketDisconnect(1001))
        assert [type(error) for error in caught.value.exceptions] == [Boom]


async def _raise(error: Exception) -> None:
    raise error


async def test_an_exception_of_the_body_goes_on(make: Make) -> None:
    async with make() as channels:
        with pytest.raises(Boom):
            async with joined(channels):
                raise Boom
        assert is_clean(channels)


async def test_a_close_of_the_apps_own(make: Make) -> None:
    async with make() as channels:
        async with joined(channels) as (member, server):
            await member.websocket.close(4000)
            await channels.publish("a", "1")
            await until(lambda: member.ended)
            assert member.ended == "closed"
        assert sent(server) == [4000]
        with pytest.raises(WebSocketClosed, match="the app closed it"):
            async with joined(channels) as (member, server):
                await member.websocket.close()
                await member.websocket.send_text("a bug")
        assert is_clean(channels)


async def test_joining_out_of_turn(make: Make) -> None:
    async with make() as channels:
        websocket = Server().websocket()
        with pytest.raises(WebSocketRuntimeError, match=r"not accepted. Call accept\(\) first"):
            await channels.join("a", websocket).__aenter__()
        await websocket.send({"type": "http.response.start", "status": 403, "headers": []})
        with pytest.raises(WebSocketRuntimeError, match="an HTTP response has been started"):
            await channels.join("a", websocket).__aenter__()
        await websocket.send({"type": "http.response.body", "body": b""})
        websocket = await Server().accepted()
        member = channels.join("a", websocket)
        with pytest.raises(WebSocketRuntimeError, match="enter the block first"):
            await anext(member)
        async with member:
            with pytest.raises(WebSocketRuntimeError, match="entered before"):
                await member.__aenter__()
        assert is_clean(channels)
    with pytest.raises(WebSocketRuntimeError, match="cannot join any longer: the channels were stopped"):
        await channels.join("a", websocket).__aenter__()


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        (
            ("a", None),
            {},
            TypeError,
            "websocket must be a WebSocket, or an object that carries .* got NoneType",
        ),
        ((b"a", ...), {}, TypeError, "names must be str or an iterable of str, got bytes"),
        ((1, ...), {}, TypeError, "names must be str or an iterable of str, got int"),
        (((), ...), {}, ValueError, "there must be the name of a channel"),
        (("a", ...), {"encode": 1}, TypeError, "encode must be callable, got int"),
        (("a", ...), {"member": {1}}, TypeError, "set"),
        (("a", ...), {"policy": "wait"}, ValueError, "a policy is one of"),
        (("a", ...), {"history": "1"}, TypeError, "history must be int"),
    ],
)
async def test_a_block_that_cannot_be_made(
    arguments: Any, options: Any, error: type[Exception], words: str
) -> None:
    websocket = await Server().accepted()
    with pytest.raises(error, match=words):
        Channels().join(*(websocket if argument is ... else argument for argument in arguments), **options)


# Slow and dead clients


@pytest.mark.quiet
async def test_one_of_a_hundred_is_stalled(make: Make) -> None:
    """The others get everything; its outbox keeps its bound, and then it is closed and gone."""
    whole = False
    async with make() as channels, AsyncExitStack() as stack:
        others = [await stack.enter_async_context(joined(channels)) for _ in range(99)]
        ended = anyio.Event()
        members: list[Membership] = []

        async def stalled() -> None:
            async with joined(channels, held=True, max_messages=5) as (member, server):
                members.append(member)
                await anyio.sleep_forever()
            assert [message["type"] for message in server.sent] == ["websocket.send", "websocket.close"]
            assert sent(server)[1] == 1013
            ended.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stalled)
            await until(lambda: members)
            (member,) = members
            for number in range(6):
                await channels.publish("a", str(number))
            await until(lambda: all(len(server.sent) == 6 for _, server in others))
            assert (member.pending, member.ended) == (5, None)
            for number in range(6, 300):
                await channels.publish("a", str(number))
            await ended.wait()
        await until(lambda: all(len(server.sent) == 300 for _, server in others))
        for other, server in others:
            assert sent(server) == [str(number) for number in range(300)]
            assert (other.sent, other.dropped, other.ended) == (300, 0, None)
        assert (member.ended, member.pending, member.dropped, member.sent) == ("full", 0, 6, 0)
        whole = True  # in a block of each of the others, which a full outbox would end
    assert whole


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
async def test_a_stalled_one_that_drops(make: Make, policy: Any) -> None:
    async with (
        make() as channels,
        joined(channels, held=True, policy=policy, max_messages=3) as (member, server),
        joined(channels) as (_, other),
    ):
        for number in range(11):
            await channels.publish("a", str(number))
        await until(lambda: len(other.sent) == 11)
        assert sent(server) == ["0"]
        assert await anext(member) == Dropped(7)
        server.release()
        await until(lambda: len(server.sent) == 4)
        assert sent(server) == (["0", "8", "9", "10"] if policy == "drop_oldest" else ["0", "1", "2", "3"])
        assert (member.dropped, member.ended) == (7, None)
        await channels.publish("a", "11")
        await until(lambda: len(server.sent) == 5)


@pytest.mark.parametrize("max_messages", [1, 40])
async def test_a_burst_is_no_reason_to_close(make: Make, max_messages: int) -> None:
    """Nobody is slow, and the publisher is faster than everybody: it waits, and nobody is closed."""
    async with make() as channels, AsyncExitStack() as stack:
        members = [
            await stack.enter_async_context(joined(channels, max_messages=max_messages)) for _ in range(120)
        ]

        async def publish() -> None:
            for number in range(25):
                await channels.publish("a", str(number))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(publish)
        await until(lambda: all(len(server.sent) == 75 for _, server in members))
        assert {member.ended for member, _ in members} == {None}


async def test_a_burst_of_large_ones_is_no_reason_either(make: Make) -> None:
    async with make() as channels, joined(channels, max_bytes=100) as (member, server):
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(channels.publish, "a", "x" * (number * 3))
        await until(lambda: len(server.sent) == 30)
        assert member.ended is None


@pytest.mark.parametrize("block", [True, False])
async def test_a_dead_socket_is_removed(make: Make, block: bool) -> None:
    async with make() as channels, joined(channels) as (_, other):
        server = Server()
        websocket = await server.accepted()
        async with AsyncExitStack() as stack:
            if block:
                await stack.enter_async_context(websocket)
            async with channels.join("a", websocket) as member:
                server.fail(ClientDisconnected("gone"))
                await channels.publish("a", "1")
                await until(lambda: member.ended)
                assert member.ended == "client"
                assert [item async for item in member] == []
                await channels.publish("a", "2")
        await until(lambda: len(other.sent) == 2)
        assert (websocket.close_code, sent(server)) == (1006, [])
        assert len(channels._hub._outboxes) == 1


async def test_a_server_that_fails(make: Make) -> None:
    """What it raises comes out of the block of this socket, and of no other."""
    async with make() as channels, joined(channels) as (_, other):
        with pytest.raises(Boom, match="refused"):
            async with joined(channels) as (member, server):
                server.fail(Boom("refused"))
                await channels.publish("a", "1")
                await anyio.sleep_forever()
        assert member.ended == "failed"
        await channels.publish("a", "2")
        await until(lambda: len(other.sent) == 2)


async def test_a_server_that_fails_while_the_body_does(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    async with make() as channels:
        with pytest.raises(Boom, match="body"):
            async with joined(channels) as (_, server):
                server.fail(Boom("refused"))
                await channels.publish("a", "1")
                try:
                    await anyio.sleep_forever()
                finally:
                    raise Boom("body")
        assert is_clean(channels)
    assert "a message could not be sent while an exception left the block" in caplog.text


async def test_leaving_waits_for_the_send_that_is_under_way(make: Make) -> None:
    async with make() as channels:
        async with joined(channels, held=True) as (member, server):
            await channels.publish("a", "1")
            await server.holding.wait()
            assert member._outbox.writing is not None
        assert member._outbox.writing is None
        server.release()
        async with joined(channels) as (_, other):
            await channels.publish("a", "2")
            await until(lambda: other.sent)
        assert is_clean(channels)


async def test_a_send_that_cannot_be_cancelled(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving has a limit."""
    monkeypatch.setattr("lilya.websockets.channels._membership._LEAVING", 0.01)
    async with make() as channels:
        server = Server()
        websocket = await server.accepted()
        going_on = anyio.Event()

        async def send(message: Any) -> None:
            with anyio.CancelScope(shield=True):
                await going_on.wait()

        websocket._use(websocket._receive, send)
        async with channels.join("a", websocket) as member:
            await channels.publish("a", "1")
            await until(lambda: member._outbox.writing)
        assert member._outbox.writing is not None
        going_on.set()
        await until(lambda: member._outbox.writing is None)


async def test_what_comes_after_a_block_was_left(make: Make) -> None:
    """A writer that could not be interrupted may still tell something. Nobody is there to be told."""
    async with make() as channels:
        async with joined(channels) as (member, _):
            outbox = member._outbox
        outbox.full()
        outbox.lost(1)
        outbox.missed(Gap("a", "1-1-00000000", "1-2-00000000"))
        outbox.failed(Boom("late"))
        assert (member.ended, member._failure, outbox.owner) == ("left", None, None)


@pytest.mark.parametrize("fault", [OSError("gone"), Boom("no"), None])
@pytest.mark.quiet
async def test_closing_one_that_is_full_fails(
    make: Make, fault: Exception | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lilya.websockets.channels._membership._LEAVING", 0.05)
    async with make() as channels:
        async with joined(channels, held=True, max_messages=1) as (member, server):
            await channels.publish("a", "1")
            await server.holding.wait()
            if fault is None:
                server.held.add("websocket.close")
            else:
                server.fail(fault)
            for number in range(3):
                await channels.publish("a", str(number))
            await anyio.sleep_forever()
        assert member.ended == "full"
        assert is_clean(channels)
    assert [record.message for record in caplog.records] == (
        ["the server refused to close"] if isinstance(fault, Boom) else []
    )


@pytest.mark.quiet
async def test_the_app_closes_one_that_is_full(make: Make) -> None:
    """Between the two, only one close goes out."""
    async with make() as channels:
        async with joined(channels, held=True, max_messages=1) as (member, server):
            try:
                for number in range(5):
                    await channels.publish("a", str(number))
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await member.websocket.close(4000)
        assert [message["type"] for message in server.sent] == ["websocket.send", "websocket.close"]
        assert sent(server)[1] == 4000
        assert member.ended == "full"


async def test_closing_while_the_app_closes(make: Make) -> None:
    async with make() as channels, joined(channels) as (member, server):
        await member._close(1013, "")
        await member._close(1013, "")
        assert sent(server) == [1013]


# What is sent


async def test_it_is_encoded_once(make: Make) -> None:
    calls = []

    def encode(item: Any) -> str | None:
        calls.append(item)
        return json.dumps({"id": item.id, "text": item.data}) if item.data != "secret" else None

    async with make() as channels, AsyncExitStack() as stack:
        members = [await stack.enter_async_context(joined(channels, encode=encode)) for _ in range(50)]
        _, plain = await stack.enter_async_context(joined(channels))
        ids = [await channels.publish("a", data) for data in ("1", "secret", "2")]
        await until(lambda: all(len(server.sent) == 2 for _, server in members) and len(plain.sent) == 3)
        expected = [f'{{"id": "{ids[0]}", "text": "1"}}', f'{{"id": "{ids[2]}", "text": "2"}}']
        assert [sent(server) for _, server in members] == [expected] * 50
        assert sent(plain) == ["1", "secret", "2"]
    assert [item.data for item in calls] == ["1", "secret", "2"]


async def test_what_was_missed_is_encoded_once(make: Make) -> None:
    """For all who come back to a channel, though each is sent it alone."""
    encoded: list[Any] = []

    def encode(item: Any) -> Any:
        encoded.append(item.data)
        return item.data

    async with make() as channels, AsyncExitStack() as stack:
        first, *_ = [await channels.publish("a", f"{n}") for n in range(5)]
        for _ in range(3):
            server = Server()
            websocket = await server.accepted()
            await stack.enter_async_context(channels.join("a", websocket, since=first, encode=encode))
            await until(lambda: len(server.sent) == 4)  # noqa: B023 - awaited here
            assert sent(server) == ["1", "2", "3", "4"]
        await stack.aclose()
    assert encoded == ["1", "2", "3", "4"]


async def test_each_message_is_one_of_its_own(make: Make) -> None:
    """What a server does with one, the others do not see. What it may keep is common to all."""
    async with make() as channels, AsyncExitStack() as stack:
        servers = []
        prepared: dict[str, Any] = {"lilya.websocket.prepared": {}}
        for extensions in (prepared, prepared, None):
            server = Server(extensions=extensions)
            messages: list[Any] = []
            websocket = await server.accepted()

            async def send(message: Any, messages: list[Any] = messages) -> None:
                messages.append(dict(message))
                message.clear()

            websocket._use(websocket._receive, send)
            await stack.enter_async_context(channels.join("a", websocket))
            servers.append(messages)
        await channels.publish("a", "1")
        await until(lambda: all(servers))
        plain = {"type": "websocket.send", "text": "1"}
        assert servers == [[plain | {"prepared": {}}]] * 2 + [[plain]]
        assert servers[0][0]["prepared"] is servers[1][0]["prepared"]


async def test_an_encoder_that_fails(make: Make) -> None:
    def encode(item: Any) -> Any:
        if item.data == "bad":
            raise Boom("bad")
        return item.data

    async with make() as channels, joined(channels) as (_, other):
        with pytest.raises(Boom, match="bad"):
            async with joined(channels, encode=encode) as (_, server):
                await channels.publish("a", "good")
                await channels.publish("a", "bad")
                await anyio.sleep_forever()
        assert sent(server) == ["good"]
        with pytest.raises(TypeError):
            async with joined(channels, encode=lambda _: 1):
                await channels.publish("a", "good")
                await anyio.sleep_forever()
        await until(lambda: len(other.sent) == 3)


def described(item: Any) -> str:
    if isinstance(item, Event):
        return str(item.data)
    if isinstance(item, Presence):
        return f"{item.type} {item.member.json()}"
    return type(item).__name__


async def test_the_client_is_told_of_gaps_and_of_what_is_dropped(make: Make) -> None:
    async with make(history=2) as channels:
        first = await channels.publish("a", "0")
        for number in range(1, 6):
            last = await channels.publish("a", str(number))
        async with joined(channels, since=first, encode=described, policy="drop_oldest", max_messages=2) as (
            member,
            server,
        ):
            await until(lambda: len(server.sent) == 3)
            assert await anext(member) == Gap("a", first, first)
            server.held.add("websocket.send")
            for number in range(6, 12):
                await channels.publish("a", str(number))
            await server.holding.wait()
            await until(lambda: member.dropped == 3)
            server.release()
            await until(lambda: len(server.sent) == 7)
            assert sent(server) == ["Gap", "4", "5", "6", "Dropped", "10", "11"]
            assert await anext(member) == Dropped(3)
            # Gaps of one channel that nobody has asked for are told as one.
            member._tell_gap(Gap("a", first, last))
            member._tell_gap(Gap("a", last, first))
            assert await anext(member) == Gap("a", first, first)
            async with anyio.create_task_group() as tasks:
                told = []

                async def wait() -> None:
                    told.append(await anext(member))

                for _ in range(2):
                    tasks.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                member._tell_gap(Gap("a", first, last))
                await until(lambda: told)
                member._tell_gap(Gap("a", first, first))
            assert told == [Gap("a", first, last), Gap("a", first, first)]


# Presence


async def test_members(make: Make) -> None:
    async with make() as channels, joined(channels, presence=True, encode=described) as (observer, seen):
        assert observer.members == ()
        async with joined(channels, member={"name": "ada"}) as (ada, _):
            async with joined(channels, member="bob", presence=True, encode=described) as (bob, server):
                assert await channels.members("a") == [*ada.members, *bob.members]
                assert [member.json() for member in await channels.members("a")] == [{"name": "ada"}, "bob"]
                await until(lambda: server.sent)
                assert sent(server) == ["join bob"]  # who comes sees itself come
            assert await channels.members("a") == [*ada.members]
        assert await channels.members("a") == []
        await until(lambda: len(seen.sent) == 4)
        assert sent(seen) == [f"{kind} {name}" for kind, name in (
            ("join", {"name": "ada"}), ("join", "bob"), ("leave", "bob"), ("leave", {"name": "ada"}),
        )]  # fmt: skip


async def test_presence_is_not_sent_unless_it_is_encoded(make: Make) -> None:
    async with make() as channels, joined(channels, presence=True, member=1) as (_, server):
        await channels.publish("a", "1")
        await until(lambda: server.sent)
        assert sent(server) == ["1"]


# Stopping


@pytest.mark.parametrize("block", [True, False])
@pytest.mark.quiet
async def test_stopping_closes_every_socket(make: Make, block: bool) -> None:
    servers = [Server() for _ in range(5)]
    entered: list[Any] = []
    ended = []

    async def app(channels: Channels, server: Server) -> None:
        websocket = await server.accepted()
        async with AsyncExitStack() as stack:
            if block:
                await stack.enter_async_context(websocket)
            async with channels.join("a", websocket, member=1) as member:
                entered.append(member)
                await anyio.sleep_forever()
            ended.append(member.ended)

    async with anyio.create_task_group() as tasks, make() as channels:
        for server in servers:
            tasks.start_soon(app, channels, server)
        await until(lambda: len(entered) == 5)
    assert ended == ["stopped"] * 5
    assert [sent(server) for server in servers] == [[1012]] * 5


@pytest.mark.quiet
async def test_draining_goes_on_with_the_channels(make: Make) -> None:
    async with make() as channels:
        async with joined(channels) as (member, server):
            for wrong in ({"code": 1005}, {"batch": 0}, {"reason": "x" * 200}):
                with pytest.raises(ValueError, match=r"must be"):
                    await channels.drain(**wrong)
            await channels.drain(4000, "moving", within=5, batch=1, interval=0)
            await anyio.sleep_forever()
        assert server.sent == [{"type": "websocket.close", "code": 4000, "reason": "moving"}]
        assert member.ended == "stopped"
        async with joined(channels) as (_, server):
            await channels.publish("a", "1")
            await until(lambda: server.sent)
        assert sent(server) == ["1"]


@pytest.mark.quiet
async def test_a_body_that_notices_the_drain_first(make: Make) -> None:
    async with make() as channels:
        async with joined(channels) as (member, server), anyio.create_task_group() as tasks:
            tasks.start_soon(channels.drain)
            await until(lambda: server.sent)
            await member.websocket.send_text("late")
        assert sent(server) == [1012]


async def test_publishing_during_a_drain(make: Make) -> None:
    """Who is closed already is sent nothing more, and that is no failure."""
    async with make() as channels:
        async with joined(channels) as (member, server):
            member._draining = "stopped"
            await member.websocket.close(1012)
            await channels.publish("a", "1")
            await until(lambda: member.ended)
            assert member.ended == "stopped"
        assert sent(server) == [1012]


# Cancelling


@pytest.mark.parametrize("held", [False, True])
async def test_cancelling_anywhere_leaves_nothing(make: Make, held: bool) -> None:
    async with make() as channels, channels.subscribe("b", presence=True) as other:
        await channels.publish("a", "0")
        entered = 0
        turns = 0

        async def use(server: Server) -> None:
            nonlocal entered
            websocket = await server.accepted()
            if held:
                server.held.add("websocket.send")
            async with channels.join(["a", "b"], websocket, member=1, history=1):
                entered += 1
                await channels.publish("b", "1")
                await anyio.sleep_forever()

        while entered < 3:
            server = Server()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(use, server)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            turns += 1
            assert list(channels._hub._outboxes) == [other._outbox]
            assert not channels._hub.roster.members
            assert [await channels.members(name) for name in "ab"] == [[], []]
            assert channels._hub.writers.sockets == 0
        assert turns > entered


@pytest.mark.quiet
async def test_one_that_leaves_while_others_are_sent(make: Make) -> None:
    async with make() as channels, joined(channels) as (_, first):
        async with joined(channels) as (member, second):
            websocket = member.websocket
        async with channels.join("a", websocket) as member:

            async def send(message: Any) -> None:
                first.sent.append(message)
                member._end("full")

            others = [one for one in channels._memberships._those if one is not member]
            other = others[0].websocket
            other._use(other._receive, send)
            await channels.publish("a", "1")
            await anyio.sleep_forever()
    assert sent(first) == ["1"]
    assert sent(second) == [1013]


async def test_no_task_is_left(make: Make) -> None:
    before = len(anyio.get_running_tasks())
    async with make() as channels:
        async with joined(channels):
            pass  # what the first socket has started stays
        await until(lambda: not channels._hub.writers.sockets)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        idle = len(anyio.get_running_tasks()) - before
        async with AsyncExitStack() as stack:
            members = [
                await stack.enter_async_context(joined(channels, held=number < 5)) for number in range(20)
            ]
            assert len(anyio.get_running_tasks()) - before == idle  # who is silent costs no task
            await channels.publish("a", "1")
            await until(lambda: all(server.sent for _, server in members))
            # One for each that is stalled, one at work, one at hand.
            assert len(anyio.get_running_tasks()) - before <= idle + 7
        await until(lambda: len(anyio.get_running_tasks()) - before == idle)
    assert len(anyio.get_running_tasks()) == before


async def test_thrown_away(make: Make) -> None:
    """A generator that holds the blocks is closed without an event loop's help."""

    async def hold() -> AsyncGenerator[None, None]:
        async with joined(channels, member=1):
            yield

    async def live() -> AsyncGenerator[None, None]:
        async with make():
            yield

    async with make() as channels:
        generator = hold()
        await anext(generator)
        await generator.aclose()
        assert is_clean(channels)
    whole = live()
    await anext(whole)
    await whole.aclose()


def test_logging_is_not_configured() -> None:
    assert logging.getLogger("lilya.websockets").handlers == []


async def test_much_for_one(make: Make) -> None:
    """A writer that has much to do lets the others have a turn."""
    async with make() as channels:
        for number in range(350):
            await channels.publish("a", str(number))
        async with joined(channels, history=350) as (_, server):
            await until(lambda: len(server.sent) == 350)
        assert sent(server) == [str(number) for number in range(350)]


async def test_a_body_that_fails_because_it_is_cancelled(make: Make) -> None:
    async with make() as channels:
        with pytest.raises(ExceptionGroup) as caught:
            async with joined(channels, held=True, max_messages=1) as (member, _):
                async with anyio.create_task_group() as tasks:

                    async def fail() -> None:
                        try:
                            await anyio.sleep_forever()
                        finally:
                            raise Boom

                    tasks.start_soon(fail)
                    for number in range(5):
                        await channels.publish("a", str(number))
                    await anyio.sleep_forever()
        assert [type(error) for error in caught.value.exceptions] == [Boom]
        assert member.ended == "full"
        assert is_clean(channels)


@pytest.mark.quiet
async def test_full_before_it_was_entered(make: Make) -> None:
    """The socket is closed, and the body does not go far."""
    async with make() as channels:
        server = Server()
        member = channels.join("a", await server.accepted(), max_messages=1)
        attach = channels._hub.attach

        async def slowly(*arguments: Any, **options: Any) -> Any:
            positions = await attach(*arguments, **options)
            member._end("full")
            return positions

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(channels._hub, "attach", slowly)
            async with member:
                await anyio.sleep_forever()
        assert sent(server) == [1013]
        assert is_clean(channels)


async def test_who_could_not_join_is_not_kept() -> None:
    """A client that sends an id which is none is no reason to keep its socket."""
    async with Channels() as channels:
        with pytest.raises(ValueError, match="an event's id"):
            async with channels.join("a", await Server().accepted(), since="none"):
                raise AssertionError
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with channels.join("a", await Server().accepted(), member=1):
                raise AssertionError
        assert not channels._memberships._those
