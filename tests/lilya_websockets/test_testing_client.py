"""The test client in a thread, and the lifespan of an app around its sessions."""

from __future__ import annotations

import pickle
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette

from lilya.websockets import WebSocketDisconnect
from lilya.websockets.testing import (
    ASGIViolation,
    AsyncTestClient,
    LifespanError,
    TestClient,
    UnexpectedMessage,
    WebSocketDenialResponse,
    WebSocketTimeout,
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
    silent,
    swallows_cancellation,
)

BACKENDS = ["asyncio", "trio"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Any:
    yield
    assert [thread for thread in threading.enumerate() if "lilya" in thread.name] == []


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("entered", [True, False])
def test_a_session(backend: str, entered: bool) -> None:
    def talk(client: TestClient) -> None:
        with client.websocket_connect(
            "/x?y=1", ["chat"], headers={"x-a": "1"}, cookies={"b": "2"}
        ) as session:
            session.send_text("é")
            assert session.receive_text() == "é"
            session.send_bytes(b"\xff")
            assert session.receive_bytes() == b"\xff"
            session.send_json({"a": 1})
            assert session.receive_json() == {"a": 1}
            session.send_json([2], mode="binary")
            assert session.receive_json(mode="binary") == [2]
            session.send({"type": "websocket.receive", "text": "raw"})
            assert session.receive() == {"type": "websocket.send", "text": "raw"}
            session.receive_nothing(0.01)
            session.settled()
            assert session.scope["query_string"] == b"y=1"
            assert session.scope["subprotocols"] == ["chat"]
            session.close(3001, "bye")
            with pytest.raises(WebSocketDisconnect, match="3001"):
                session.receive_text()
            assert (session.close_code, session.close_reason) == (3001, "bye")

    client = TestClient(echo, backend=backend)
    if entered:
        with client:
            talk(client)
            talk(client)
    else:
        talk(client)


def test_the_acceptance_and_iteration() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({**ACCEPT, "subprotocol": "chat", "headers": [(b"x-a", b"1")]})
        await send(TEXT)
        await send({"type": "websocket.send", "bytes": b"x"})
        await send(CLOSE)

    with TestClient(app).websocket_connect("/", subprotocols=["chat"]) as session:
        assert session.accepted_subprotocol == session.subprotocol == "chat"
        assert session.extra_headers == [(b"x-a", b"1")]
        assert session.headers["X-A"] == "1"
        with pytest.raises(UnexpectedMessage):
            session.receive_nothing(1)
        assert list(session) == ["hello", b"x"]
        assert session.close_code == 1000


def test_stall_and_vanish() -> None:
    sent: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        for name in "ab":
            await send({"type": "websocket.send", "text": name})
            sent.append(name)
            await receive()

    with TestClient(app).websocket_connect() as session:
        session.stall()
        session.send_text("go")
        session.settled()
        assert sent == []
        session.resume()
        assert session.receive_text() == "a"
        session.vanish()
        with pytest.raises(WebSocketDisconnect, match="1006"):
            session.receive_text()


def test_refusals() -> None:
    async def denies(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(START)
        await send({**BODY, "body": b'{"a": 1}'})

    async def closes(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**CLOSE, "code": 4001})

    with pytest.raises(WebSocketDenialResponse) as caught, TestClient(denies).websocket_connect("/"):
        raise AssertionError("not reached")
    assert (caught.value.status_code, caught.value.json()) == (401, {"a": 1})
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.status_code, copy.content, str(copy)) == (401, b'{"a": 1}', str(caught.value))
    with pytest.raises(WebSocketDisconnect) as refused, TestClient(closes).websocket_connect("/"):
        raise AssertionError("not reached")
    assert refused.value.code == 4001


