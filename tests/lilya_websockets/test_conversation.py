"""`async with websocket`: entering, leaving, and what the body sees. Time has a file of its own."""

from __future__ import annotations

import asyncio
import gc
import logging
import pickle
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from lilya.websockets import (
    WebSocket,
    WebSocketClosed,
    WebSocketDataError,
    WebSocketDisconnect,
    WebSocketRuntimeError,
    WebSocketState,
    testing,
)
from lilya.websockets._reader import Reader, Wait

from .server import ClientDisconnected, Message, Server, connect, data, disconnect, opened, text

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("server_announces")]

CONNECTING, CONNECTED, DISCONNECTED, RESPONSE = WebSocketState


def quiet(*values: Any) -> list[Any]:
    """Parameters with which a block is cut short."""
    return [pytest.param(value, marks=pytest.mark.quiet) for value in values]


class Boom(Exception):
    """What a broken body raises."""


class Left(Server):
    """A server whose client can leave before the app is told, and what it does to a send then.

    Args:
        vice: `"silent"`: the message is dropped. `"oserror"`, `"runtimeerror"`: it is refused.
        tells: Whether its `receive` gives the disconnect. Otherwise it waits for ever.
    """

    def __init__(self, *events: Any, vice: str, tells: bool = True, **scope: Any) -> None:
        super().__init__(*events, **scope)
        self.vice = vice
        self.tells = tells
        self.gone = False
        self.dropped: list[Message] = []

    def leave(self, code: int | None = 4001, reason: str = "bye") -> None:
        self.gone = True
        if self.tells:
            self.push(disconnect(code, reason))

    async def send(self, message: Any) -> None:
        if not self.gone:
            await super().send(message)
        elif self.vice == "oserror":
            raise ClientDisconnected("gone")
        elif self.vice == "runtimeerror":
            raise RuntimeError("Unexpected ASGI message, after the close")
        else:
            self.dropped.append(message)


def closes(server: Server) -> list[tuple[int, str]]:
    return [
        (message["code"], message["reason"])
        for message in server.sent
        if message["type"] == "websocket.close"
    ]


