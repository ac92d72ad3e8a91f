"""The strict server in memory: what it lets an app send, and what the app sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from lilya.websockets.types import ASGIApp, Message, Receive, Scope, Send
from ws_doctest import _memory, transcript
from ws_doctest._memory import websocket_scope
from ws_doctest._replay import Outcome, verdict
from ws_doctest.transcript import Connect

BACKENDS = ("asyncio", "trio")

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close"}
TEXT: Message = {"type": "websocket.send", "text": ""}
START: Message = {"type": "websocket.http.response.start", "status": 401}
BODY: Message = {"type": "websocket.http.response.body"}


def sends(*messages: Any, swallow: bool = False) -> ASGIApp:
    """Return an app that sends these messages; with ``swallow`` it ignores every error."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            try:
                await send(message)
            except (RuntimeError, OSError):
                if not swallow:
                    raise

    return app


def replayed(
    app: ASGIApp, text: str, backend: str = "asyncio", limit: float = 5, update: bool = False
) -> Outcome:
    here = Path(__file__)
    script = transcript.parse(text, "session.ws")

    async def websockets_only(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await app(scope, receive, send)

    return _memory.run_replay(
        lambda: websockets_only, script, here.parent, here, backend=backend, limit=limit, update=update
    )


def failure(app: ASGIApp, text: str, backend: str = "asyncio") -> str | None:
    return verdict(transcript.parse(text, "session.ws"), replayed(app, text, backend), "memory")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([ACCEPT, CLOSE], "< accept\n< close 1000"),
        ([ACCEPT, {**CLOSE, "code": 3000, "reason": "é"}], "< accept\n< close 3000 é"),
        ([ACCEPT], "< accept\n< close 1006"),
        ([CLOSE], "< deny 403"),
        ([START, BODY], "< deny 401"),
        (
            [START, {**BODY, "body": b"a\n", "more_body": True}, {**BODY, "body": b"b"}],
            "< deny 401\n< body a\n< body b",
        ),
        ([START, {**BODY, "body": b"\xff"}], "< deny 401\n< body-bytes ff"),
        ([{**START, "headers": [(b"x-a", b"b"), (b"x-c", b"d")]}, BODY], "< deny 401\n< header x-c: d"),
        ([{**ACCEPT, "headers": [(b"x-a", b"b")]}, CLOSE], "< accept\n< header x-a: b\n< close 1000"),
        (
            [ACCEPT, TEXT, {**TEXT, "text": None, "bytes": b""}, CLOSE],
            '< accept\n< text ""\n< bytes\n< close 1000',
        ),
    ],
)
def test_what_an_app_may_send_is_shown(messages: list[Message], text: str, backend: str) -> None:
    assert failure(sends(*messages), f"> connect /\n{text}\n", backend) is None


def test_a_subprotocol_is_one_of_those_offered() -> None:
    app = sends({**ACCEPT, "subprotocol": "b"}, CLOSE)
    assert failure(app, "> connect /\n> subprotocol a\n> subprotocol b\n< accept b\n< close 1000\n") is None
    found = failure(app, "> connect /\n> subprotocol a\n< accept b\n< close 1000\n") or ""
    assert "malformed message: the subprotocol is one of those offered, ['a'], or None, not 'b'" in found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("swallow", [False, True])
