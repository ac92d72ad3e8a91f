"""A block on a server that tells the end itself: the app receives from the server, and there is no reader.

What it has in common with a block that has one is tested beside it, on both kinds of server.
"""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from lilya.websockets import WebSocket, WebSocketClosed, WebSocketDisconnect, WebSocketRuntimeError
from lilya.websockets.draining import drain

from .conftest import lend
from .server import ClientDisconnected, Message, Server, data, disconnect, text
from .test_conversation import closes

pytestmark = pytest.mark.anyio


class Announcing(Server):
    """A server with the extension `lilya.websocket.end`."""

    announces = True


class Behind(Announcing):
    """One that has more than it keeps for the app, and so does not know yet that the client has left."""

    def __init__(self, *behind: Message) -> None:
        super().__init__()
        self.behind = list(behind)
        self.gone = False

    async def receive(self) -> Any:
        if self.gone and not self.events:
            self.push(self.behind.pop(0))
        return await super().receive()

    async def send(self, message: Any) -> None:
        if self.gone:
            raise ClientDisconnected("gone")
        await super().send(message)


class Slow(Announcing):
    """One that forgets to tell the end."""

    async def receive(self) -> Any:
        return await super().receive() if self.receives < 2 else disconnect(4008, "slow")


@pytest.mark.contract("block-direct")
async def test_nobody_receives_in_the_background() -> None:
    server = Announcing(text("é"), data(b"123"))
    async with server.websocket() as websocket:
        await anyio.wait_all_tasks_blocked()
        assert server.receives == 1  # of `websocket.connect`
        assert (websocket.messages_received, websocket.bytes_received) == (2, 5)  # the server counts them
        assert await websocket.receive_text() == "é"
        assert await websocket.receive_bytes() == b"123"
        server.push(text(""))
        assert (websocket.messages_received, websocket.bytes_received) == (3, 5)
        assert await websocket.receive_text() == ""
        await websocket.send_text("é")
        assert (websocket.messages_sent, websocket.bytes_sent) == (1, 2)
        await anyio.wait_all_tasks_blocked()
        assert server.receives == 4
    assert (websocket.messages_received, websocket.bytes_received) == (3, 5)
    assert closes(server) == [(1000, "")]


@pytest.mark.contract("block-direct")
@pytest.mark.parametrize(
    "options",
    [
        {"idle_timeout": 5},
        {"heartbeat": 5},
        {"max_message_size": 100},
        {"max_messages_per_second": 100},
        {"buffer_messages": 63},
        {"buffer_bytes": 1000},
    ],
    ids=lambda it: next(iter(it)),
)
async def test_an_option_about_what_was_not_received_brings_the_reader(options: dict[str, Any]) -> None:
    server = Announcing(text("1"))
    async with server.websocket().open(**options) as websocket:
        await anyio.wait_all_tasks_blocked()
        assert server.receives == 3
        assert websocket.messages_received == 1
        assert await websocket.receive_text() == "1"


@pytest.mark.contract("block-direct", "block-send-learns", "block-nothing-lost")
async def test_the_end_is_known_before_what_came_is_received() -> None:
    server = Announcing(text("1"), data(b"2"))
    websocket = server.websocket()
    told: list[Any] = []
    async with websocket:
        server.push(disconnect(4001, "bye"))
        await websocket.wait_disconnected()
        assert (websocket.close_code, websocket.close_reason, websocket.closed_by) == (4001, "bye", "client")
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
        told.append(type(caught.value))
        with pytest.raises(WebSocketClosed):
            await websocket.send_text("a")
        told += [await websocket.receive_text(), await websocket.receive_bytes()]
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.receive_text()
        told += [type(caught.value), caught.value.code, caught.value.reason]
        with pytest.raises(WebSocketClosed):
            await websocket.receive_text()
    assert told == [WebSocketDisconnect, "1", b"2", WebSocketDisconnect, 4001, "bye"]
    assert server.types == ["websocket.accept"]


@pytest.mark.contract("block-direct", "block-send-learns")
async def test_the_end_came_while_the_block_was_entered() -> None:
    server = Announcing(text("1"), disconnect(4001))
    async with server.websocket() as websocket:
        assert websocket.close_code == 4001
        assert await websocket.receive_text() == "1"
    assert server.types == ["websocket.accept"]