async def until(condition: Callable[[], object]) -> None:
    """Let the others run until something is so; the time limit of each test ends it."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await anyio.sleep(0.001)


# Entering


@pytest.mark.contract("block-accepts", "block-closes", "accepted-subprotocol", "closed-by")
async def test_entering_accepts_and_leaving_closes() -> None:
    server = Server(text("1"), subprotocols=["chat"])
    websocket = server.websocket()
    async with websocket.open("chat", {"X-A": "b"}) as inside:
        assert inside is websocket
        assert server.sent == [
            {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-a", b"b")]}
        ]
        assert await websocket.receive_text() == "1"
        await websocket.send_text("2")
        assert [websocket.close_code, websocket.closed_by] == [None, None]
    assert closes(server) == [(1000, "")]
    assert websocket.accepted_subprotocol == "chat"
    assert (websocket.close_code, websocket.close_reason, websocket.closed_by) == (1000, "", "server")


@pytest.mark.contract("block-accepts")
async def test_the_short_form() -> None:
    server = Server()
    websocket = server.websocket()
    async with websocket as inside:
        assert inside is websocket
    assert server.types == ["websocket.accept", "websocket.close"]


@pytest.mark.contract("block-accepts")
async def test_entering_what_is_accepted() -> None:
    server = Server(text("1"))
    websocket = await server.accepted()
    async with websocket:
        assert await websocket.receive_text() == "1"
    assert server.types == ["websocket.close"]


@pytest.mark.contract("block-accepts")
async def test_entering_after_a_raw_accept() -> None:
    server = Server(text("1"), subprotocols=["chat"])
    websocket = server.websocket()
    await websocket.send({"type": "websocket.accept", "subprotocol": "chat"})
    async with websocket:
        assert await websocket.receive_text() == "1"
    assert server.types == ["websocket.accept", "websocket.close"]
    assert websocket.accepted_subprotocol == "chat"


@pytest.mark.contract("block-accepts")
async def test_entering_after_a_received_connect() -> None:
    server = Server(text("1"))
    websocket = server.websocket()
    assert await websocket.receive() == connect()
    async with websocket:
        assert await websocket.receive_text() == "1"


@pytest.mark.contract("block-accepts", "exceptions-wrong-arguments")
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"cancel_on_disconnect": 1}, TypeError, "cancel_on_disconnect must be bool, got int"),
        ({"idle_timeout": "1"}, TypeError, "idle_timeout must be a number, got str"),
        ({"idle_timeout": True}, TypeError, "idle_timeout must be a number, got bool"),
        ({"idle_timeout": 0}, ValueError, "idle_timeout must be above 0, got 0"),
        ({"idle_timeout": -1.5}, ValueError, "idle_timeout must be above 0, got -1.5"),
        ({"idle_timeout": float("nan")}, ValueError, "idle_timeout must be above 0, got nan"),
        ({"idle_code": 1005}, ValueError, "a close code must be"),
        ({"idle_code": "1001"}, TypeError, "a close code must be int"),
        ({"heartbeat": 0}, ValueError, "heartbeat must be above 0"),
        ({"heartbeat_message": 5}, TypeError, "binary data must be bytes-like, got int"),
        ({"heartbeat_message": "\ud800"}, ValueError, "text must encode to UTF-8"),
        ({"heartbeat_timeout": None, "heartbeat": []}, TypeError, "heartbeat must be a number, got list"),
        ({"heartbeat_timeout": -1}, ValueError, "heartbeat_timeout must be above 0"),
        ({"max_message_size": -1}, ValueError, "max_message_size must be at least 0, got -1"),
        ({"max_message_size": 1.0}, TypeError, "max_message_size must be int, got float"),
        ({"max_messages_per_second": 0}, ValueError, "max_messages_per_second must be above 0"),
        ({"buffer_messages": -1}, ValueError, "buffer_messages must be at least 0, got -1"),
        ({"buffer_messages": True}, TypeError, "buffer_messages must be int, got bool"),
        ({"buffer_bytes": 0}, ValueError, "buffer_bytes must be at least 1, got 0"),
        ({"buffer_bytes": None}, TypeError, "buffer_bytes must be int, got NoneType"),
        ({"close_timeout": 0}, ValueError, "close_timeout must be above 0"),
        ({"close_timeout": None}, TypeError, "close_timeout must be a number, got NoneType"),
    ],
)
async def test_wrong_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    server = Server()
    websocket = server.websocket()
    with pytest.raises(error, match=words):
        websocket.open(**options)
    assert (server.sends, server.receives) == (0, 0)
    async with websocket:
        pass


@pytest.mark.contract("block-accepts", "exceptions-wrong-arguments")
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"subprotocol": "soap"}, ValueError),
        ({"subprotocol": 5}, TypeError),
        ({"headers": {"a": "\n"}}, ValueError),
        ({"headers": {"sec-websocket-protocol": "a"}}, ValueError),
    ],
)
async def test_what_cannot_be_accepted_with(options: dict[str, Any], error: type[Exception]) -> None:
    server = Server()
    websocket = server.websocket()
    with pytest.raises(error):
        async with websocket.open(**options):
            raise AssertionError("entered")
    assert (server.sends, server.receives) == (0, 0)
    async with websocket:  # as if nothing had been tried
        pass


@pytest.mark.contract("block-accepts")
@pytest.mark.parametrize("options", [{"idle_timeout": 10**400}, {"idle_timeout": float("inf")}])
async def test_times_longer_than_any_clock(options: dict[str, Any]) -> None:
    async with Server().websocket().open(**options) as websocket:
        await anyio.lowlevel.checkpoint()
    assert websocket.close_code == 1000


@pytest.mark.contract("block-accepts")
async def test_a_subprotocol_for_what_is_accepted() -> None:
    server = Server(subprotocols=["chat"])
    websocket = await server.accepted()
    with pytest.raises(WebSocketRuntimeError, match="already accepted"):
        async with websocket.open("chat"):
            raise AssertionError("entered")
    assert server.sent == []
    async with websocket:
        pass


@pytest.mark.contract("block-accepts")
async def test_while_denying() -> None:
    server = Server()
    websocket = server.websocket()
    await websocket.send({"type": "http.response.start", "status": 401})
    with pytest.raises(WebSocketRuntimeError, match="an HTTP response has been started"):
        async with websocket:
            raise AssertionError("entered")
    await websocket.send({"type": "http.response.body"})


@pytest.mark.contract("block-accepts")
async def test_a_server_that_refuses_the_accept() -> None:
    server = Server()
    websocket = server.websocket()
    server.fail(RuntimeError("no"))
    with pytest.raises(RuntimeError, match="no"):
        async with websocket:
            raise AssertionError("entered")
    await websocket.close()  # a denial is still possible
    assert server.types == ["websocket.close"]
    assert websocket.accepted_subprotocol is None


@pytest.mark.contract("block-accepts")
async def test_cancelled_while_entering() -> None:
    server = Server(connecting=False)
    websocket = server.websocket()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(websocket.__aenter__)
        await server.waiting.wait()
        tasks.cancel_scope.cancel()
    server.push(connect())
    async with websocket:
        pass
    assert server.types == ["websocket.accept", "websocket.close"]


@pytest.mark.contract("block-once")
async def test_a_block_in_the_block() -> None:
    server = Server(text("1"))
    websocket = server.websocket()
    block = websocket.open()
    async with block:
        for inner in (websocket, websocket.open(idle_timeout=1), block):
            with pytest.raises(WebSocketRuntimeError, match="a block owns this WebSocket already"):
                async with inner:
                    raise AssertionError("entered")
        assert await websocket.receive_text() == "1"
    assert closes(server) == [(1000, "")]


@pytest.mark.contract("block-once")
async def test_two_tasks_enter_at_the_same_time() -> None:
    server = Server(connecting=False)
    websocket = server.websocket()
    async with anyio.create_task_group() as tasks:

        async def first() -> None:
            async with websocket:
                pass

        tasks.start_soon(first)
        await server.waiting.wait()
        with pytest.raises(WebSocketRuntimeError, match="a block owns"):
            await websocket.__aenter__()
        server.push(connect())
    assert server.types == ["websocket.accept", "websocket.close"]


@pytest.mark.contract("block-once")
async def test_a_second_block_after_the_first() -> None:
    server = Server()
    websocket = server.websocket()
    async with websocket:
        pass
    for second in (websocket, websocket.open()):
        with pytest.raises(WebSocketClosed, match=r"cannot open any longer: the app closed it \(code 1000\)"):
            async with second:
                raise AssertionError("entered")


@pytest.mark.contract("block-once")
async def test_one_block_object_twice() -> None:
    server = Server()
    block = server.websocket().open()
    async with block:
        pass
    with pytest.raises(WebSocketRuntimeError, match="this block was left before"):
        async with block:
            raise AssertionError("entered")


@pytest.mark.contract("block-once")
async def test_leaving_what_was_not_entered() -> None:
    websocket = Server().websocket()
    with pytest.raises(WebSocketRuntimeError, match="cannot leave: this block was not entered"):
        await websocket.__aexit__(None, None, None)


@pytest.mark.contract("block-once")
async def test_entering_while_another_task_receives() -> None:
    server = Server()
    websocket = await server.accepted()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(websocket.receive_text)
        await server.waiting.wait()
        with pytest.raises(WebSocketRuntimeError, match="another task is already receiving"):
            async with websocket:
                raise AssertionError("entered")
        server.push(text("1"))


@pytest.mark.contract("block-left-before-accept")
@pytest.mark.parametrize("how", ["disconnect", "receive", "send"])
@pytest.mark.parametrize("use", [*quiet("send_text", "receive", "receive_text"), "iter_text", "close"])
async def test_a_client_that_leaves_before_accept(use: str, how: str) -> None:
    server = Server(
        *([disconnect(1001)] if how == "disconnect" else [ClientDisconnected()] if how == "receive" else []),
        connecting=how == "send",
    )
    if how == "send":
        server.fail(ClientDisconnected())
    websocket = server.websocket()
    told: list[Exception] = []
    async with websocket:
        await websocket.wait_disconnected()
        assert websocket.closed_by == ("client" if how == "disconnect" else "network")
        try:
            if use == "send_text":
                await websocket.send_text("a")
            elif use == "iter_text":
                assert [text async for text in websocket.iter_text()] == []
            else:
                await getattr(websocket, use)()
        except WebSocketDisconnect as error:
            told.append(error)
            raise
    assert server.sent == []
    assert [type(error) for error in told] == ([] if use in ("iter_text", "close") else [WebSocketDisconnect])


@pytest.mark.contract("block-left-before-accept", "block-cancel-on-disconnect")
@pytest.mark.quiet
async def test_a_client_that_leaves_before_accept_cancels_the_body() -> None:
    server = Server(disconnect(1001), connecting=False)
    async with server.websocket().open(cancel_on_disconnect=True):
        await anyio.sleep_forever()
    assert server.sent == []


async def test_an_app_that_knows_of_the_end_cannot_enter() -> None:
    server = Server(disconnect(1001))
    websocket = await server.accepted()
    await websocket.receive()
    with pytest.raises(WebSocketClosed, match="cannot open any longer: the client closed it"):
        async with websocket:
            raise AssertionError("entered")


async def test_all_who_asked_for_it_are_told_of_the_end_once() -> None:
    server = Server()
    told: list[str] = []
    async with server.websocket() as websocket:
        block = websocket._conversation
        assert block is not None
        forgotten = partial(told.append, "forgotten")
        for tell in (partial(told.append, "first"), forgotten, partial(told.append, "second")):
            block.tell_at_end(tell)
        block.forget(forgotten)
        server.push(disconnect(4001))
        await websocket.wait_disconnected()
        assert told == ["first", "second"]
        block.tell_at_end(partial(told.append, "late"))
        block.forget(forgotten)
    assert told == ["first", "second", "late"]


@pytest.mark.reader
async def test_another_task_closes_while_entering() -> None:
    server = Server(connecting=False)
    websocket = server.websocket()
    async with anyio.create_task_group() as tasks:

        async def enter() -> None:
            with pytest.raises(WebSocketClosed):
                async with websocket:
                    raise AssertionError("entered")

        tasks.start_soon(enter)
        await server.waiting.wait()
        await websocket.close()
        server.push(connect())
    assert server.types == ["websocket.close"]


# Leaving


@pytest.mark.contract("block-closes", "block-reraises")
@pytest.mark.parametrize(
    "error", [Boom("a secret"), ValueError("a secret"), WebSocketDataError({}, "secret")]
)
async def test_an_exception(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    websocket = server.websocket()
    with pytest.raises(type(error)) as caught:
        async with websocket:
            raise error
    assert caught.value is error
    assert error.__context__ is error.__cause__ is None
    assert closes(server) == [(1011, "")]
    assert "secret" not in repr(server.sent)
    assert (websocket.close_code, websocket.closed_by) == (1011, "server")
    assert caplog.records == []


@pytest.mark.contract("block-closes", "block-reraises")
async def test_a_group_of_exceptions_comes_out_as_it_is() -> None:
    server = Server()
    group = ExceptionGroup("several", [Boom("a"), ValueError("b")])
    with pytest.raises(ExceptionGroup) as caught:
        async with server.websocket():
            raise group
    assert caught.value is group
    assert closes(server) == [(1011, "")]


@pytest.mark.contract("block-closes", "block-reraises")
async def test_the_cause_and_the_context_are_kept() -> None:
    server = Server()
    with pytest.raises(Boom) as caught:
        async with server.websocket():
            try:
                raise KeyError("first")
            except KeyError as error:
                raise Boom from error
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.contract("block-closes", "block-reraises")
async def test_cancellation_from_outside() -> None:
    server = Server()
    with anyio.CancelScope() as scope:
        async with server.websocket():
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert closes(server) == [(1011, "")]


@pytest.mark.contract("block-closes", "block-reraises")
async def test_cancellation_and_an_error_in_one_group() -> None:
    """The error counts: somebody has to see it."""
    server = Server()
    with anyio.CancelScope() as scope, pytest.raises(BaseExceptionGroup) as caught:
        async with server.websocket(), anyio.create_task_group() as tasks:

            async def fails() -> None:
                try:
                    await anyio.sleep_forever()
                finally:
                    raise Boom

            tasks.start_soon(fails)
            await anyio.lowlevel.checkpoint()
            scope.cancel()
    assert caught.value.subgroup(Boom) is not None
    assert closes(server) == [(1011, "")]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)], ids=["interrupt", "exit"])
@pytest.mark.contract("block-closes-for-a-stop", "block-reraises")
async def test_an_interrupt_stops_the_server(error: BaseException) -> None:
    server = Server()
    with pytest.raises(type(error)) as caught:
        async with server.websocket():
            raise error
    assert caught.value is error
    assert closes(server) == [(1012, "")]


@pytest.mark.contract("block-closes")
@pytest.mark.parametrize("raw", [False, True])
async def test_nothing_more_is_sent_after_the_apps_own_close(raw: bool) -> None:
    server = Server()
    websocket = server.websocket()
    async with websocket:
        if raw:
            await websocket.send({"type": "websocket.close", "code": 4000, "reason": "bye"})
        else:
            await websocket.close(4000, "bye")
        await websocket.wait_disconnected()
    assert closes(server) == [(4000, "bye")]
    assert (websocket.close_code, websocket.close_reason, websocket.closed_by) == (4000, "bye", "server")


@pytest.mark.contract("block-closes")
async def test_an_exception_after_the_apps_own_close() -> None:
    server = Server()
    websocket = server.websocket()
    with pytest.raises(Boom):
        async with websocket:
            await websocket.close(4000)
            raise Boom
    assert closes(server) == [(4000, "")]
    assert websocket.close_code == 4000


@pytest.mark.contract("block-closes")
async def test_a_subclass_sees_the_close() -> None:
    class Noting(WebSocket):
        noted: tuple[Any, ...] = ()

        async def close(self, code: int = 1000, reason: str | None = None) -> None:
            self.noted += (code,)
            await super().close(code, reason)

    server = Server()
    websocket = server.websocket(Noting)
    async with websocket:
        pass
    assert isinstance(websocket, Noting)
    assert websocket.noted == (1000,)


@pytest.mark.reader
@pytest.mark.contract("block-leaving-bounded")
@pytest.mark.parametrize("how", ["return", "raise", "cancel", "close"])
async def test_a_close_that_cannot_be_delivered(how: str) -> None:
    server = Server()
    websocket = server.websocket()
    server.held.add("websocket.close")
    ran: list[str] = []

    async def cleanup() -> None:
        await anyio.lowlevel.checkpoint()
        ran.append("cleanup")

    websocket.add_cleanup(cleanup)
    # A cleanup after a cancellation has as much time as the close had, and the machine may be busy.
    with anyio.CancelScope() as scope:
        try:
            async with websocket.open(close_timeout=0.05 if how != "cancel" else 0.5):
                if how == "close":
                    await websocket.close(1000)
                    assert websocket.close_code == 1000
                elif how == "raise":
                    raise Boom
                elif how == "cancel":
                    scope.cancel()
                    await anyio.sleep_forever()
        except Boom:
            assert how == "raise"
    assert scope.cancelled_caught is (how == "cancel")
    assert [code for code, _ in closes(server)] == [{"raise": 1011, "cancel": 1011}.get(how, 1000)]
    assert ran == ["cleanup"]


@pytest.mark.contract("block-closes", "close-second")
async def test_a_cancelled_close_counts_as_sent() -> None:
    server = Server()
    websocket = server.websocket()
    async with websocket.open(close_timeout=5):
        server.held.add("websocket.close")
        with anyio.move_on_after(0.01):
            await websocket.close(4000)
        await websocket.wait_disconnected()
    assert closes(server) == [(4000, "")]
    assert websocket.close_code == 4000


@pytest.mark.reader
@pytest.mark.contract("block-leaving-bounded")
async def test_a_close_is_not_cut_short_by_a_cancellation() -> None:
    server = Server()
    server.held.add("websocket.close")
    ended = False
    async with anyio.create_task_group() as tasks:

        async def serve() -> None:
            nonlocal ended
            try:
                async with server.websocket().open(close_timeout=5):
                    pass
            finally:
                ended = True

        tasks.start_soon(serve)
        await server.holding.wait()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.01)
            assert not ended
            server.release()
    assert ended
    assert closes(server) == [(1000, "")]


@pytest.mark.contract("block-leaving-bounded", "block-cleanups")
async def test_a_cleanup_that_never_ends_does_not_hold_whoever_cancels() -> None:
    server = Server()
    websocket = server.websocket()
    ran: list[str] = []

    async def forever() -> None:
        ran.append("forever")
        await anyio.sleep_forever()

    websocket.add_cleanup(forever)
    websocket.add_cleanup(lambda: ran.append("after"))
    with anyio.CancelScope() as scope:
        async with websocket.open(close_timeout=0.02):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert ran == ["forever", "after"]


@pytest.mark.contract("block-leaving-bounded")
@pytest.mark.parametrize("fault", [ClientDisconnected("gone"), RuntimeError("no")], ids=["oserror", "error"])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_server_that_refuses_the_last_close(
    fault: Exception, fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What the body did is what counts."""
    caplog.set_level(logging.DEBUG, "lilya.websockets")
    server = Server()
    websocket = server.websocket()
    ran: list[str] = []
    websocket.add_cleanup(lambda: ran.append("cleanup"))
    try:
        async with websocket:
            server.fail(fault)
            if fails:
                raise Boom
    except Boom:
        assert fails
    assert ran == ["cleanup"]
    assert [record.getMessage() for record in caplog.records] == (
        [] if isinstance(fault, OSError) else ["the server refused to close"]
    )
    assert DISCONNECTED is websocket.client_state is websocket.application_state


