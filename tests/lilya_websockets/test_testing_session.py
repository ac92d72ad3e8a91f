"""The test client in the test's event loop: what a session does, and the faults that it shows."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
import traceback
import unittest
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from lilya.websockets import (
    WebSocket,
    WebSocketClosed,
    WebSocketDataError,
    WebSocketDisconnect,
    WebSocketRuntimeError,
)
from lilya.websockets.testing import (
    ASGIViolation,
    ASGIWarning,
    AsyncTestClient,
    ClientDisconnected,
    MemoryConnection,
    UnexpectedMessage,
    WebSocketDenialResponse,
    WebSocketSession,
    WebSocketTimeout,
    _task,
    connect,
    describe_frames,
    frames_of,
    websocket_scope,
)
from lilya.websockets.types import Message, Receive, Scope, Send

from .apps import (
    ACCEPT,
    BODY,
    CLOSE,
    START,
    TEXT,
    Boom,
    echo,
    never_accepts,
    never_ends,
    raises_after_accept,
    raises_after_close,
    raises_before_accept,
    returns_after_accept,
    silent,
    swallows_cancellation,
)

pytestmark = pytest.mark.anyio  # which does nothing to the tests that need no event loop

App = Callable[[Scope, Receive, Send], Awaitable[None]]


def sends(*messages: Any, swallow: bool = False, wait: bool = True) -> App:
    """An app that sends these messages, and then waits for the client to leave."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            try:
                await send(message)
            except (RuntimeError, OSError):
                if not swallow:
                    raise
        while wait and (await receive())["type"] != "websocket.disconnect":
            pass

    return app


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


# What a session does


async def test_text_bytes_and_json() -> None:
    async with connect(echo) as session:
        await session.send_text("é")
        assert await session.receive_text() == "é"
        await session.send_bytes(b"\xff")
        assert await session.receive_bytes() == b"\xff"
        await session.send_json({"a": [1, None]})
        assert await session.receive_json() == {"a": [1, None]}
        await session.send_json([1], mode="binary")
        assert await session.receive_json(mode="binary") == [1]
        await session.send({"type": "websocket.receive", "text": ""})
        assert await session.receive() == {"type": "websocket.send", "text": ""}
        assert (session.close_code, session.close_reason) == (None, None)


async def test_sending_checks_its_arguments() -> None:
    async with connect(echo) as session:
        with pytest.raises(TypeError, match="text must be str"):
            await session.send_text(b"a")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="bytes-like"):
            await session.send_bytes("a")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="surrogate"):
            await session.send_text("\ud800")
        with pytest.raises(ValueError, match="JSON"):
            await session.send_json(float("nan"))
        for call in (session.send_json({}, mode="a"), session.receive_json(mode="a")):
            with pytest.raises(WebSocketRuntimeError, match="mode must be"):
                await call
        with pytest.raises(ValueError, match="1005"):
            await session.close(1005)
        await session.send_text("still open")
        assert await session.receive_text() == "still open"


async def test_the_wrong_kind_of_message_carries_it() -> None:
    async with connect(sends(ACCEPT, TEXT, TEXT, {"type": "websocket.send", "bytes": b"\xff"})) as session:
        with pytest.raises(WebSocketDataError, match="expected binary data, got text"):
            await session.receive_bytes()
        with pytest.raises(WebSocketDataError, match="expected JSON, got text"):
            await session.receive_json()
        with pytest.raises(WebSocketDataError, match="expected JSON") as caught:
            await session.receive_json(mode="binary")
        assert caught.value.message == {"type": "websocket.send", "bytes": b"\xff"}


async def test_the_acceptance() -> None:
    headers = [(b"x-a", b"1"), (b"x-a", b"\xe9")]
    app = sends({**ACCEPT, "subprotocol": "chat", "headers": headers})
    async with connect(app, "/", ["soap", "chat"]) as session:
        assert session.subprotocol == "chat"
        assert session.headers.getall("X-A") == ["1", "é"]
        assert session.scope["subprotocols"] == ["soap", "chat"]
    async with connect(sends(ACCEPT)) as session:
        assert (session.subprotocol, len(session.headers)) == (None, 0)


async def test_iteration_ends_with_the_connection() -> None:
    data = {"type": "websocket.send", "bytes": b"x"}
    async with connect(sends(ACCEPT, TEXT, data, {**CLOSE, "code": 4000, "reason": "tea"})) as session:
        assert [payload async for payload in session] == ["hello", b"x"]
        assert (session.close_code, session.close_reason) == (4000, "tea")
        assert [payload async for payload in session] == []