@pytest.mark.contract("block-direct", "block-send-learns", "block-nothing-lost")
async def test_a_failed_send_finds_the_end_behind_what_the_server_has() -> None:
    """In a server that has stopped to read, the end lies behind messages."""
    server = Behind(text("1"), data(b"2"), text("3"), disconnect(4001, "bye"))
    websocket = server.websocket()
    async with websocket:
        server.gone = True
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
        assert websocket.messages_received == 3
        received = [await websocket.receive_text(), await websocket.receive_bytes()]
        received += [text async for text in websocket.iter_text()]
    assert (caught.value.code, caught.value.reason) == (4001, "bye")
    assert isinstance(caught.value.__cause__, ClientDisconnected)
    assert received == ["1", b"2", "3"]
    assert (websocket.messages_received, websocket.closed_by) == (3, "client")


@pytest.mark.contract("block-direct", "receive-unknown-type")
async def test_what_is_no_message_behind_a_failed_send() -> None:
    server = Behind({"type": "lilya"}, {}, disconnect(4001))
    async with server.websocket() as websocket:
        server.gone = True
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
        for _ in range(2):
            with pytest.raises(WebSocketRuntimeError):
                await websocket.receive_text()
    assert caught.value.code == 4001
    assert websocket.messages_received == 0


@pytest.mark.contract("block-direct", "receive-unknown-type")
async def test_what_is_no_message() -> None:
    server = Announcing({}, None, {"type": "lilya"}, text("1"))  # type: ignore[arg-type]
    async with server.websocket() as websocket:
        for _ in range(3):
            with pytest.raises(WebSocketRuntimeError):
                await websocket.receive_text()
        assert await websocket.receive_text() == "1"
    assert websocket.messages_received == 1


@pytest.mark.contract("block-direct")
async def test_an_oserror_in_receive_is_the_end() -> None:
    server = Announcing(text("1"), ClientDisconnected("lost"))
    websocket = server.websocket()
    async with anyio.create_task_group() as tasks, websocket:
        tasks.start_soon(websocket.wait_disconnected)
        assert [text async for text in websocket.iter_text()] == ["1"]
        await websocket.wait_disconnected()
    assert (websocket.close_code, websocket.closed_by) == (1006, "network")


@pytest.mark.contract("block-direct", "block-wait-disconnected", "block-cancel-on-disconnect")
@pytest.mark.quiet
async def test_an_end_that_is_received_and_was_not_told() -> None:
    server = Slow(text("1"))
    websocket = server.websocket()
    seen: list[Any] = []

    async def wait() -> None:
        await websocket.wait_disconnected()
        seen.append("told")

    async with anyio.create_task_group() as tasks:
        async with websocket.open(cancel_on_disconnect=True):
            tasks.start_soon(wait)
            seen.append(await websocket.receive_text())
            seen.append((await websocket.receive())["type"])
            await anyio.sleep_forever()
    assert seen == ["1", "websocket.disconnect", "told"]
    assert (websocket.close_code, websocket.close_reason, websocket.closed_by) == (4008, "slow", "client")


@pytest.mark.contract("block-direct", "block-send-learns", "block-nothing-lost")
@pytest.mark.parametrize("error", [ConnectionResetError(), LookupError()], ids=["lost", "refused"])
async def test_middleware_fails_behind_a_failed_send(error: Exception) -> None:
    """The first error is the one that tells; the other is told in its turn, as by a reader."""
    server = Behind(text("1"))

    async def receive() -> Message:
        if server.gone and not server.behind and not server.events:
            raise error
        return await server.receive()  # type: ignore[no-any-return]

    websocket = WebSocket(server.scope, receive, server.send)
    async with websocket:
        server.gone = True
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
        assert caught.value.code == 1006
        assert isinstance(caught.value.__cause__, ClientDisconnected)
        assert await websocket.receive_text() == "1"
        with pytest.raises(LookupError if type(error) is LookupError else WebSocketDisconnect):
            await websocket.receive_text()
    assert (websocket.messages_received, websocket.closed_by) == (1, "network")