@pytest.mark.contract("block-closes", "close-server-error")
async def test_a_server_that_refuses_the_apps_own_close() -> None:
    server = Server(text("1"))
    websocket = server.websocket()
    async with websocket:
        server.fail(RuntimeError("no"))
        server.fail(RuntimeError("nor 1000"), after=1)
        with pytest.raises(RuntimeError, match=r"^no$") as caught:
            await websocket.close(4000)
        assert caught.value.__cause__ is None
        assert websocket.close_code is None
        assert await websocket.receive_text() == "1"
        await websocket.send_text("a")
        server.push(text("2"))
        assert await websocket.receive_text() == "2"  # the reader goes on
    assert closes(server) == [(1000, "")]


class Picky(Server):
    """A server that closes with 1000 only, as daphne does, and not while a receive waits, as granian does."""

    refuses = 0  # closes of any code

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close":
            await until(lambda: not self.receiving)
            if self.refuses or message["code"] != 1000:
                self.refuses = max(self.refuses - 1, 0)
                await anyio.lowlevel.checkpoint()
                raise ValueError(f"invalid close code {message['code']}")
        await super().send(message)


@pytest.mark.reader
@pytest.mark.contract("block-send-learns", "block-nothing-lost")
async def test_a_server_that_goes_on_after_it_has_failed_a_send() -> None:
    """The end was told, and nothing comes after it."""
    server = Left(vice="oserror", tells=False)
    websocket = server.websocket()
    async with websocket:
        server.leave()
        with pytest.raises(WebSocketDisconnect):
            await websocket.send_text("a")
        server.push(text("late"))
        await until(lambda: not server.events)
        await anyio.lowlevel.checkpoint()
        for error in (WebSocketDisconnect, WebSocketClosed):
            with pytest.raises(WebSocketDisconnect) as caught:
                await websocket.receive_text()
            assert type(caught.value) is error
    assert websocket.messages_received == 0


@pytest.mark.reader
@pytest.mark.contract("block-closes-alone", "close-server-error")
async def test_the_reader_goes_on_after_a_close_that_was_refused_late() -> None:
    server = Picky()
    websocket = server.websocket()
    async with websocket:
        await server.waiting.wait()
        server.refuses = 1
        with pytest.raises(ValueError, match="invalid close code 1000"):
            await websocket.close()
        server.push(text("1"))
        assert await websocket.receive_text() == "1"
    assert closes(server) == [(1000, "")]


@pytest.mark.contract("block-close-code-refused", "block-closes-alone")
@pytest.mark.parametrize("buffer_messages", [1, 2])
async def test_a_server_that_refuses_the_code_of_the_apps_close(buffer_messages: int) -> None:
    """The reader waits for the server in one of two cases, and for room in the other."""
    server = Picky(text("1"))
    websocket = server.websocket()
    async with websocket.open(buffer_messages=buffer_messages, close_timeout=5):
        await until(lambda: websocket.messages_received)
        await websocket.close(1008, "no")
    assert closes(server) == [(1000, "no")]
    assert (websocket.close_code, websocket.close_reason, websocket.closed_by) == (1008, "no", "server")


@pytest.mark.contract("block-close-code-refused")
async def test_a_server_that_refuses_the_code_for_a_cancellation(caplog: pytest.LogCaptureFixture) -> None:
    server = Picky()
    websocket = server.websocket()
    with anyio.CancelScope() as scope:
        async with websocket:
            scope.cancel()
            await anyio.sleep_forever()
    assert closes(server) == [(1000, "")]
    assert websocket.close_code == 1011
    assert caplog.records == []


@pytest.mark.contract("block-close-code-refused")
async def test_a_server_that_refuses_the_code_for_an_error() -> None:
    """It gets the exception, and may close with 1011 by itself."""
    server = Picky()
    websocket = server.websocket()
    with pytest.raises(Boom):
        async with websocket:
            raise Boom
    assert closes(server) == []
    assert websocket.close_code == 1011


@pytest.mark.contract("block-close-code-refused", "block-closes-alone")
@pytest.mark.parametrize(("options", "code"), [({"idle_timeout": 0.01}, 1001), ({"heartbeat": 0.01}, 1011)])
async def test_a_limit_on_a_server_that_refuses_its_code(options: dict[str, Any], code: int) -> None:
    server = Picky()
    websocket = server.websocket()
    async with websocket.open(**options, close_timeout=5):
        await until(lambda: closes(server))  # the body goes on, and its reader does not hold the close
    assert [message["code"] for message in server.sent if message["type"] == "websocket.close"] == [1000]
    assert websocket.close_code == code


@pytest.mark.contract("block-closes-alone", "block-nothing-lost", "block-idle")
async def test_a_reader_that_waited_for_room_goes_on_after_a_refused_close() -> None:
    server = Server(text("1"), text("2"), text("3"))
    websocket = server.websocket()
    async with websocket.open(buffer_messages=1, idle_timeout=0.1):  # less than a close takes to be refused
        await until(lambda: websocket.messages_received)
        server.fail(RuntimeError("no"))
        with pytest.raises(RuntimeError, match="no"):
            await websocket.close()
        assert [await websocket.receive_text() for _ in range(3)] == ["1", "2", "3"]
        await websocket.wait_disconnected()  # its clock runs again
    assert websocket.close_code == 1001


@pytest.mark.contract("block-closes-alone")
async def test_closing_before_the_reader_has_begun() -> None:
    server = Picky(text("1"))
    websocket = server.websocket()
    async with websocket.open(close_timeout=5):
        await websocket.close(1000)
    assert closes(server) == [(1000, "")]
    assert server.receives == 1  # `websocket.connect`