async def test_a_close_of_the_app() -> None:
    async with connect(sends(ACCEPT, TEXT, {**CLOSE, "code": 4000, "reason": "tea"})) as session:
        await session.send_text("nobody reads this")
        assert await session.receive_text() == "hello"
        with pytest.raises(WebSocketDisconnect) as caught:
            await session.receive_text()
        assert type(caught.value) is WebSocketDisconnect
        assert (caught.value.code, caught.value.reason) == (session.close_code, session.close_reason)
        assert (session.close_code, session.close_reason) == (4000, "tea")
        for call in (
            session.receive(),
            session.receive_text(),
            session.send_text("a"),
            session.close(),
            session.vanish(),
            session.receive_nothing(0),
        ):
            with pytest.raises(WebSocketClosed, match=r"the app ended it \(code 4000, reason 'tea'\)"):
                await call


async def test_receive_returns_the_close() -> None:
    async with connect(sends(ACCEPT, CLOSE)) as session:
        assert await session.receive() == CLOSE
        assert session.close_code == 1000
    async with connect(returns_after_accept) as session:
        assert await session.receive() == {"type": "websocket.close", "code": 1006, "reason": ""}


async def test_a_close_of_the_client() -> None:
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await send(TEXT)
        seen.extend([await receive(), await receive(), await receive()])
        for message in (TEXT, CLOSE):
            with pytest.raises(ClientDisconnected, match="the client is gone; the app sent"):
                await send(message)

    async with connect(app) as session:
        await session.send_text("a")
        await session.close(3001, "bye")
        assert await session.receive_text() == "hello"
        with pytest.raises(WebSocketClosed, match="the client ended it"):
            await session.close()
        with pytest.raises(WebSocketDisconnect, match="3001"):
            await session.receive_text()
        assert (session.close_code, session.close_reason) == (3001, "bye")
    left = {"type": "websocket.disconnect", "code": 3001, "reason": "bye"}
    assert seen == [{"type": "websocket.receive", "text": "a"}, left, left]


async def test_leaving_closes_with_1000() -> None:
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        seen.append(await receive())

    async with connect(app):
        pass
    assert seen == [{"type": "websocket.disconnect", "code": 1000, "reason": ""}]


async def test_a_client_that_vanishes() -> None:
    codes: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        try:
            while True:
                await websocket.send_text("tick")
                await anyio.sleep(0.001)
        except WebSocketDisconnect as error:
            codes.append(error.code)
            raise

    async with connect(app) as session:
        await session.receive_text()
        await session.vanish()
    assert codes == [1006]


async def test_before_spec_version_2_4_a_send_after_the_end_is_dropped() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        await send(TEXT)

    async with connect(app, spec_version="2.3") as session:
        assert session.scope["asgi"]["spec_version"] == "2.3"
        await session.close()
    async with connect(app, scope={"asgi": {}}) as session:
        await session.close()


# Back-pressure


async def test_a_stalled_client_holds_the_app_up() -> None:
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        await websocket.receive_text()
        for number in range(3):
            await websocket.send_json(number)
            sent.append(number)
        await websocket.close()

    async with connect(app) as session:
        session.stall()
        session.stall()
        await session.send_text("go")
        await session.settled()
        assert sent == []
        with pytest.raises(WebSocketRuntimeError, match=r"stalled: call resume\(\) first"):
            await session.receive_json()
        session.resume()
        session.resume()
        assert [await session.receive_json() for _ in range(3)] == sent == [0, 1, 2]
        await session.settled()
        session.stall()  # what has arrived can be received
        with pytest.raises(WebSocketDisconnect):
            await session.receive_json()


@pytest.mark.parametrize("vanishing", [True, False])
async def test_a_stalled_app_learns_of_the_end(vanishing: bool) -> None:
    errors: list[Exception] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        try:
            await send(TEXT)
        except OSError as error:
            errors.append(error)

    async with connect(app) as session:
        session.stall()
        await session.send_text("go")
        await session.settled()
        if vanishing:
            await session.vanish()
    assert [type(error) for error in errors] == [ClientDisconnected]