@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([TEXT], "illegal message before accept, close or a denial: expected 'websocket.accept' or"),
        ([BODY], "illegal message before accept, close or a denial"),
        (
            [ACCEPT, ACCEPT],
            "illegal message on an accepted connection: expected 'websocket.send' or 'websocket.close'",
        ),
        ([ACCEPT, START], "the app sent {'type': 'websocket.http.response.start', 'status': 401}"),
        ([ACCEPT, CLOSE, CLOSE], "illegal message after the app's own end of the session: expected nothing"),
        ([ACCEPT, CLOSE, TEXT], "after the app's own end of the session"),
        ([CLOSE, ACCEPT], "after the app's own end of the session"),
        (
            [START, ACCEPT],
            "illegal message within a denial response: expected 'websocket.http.response.body'",
        ),
        ([START, BODY, BODY], "after the app's own end of the session"),
        ([START], "the app returned within a denial"),
        ([], "the app returned without accepting, closing or denying the connection"),
        ([ACCEPT, {"type": "websocket.sned", "text": ""}, CLOSE], "the type is one of websocket.accept, "),
        ([ACCEPT, {**TEXT, "text": b""}, CLOSE], "'text' is a str, not bytes"),
    ],
)
def test_an_illegal_message_fails_even_if_the_app_swallows_it(
    messages: list[Message], problem: str, swallow: bool, backend: str
) -> None:
    outcome = replayed(sends(*messages, swallow=swallow), "> connect /\n< accept\n> close\n", backend)
    assert problem in (outcome.problem or "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_after_the_client_left_receive_repeats_the_disconnect_and_send_raises_oserror(backend: str) -> None:
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        await send(ACCEPT)
        seen.extend([await receive(), await receive(), await receive()])
        for message in (TEXT, CLOSE):
            try:
                await send(message)
            except OSError as exc:
                seen.append(type(exc).__name__)

    assert failure(app, "> connect /\n< accept\n> json [1]\n> close 3001 bye\n", backend) is None
    left = {"type": "websocket.disconnect", "code": 3001, "reason": "bye"}
    message = {"type": "websocket.receive", "text": "[1]"}
    assert seen == [{"type": "websocket.connect"}, message, left, left, *["ClientDisconnected"] * 2]


def test_a_close_without_a_code_is_1005_to_the_app() -> None:
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        seen.append(await receive())

    assert failure(app, "> connect /\n< accept\n> close\n") is None
    assert seen == [{"type": "websocket.disconnect", "code": 1005, "reason": ""}]


def test_what_was_sent_before_the_close_is_an_extra_message() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await send(TEXT)
        await receive()

    assert '+< text ""' in (failure(app, "> connect /\n< accept\n> close\n") or "")


def test_a_close_by_the_server_is_not_taken_for_the_answer_to_the_clients() -> None:
    found = failure(sends(ACCEPT, CLOSE), "> connect /\n< accept\n> close 1000\n") or ""
    assert "+< close 1000" in found


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exit_of_the_app_does_not_end_the_gate(backend: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise SystemExit(3)

    assert "SystemExit: 3" in (failure(app, "> connect /\n< accept\n> close\n", backend) or "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_handler_that_blocks_the_event_loop_does_not_block_the_gate(backend: str) -> None:
    import threading

    released = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        released.wait()

    try:
        outcome = replayed(app, "> connect /\n< accept\n> close\n", backend, limit=0.1)
    finally:
        released.set()
    assert outcome.broken_off
    assert "timed out: the handler blocks the event loop in test_memory.py:" in (outcome.problem or "")
    assert "`released.wait()`" in (outcome.problem or "")


def test_a_swallowed_illegal_message_is_named_by_the_time_out_that_follows() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sends(TEXT, swallow=True)(scope, receive, send)
        await receive()

    outcome = replayed(app, "> connect /\n< accept\n> close\n", limit=0.1)
    assert "timed out after 0.1 s, waiting for `< accept`\nthe handler was waiting in" in (
        outcome.problem or ""
    )
    assert "illegal message before accept" in (outcome.problem or "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_recording_waits_for_an_app_that_takes_its_time(backend: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        for number in range(3):
            await anyio.sleep(0.02)
            await send({"type": "websocket.send", "text": str(number)})
        await receive()
        await receive()

    outcome = replayed(app, "> connect /\n> text a\n> close\n", backend, update=True)
    assert outcome.problem is None
    assert transcript.format_steps(outcome.steps) == (
        "> connect /\n< accept\n< text 0\n< text 1\n< text 2\n> text a\n> close\n"
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ends", [False, True])
def test_waiting_for_what_comes_by_itself(backend: str, ends: bool) -> None:
    """An app that listens in the background looks settled while it waits for its own time."""

    async def listen(receive: Receive) -> None:
        await receive()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen, receive)
            await anyio.sleep(0.05)
            await send({"type": "websocket.send", "text": "by itself"})
            await anyio.sleep(0.05)
            if ends:
                await send({"type": "websocket.close", "code": 1001})
                tasks.cancel_scope.cancel()

    wanted = "> connect /\n< accept\n> wait\n< text by itself\n"
    wanted += "> wait\n< close 1001\n" if ends else "> close\n"
    steps = "".join(f"{line}\n" for line in wanted.splitlines() if line.startswith(">"))
    # What is written is replayed on either backend. On asyncio, recording does not see that the app waits.
    for text, update in ((wanted, False), *([(steps, True)] if backend == "trio" else [])):
        outcome = replayed(app, text, backend, update=update)
        assert outcome.problem is None
        assert transcript.format_steps(outcome.steps) == wanted
    if not ends:
        outcome = replayed(app, steps.replace("> close", "> wait"), "trio", 0.2, update=True)
        assert "timed out after 0.2 s, waiting for something to see" in (outcome.problem or "")


def test_the_scope_is_what_a_reader_would_have() -> None:
    scope = websocket_scope(
        Connect("/caf%C3%A9/a%2Fb?x=%20", (("x-a", "é"),), ("a", "b")), {"path_params": {}}
    )
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (
        "/café/a/b",
        b"/caf%C3%A9/a%2Fb",
        b"x=%20",
    )
    assert scope["headers"][0] == (b"host", b"127.0.0.1:8000")
    assert scope["headers"][-2:] == [(b"sec-websocket-protocol", b"a, b"), (b"x-a", b"\xe9")]
    assert (scope["subprotocols"], scope["path_params"]) == (["a", "b"], {})
    own = websocket_scope(Connect("/", (("host", "example.org"),)))
    assert [value for name, value in own["headers"] if name == b"host"] == [b"example.org"]


def test_an_app_may_be_any_callable() -> None:
    class App:
        def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
            return sends(ACCEPT, CLOSE)(scope, receive, send)

    made: Callable[[], ASGIApp] = App
    assert failure(made(), "> connect /\n< accept\n< close 1000\n") is None