@pytest.mark.contract("block-direct", "block-send-learns", "block-nothing-lost")
@pytest.mark.parametrize("order", ["send, receive", "receive, send", "send, send, receive"])
async def test_messages_keep_their_order_while_a_failed_send_looks_for_the_end(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Middleware hands them on, one after the other, and the app receives them meanwhile."""
    for module in ("_direct", "_reader"):
        monkeypatch.setattr(f"lilya.websockets.{module}.GRACE", 60)
    server = Behind()
    sender, receiver = anyio.create_memory_object_stream[Message](0)

    async def receive() -> Message:
        return await (receiver.receive() if server.receives else server.receive())

    websocket = WebSocket(server.scope, receive, server.send)
    received: list[str] = []
    codes: list[int] = []

    async def take() -> None:
        received.extend([text async for text in websocket.iter_text()])

    async def send() -> None:
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
        codes.append(caught.value.code)

    with sender, receiver:
        async with websocket:
            server.gone = True
            async with anyio.create_task_group() as tasks:
                for which in order.split(", "):
                    tasks.start_soon(send if which == "send" else take)
                    await anyio.wait_all_tasks_blocked()
                for number in range(4):
                    await sender.send(text(str(number)))
                    await anyio.wait_all_tasks_blocked()
                await sender.send(disconnect(4001))
    assert received == ["0", "1", "2", "3"]
    assert codes == [4001] * order.count("send")
    assert websocket.messages_received == 4


@pytest.mark.contract("block-direct", "block-send-learns", "block-nothing-lost")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_failed_send_takes_nothing_from_who_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a queue of asyncio, which gives to whoever comes before the one that it has woken."""
    for module in ("_direct", "_reader"):
        monkeypatch.setattr(f"lilya.websockets.{module}.GRACE", 60)
    server = Behind()
    queue: asyncio.Queue[Message] = asyncio.Queue()

    async def receive() -> Message:
        return await (queue.get() if server.receives else server.receive())

    websocket = WebSocket(server.scope, receive, server.send)
    received: list[str] = []

    async def take() -> None:
        received.extend([text async for text in websocket.iter_text()])

    async def go_on() -> None:
        await anyio.wait_all_tasks_blocked()
        for message in (text("2"), disconnect(4001), disconnect(4001)):
            queue.put_nowait(message)

    async with websocket, anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(go_on)
        server.gone = True
        for number in range(2):
            queue.put_nowait(text(str(number)))
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
    assert received == ["0", "1", "2"]
    assert caught.value.code == 4001


class Stuck(Behind):
    waits = False

    async def receive(self) -> Any:
        if self.waits:
            await anyio.sleep_forever()
        return await super().receive()


@pytest.mark.contract("block-direct", "block-send-learns")
async def test_a_failed_send_that_does_not_find_the_end_in_time() -> None:
    server = Stuck()
    websocket = server.websocket()
    received: list[str] = []

    async def take() -> None:
        received.extend([text async for text in websocket.iter_text()])

    async with websocket:
        server.waits = server.gone = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(told, websocket)
            await anyio.wait_all_tasks_blocked()
            server.waits = False
            tasks.start_soon(take)
            await anyio.wait_all_tasks_blocked()
            assert received == []  # it waits for the one who looks
            server.behind = [text("1"), disconnect(4001)]
            server.push(server.behind.pop(0))
    assert received == ["1"]
    assert (websocket.close_code, websocket.closed_by) == (1006, "network")


async def told(websocket: WebSocket) -> None:
    with pytest.raises(WebSocketDisconnect) as caught:
        await websocket.send_text("a")
    assert caught.value.code == 1006


@pytest.mark.contract("block-direct", "block-server-errors")
async def test_a_refused_send_receives_nothing() -> None:
    server = Announcing(text("1"))
    async with server.websocket() as websocket:
        server.fail(LookupError("no"))
        with pytest.raises(LookupError):
            await websocket.send_text("a")
        assert server.receives == 1
        assert await websocket.receive_text() == "1"


@pytest.mark.contract("block-direct", "block-fair")
async def test_a_body_that_only_sends_lets_the_server_tell() -> None:
    """A server's send that waits for nothing, as most are while the client reads."""
    server = Announcing()
    sent = sends = 0

    async def leave() -> None:
        nonlocal sends
        server.push(disconnect(4001))
        sends = server.sends

    websocket = server.websocket()
    async with anyio.create_task_group() as tasks, websocket:
        tasks.start_soon(leave)
        with pytest.raises(WebSocketDisconnect):
            while sent < 1000:
                await websocket.send_text("a")
                sent += 1
    assert sent < 100
    assert server.sends == sends  # nothing after the end
    assert websocket.close_code == 4001


@pytest.mark.contract("block-direct", "block-fair")
@pytest.mark.parametrize("answers", [0, 1, 20])
async def test_a_body_that_receives_gives_no_turn(answers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it sends many messages for each that it receives, or none is received."""
    turns = 0

    async def checkpoint() -> None:
        nonlocal turns
        turns += 1

    server = Announcing()
    async with server.websocket() as websocket:
        with monkeypatch.context() as patched:
            patched.setattr(anyio.lowlevel, "checkpoint", checkpoint)
            for _ in range(64):
                if answers:
                    server.push(text("1"))
                    await websocket.receive_text()
                for _ in range(answers or 1):
                    await websocket.send_text("a")
    # It is asked before every 16th send but the first. Of five times in the last case, four messages come.
    assert turns == {0: 3, 1: 0, 20: 15}[answers]


@pytest.mark.contract("block-direct", "block-lent", "block-blocked-send")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("of", [Announcing, Server])
async def test_a_send_that_neither_waits_nor_fails_is_the_servers_own(
    of: type[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    lend(monkeypatch)
    server = of()
    async with server.websocket() as websocket:
        for held in (False, True):
            if held:
                server.held.add("websocket.send")
            sending: Any = websocket._send({"type": "websocket.send", "text": "a"})
            assert (sending.cr_code is Server.send.__code__) is not held
            sending.close()


@pytest.mark.contract("block-direct", "block-closes")
async def test_the_app_closes_while_another_task_receives() -> None:
    server = Announcing()
    websocket = server.websocket()
    received: list[str] = []

    async def receive() -> None:
        received.extend([text async for text in websocket.iter_text()])
        received.append("the end")

    async with anyio.create_task_group() as tasks, websocket:
        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        await websocket.close(4000, "enough")
        await websocket.wait_disconnected()
    assert received == ["the end"]
    assert closes(server) == [(4000, "enough")]
    assert (websocket.close_code, websocket.closed_by) == (4000, "server")


@pytest.mark.contract("block-direct", "block-after")
@pytest.mark.parametrize("how", ["left", "closed", "raised"])
async def test_after_the_block(how: str) -> None:
    server = Announcing(text("1"))
    websocket = server.websocket()
    try:
        async with websocket:
            if how == "left":
                server.push(disconnect(4001))
            if how == "raised":
                raise LookupError
    except LookupError:
        pass
    asked, sent = server.receives, server.sends
    if how == "left":  # the block was left before its body had used what is gone
        with pytest.raises(WebSocketDisconnect):
            await websocket.send_text("a")
    for use in (websocket.receive, websocket.receive_text):
        with pytest.raises(WebSocketClosed):
            await use()
    with pytest.raises(WebSocketClosed):
        await websocket.send_text("a")
    assert (server.receives, server.sends) == (asked, sent)
    assert websocket.close_code == {"left": 4001, "closed": 1000, "raised": 1011}[how]
    await websocket.wait_disconnected()
    assert server.watchers == []


# Middleware


@pytest.mark.contract("block-direct")
async def test_a_receive_of_middleware_brings_the_reader() -> None:
    """It may end the conversation without the server's knowing."""
    server = Announcing(text("1"))

    async def receive() -> Any:
        message = await server.receive()
        return disconnect(4003) if message.get("text") == "1" else message

    websocket = WebSocket(server.scope, receive, server.send)
    async with websocket:
        await websocket.wait_disconnected()
        assert server.receives == 2
    assert websocket.close_code == 4003


@pytest.mark.contract("block-direct")
async def test_a_watch_that_belongs_to_nobody_brings_the_reader() -> None:
    server = Announcing(text("1"))
    server.scope["extensions"]["lilya.websocket.end"] = {"watch": lambda callback: server.watch(callback)}
    async with server.websocket() as websocket:
        await anyio.wait_all_tasks_blocked()
        assert server.receives == 3
        assert websocket.messages_received == 1


@pytest.mark.contract("block-direct")
async def test_a_server_that_does_not_count_brings_the_reader() -> None:
    server = Announcing(text("1"))
    del server.scope["extensions"]["lilya.websocket.end"]["connection"]
    async with server.websocket() as websocket:
        await anyio.wait_all_tasks_blocked()
        assert server.receives == 3
        assert websocket.messages_received == 1


@pytest.mark.contract("block-direct")
async def test_under_drain_two_that_belong_to_nobody_bring_the_reader() -> None:
    """Both are nobody's, which does not make them one server's."""
    server = Announcing(text("1"))
    server.scope["extensions"]["lilya.websocket.end"] = {"watch": lambda callback: server.watch(callback)}

    async def receive() -> Any:
        message = await server.receive()
        return disconnect(4003) if message.get("text") == "1" else message

    codes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        async with websocket:
            await websocket.wait_disconnected()
        codes.append(websocket.close_code)

    await drain(app)(server.scope, receive, server.send)
    assert codes == [4003]


@pytest.mark.contract("block-direct", "block-leaving-bounded")
@pytest.mark.parametrize("how", ["left", "cancelled"])
async def test_a_close_that_waits_in_middleware_is_given_up(how: str) -> None:
    server = Announcing()
    gave_up = []

    async def send(message: Any) -> None:
        if message["type"] == "websocket.close":
            try:
                await anyio.sleep_forever()
            finally:
                gave_up.append(message["code"])
        await server.send(message)

    websocket = WebSocket(server.scope, server.receive, send)
    with anyio.CancelScope() as scope:
        async with websocket.open(close_timeout=0.01):
            if how == "cancelled":
                scope.cancel()
                await anyio.sleep_forever()
    assert gave_up == [1011 if how == "cancelled" else 1000]
    assert scope.cancelled_caught == (how == "cancelled")


@pytest.mark.contract("block-direct", "block-closes")
async def test_a_receive_ends_with_a_close_that_middleware_holds_up() -> None:
    """The server does not know of the end then. So behind a `send` of somebody else there is a reader."""
    server = Announcing()

    async def send(message: Any) -> None:
        if message["type"] == "websocket.close":
            await anyio.sleep_forever()
        await server.send(message)

    websocket = WebSocket(server.scope, server.receive, send)
    ended = []

    async def receive() -> None:
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()
        ended.append(websocket.close_code)

    async with websocket.open(close_timeout=0.01), anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        await websocket.close(4001)
    assert ended == [4001]


@pytest.mark.contract("block-direct", "block-send-learns")
@pytest.mark.quiet
async def test_a_send_that_waits_in_middleware_ends_when_the_client_leaves() -> None:
    server = Announcing()
    sending = anyio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            sending.set()
            await anyio.sleep_forever()
        await server.send(message)

    websocket = WebSocket(server.scope, server.receive, send)
    async with websocket, anyio.create_task_group() as tasks:
        tasks.start_soon(websocket.send_text, "a")
        await sending.wait()
        server.push(disconnect(4001))
    assert websocket.close_code == 4001


@pytest.mark.contract("block-direct", "block-closes")
async def test_a_time_limit_of_middleware_holds_for_the_close() -> None:
    server = Announcing()

    async def send(message: Any) -> None:
        with anyio.move_on_after(0.01):
            if message["type"] == "websocket.close":
                await anyio.sleep_forever()
            await server.send(message)

    async with WebSocket(server.scope, server.receive, send).open(close_timeout=1000):
        pass
    assert server.types == ["websocket.accept"]


@pytest.mark.contract("block-direct", "block-server-errors")
@pytest.mark.parametrize("error", [ClientDisconnected("lost"), RuntimeError("a fault")])
async def test_a_server_that_fails_behind_a_failed_send(error: Exception) -> None:
    server = Behind(error)  # type: ignore[arg-type]
    async with server.websocket() as websocket:
        server.gone = True
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
    assert caught.value.code == 1006


@pytest.mark.contract("block-direct", "close-all")
async def test_a_shutdown_from_outside() -> None:
    server = Announcing()
    websocket = server.websocket()
    async with websocket:
        assert websocket._conversation is not None
        assert await websocket._conversation.shut_down(1012, "", 1)
    assert closes(server) == [(1012, "")]


@pytest.mark.contract("block-direct")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("of", [Announcing, Server])
async def test_a_block_that_may_be_cancelled_is_thrown_away(of: type[Server]) -> None:
    server = of()
    websocket = server.websocket()

    async def body() -> None:
        async with websocket.open(cancel_on_disconnect=True):
            await anyio.sleep_forever()

    coroutine = body()
    coroutine.send(None)
    coroutine.close()
    with pytest.raises(WebSocketDisconnect):
        await websocket.send_text("a")


class Hesitates(Announcing):
    """It knows of the end when it is received only, and something comes before that."""

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.send":
            raise ClientDisconnected("gone")
        await super().send(message)


@pytest.mark.contract("block-direct", "block-nothing-lost")
@pytest.mark.parametrize("first", ["send", "receive"])
async def test_who_receives_while_a_failed_send_looks_for_the_end(
    first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time receives from the server, and messages keep their order."""
    monkeypatch.setattr("lilya.websockets._direct.GRACE", 60)
    server = Hesitates()
    websocket = server.websocket()
    seen: list[Any] = []

    async def send() -> None:
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
        seen.append(caught.value.code)

    async def receive() -> None:
        async for message in websocket.iter_text():
            seen.append(message)  # noqa: PERF401 - as they come

    async with websocket, anyio.create_task_group() as tasks:
        for act in (send, receive) if first == "send" else (receive, send):
            tasks.start_soon(act)
            await anyio.wait_all_tasks_blocked()
        for number in range(3):
            server.push(text(str(number)))
            await anyio.wait_all_tasks_blocked()
        server.push(disconnect(4001))
    assert seen[:3] == ["0", "1", "2"]
    assert seen[3:] == [4001]