async def test_settled_waits_for_an_app_that_takes_its_time() -> None:
    reached: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        for number in range(3):
            await anyio.sleep(0.02)
            reached.append(number)
        if scope["path"] == "/waits":
            await receive()

    for path in ("/waits", "/ends"):
        async with connect(app, path) as session:
            await session.settled()
            assert reached == [0, 1, 2]
            reached.clear()
    with pytest.raises(WebSocketTimeout, match="waiting for the app to wait for the client"):
        async with connect(never_ends) as session:
            await session.settled(timeout=0.05)


# Nothing


async def test_nothing_comes() -> None:
    async with connect(silent) as session:
        start = time.monotonic()
        await session.receive_nothing(0.05)
        assert time.monotonic() - start >= 0.04


async def test_something_comes_where_nothing_was_expected() -> None:
    async with connect(sends(ACCEPT, TEXT)) as session:
        for _ in range(2):
            with pytest.raises(UnexpectedMessage, match=r"expected nothing for 5 s, got .*hello") as caught:
                await session.receive_nothing(5)
            assert caught.value.message == TEXT
        assert await session.receive_text() == "hello"
        await session.receive_nothing(0.01)
    async with connect(returns_after_accept) as session:
        with pytest.raises(UnexpectedMessage, match="got the end of the connection"):
            await session.receive_nothing(5)
    async with connect(raises_after_accept) as session:
        assert await session.receive_text() == "hello"
        await session.send_text("go")
        with pytest.raises(Boom):
            await session.receive_nothing(5)


# Refusals


async def test_a_denial_is_a_response() -> None:
    body = {**BODY, "body": b'{"error": ', "more_body": True}
    app = sends({**START, "headers": [(b"x-a", b"1")]}, body, {**BODY, "body": b'"\xc3\xa9"}'})
    with pytest.raises(WebSocketDisconnect) as caught:
        async with connect(app):
            raise AssertionError("not reached")
    denial = caught.value
    assert isinstance(denial, WebSocketDenialResponse)
    assert (denial.status_code, denial.headers["X-A"], denial.code) == (401, "1", 1006)
    assert (denial.text, denial.json()) == ('{"error": "é"}', {"error": "é"})
    assert denial.content == b'{"error": "\xc3\xa9"}'
    assert str(denial) == 'the app refused the connection with HTTP 401: {"error": "é"}'


async def test_a_close_before_accept_is_a_denial_too() -> None:
    with pytest.raises(WebSocketDenialResponse) as caught:
        async with connect(sends({**CLOSE, "code": 4001, "reason": "who?"})):
            raise AssertionError("not reached")
    assert (caught.value.status_code, caught.value.code, caught.value.reason) == (403, 4001, "who?")
    assert str(caught.value) == (
        "the app refused the connection with HTTP 403 (it closed with code 4001, reason 'who?')"
    )
    with pytest.raises(WebSocketDenialResponse, match=r"403 \(it closed with code 1000\)$"):
        async with connect(sends(CLOSE)):
            raise AssertionError("not reached")


async def test_a_server_without_the_extension() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["extensions"] == {}
        await sends(START, BODY)(scope, receive, send)

    with pytest.raises(ASGIViolation, match="the scope has no extension"):
        async with connect(app, extensions={}):
            raise AssertionError("not reached")


# Time limits


async def test_a_silent_app() -> None:
    async with connect(silent) as session:
        with pytest.raises(WebSocketTimeout) as caught:
            await session.receive_text(timeout=0.05)
    error = caught.value
    assert (error.awaited, error.seconds, error.last_sent) == ("a text message", 0.05, ACCEPT)
    assert re.fullmatch(r"tests/lilya_websockets/apps\.py:\d+, `await receive\(\)`", error.place or "")
    assert str(error) == (
        "timed out after 0.05 s, waiting for a text message\n"
        "the app last sent {'type': 'websocket.accept'}\n"
        f"the app was waiting in {error.place}"
    )


@pytest.mark.parametrize(
    ("call", "awaited"),
    [
        (lambda session: session.receive(), "a message"),
        (lambda session: session.receive_bytes(), "a binary message"),
        (lambda session: session.receive_json("binary"), "JSON in a binary message"),
        (lambda session: anext(aiter(session)), "a message or the end"),
    ],
)
async def test_the_limit_of_the_session(call: Callable[[WebSocketSession], Any], awaited: str) -> None:
    with pytest.raises(WebSocketTimeout, match=f"after 0.05 s, waiting for {awaited}\n"):
        async with connect(silent, timeout=0.05) as session:
            await call(session)