@pytest.mark.contract("block-cleanups")
async def test_an_error_of_a_cleanup(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise Boom("in the cleanup")

    server = Server()
    websocket = server.websocket()
    websocket.add_cleanup(fails)
    with pytest.raises(Boom, match="in the cleanup"):
        async with websocket:
            pass
    assert closes(server) == [(1000, "")]
    assert caplog.records == []

    websocket = Server().websocket()
    websocket.add_cleanup(fails)
    with pytest.raises(ValueError, match="of the body"):
        async with websocket:
            raise ValueError("of the body")
    assert [record.getMessage() for record in caplog.records] == [
        "a cleanup failed while an exception left the block"
    ]


@pytest.mark.contract("block-cleanups", "cleanup-once-in-order")
@pytest.mark.parametrize("how", ["nothing", "receive", "send", "wait", "close", "raise", "cancel"])
async def test_cleanups_run_once(how: str) -> None:
    server = Server(disconnect(1001))
    websocket = server.websocket()
    ran: list[str] = []
    websocket.add_cleanup(lambda: ran.append("before"))
    with anyio.CancelScope() as scope:
        try:
            async with websocket:
                await websocket.wait_disconnected()
                # Nobody has told the app yet: what it acquires now is cleaned up, too.
                websocket.add_cleanup(lambda: ran.append("late"))
                assert ran == []
                if how == "receive":
                    await websocket.receive()
                    assert ran == ["before", "late"]
                elif how == "send":
                    with pytest.raises(WebSocketDisconnect):
                        await websocket.send_text("a")
                    with pytest.raises(WebSocketClosed):
                        websocket.add_cleanup(lambda: None)
                elif how == "close":
                    await websocket.close()
                elif how == "raise":
                    raise Boom
                elif how == "cancel":
                    scope.cancel()
                    await anyio.sleep_forever()
        except Boom:
            pass
    assert ran == ["before", "late"]
    assert server.types == ["websocket.accept"]


@pytest.mark.reader
@pytest.mark.contract("block-after")
@pytest.mark.parametrize("how", ["left", "closed", "raised"])
async def test_after_the_block(how: str) -> None:
    server = Server(text("1"), *([disconnect(4001)] if how == "left" else []))
    websocket = server.websocket()
    try:
        async with websocket:
            await until(lambda: websocket.messages_received)
            if how == "left":
                await websocket.wait_disconnected()
            if how == "raised":
                raise Boom
    except Boom:
        pass
    asked = server.receives
    sent = server.sends
    if how == "left":  # the block was left before its body had used what is gone
        with pytest.raises(WebSocketDisconnect):
            await websocket.send_text("a")
    for use in (websocket.receive, websocket.receive_text, websocket.receive_bytes, websocket.receive_json):
        with pytest.raises(WebSocketClosed):
            await use()
    with pytest.raises(WebSocketClosed):
        await websocket.send_text("a")
    with pytest.raises(WebSocketClosed):
        websocket.add_cleanup(lambda: None)
    assert [text async for text in websocket.iter_text()] == []
    assert (server.receives, server.sends) == (asked, sent)
    assert websocket.close_code == {"left": 4001, "closed": 1000, "raised": 1011}[how]
    assert DISCONNECTED is websocket.client_state is websocket.application_state
    await websocket.wait_disconnected()


@pytest.mark.contract("block-after")
async def test_a_task_that_outlives_the_block() -> None:
    """It still waits for a message: it is told, and does not wait for ever."""
    server = Server()
    websocket = server.websocket()
    told: list[Exception] = []

    async def receive() -> None:
        try:
            await websocket.receive_text()
        except WebSocketDisconnect as error:
            told.append(error)

    async def send() -> None:
        try:
            await websocket.send_text("a")
        except WebSocketDisconnect as error:
            told.append(error)

    async with anyio.create_task_group() as tasks, websocket:
        server.held.add("websocket.send")
        tasks.start_soon(receive)
        tasks.start_soon(send)
        await server.holding.wait()
        await until(lambda: websocket._receiving)
    assert [type(error) for error in told] == [WebSocketDisconnect] * 2
    assert closes(server) == [(1000, "")]


@pytest.mark.contract("block-closes")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_coroutine_that_is_thrown_away(anyio_backend: str) -> None:
    """What the test client does with an app that swallows its cancellation: nothing can be awaited then."""
    left: list[WebSocket] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        async with websocket:
            left.append(websocket)
            while True:
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    pass

    with pytest.raises(testing.WebSocketTimeout, match="it swallowed the cancellation"):
        async with testing.connect(app, timeout=0.01):
            pass
    (websocket,) = left
    with pytest.raises(WebSocketDisconnect):
        await websocket.send_text("a")


@pytest.mark.contract("block-wait-disconnected")
@pytest.mark.parametrize("waits", ["before", "after"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_waits_for_the_end_of_a_block_that_is_thrown_away(waits: str) -> None:
    server = Server()
    websocket = server.websocket()

    class Suspended:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def body(owned: WebSocket) -> None:
        async with owned:
            await Suspended()

    coroutine = body(websocket)
    coroutine.send(None)
    if waits == "before":
        waiting = asyncio.ensure_future(websocket.wait_disconnected())
        await asyncio.sleep(0)
        coroutine.close()
        await waiting
    else:
        coroutine.close()
        await websocket.wait_disconnected()
    await until(lambda: not server.receiving)
    assert (websocket.close_code, websocket.closed_by) == (1006, "network")
    del websocket
    server.push(disconnect(4001))  # nobody is there who wants to know
    assert closes(server) == []


# The client leaves


@pytest.mark.contract("block-ends-quietly", "closed-by")
@pytest.mark.parametrize("use", [*quiet("receive_text", "send_text", "receive_json", "raw"), "iter_text"])
async def test_the_clients_leaving_ends_the_block_quietly(use: str, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(disconnect(4001, "bye"))
    websocket = server.websocket()
    received: list[Any] = []
    async with websocket:
        if use == "send_text":
            await websocket.wait_disconnected()
            await websocket.send_text("a")
        elif use == "iter_text":
            assert [text async for text in websocket.iter_text()] == []
        elif use == "raw":
            received.append(await websocket.receive())
            await websocket.send_text("a")  # `WebSocketClosed`, which follows from the client's end
        else:
            await getattr(websocket, use)()
    assert server.types == ["websocket.accept"]
    assert (websocket.close_code, websocket.closed_by) == (4001, "client")
    assert websocket.close_reason == "bye"
    assert received == ([disconnect(4001, "bye")] if use == "raw" else [])
    assert caplog.records == []


@pytest.mark.contract("closed-by")
@pytest.mark.parametrize(
    ("event", "code", "closed_by"),
    [
        (disconnect(1000), 1000, "client"),
        (disconnect(None), 1005, "client"),
        (disconnect(1006), 1006, "network"),
        (disconnect(1012), 1012, "server"),
        (ClientDisconnected(), 1006, "network"),
        (disconnect(4000, "bye"), 4000, "client"),
    ],
)
@pytest.mark.parametrize("block", [False, *quiet(True)])
async def test_who_ended_it(event: Any, code: int, closed_by: str, block: bool) -> None:
    server = Server(event)
    websocket = await server.accepted()
    if block:
        async with websocket:
            await websocket.receive_text()
    else:
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()
    assert (websocket.close_code, websocket.closed_by) == (code, closed_by)


@pytest.mark.contract("closed-by")
async def test_who_ended_it_before_accepting() -> None:
    websocket = Server().websocket()
    await websocket.deny(401)
    assert websocket.closed_by == "server"
    websocket = Server().websocket()
    await websocket.close()
    assert websocket.closed_by == "server"


@pytest.mark.contract("block-ends-quietly")
@pytest.mark.parametrize("how", ["one", "several", "nested"])
@pytest.mark.quiet
async def test_the_end_out_of_a_task_group(how: str) -> None:
    server = Server(disconnect(1001))
    websocket = server.websocket()
    async with websocket, anyio.create_task_group() as tasks:

        async def send() -> None:
            await websocket.wait_disconnected()
            if how == "nested":
                async with anyio.create_task_group() as inner:
                    inner.start_soon(websocket.send_text, "a")
            else:
                await websocket.send_text("a")

        for _ in range(3 if how == "several" else 1):
            tasks.start_soon(send)
        await websocket.receive_text()
    assert server.types == ["websocket.accept"]


@pytest.mark.contract("block-ends-quietly", "block-reraises")
async def test_the_rest_of_a_mixed_group() -> None:
    server = Server(disconnect(1001))
    websocket = server.websocket()
    boom = Boom("a secret")
    with pytest.raises(ExceptionGroup) as caught:
        async with websocket:
            await websocket.wait_disconnected()
            mine = None
            try:
                await websocket.send_text("a")
            except WebSocketDisconnect as error:
                mine = error
            assert mine is not None
            cause = KeyError("cause")
            raise ExceptionGroup("both", [mine, ExceptionGroup("inner", [mine, boom])]) from cause
    assert caught.value.message == "both"
    (inner,) = caught.value.exceptions
    assert isinstance(inner, ExceptionGroup)
    assert inner.exceptions == (boom,)
    assert isinstance(caught.value.__cause__, KeyError)
    assert server.types == ["websocket.accept"]


@pytest.mark.contract("block-ends-quietly", "block-reraises")
@pytest.mark.parametrize("in_a_group", [False, True])
async def test_the_end_of_another_connection_is_an_error(in_a_group: bool) -> None:
    other, _ = opened(disconnect(1001))
    server = Server()
    with pytest.raises((WebSocketDisconnect, ExceptionGroup)) as caught:
        async with server.websocket():
            if in_a_group:
                async with anyio.create_task_group():
                    await other.receive_text()
            else:
                await other.receive_text()
    assert isinstance(caught.value, ExceptionGroup) is in_a_group
    assert closes(server) == [(1011, "")]


@pytest.mark.contract("block-ends-quietly", "block-reraises")
@pytest.mark.quiet
async def test_two_blocks_and_the_end_of_the_outer_one() -> None:
    first, second = Server(disconnect(4001)), Server()
    outer, inner = first.websocket(), second.websocket()
    async with outer:
        async with inner:
            await outer.receive_text()
        raise AssertionError("not reached")
    assert outer.close_code == 4001
    assert closes(second) == [(1011, "")]
    assert first.types == ["websocket.accept"]


@pytest.mark.contract("block-ends-quietly")
async def test_a_disconnect_made_by_hand_is_an_error() -> None:
    server = Server()
    with pytest.raises(WebSocketDisconnect):
        async with server.websocket():
            raise WebSocketDisconnect(1001)
    assert closes(server) == [(1011, "")]


@pytest.mark.contract("block-ends-quietly")
@pytest.mark.parametrize("use", ["send_text", "receive_text", "close"])
async def test_use_after_the_apps_own_close_is_a_bug(use: str) -> None:
    server = Server()
    websocket = server.websocket()
    with pytest.raises(WebSocketClosed, match="the app closed it"):
        async with websocket:
            await websocket.close(4000)
            await getattr(websocket, use)(*["a"] * (use == "send_text"))
    assert closes(server) == [(4000, "")]


@pytest.mark.contract("block-ends-quietly")
@pytest.mark.quiet
async def test_another_task_waits_when_the_app_closes() -> None:
    """Also on a server that says nothing after the app's close."""
    server = Server()
    websocket = server.websocket()
    async with websocket, anyio.create_task_group() as tasks:
        tasks.start_soon(websocket.receive_text)
        await until(lambda: websocket._receiving)
        await websocket.close(4000)
    assert closes(server) == [(4000, "")]


@pytest.mark.contract("block-ends-quietly", "exceptions-pickle")
async def test_the_exceptions_of_a_block() -> None:
    """They know their connection, can be pickled, and keep nothing alive."""
    server = Server(disconnect(4001, "bye"))
    websocket = server.websocket()
    kept: list[WebSocketDisconnect] = []
    async with websocket:
        for use in (websocket.receive_text, websocket.receive_bytes):
            try:
                await use()
            except WebSocketDisconnect as error:
                kept.append(error)
    for end in kept:
        copy = pickle.loads(pickle.dumps(end))
        assert type(copy) is type(end)
        assert (copy.args, copy.code, copy.reason) == (end.args, end.code, end.reason)
        assert gc.get_referents(end._origin) in ([], [object])
    assert [type(end) for end in kept] == [WebSocketDisconnect, WebSocketClosed]


# What the body sees


@pytest.mark.reader
@pytest.mark.contract("block-send-learns", "block-nothing-lost")
@pytest.mark.parametrize("vice", ["silent", "oserror", "runtimeerror"])
async def test_a_send_learns_of_the_end_and_no_message_is_lost(vice: str) -> None:
    server = Left(text("1"), data(b"2"), vice=vice)
    websocket = server.websocket()
    async with websocket:
        await until(lambda: websocket.messages_received == 2)
        server.leave()
        await websocket.wait_disconnected()
        assert (websocket.close_code, websocket.close_reason) == (4001, "bye")
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
        assert type(caught.value) is WebSocketDisconnect
        assert (caught.value.code, caught.value.reason) == (4001, "bye")
        for send in (websocket.send_text, websocket.send_json):
            with pytest.raises(WebSocketClosed):
                await send("a")
        assert await websocket.receive_text() == "1"
        assert await websocket.receive_bytes() == b"2"
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.receive_text()
        assert type(caught.value) is WebSocketDisconnect
        assert (caught.value.code, caught.value.reason) == (4001, "bye")
        with pytest.raises(WebSocketClosed):
            await websocket.receive_text()
    assert server.types == ["websocket.accept"]
    assert server.dropped == []


@pytest.mark.reader
@pytest.mark.contract("block-send-learns", "block-nothing-lost", "block-server-errors")
@pytest.mark.parametrize("vice", ["oserror", "runtimeerror"])
async def test_a_failing_send_gets_the_true_code(vice: str) -> None:
    """The server fails the send before the reader had its turn."""
    server = Left(text("1"), vice=vice)
    websocket = await server.accepted()
    async with websocket:
        server.leave()
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
        assert (caught.value.code, caught.value.reason) == (4001, "bye")
        assert isinstance(caught.value.__cause__, (ClientDisconnected, RuntimeError))
        assert await websocket.receive_text() == "1"
    assert websocket.closed_by == "client"


@pytest.mark.contract("block-send-learns", "block-nothing-lost", "block-server-errors", "block-buffer")
async def test_a_failing_send_gets_the_true_code_behind_a_full_buffer() -> None:
    server = Left(*(text(str(n)) for n in range(10)), vice="oserror")
    websocket = server.websocket()
    async with websocket.open(buffer_messages=2):
        await until(lambda: websocket.messages_received == 2)
        server.leave()
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
        assert caught.value.code == 4001
        assert [text async for text in websocket.iter_text()] == [str(n) for n in range(10)]


@pytest.mark.reader
@pytest.mark.contract("block-send-learns", "send-oserror")
async def test_a_server_that_fails_a_send_and_never_tells() -> None:
    server = Left(text("1"), vice="oserror", tells=False)
    websocket = server.websocket()
    async with websocket:
        server.leave()
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.send_text("a")
        assert (caught.value.code, caught.value.reason) == (1006, "")
        assert isinstance(caught.value.__cause__, ClientDisconnected)
        assert await websocket.receive_text() == "1"
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.receive_text()
        assert caught.value.code == 1006
    assert websocket.closed_by == "network"
    assert server.types == ["websocket.accept"]


@pytest.mark.contract("block-server-errors")
async def test_a_server_that_refuses_a_message_while_the_client_is_there() -> None:
    server = Server(text("1"))
    websocket = server.websocket()
    async with websocket:
        server.fail(RuntimeError("no"))
        with pytest.raises(RuntimeError, match="no"):
            await websocket.send_text("a")
        await websocket.send_text("b")
        assert await websocket.receive_text() == "1"
    assert server.types == ["websocket.accept", "websocket.send", "websocket.close"]


@pytest.mark.contract("block-server-errors")
@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("vice", ["silent", "oserror", "runtimeerror"])
async def test_a_close_that_races_with_the_clients(vice: str, raw: bool) -> None:
    """The reader has not had its turn: `close()` is silent all the same."""
    server = Left(vice=vice)
    websocket = await server.accepted()
    async with websocket:
        server.leave()
        if raw and vice != "silent":
            with pytest.raises(WebSocketDisconnect):
                await websocket.send({"type": "websocket.close", "code": 4000})
        elif not raw:
            await websocket.close(4000)
    assert server.types == []


@pytest.mark.contract("block-nothing-lost")
async def test_closing_after_the_client_left_is_silent_and_ends_the_loop() -> None:
    server = Server(text("1"), text("2"), disconnect(4001))
    websocket = server.websocket()
    async with websocket:
        await websocket.wait_disconnected()
        seen = []
        async for message in websocket.iter_text():
            seen.append(message)
            await websocket.close()
            await websocket.close()
    assert seen == ["1"]
    assert server.types == ["websocket.accept"]
    assert (websocket.close_code, websocket.closed_by) == (4001, "client")


@pytest.mark.contract("block-nothing-lost", "receive-wrong-kind")
@pytest.mark.parametrize("leaves", [False, True])
async def test_every_message_in_order_whatever_receives_it(leaves: bool) -> None:
    events: list[Any] = [
        text("1"),
        data(b"2"),
        text("[3]"),
        text("no JSON"),
        text("5"),
        text("6"),
        data(b"7"),
    ]
    server = Server(*events, *([disconnect(1001)] if leaves else []))
    websocket = server.websocket()
    async with websocket:
        if leaves:
            await websocket.wait_disconnected()
        assert await websocket.receive() == text("1")
        with pytest.raises(WebSocketDataError) as caught:
            await websocket.receive_text()
        assert caught.value.message == data(b"2")
        assert await websocket.receive_json() == [3]
        with pytest.raises(WebSocketDataError):
            await websocket.receive_json()
        assert await anext(websocket.iter_text()) == "5"
        assert await websocket.receive_text(timeout=1) == "6"
        assert await websocket.receive_bytes() == b"7"


@pytest.mark.contract("block-nothing-lost", "receive-unknown-type", "exceptions-no-bare-error")
@pytest.mark.parametrize("message", [{"type": "websocket.ping"}, {"type": []}, {}, None, 5], ids=repr)
async def test_what_is_no_message(message: Any) -> None:
    server = Server(text("1"), message, text("2"))
    websocket = server.websocket()
    async with websocket:
        assert await websocket.receive_text() == "1"
        with pytest.raises(WebSocketRuntimeError, match="the server sent"):
            await websocket.receive_text()
        assert await websocket.receive_text() == "2"


@pytest.mark.reader
@pytest.mark.contract("block-server-errors")
async def test_an_error_of_the_server_in_receive() -> None:
    """It is told in its turn, and the server is not asked again before that."""
    server = Server(text("1"), KeyError("of the server"), KeyError("again"), text("2"))
    websocket = server.websocket()
    async with websocket:
        await until(lambda: server.receives == 3)
        await anyio.sleep(0.01)
        assert server.receives == 3
        assert await websocket.receive_text() == "1"
        for words in ("of the server", "again"):
            with pytest.raises(KeyError, match=words):
                await websocket.receive_text()
        assert await websocket.receive_text() == "2"


@pytest.mark.contract("block-server-errors", "block-reraises")
async def test_an_error_of_the_server_ends_the_block() -> None:
    server = Server(KeyError("of the server"))
    with pytest.raises(KeyError, match="of the server"):
        async with server.websocket() as websocket:
            await websocket.receive_text()
    assert closes(server) == [(1011, "")]


class Stop(BaseException):
    """More than an error, as an interrupt is."""


@pytest.mark.reader
@pytest.mark.contract("block-server-errors", "block-reraises")
async def test_more_than_an_error_of_the_server_stops_the_body() -> None:
    server = Server()
    stop = Stop()
    server.push(stop)
    with pytest.raises(Stop) as caught:
        async with server.websocket():
            await anyio.sleep_forever()
    assert caught.value is stop
    assert closes(server) == [(1011, "")]


@pytest.mark.reader
@pytest.mark.contract("block-server-errors", "block-nothing-lost")
async def test_an_oserror_in_receive_is_the_end_behind_what_came() -> None:
    cause = ConnectionResetError()
    server = Server(text("1"), cause)
    websocket = server.websocket()
    async with websocket:
        await websocket.wait_disconnected()
        assert await websocket.receive_text() == "1"
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.receive_text()
        assert caught.value.code == 1006
        assert caught.value.__cause__ is cause
    assert (websocket.close_code, websocket.closed_by) == (1006, "network")


@pytest.mark.contract("block-cancelled-receive")
@pytest.mark.parametrize("method", ["receive", "receive_text", "receive_json"])
async def test_cancelling_a_receive(method: str) -> None:
    server = Server()
    websocket = server.websocket()
    async with websocket:
        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(getattr(websocket, method))
                await until(lambda: websocket._receiving)
                tasks.cancel_scope.cancel()
            assert not websocket._receiving
        server.push(text("1"), text("2"))
        assert await websocket.receive_text() == "1"
        assert await websocket.receive_text() == "2"


@pytest.mark.contract("block-cancelled-receive")
async def test_a_message_that_comes_with_the_cancellation() -> None:
    """Whichever is first: it is received now or later, and once."""
    server = Server()
    websocket = server.websocket()
    seen: list[str] = []
    async with websocket:
        for number in range(50):
            before = len(seen)
            async with anyio.create_task_group() as tasks:

                async def receive() -> None:
                    seen.append(await websocket.receive_text())

                tasks.start_soon(receive)
                await until(lambda: websocket._receiving or len(seen) > before)  # noqa: B023 - run at once
                server.push(text(str(number)))
                for _ in range(number % 7):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        while len(seen) < 50:
            seen.append(await websocket.receive_text())
    assert seen == [str(number) for number in range(50)]


@pytest.mark.contract("receive-concurrent")
async def test_two_receives_at_the_same_time() -> None:
    server = Server()
    websocket = server.websocket()
    async with websocket, anyio.create_task_group() as tasks:
        tasks.start_soon(websocket.receive_text)
        await until(lambda: websocket._receiving)
        for use in (websocket.receive, websocket.receive_text):
            with pytest.raises(WebSocketRuntimeError, match="another task is already receiving"):
                await use()
        server.push(text("1"))


@pytest.mark.reader
@pytest.mark.contract("close-second")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio's tasks take turns at random
async def test_nothing_is_received_after_the_apps_own_close() -> None:
    server = Server()
    websocket = server.websocket()
    async with websocket, anyio.create_task_group() as tasks:
        await anyio.wait_all_tasks_blocked()
        server.held.add("websocket.close")
        tasks.start_soon(websocket.close)
        server.push(text("1"), disconnect())  # the reader gets both while the app closes
        await server.holding.wait()
        await anyio.wait_all_tasks_blocked()
        assert websocket.messages_received == 1
        with pytest.raises(WebSocketClosed, match="the app closed it"):
            await websocket.receive_text()
        server.release()


@pytest.mark.contract("receive-concurrent")
async def test_two_receives_at_the_same_time_after_the_end() -> None:
    server = Server(disconnect())
    websocket = server.websocket()
    async with websocket:
        await websocket.wait_disconnected()
        websocket._receiving = True
        try:
            await websocket.receive_text()
        except Exception as error:  # the block would take a disconnect for the end, and be quiet
            refused = error
        websocket._receiving = False
    assert isinstance(refused, WebSocketRuntimeError)
    assert "another task is already receiving" in str(refused)


@pytest.mark.contract("block-buffer")
async def test_the_buffer_is_bounded_in_messages() -> None:
    server = Server(*(text(str(n)) for n in range(20)))
    websocket = server.websocket()
    async with websocket.open(buffer_messages=4):
        await until(lambda: websocket.messages_received == 4)
        await anyio.sleep(0.01)
        assert server.receives == 5  # one of them for the connect
        seen = []
        for _ in range(20):
            seen.append(await websocket.receive_text())
            assert server.receives <= 5 + len(seen)
            await anyio.lowlevel.checkpoint()
    assert seen == [str(n) for n in range(20)]


@pytest.mark.contract("block-buffer")
@pytest.mark.parametrize(
    ("messages", "fits"),
    [
        ([text("é" * 10)] * 9, 5),  # 20 bytes each
        ([data(b"a" * 30)] * 9, 4),
        ([text("a" * 5000)] * 9, 1),
        ([data(b"")] * 9, 9),
    ],
)
async def test_the_buffer_is_bounded_in_bytes(messages: list[Any], fits: int) -> None:
    server = Server(*messages)
    websocket = server.websocket()
    async with websocket.open(buffer_bytes=100):
        await until(lambda: websocket.messages_received == fits)
        await anyio.sleep(0.01)
        assert websocket.messages_received == fits
        for message in messages:
            assert await websocket.receive() == message


@pytest.mark.contract("block-buffer", "block-send-learns")
async def test_a_buffer_of_none_drops_what_comes() -> None:
    server = Server(*(text("a") for _ in range(500)), disconnect(4001))
    websocket = server.websocket()
    async with websocket.open(buffer_messages=0):
        await websocket.wait_disconnected()
        assert websocket.messages_received == 500
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.receive_text()
        assert caught.value.code == 4001


@pytest.mark.reader
@pytest.mark.contract("block-fair")
@pytest.mark.quiet
async def test_a_body_that_never_waits_does_not_starve_the_reader() -> None:
    """A server's send that waits for nothing, as some have for a client that is gone."""
    events = [connect(), disconnect(4001)]
    sent = 0

    async def receive() -> Any:
        await anyio.lowlevel.checkpoint()
        return events.pop(0)

    async def send(message: Any) -> None:
        nonlocal sent
        sent += 1

    websocket = WebSocket(Server().scope, receive, send)
    async with websocket:
        while True:
            await websocket.send_text("a")
    assert websocket.close_code == 4001
    assert sent < 100


@pytest.mark.contract("block-fair")
@pytest.mark.parametrize("messages", [0, 8])
async def test_a_server_that_never_waits_does_not_starve_the_others(messages: int) -> None:
    first = True

    async def receive() -> Any:
        nonlocal first
        if first:
            first = False
            return connect()
        return text("a")

    async def send(message: Any) -> None:
        pass

    websocket = WebSocket(Server().scope, receive, send)
    async with websocket.open(buffer_messages=messages):
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        if messages:
            for _ in range(100):
                assert await websocket.receive_text() == "a"


@pytest.mark.contract("block-fair")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio starts tasks in no order
async def test_a_turn_for_the_others_does_not_let_them_overtake() -> None:
    """Many tasks send one message each, as by hand: in the order in which they began."""
    server = Server()
    numbers = [str(number) for number in range(100)]
    async with server.websocket() as websocket:
        async with anyio.create_task_group() as tasks:
            for number in numbers:
                tasks.start_soon(websocket.send_text, number)
        assert websocket.messages_sent == 100
    assert [message["text"] for message in server.sent if "text" in message] == numbers


@pytest.mark.reader
@pytest.mark.contract("block-fair")
async def test_a_block_around_nothing_gives_others_a_turn() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async def receive() -> Any:
        return connect()

    async def send(message: Any) -> None:
        pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        for number in range(10):
            async with WebSocket(Server().scope, receive, send):
                pass
            assert turns >= number
        tasks.cancel_scope.cancel()


@pytest.mark.contract("block-wait-disconnected")
async def test_waiting_for_the_end() -> None:
    server = Server()
    websocket = server.websocket()
    with pytest.raises(WebSocketRuntimeError, match="without a block"):
        await websocket.wait_disconnected()
    returned: list[int | None] = []
    async with websocket:
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                await websocket.wait_disconnected()
                returned.append(websocket.close_code)

            for _ in range(3):
                tasks.start_soon(wait)
            with anyio.move_on_after(0.01):
                await websocket.wait_disconnected()
            assert returned == []
            server.push(text("1"), disconnect(4001))
        assert returned == [4001] * 3
        assert await websocket.receive_text() == "1"
    await websocket.wait_disconnected()


@pytest.mark.contract("block-wait-disconnected")
async def test_waiting_for_the_apps_own_end() -> None:
    server = Server()
    async with server.websocket() as websocket, anyio.create_task_group() as tasks:
        tasks.start_soon(websocket.wait_disconnected)
        await anyio.lowlevel.checkpoint()
        await websocket.close(4000)


@pytest.mark.contract("block-blocked-send")
@pytest.mark.parametrize("how", ["disconnect", "close"])
@pytest.mark.quiet
async def test_the_end_releases_a_blocked_send(how: str) -> None:
    server = Server()
    websocket = server.websocket()
    told: list[Exception] = []
    async with websocket:
        server.held.add("websocket.send")
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                try:
                    await websocket.send_text("a")
                except WebSocketDisconnect as error:
                    told.append(error)
                    raise

            tasks.start_soon(send)
            await server.holding.wait()
            if how == "disconnect":
                server.push(disconnect(4001))
            else:
                await websocket.close(4001)
    assert [type(error) for error in told] == [WebSocketDisconnect]
    assert websocket.close_code == 4001
    assert websocket.messages_sent == 0


@pytest.mark.contract("block-blocked-send", "block-closes")
async def test_a_cancelled_send_and_the_close() -> None:
    server = Server()
    websocket = server.websocket()
    async with websocket:
        server.held.add("websocket.send")
        with anyio.move_on_after(0.01):
            await websocket.send_text("a")
    assert closes(server) == [(1000, "")]


# The body is cancelled


@pytest.mark.contract("block-cancel-on-disconnect")
@pytest.mark.parametrize("where", ["sleep", "group", "receive", "send"])
@pytest.mark.parametrize(
    "event",
    [
        pytest.param(disconnect(4001), id="closed"),
        pytest.param(ClientDisconnected(), id="lost", marks=pytest.mark.reader),
    ],
)
@pytest.mark.quiet
async def test_the_end_cancels_the_body(event: Any, where: str) -> None:
    server = Server()
    websocket = server.websocket()
    cancelled: list[str] = []
    async with websocket.open(cancel_on_disconnect=True):

        async def wait() -> None:
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                cancelled.append("wait")
                raise

        server.push(text("1"), event)
        if where == "sleep":
            await wait()
        elif where == "receive":
            while True:
                await websocket.receive_text()
        elif where == "send":
            server.held.add("websocket.send")
            await websocket.send_text("a")
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                tasks.start_soon(wait)
        raise AssertionError("not reached")
    assert server.types[:1] == ["websocket.accept"]
    assert closes(server) == []
    assert cancelled == {"sleep": ["wait"], "group": ["wait"] * 2}.get(where, [])
    assert websocket.close_code == (1006 if isinstance(event, OSError) else 4001)
    await anyio.lowlevel.checkpoint()  # nobody else is cancelled


@pytest.mark.contract("block-cancel-on-disconnect")
async def test_the_apps_own_close_cancels_nothing() -> None:
    server = Server()
    ran = False
    async with server.websocket().open(cancel_on_disconnect=True) as websocket:
        await websocket.close()
        await anyio.lowlevel.checkpoint()
        ran = True
    assert ran


@pytest.mark.contract("block-cancel-on-disconnect", "block-reraises")
async def test_an_error_that_follows_from_the_cancellation() -> None:
    server = Server(disconnect(4001))
    with pytest.raises(Boom):
        async with server.websocket().open(cancel_on_disconnect=True):
            try:
                await anyio.sleep_forever()
            finally:
                raise Boom


@pytest.mark.contract("block-cancel-on-disconnect")
async def test_cancelled_from_within_and_from_outside() -> None:
    server = Server()
    with anyio.CancelScope() as scope:
        async with server.websocket().open(cancel_on_disconnect=True):
            server.push(disconnect(4001))
            scope.cancel()
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()
        raise AssertionError("not reached")
    assert scope.cancelled_caught
    assert closes(server) in ([], [(1011, "")])


@pytest.mark.contract("block-cancel-on-disconnect", "block-reraises")
async def test_a_group_of_the_cancellation_and_an_error() -> None:
    server = Server(disconnect(4001))
    boom = Boom()
    with pytest.raises(BaseExceptionGroup) as caught:
        async with server.websocket().open(cancel_on_disconnect=True):
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class() as cancelled:
                raise BaseExceptionGroup("both", [cancelled, boom]) from None
    assert caught.value.exceptions == (boom,)


# Figures


@pytest.mark.reader
@pytest.mark.contract("block-counts")
async def test_messages_and_bytes() -> None:
    server = Server(text("é"), data(b"123"), data(bytearray(b"4")), text(""), disconnect())  # type: ignore[arg-type]
    websocket = await server.accepted()
    await websocket.send_text("by hand")
    assert (websocket.messages_sent, websocket.bytes_sent) == (0, 0)
    assert (websocket.messages_received, websocket.bytes_received) == (0, 0)
    async with websocket:
        await websocket.send_text("é")
        await websocket.send_bytes(b"123")
        await websocket.send_json({"a": 1})
        await websocket.send({"type": "websocket.send", "text": ""})
        await websocket.wait_disconnected()
        assert (websocket.messages_received, websocket.bytes_received) == (4, 6)
        with pytest.raises(WebSocketDisconnect):
            await websocket.send_text("not sent")
    assert (websocket.messages_sent, websocket.bytes_sent) == (4, 12)
    assert (websocket.messages_received, websocket.bytes_received) == (4, 6)


@pytest.mark.contract("accepted-subprotocol")
async def test_what_was_accepted_by_hand() -> None:
    server = Server(subprotocols=["chat"])
    websocket = server.websocket()
    assert websocket.accepted_subprotocol is None
    await websocket.accept("chat")
    assert websocket.accepted_subprotocol == "chat"
    await websocket.close()
    assert websocket.accepted_subprotocol == "chat"


# Cancelling anywhere


async def echo(websocket: WebSocket) -> None:
    async for message in websocket.iter_text():
        await websocket.send_text(message)


async def talk(websocket: WebSocket) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(echo, websocket)
        for _ in range(3):
            await websocket.send_json({"a": 1})
        await websocket.wait_disconnected()


async def close(websocket: WebSocket) -> None:
    await websocket.send_text(await websocket.receive_text())
    await websocket.close(4000)


@pytest.mark.contract("block-closes", "block-leaving-bounded", "block-reraises")
@pytest.mark.parametrize("body", [echo, talk, close], ids=lambda it: str(it.__name__))
@pytest.mark.parametrize("leaves", [False, True])
async def test_cancelling_at_every_await(
    body: Callable[[WebSocket], Coroutine[Any, Any, None]], leaves: bool
) -> None:
    """However far it has come: one close at most, the right one, and the cleanups have run."""
    codes: set[int | None] = set()
    for steps in range(60):
        server = Server(connecting=False)
        websocket = server.websocket()
        ran: list[str] = []
        websocket.add_cleanup(lambda ran=ran: ran.append("cleanup"))  # type: ignore[misc]

        async def serve(websocket: WebSocket = websocket) -> None:
            async with websocket:
                await body(websocket)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            script = [connect(), text("1"), text("2"), *([disconnect(4001)] if leaves else [])]
            for step in range(steps):
                if script and step % 3 == 0:
                    server.push(script.pop(0))
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert server.violations == []
        assert len(closes(server)) <= 1
        if "websocket.accept" in server.types:
            assert ran == ["cleanup"]
            assert [code for code, _ in closes(server)] == (
                [] if websocket.closed_by == "client" else [websocket.close_code]
            )
        codes.add(websocket.close_code)
    if leaves:
        assert 4001 in codes or body is close
    assert 1011 in codes
    assert codes <= {None, 1000, 1011, 4000, 4001}


# Several objects over one connection, behind a router


@pytest.mark.contract("block-ends-quietly", "block-once", "block-nothing-lost", "accepted-subprotocol")
@pytest.mark.parametrize("opens", [0, 1])
@pytest.mark.quiet
async def test_another_object_over_the_same_connection(opens: int) -> None:
    server = Server(text("1"), text("2"), disconnect(4001), path_params={}, subprotocols=["chat"])
    receive = server.receive  # one object: by it they know one another
    objects = [WebSocket(server.scope, receive, server.send) for _ in range(2)]
    owner, other = objects[opens], objects[1 - opens]
    seen: list[Any] = []
    async with owner.open("chat"):
        with pytest.raises(WebSocketRuntimeError, match="a block owns this WebSocket already"):
            async with other:
                raise AssertionError("entered")
        await other.wait_disconnected()
        seen += [await other.receive_text(), await owner.receive_text(), other.closed_by]
        await other.receive_text()  # its disconnect is the block's
    assert seen == ["1", "2", "client"]
    assert [it.accepted_subprotocol for it in objects] == ["chat"] * 2
    assert [it.messages_received for it in objects] == [2, 2]
    assert server.types == ["websocket.accept"]


@pytest.mark.contract("block-closes")
@pytest.mark.parametrize("opens", [0, 1])
async def test_another_object_closes(opens: int) -> None:
    server = Server(path_params={})
    receive = server.receive  # one object: by it they know one another
    objects = [WebSocket(server.scope, receive, server.send) for _ in range(2)]
    async with objects[opens]:
        await objects[1 - opens].close(4000)
    assert closes(server) == [(4000, "")]


class Waits:
    """A send of a server that waits for two things, and answers an interruption by waiting for a third."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __await__(self) -> Generator[Any, Any, None]:
        try:
            self.seen.append((yield "one"))
            self.seen.append((yield "two"))
        except KeyError as error:
            self.seen.append(error.args)
            self.seen.append((yield "three"))
        finally:
            self.seen.append("left")


class NoScope(AbstractContextManager[None]):
    """A scope that is never cancelled, and needs no event loop."""

    cancelled_caught = False

    def __init__(self, **_: Any) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def no_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anyio, "CancelScope", NoScope)


def begun() -> tuple[Waits, Any]:
    waits = Waits()
    sending = waits.__await__()
    rest = Wait().rest_of(sending, next(sending))
    assert next(rest) == "one"
    return waits, rest


@pytest.mark.usefixtures("no_scope")
def test_what_was_begun_by_hand_goes_on() -> None:
    waits, rest = begun()
    assert rest.send(1) == "two"
    with pytest.raises(StopIteration):
        rest.send(2)
    assert waits.seen == [1, 2, "left"]


@pytest.mark.usefixtures("no_scope")
def test_what_was_begun_by_hand_is_interrupted() -> None:
    waits, rest = begun()
    assert rest.throw(KeyError("no")) == "three"
    with pytest.raises(StopIteration):
        rest.send(3)
    assert waits.seen == [("no",), 3, "left"]
    waits, rest = begun()
    with pytest.raises(ValueError, match="other"):
        rest.throw(ValueError("other"))
    assert waits.seen == ["left"]


@pytest.mark.usefixtures("no_scope")
def test_what_was_begun_by_hand_is_thrown_away() -> None:
    waits, rest = begun()
    rest.close()
    assert waits.seen == ["left"]


@pytest.mark.usefixtures("no_scope")
@pytest.mark.parametrize("end", [None, KeyError("no"), GeneratorExit()])
def test_what_was_begun_by_hand_is_an_iterator_and_no_more(end: BaseException | None) -> None:
    begun: Any = iter(["one", "two"])
    rest = Wait().rest_of(begun, next(begun))
    assert next(rest) == "one"
    if end is None:
        assert list(rest) == ["two"]
    else:
        with pytest.raises(type(end)):
            rest.throw(end)


class Ready:
    """What has come already when a task gets to wait for it, so that it is not cancelled there."""

    def __await__(self) -> Generator[Any, Any, None]:
        future: asyncio.Future[None] = asyncio.Future()
        future.set_result(None)
        future._asyncio_future_blocking = True  # what `Future.__await__` does, if it has to wait
        yield future


class Tidies(Server):
    """Behind middleware that has something to wait for when a send of its is stopped."""

    tidying: Callable[[], Awaitable[object]]

    async def send(self, message: Any) -> None:
        try:
            await super().send(message)
        except asyncio.CancelledError:
            await self.tidying()
            raise


@pytest.mark.reader
@pytest.mark.contract("block-blocked-send")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_send_that_is_stopped_waits_for_what_has_come() -> None:
    server = Tidies()
    server.tidying = Ready
    async with server.websocket() as websocket:
        server.held.add("websocket.send")
        sending = asyncio.ensure_future(websocket.send_text("a"))
        await server.holding.wait()
        server.push(disconnect(4001))
        with pytest.raises(WebSocketDisconnect):
            await sending
    assert websocket.close_code == 4001


@pytest.mark.reader
@pytest.mark.contract("block-blocked-send")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_send_that_is_stopped_fails() -> None:
    server = Tidies()
    failure = LookupError("nothing to tidy")

    async def tidy() -> None:
        raise failure

    server.tidying = tidy
    async with server.websocket() as websocket:
        server.held.add("websocket.send")
        sending = asyncio.ensure_future(websocket.send_text("a"))
        await server.holding.wait()
        server.push(disconnect(4001))
        with pytest.raises(WebSocketDisconnect) as caught:
            await sending
    assert (caught.value.code, caught.value.__cause__) == (4001, failure)


@pytest.mark.reader
@pytest.mark.contract("block-blocked-send", "block-closes")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_send_that_is_stopped_is_cancelled_too() -> None:
    server = Tidies()
    websocket = server.websocket()

    async def body() -> None:
        async with websocket:
            server.held.add("websocket.send")
            await websocket.send_text("a")

    async def tidy() -> None:
        task.cancel()
        await anyio.sleep_forever()

    server.tidying = tidy
    task = asyncio.ensure_future(body())
    await server.holding.wait()
    server.push(disconnect(4001))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert websocket.close_code == 4001


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_send_that_waits_is_thrown_away_by_another_task() -> None:
    """As the garbage collector does it. The scope around the wait objects; the send is left all the same."""
    seen: list[type[BaseException]] = []

    async def send() -> None:
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            seen.append(type(error))
            raise

    async def begin() -> Any:
        sending = send().__await__()
        rest = Wait().rest_of(sending, next(sending))
        next(rest)
        return rest

    rest = await asyncio.ensure_future(begin())
    with pytest.raises(RuntimeError, match="different task"):
        rest.close()
    assert seen == [GeneratorExit]


class Scoped(Server):
    """Behind middleware that limits the time of each send: it waits twice, in scopes of its own."""

    async def send(self, message: Any) -> None:
        try:
            with anyio.fail_after(60):
                with anyio.CancelScope():
                    while message["type"] in self.held:
                        self.holding.set()
                        await self.pause()
                await super().send(message)
        except BaseException as error:
            self.failed = error
            with anyio.CancelScope():
                await anyio.lowlevel.checkpoint()
            raise


@pytest.mark.contract("block-blocked-send", "block-counts")
async def test_a_send_that_waits_in_scopes_of_middleware() -> None:
    server = Scoped()
    server.held.add("websocket.send")
    async with server.websocket() as websocket:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(websocket.send_text, "a")
            await server.holding.wait()
            server.release()
        server.held.add("websocket.send")
        with anyio.move_on_after(0.01) as scope:
            await websocket.send_text("b")
        assert scope.cancelled_caught
        assert isinstance(server.failed, anyio.get_cancelled_exc_class())
        server.release()
        await websocket.send_text("c")
    assert websocket.messages_sent == 2
    assert [message.get("text") for message in server.sent[1:]] == ["a", "c", None]


@pytest.mark.reader
@pytest.mark.contract("block-blocked-send")
async def test_a_send_in_scopes_of_middleware_is_stopped_by_the_end() -> None:
    server = Scoped()
    async with server.websocket() as websocket:
        server.held.add("websocket.send")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(blocked, websocket)
            await server.holding.wait()
            server.push(disconnect(1001))
        assert isinstance(server.failed, anyio.get_cancelled_exc_class())
        await anyio.lowlevel.checkpoint()  # nobody else is cancelled
    assert websocket.close_code == 1001


@pytest.mark.reader
@pytest.mark.contract("block-blocked-send", "block-leaving-bounded")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_trio_as_a_guest_of_asyncio() -> None:
    """There is a loop of asyncio then, and no task of it."""
    trio = pytest.importorskip("trio")
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Any] = loop.create_future()
    seen: list[Any] = []

    async def converse() -> None:
        server = Server(text("1"))
        websocket = server.websocket()
        async with websocket.open(close_timeout=0.01):
            seen.append(await websocket.receive_text())
            server.held |= {"websocket.send", "websocket.close"}
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(blocked, websocket)
                await server.holding.wait()
                server.push(disconnect(4001))
            seen.append(websocket.close_code)
        server = Server()
        server.held.add("websocket.close")
        async with server.websocket().open(close_timeout=0.01):
            pass
        seen.append(closes(server))

    trio.lowlevel.start_guest_run(
        converse,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        done_callback=ended.set_result,
        host_uses_signal_set_wakeup_fd=True,
    )
    (await ended).unwrap()
    assert seen == ["1", 4001, [(1000, "")]]


@pytest.mark.reader
@pytest.mark.contract("block-closes")
async def test_the_apps_own_close_can_be_cancelled() -> None:
    server = Scoped()
    websocket = server.websocket()
    async with websocket.open(close_timeout=20):
        server.held.add("websocket.close")
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(websocket.close, 4000)
                await server.holding.wait()
                scope.cancel()
    assert scope.cancelled_caught
    assert (websocket.close_code, websocket.closed_by) == (4000, "server")


@pytest.mark.contract("block-wait-disconnected")
async def test_waiting_for_an_end_that_has_come_can_be_cancelled() -> None:
    server = Server()
    async with server.websocket() as websocket:
        server.push(disconnect(4001))
        await websocket.wait_disconnected()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await websocket.wait_disconnected()
    assert scope.cancelled_caught


@pytest.mark.reader
@pytest.mark.contract("block-leaving-bounded")
@pytest.mark.parametrize("how", ["left", "cancelled"])
async def test_a_close_in_scopes_of_middleware_is_given_up(how: str) -> None:
    server = Scoped()
    websocket = server.websocket()
    with anyio.CancelScope() as scope:
        async with websocket.open(close_timeout=0.01):
            server.held.add("websocket.close")
            if how == "cancelled":
                scope.cancel()
                await anyio.sleep_forever()
    assert isinstance(server.failed, anyio.get_cancelled_exc_class())
    assert scope.cancelled_caught == (how == "cancelled")
    assert websocket.close_code == (1011 if how == "cancelled" else 1000)


@pytest.mark.reader
@pytest.mark.contract("block-blocked-send")
async def test_a_send_that_waits_for_nothing_is_not_stopped_by_the_end() -> None:
    server = Server()
    async with server.websocket() as websocket:
        await websocket.send_text("a")
        assert websocket._conversation is not None
        reader = websocket._conversation.source
        assert isinstance(reader, Reader)
        assert not reader._sends
        server.held.add("websocket.send")
        async with anyio.create_task_group() as group:
            group.start_soon(blocked, websocket)
            await server.holding.wait()
            assert len(reader._sends) == 1
            server.push(disconnect(1001))
        assert not reader._sends
    assert server.types == ["websocket.accept", "websocket.send", "websocket.send"]


@pytest.mark.contract("block-blocked-send", "block-counts")
async def test_a_send_that_waits_goes_out() -> None:
    server = Server()
    server.held.add("websocket.send")
    async with server.websocket() as websocket, anyio.create_task_group() as group:
        group.start_soon(websocket.send_text, "a")
        await server.holding.wait()
        assert websocket.messages_sent == 0
        server.release()
    assert (websocket.messages_sent, websocket.bytes_sent) == (1, 1)
    assert server.types == ["websocket.accept", "websocket.send", "websocket.close"]


async def blocked(websocket: WebSocket) -> None:
    with pytest.raises(WebSocketDisconnect):
        await websocket.send_text("b")


@pytest.mark.reader
@pytest.mark.contract("block-after")
async def test_what_was_not_received_is_not_kept() -> None:
    """The WebSocket may be kept, and with it the block, for its figures."""
    server = Server(*(text("a" * 1000) for _ in range(3)))
    websocket = server.websocket()
    async with websocket:
        await until(lambda: websocket.messages_received == 3)
    assert websocket._conversation is not None
    reader = websocket._conversation.source
    assert isinstance(reader, Reader)
    assert [item for item, _ in reader._inbox.items] == [{"type": "websocket.disconnect", "code": 1000}]
    assert websocket.messages_received == 3