@pytest.mark.parametrize(
    ("app", "error", "problem"),
    [
        (silent, WebSocketTimeout, "waiting for a text message"),
        (never_accepts, WebSocketTimeout, "waiting for the app to accept"),
        (never_ends, WebSocketTimeout, "waiting for a text message"),
        (swallows_cancellation, WebSocketTimeout, "waiting for a text message"),
        (raises_before_accept, Boom, "before accept"),
        (raises_after_accept, Boom, "after accept"),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_faults(app: Any, error: type[Exception], problem: str, backend: str) -> None:
    with pytest.raises(error, match=problem) as caught:
        with TestClient(app, backend=backend, timeout=0.1).websocket_connect("/") as session:
            session.send_text("go")
            if app is raises_after_accept:
                session.receive_text()
            session.receive_text()
    assert caught.value.__context__ is None
    if isinstance(caught.value, WebSocketTimeout):
        assert "apps.py:" in (caught.value.place or "")


def test_faults_on_leaving() -> None:
    with pytest.raises(Boom, match="after close"):
        with TestClient(raises_after_close).websocket_connect("/") as session:
            assert session.receive() == CLOSE
    with pytest.raises(WebSocketTimeout, match="it was cancelled"):
        with TestClient(never_ends, timeout=0.05).websocket_connect("/"):
            pass
    with pytest.raises(WebSocketTimeout, match="swallowed"):
        with TestClient(swallows_cancellation).websocket_connect("/", timeout=0.05):
            pass


def test_both_fail() -> None:
    with pytest.raises(Boom, match="after accept") as caught:
        with TestClient(raises_after_accept).websocket_connect("/") as session:
            session.send_text("go")
            session.settled()
            raise AssertionError("of the test")
    assert str(caught.value.__context__) == "of the test"
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "raises_after_accept"


@pytest.mark.parametrize("kind", [AssertionError, KeyboardInterrupt, SystemExit])
def test_the_failure_of_the_test_comes_through(kind: type[BaseException]) -> None:
    with pytest.raises(kind, match="mine") as caught:
        with TestClient(echo) as client, client.websocket_connect("/"):
            raise kind("mine")
    assert len(traceback.extract_tb(caught.value.__traceback__)) == 1


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_of_the_app_is_the_tests(kind: type[BaseException]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise kind(3)

    with pytest.raises(kind, match="3"), TestClient(app).websocket_connect("/"):
        raise AssertionError("not reached")


@pytest.mark.parametrize("when", ["connect", "accept", "receive"])
def test_an_app_that_blocks_its_event_loop(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lilya.websockets.testing._loop.MARGIN", 0.2)
    released = threading.Event()
    threads: list[threading.Thread] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        threads.append(threading.current_thread())
        await receive()
        if when != "connect":
            await send(ACCEPT)
        if when == "receive":
            await receive()
        released.wait()

    start = time.monotonic()
    try:
        with pytest.raises(WebSocketTimeout, match="the event loop, which the app blocks") as caught:
            with TestClient(app, timeout=0.1).websocket_connect("/") as session:
                session.send_text("go")
                with pytest.raises(WebSocketTimeout, match="which the app blocks"):
                    session.receive_text()
                session.receive_text()  # it is not waited for again
    finally:
        released.set()
    assert time.monotonic() - start < 5
    assert "test_testing_client.py" in (caught.value.place or "")
    assert "`released.wait()`" in (caught.value.place or "")
    assert caught.value.last_sent == (None if when == "connect" else ACCEPT)
    threads[0].join(10)  # it comes free, and then it ends


def test_no_limit() -> None:
    with TestClient(echo, timeout=None) as client, client.websocket_connect("/") as session:
        with pytest.raises(WebSocketTimeout):
            session.receive_text(timeout=0.01)
        session.send_text("a")
        assert session.receive_text() == "a"


def test_leaving_what_was_not_entered() -> None:
    TestClient(echo).__exit__(None, None, None)


def test_a_loop_that_cannot_start() -> None:
    with pytest.raises(LookupError):
        TestClient(echo, backend="curio").websocket_connect("/").__enter__()


# Lifespan

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


def with_lifespan(lifespan: Handler) -> Handler:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (lifespan if scope["type"] == "lifespan" else echo)(scope, receive, send)

    return app


COMPLETE: Message = {"type": "lifespan.startup.complete"}
STOPPED: Message = {"type": "lifespan.shutdown.complete"}


def lifespan_of(*answers: Any) -> Handler:
    """Answer startup and shutdown; an exception is raised, `...` waits."""

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        for answer in answers:
            if answer is ...:
                await anyio.sleep_forever()
            if isinstance(answer, BaseException):
                raise answer
            await receive()
            await send(answer)

    return with_lifespan(lifespan)


def echoes(client: TestClient) -> bool:
    with client.websocket_connect("/") as session:
        session.send_text("a")
        return session.receive_text() == "a"


@pytest.mark.parametrize("backend", BACKENDS)
def test_lifespan_is_run_once_per_client(backend: str) -> None:
    calls: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        calls.append("startup")
        yield {"answer": 42}
        calls.append("shutdown")

    with TestClient(Starlette(lifespan=lifespan), backend=backend) as client:
        for _ in range(2):
            with pytest.raises(WebSocketDenialResponse):  # there is no route, but a scope
                client.websocket_connect("/").__enter__()
        assert calls == ["startup"]
    assert calls == ["startup", "shutdown"]


def test_its_state_is_in_the_scope() -> None:
    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        scope["state"]["answer"] = 42
        await send(COMPLETE)
        assert (await receive())["type"] == "lifespan.shutdown"
        await send(STOPPED)

    with TestClient(with_lifespan(lifespan)) as client:
        for _ in range(2):
            with client.websocket_connect("/") as session:
                assert session.scope["state"] == {"answer": 42}
                session.scope["state"]["answer"] = 0


@pytest.mark.parametrize("answers", [[], [Boom()], [ValueError("no websocket")]])
def test_an_app_without_lifespan(answers: list[Any]) -> None:
    with TestClient(lifespan_of(*answers)) as client:
        assert echoes(client)


@pytest.mark.parametrize(
    ("answers", "error", "problem"),
    [
        (
            [{"type": "lifespan.startup.failed", "message": "no database"}],
            LifespanError,
            "startup failed: no data",
        ),
        ([{"type": "lifespan.startup.failed"}], LifespanError, "the app's startup failed$"),
        ([{"type": "lifespan.startup.failed"}, Boom("itself")], Boom, "itself"),
        ([...], WebSocketTimeout, "the app to start up\nthe app last sent nothing\nthe app was waiting in"),
        ([{"type": "lifespan.startup.failed"}, ...], WebSocketTimeout, "the app to start up"),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_startup_that_fails(answers: list[Any], error: type[Exception], problem: str, backend: str) -> None:
    with pytest.raises(error, match=problem):
        TestClient(lifespan_of(*answers), backend=backend, timeout=0.1).__enter__()


@pytest.mark.parametrize(
    ("answers", "error", "problem"),
    [
        (
            [COMPLETE, {"type": "lifespan.shutdown.failed", "message": "busy"}],
            LifespanError,
            "shutdown failed: busy",
        ),
        ([COMPLETE, STOPPED, Boom("late")], Boom, "late"),
        ([COMPLETE, Boom("meanwhile")], Boom, "meanwhile"),
        ([COMPLETE, ...], WebSocketTimeout, "waiting for the app to shut down"),
        (
            [COMPLETE, COMPLETE],
            ASGIViolation,
            "expected 'lifespan.shutdown.complete' or 'lifespan.shutdown.failed'",
        ),
        ([COMPLETE, STOPPED, STOPPED], WebSocketTimeout, "the app to shut down"),
        ([COMPLETE, 3], ASGIViolation, "the app sent 3"),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_shutdown_that_fails(
    answers: list[Any], error: type[Exception], problem: str, backend: str
) -> None:
    with pytest.raises(error, match=problem):
        with TestClient(lifespan_of(*answers), backend=backend, timeout=0.1) as client:
            assert echoes(client)
    with pytest.raises(AssertionError, match="of the test") as caught:
        with TestClient(lifespan_of(COMPLETE, ...), timeout=0.1):
            raise AssertionError("of the test")
    assert "waiting for the app to shut down" in getattr(caught.value, "__notes__")[0]  # noqa: B009  # since Python 3.11


def test_an_app_whose_lifespan_just_ends() -> None:
    with TestClient(lifespan_of(COMPLETE)) as client:
        assert echoes(client)


@pytest.mark.anyio
async def test_the_client_in_the_event_loop_runs_lifespan() -> None:
    async with (
        AsyncTestClient(lifespan_of(COMPLETE, STOPPED)) as client,
        client.websocket_connect("/") as session,
    ):
        await session.send_text("a")
        assert await session.receive_text() == "a"
    with anyio.move_on_after(0.05) as scope:
        async with AsyncTestClient(lifespan_of(COMPLETE, ...)):
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    with anyio.move_on_after(0.05) as scope:
        async with AsyncTestClient(lifespan_of(...)):
            raise AssertionError("not reached")
    assert scope.cancelled_caught