async def test_an_app_that_never_accepts() -> None:
    with pytest.raises(WebSocketTimeout) as caught:
        async with connect(never_accepts, timeout=0.05):
            raise AssertionError("not reached")
    assert str(caught.value).startswith(
        "timed out after 0.05 s, waiting for the app to accept\nthe app last sent nothing\n"
        "the app was waiting in tests/lilya_websockets/apps.py:"
    )
    assert "`await anyio.sleep_forever()`" in str(caught.value)


async def test_an_app_that_stops_within_a_denial() -> None:
    with pytest.raises(WebSocketTimeout, match="waiting for the body of the denial response"):
        async with connect(sends(START), timeout=0.05):
            raise AssertionError("not reached")


async def test_what_is_sent_after_the_apps_close_is_lost() -> None:
    async with connect(sends(ACCEPT, CLOSE, wait=False)) as session:
        await session.settled()  # the app has ended, which the test has not seen yet
        await session.send_text("too late")
        with pytest.raises(WebSocketDisconnect) as caught:
            await session.receive_text()
    assert caught.value.code == 1000


async def test_an_app_that_never_ends() -> None:
    start = time.monotonic()
    with pytest.raises(WebSocketTimeout) as caught:
        async with connect(never_ends, timeout=0.05):
            pass
    assert time.monotonic() - start < 4  # the limit of the session, not the usual 5 s
    assert "waiting for the app to end after the session\n" in str(caught.value)
    assert "apps.py" in (caught.value.place or "")
    assert str(caught.value).endswith("`await anyio.sleep_forever()`\nit was cancelled")


async def test_the_failure_of_the_test_counts_more_than_an_app_that_never_ends() -> None:
    with pytest.raises(AssertionError, match="of the test") as caught:
        async with connect(never_ends, timeout=0.05):
            raise AssertionError("of the test")
    (note,) = notes(caught.value)
    assert "waiting for the app to end after the session" in note


async def test_a_time_out_of_the_test_does_not_wait_for_the_app_once_more() -> None:
    start = time.monotonic()
    with pytest.raises(WebSocketTimeout, match="a text message") as caught:
        async with connect(never_ends, timeout=60) as session:
            await session.receive_text(timeout=0.05)
    assert time.monotonic() - start < 30  # not the limit of the session
    assert not hasattr(caught.value, "__notes__")


async def test_an_app_that_swallows_its_cancellation() -> None:
    start = time.monotonic()
    with pytest.raises(WebSocketTimeout, match="it swallowed the cancellation, and was left where it was"):
        async with connect(swallows_cancellation, timeout=0.05):
            pass
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio does not let a task go with its scopes open
async def test_an_app_that_swallows_everything() -> None:
    stop = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        while not stop:
            try:
                await anyio.sleep_forever()
            except BaseException:  # the fault
                pass

    with pytest.raises(WebSocketTimeout, match="it swallowed the cancellation"):
        async with connect(app, timeout=0.05):
            pass
    stop = True
    left: list[Any] = _task._left
    assert [type(each).__name__ for each in left[:2]] == ["coroutine", "coroutine"]
    left[1].close()  # the app's own, which now ends
    left.clear()


SWALLOWS = """
import anyio
from lilya.websockets.testing import WebSocketTimeout, connect

async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        try:
            await anyio.sleep_forever()
        except BaseException:
            pass

async def main():
    try:
        async with connect(app, timeout=0.05):
            pass
    except WebSocketTimeout as error:
        print(error)

anyio.run(main)
"""


def test_an_app_that_swallows_everything_does_not_hold_up_the_interpreters_exit() -> None:
    done = subprocess.run([sys.executable, "-c", SWALLOWS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "it swallowed the cancellation, and was left where it was" in done.stdout


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_app_that_shields_itself() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        with anyio.CancelScope(shield=True):
            await anyio.sleep_forever()

    with pytest.raises(WebSocketTimeout, match="it swallowed the cancellation"):
        async with connect(app, timeout=0.05):
            pass


async def test_where_the_tasks_of_an_app_are() -> None:
    async def task() -> None:
        await anyio.sleep_forever()  # in a task

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        async with anyio.create_task_group() as tasks:  # in the app
            tasks.start_soon(task)
            tasks.start_soon(task)

    with pytest.raises(WebSocketTimeout) as caught:
        async with connect(app, timeout=0.05):
            pass
    place = caught.value.place or ""
    assert place.count("\nand in ") == 1
    assert "create_task_group() as tasks:" in place
    assert "# in a task`" in place


async def test_a_time_out_names_what_the_app_swallowed() -> None:
    app = sends({"type": "websocket.send", "text": "too early"}, swallow=True)
    with pytest.raises(WebSocketTimeout, match="illegal message before accept") as caught:
        async with connect(app, timeout=0.05):
            raise AssertionError("not reached")
    assert len(caught.value.violations) == 1


async def test_no_limit() -> None:
    async with connect(silent, timeout=None) as session:
        with anyio.move_on_after(0.05) as scope:
            await session.receive()
        assert scope.cancelled_caught
        with pytest.raises(WebSocketTimeout):
            await session.receive(timeout=0.01)


async def test_cancelling_a_receive_loses_no_message() -> None:
    async with connect(echo) as session:
        with anyio.move_on_after(0.01):
            await session.receive_text()
        await session.send_text("a")
        assert await session.receive_text() == "a"


# Rules


@pytest.mark.parametrize("swallow", [False, True])
@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([TEXT, ACCEPT], "illegal message before accept, close or a denial: expected 'websocket.accept' or"),
        (
            [ACCEPT, ACCEPT],
            "on an accepted connection: expected 'websocket.send' or 'websocket.close'; the app",
        ),
        ([ACCEPT, START], r"the app sent \{'type': 'websocket.http.response.start', 'status': 401\}"),
        ([ACCEPT, {"type": "websocket.send", "text": b"a"}], "malformed message: 'text' is a str, not bytes"),
        ([ACCEPT, CLOSE, TEXT], "after the app's own end of the session: expected nothing; the app sent"),
        ([ACCEPT, CLOSE, CLOSE], "after the app's own end of the session: expected nothing; the app sent"),
    ],
)
async def test_an_illegal_message_fails_even_if_the_app_swallows_it(
    messages: list[Message], problem: str, swallow: bool
) -> None:
    with pytest.raises(ASGIViolation if swallow else (ASGIViolation, ClientDisconnected), match=problem):
        async with connect(sends(*messages, swallow=swallow)) as session:
            await session.settled()


@pytest.mark.parametrize("swallow", [False, True])
async def test_an_illegal_message_fails_after_the_client_left_too(swallow: bool) -> None:
    with pytest.raises(ASGIViolation, match="after the app's own end of the session"):
        async with connect(sends(ACCEPT, CLOSE, CLOSE, swallow=True)):
            pass
    with pytest.raises(ASGIViolation, match="malformed message: the type is one of"):
        async with connect(sends(ACCEPT, {"type": "websocket.sned"}, swallow=swallow)):
            pass


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "the app returned without accepting, closing or denying the connection"),
        ([START], "the app returned within a denial: no 'websocket.http.response.body' without more_body"),
    ],
)
async def test_a_message_that_is_missing(messages: list[Message], problem: str) -> None:
    with pytest.raises(ASGIViolation, match=problem):
        async with connect(sends(*messages, wait=False)):
            raise AssertionError("not reached")


async def test_a_swallowed_violation_is_noted_on_what_the_app_raises() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sends(TEXT, ACCEPT, swallow=True, wait=False)(scope, receive, send)
        raise Boom

    with pytest.raises(Boom) as caught:
        async with connect(app) as session:
            await session.receive()
    (note,) = notes(caught.value)
    assert note.startswith("illegal message before accept")


# What the app raises


async def test_an_app_that_raises_before_accept() -> None:
    with pytest.raises(Boom, match="before accept") as caught:
        async with connect(raises_before_accept):
            raise AssertionError("not reached")
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "raises_before_accept"


@pytest.mark.parametrize("how", ["receive", "send", "leave"])
async def test_an_app_that_raises_after_accept(how: str) -> None:
    with pytest.raises(Boom, match="after accept") as caught:
        async with connect(raises_after_accept) as session:
            await session.send_text("go")
            if how == "receive":
                assert await session.receive_text() == "hello"
                await session.receive_text()
            elif how == "send":
                await session.settled()
                await session.send_text("too late")
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)].count(
        "raises_after_accept"
    ) == 1


async def test_what_the_app_raises_is_raised_once() -> None:
    async with connect(raises_after_accept) as session:
        assert await session.receive_text() == "hello"
        await session.send_text("go")
        with pytest.raises(Boom):
            await session.receive_text()
        with pytest.raises(WebSocketDisconnect, match="1006"):
            await session.receive_text()


async def test_an_app_that_raises_after_close() -> None:
    with pytest.raises(Boom, match="after close"):
        async with connect(raises_after_close) as session:
            assert await session.receive() == CLOSE


@pytest.mark.parametrize("kind", [SystemExit, BaseException, Boom])
async def test_any_exception_of_an_app_is_the_tests(kind: type[BaseException]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        raise kind(3)

    with pytest.raises(kind, match="3"):
        async with connect(app) as session:
            await session.receive()


async def test_neither_failure_is_lost_when_both_fail() -> None:
    with pytest.raises(Boom, match="after accept") as caught:
        async with connect(raises_after_accept) as session:
            await session.send_text("go")
            await session.settled()
            raise AssertionError("of the test")
    assert isinstance(caught.value.__context__, AssertionError)
    assert str(caught.value.__context__) == "of the test"


async def test_what_the_app_raises_when_it_is_cancelled_is_the_cause() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        try:
            await anyio.sleep_forever()
        finally:
            raise Boom("while it ends")

    with pytest.raises(WebSocketTimeout, match="it was cancelled") as caught:
        async with connect(app, timeout=0.05):
            pass
    assert isinstance(caught.value.__cause__, Boom)


@pytest.mark.parametrize("name", ["WebSocketDisconnect", "ClientDisconnected", "Mine"])
async def test_a_clean_end_by_disconnect_is_no_error(name: str) -> None:
    class Mine(WebSocketDisconnect):
        """As frameworks have their own."""

    class Other(Exception):
        pass

    Other.__name__ = "WebSocketDisconnect"
    error = {"WebSocketDisconnect": Other(), "ClientDisconnected": ClientDisconnected(), "Mine": Mine()}[name]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        if scope["path"] == "/wait":
            await receive()
        raise error

    async with connect(app, "/wait"):
        pass
    # The client is there: the same exception is none of a clean end.
    with pytest.raises(type(error)):
        async with connect(app) as session:
            await session.receive()


async def test_a_use_after_the_app_has_seen_the_end_is_no_clean_end() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        async for _ in websocket.iter_text():
            pass
        await websocket.send_text("one more thing")

    with pytest.raises(WebSocketClosed, match="cannot send any longer: the client closed it"):
        async with connect(app):
            pass


# Cancelled from outside


async def test_cancelling_the_test_cancels_the_app() -> None:
    ended = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    with anyio.move_on_after(0.05) as scope:
        async with connect(app):
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert ended.is_set()
    with anyio.move_on_after(0.05) as scope:
        async with connect(app):
            pass
    assert scope.cancelled_caught
    with anyio.move_on_after(0.05) as scope:
        async with connect(never_accepts):
            pass
    assert scope.cancelled_caught


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_app_that_cancels_itself() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/late":
            await send(ACCEPT)
        elif scope["path"] == "/denying":
            await send(START)
        raise asyncio.CancelledError

    async with connect(app, "/late") as session:
        assert (await session.receive())["code"] == 1006
    for path in ("/early", "/denying"):
        with pytest.raises(WebSocketDisconnect, match="1006"):
            async with connect(app, path):
                raise AssertionError("not reached")


async def test_two_sessions_at_once() -> None:
    async with connect(echo, "/a") as one, connect(echo, "/b") as another:
        await one.send_text("a")
        await another.send_text("b")
        assert await another.receive_text() == "b"
        assert await one.receive_text() == "a"
    with pytest.raises(Boom):
        async with connect(echo) as one, connect(raises_after_accept) as another:
            await another.send_text("go")
            await one.send_text("a")
            assert await one.receive_text() == "a"


# The client


async def test_a_client_with_headers_cookies_and_address() -> None:
    client = AsyncTestClient(
        echo,
        "wss://example.org:8443",
        headers={"x-a": "client", "x-b": "client"},
        cookies={"a": "client", "b": "client"},
        client=("192.0.2.1", 1),
        root_path="/api",
    )
    async with client.websocket_connect(
        "/api/x", headers={"x-b": "session"}, cookies={"b": "session"}, params={"q": [1, 2]}
    ) as session:
        websocket = WebSocket(session.scope, anyio.sleep_forever, anyio.sleep_forever)  # type: ignore[arg-type]
        assert str(websocket.url) == "wss://example.org:8443/api/x?q=1&q=2"
        assert (websocket.headers["x-a"], websocket.headers.getall("x-b")) == ("client", ["session"])
        assert websocket.cookies == {"a": "client", "b": "session"}
        assert websocket.client == ("192.0.2.1", 1)
        assert session.scope["root_path"] == "/api"
        assert session.timeout == client.timeout == 5
    async with client.websocket_connect(timeout=1) as session:
        assert session.timeout == 1


# For tools


async def test_a_raw_connection() -> None:
    connection = MemoryConnection(returns_after_accept, websocket_scope("/"))
    await connection.start()
    assert not connection.answered
    await connection.settled()
    assert connection.answered
    assert connection.receive_nowait() == ACCEPT
    assert connection.receive_nowait() is await connection.receive() is None
    connection.close(1000)
    connection.close(1001)
    assert connection.gone
    await connection.stop(5)
    assert "apps.py" not in connection.where()  # it has ended


def test_where_nothing_can_be_seen() -> None:
    assert describe_frames([]) == "a place that cannot be seen from outside"
    assert frames_of(None) == []


# What no server minds


async def refuses_with_a_list(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.close", "code": 1008, "reason": [{"type": "missing"}]})  # as FastAPI does


async def test_what_no_server_minds_is_a_warning() -> None:
    with (
        pytest.warns(ASGIWarning, match="'reason' is a str or None, not list"),
        pytest.raises(WebSocketDenialResponse) as refused,
    ):
        async with connect(refuses_with_a_list):
            pass
    assert (refused.value.status_code, refused.value.code, refused.value.reason) == (403, 1008, "")


async def test_after_accept_it_is_a_violation() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await refuses_with_a_list(scope, receive, send)

    with pytest.raises(ASGIViolation, match="not list"):
        async with connect(app) as session:
            await session.receive()


# In different tasks, as fixtures of pytest-asyncio and `enterAsyncContext` of unittest enter and leave


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
class TestOtherTasks:
    async def test_left_in_another_task(self) -> None:
        manager = connect(echo)
        session = await asyncio.create_task(manager.__aenter__())
        await session.send_text("a")
        assert await session.receive_text() == "a"
        await asyncio.create_task(manager.__aexit__(None, None, None))
        assert session.connection.task.ended.is_set()
        assert len(asyncio.all_tasks()) <= 2  # this one, and the runner's

    async def test_left_out_of_order(self) -> None:
        managers = [connect(echo) for _ in range(3)]
        sessions = [await manager.__aenter__() for manager in managers]
        for index in (0, 2, 1):
            await sessions[index].send_text(str(index))
            assert await sessions[index].receive_text() == str(index)
            await managers[index].__aexit__(None, None, None)

    async def test_a_client_with_its_lifespan(self) -> None:
        client = AsyncTestClient(echo)
        await asyncio.create_task(client.__aenter__())
        async with client.websocket_connect("/") as session:
            await session.send_text("a")
            assert await session.receive_text() == "a"
        await asyncio.create_task(client.__aexit__(None, None, None))

    async def test_what_the_app_raises_comes_out_of_leaving(self) -> None:
        manager = connect(raises_after_accept)
        await asyncio.create_task(manager.__aenter__())
        with pytest.raises(Boom):
            await asyncio.create_task(manager.__aexit__(None, None, None))

    async def test_an_app_that_does_not_end_is_cancelled(self) -> None:
        manager = connect(never_ends, timeout=0.05)
        await asyncio.create_task(manager.__aenter__())
        with pytest.raises(WebSocketTimeout, match="it was cancelled"):
            await asyncio.create_task(manager.__aexit__(None, None, None))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="enterAsyncContext is of Python 3.11")
def test_unittest_enters_and_leaves() -> None:
    class Case(unittest.IsolatedAsyncioTestCase):
        async def asyncSetUp(self) -> None:
            self.one = await self.enterAsyncContext(connect(echo))  # type: ignore[attr-defined]
            self.another = await self.enterAsyncContext(connect(echo))  # type: ignore[attr-defined]

        async def runTest(self) -> None:
            for session in (self.another, self.one):
                await session.send_text("a")
                assert await session.receive_text() == "a"

    result = unittest.TestResult()
    Case().run(result)
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])
