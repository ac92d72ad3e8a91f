"""Random sessions over the strict server: several tasks, a peer, faults of the server, cancellation.

The tasks are driven by hand, one step at a time, in an order that hypothesis chooses. Whatever happens, only
documented exceptions come out, the server has nothing to object to, and the invariants hold after each step.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lilya.websockets import (
    PreparedMessage,
    WebSocket,
    WebSocketClosed,
    WebSocketDataError,
    WebSocketDisconnect,
    WebSocketRuntimeError,
    WebSocketState,
)

from .examples import examples
from .server import DENIAL, ClientDisconnected, Server, Violation, connect, data, disconnect, text

CONNECTED, DISCONNECTED = WebSocketState.CONNECTED, WebSocketState.DISCONNECTED


class Refused(RuntimeError):
    """A fault of the server; may come out as it is."""


class Cancelled(BaseException):
    """What an event loop throws into a task."""


class Tick:
    """Gives the turn back to the schedule."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Stepped(Server):
    async def pause(self) -> None:
        await Tick()


class Cleanup:
    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> None:
        self.runs += 1


async def respond(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 401, "headers": []})
    await send({"type": "http.response.body", "body": b"a", "more_body": True})
    await send({"type": "http.response.body", "body": b"b"})


async def respond_never(scope: Any, receive: Any, send: Any) -> None:
    await receive()


async def respond_by_halves(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": f"{DENIAL}.start", "status": 503})
    await receive()
    if (await receive())["type"] != "http.disconnect":
        raise AssertionError("nothing else can come")


async def one_of(iterator: AsyncIterator[Any]) -> Any:
    return await anext(iterator)


# What may be called, and what it may raise besides what the server was told to raise.
OUT_OF_TURN = (WebSocketRuntimeError, WebSocketDisconnect)
CALLS: dict[str, tuple[Callable[[WebSocket], Coroutine[Any, Any, Any]], tuple[type[Exception], ...]]] = {
    "accept": (lambda it: it.accept(), OUT_OF_TURN),
    "accept with": (lambda it: it.accept("chat", {"X-A": "b"}), OUT_OF_TURN),
    "accept wrongly": (lambda it: it.accept("soap"), (ValueError,)),
    "receive": (lambda it: it.receive(), OUT_OF_TURN),
    "receive_text": (lambda it: it.receive_text(), (*OUT_OF_TURN, WebSocketDataError)),
    "receive_bytes": (lambda it: it.receive_bytes(), (*OUT_OF_TURN, WebSocketDataError)),
    "receive_json": (lambda it: it.receive_json(), (*OUT_OF_TURN, WebSocketDataError)),
    "iter_text": (
        lambda it: one_of(it.iter_text()),
        (WebSocketRuntimeError, WebSocketDataError, StopAsyncIteration),
    ),
    "iter_json": (
        lambda it: one_of(it.iter_json("binary")),
        (WebSocketRuntimeError, WebSocketDataError, StopAsyncIteration),
    ),
    "send_text": (lambda it: it.send_text("é"), OUT_OF_TURN),
    "send_bytes": (lambda it: it.send_bytes(memoryview(b"a")), OUT_OF_TURN),
    "send_json": (lambda it: it.send_json({"a": "\ud800"}), OUT_OF_TURN),
    "send_prepared": (lambda it: it.send_prepared(PreparedMessage("a")), OUT_OF_TURN),
    "send wrongly": (lambda it: it.send_text(b""), (TypeError,)),  # type: ignore[arg-type]
    "raw accept": (lambda it: it.send({"type": "websocket.accept"}), OUT_OF_TURN),
    "raw send": (lambda it: it.send({"type": "websocket.send", "text": "a"}), OUT_OF_TURN),
    "raw close": (lambda it: it.send({"type": "websocket.close", "code": 4000}), OUT_OF_TURN),
    "raw start": (lambda it: it.send({"type": "http.response.start", "status": 401}), OUT_OF_TURN),
    "raw body": (lambda it: it.send({"type": "http.response.body", "more_body": True}), OUT_OF_TURN),
    "raw last body": (lambda it: it.send({"type": "http.response.body"}), OUT_OF_TURN),
    "raw nonsense": (lambda it: it.send({"type": "websocket.nonsense"}), OUT_OF_TURN),
    "close": (lambda it: it.close(4001, "a"), (WebSocketRuntimeError,)),
    "close wrongly": (lambda it: it.close(1005), (ValueError,)),
    "deny": (lambda it: it.send_denial_response(respond), OUT_OF_TURN),
    "deny never": (lambda it: it.send_denial_response(respond_never), OUT_OF_TURN),
    "deny by halves": (lambda it: it.send_denial_response(respond_by_halves), OUT_OF_TURN),
}
EVENTS: list[Any] = [
    text("1"),
    text(""),
    text("not JSON"),
    data(b"2"),
    data(b"\xff"),
    {"type": "websocket.receive", "text": "3", "bytes": None},
    {"type": "websocket.receive", "text": None, "bytes": None},
    {"type": "websocket.receive"},
    disconnect(1001),
    disconnect(None, None),
    {"type": "websocket.disconnect"},
    connect(),
    {"type": "websocket.nonsense"},
    {"type": []},
    None,
    Refused("receive"),
    ClientDisconnected(),
]
HOLDABLE = ["websocket.accept", "websocket.send", "websocket.close", f"{DENIAL}.start", f"{DENIAL}.body"]

ACTIONS = st.one_of(
    st.tuples(st.just("call"), st.sampled_from(sorted(CALLS))),
    st.tuples(st.just("call"), st.sampled_from(["accept", "receive_text", "send_text", "close"])),
    st.tuples(st.just("peer"), st.sampled_from(range(len(EVENTS)))),
    st.tuples(st.just("step"), st.integers(0, 3)),
    st.tuples(st.just("cancel"), st.integers(0, 3)),
    st.tuples(st.just("fail"), st.sampled_from([Refused, ClientDisconnected])),
    st.tuples(st.just("hold"), st.sampled_from(HOLDABLE)),
    st.tuples(st.just("release"), st.none()),
    st.tuples(st.just("cleanup"), st.none()),
)


class Session:
    """One connection, its tasks, and what must be true of them."""

    def __init__(self, of: type[WebSocket], extension: bool) -> None:
        self.server = Stepped(subprotocols=["chat"], extensions={DENIAL: {}} if extension else None)
        self.websocket = self.server.websocket(of)
        self.tasks: list[tuple[str, Coroutine[Any, Any, Any]]] = []
        self.cleanups: list[Cleanup] = []

    def do(self, action: str, argument: Any) -> None:
        if action == "call":
            self.tasks.append((argument, CALLS[argument][0](self.websocket)))
            self.step(len(self.tasks) - 1)
        elif action == "peer":
            self.server.push(EVENTS[argument])
        elif action in ("step", "cancel") and self.tasks:
            self.step(argument % len(self.tasks), Cancelled() if action == "cancel" else None)
        elif action == "fail":
            self.server.fail(argument("send"))
        elif action == "hold":
            self.server.held.add(argument)
        elif action == "release":
            self.server.release()
        elif action == "cleanup":
            cleanup = Cleanup()
            try:
                self.websocket.add_cleanup(cleanup)
            except WebSocketClosed:
                assert self.websocket._ended
            else:
                self.cleanups.append(cleanup)
        self.check()

    def step(self, number: int, thrown: BaseException | None = None) -> None:
        name, task = self.tasks[number]
        before = (self.websocket.client_state, self.websocket.application_state)
        outcome: BaseException | None = None
        try:
            if thrown is None:
                task.send(None)
            else:
                task.throw(thrown)
            return
        except StopIteration:
            pass
        except (Cancelled, Refused) as error:
            outcome = error
        except CALLS[name][1] as error:
            outcome = error
        del self.tasks[number]
        if isinstance(outcome, WebSocketRuntimeError | WebSocketDisconnect | WebSocketDataError):
            assert str(outcome)
        if isinstance(outcome, WebSocketDisconnect):
            assert type(outcome.code) is int
            assert type(outcome.reason) is str
        if isinstance(outcome, Cancelled) and name.startswith(("receive", "iter")):
            assert before == (self.websocket.client_state, self.websocket.application_state)

    def check(self) -> None:
        websocket, server = self.websocket, self.server
        assert server.violations == []
        both = websocket.client_state is CONNECTED and websocket.application_state is CONNECTED
        assert websocket._open is both
        assert all(cleanup.runs <= 1 for cleanup in self.cleanups)
        if server.client_left and not self.tasks:
            assert websocket.client_state is DISCONNECTED
        if websocket._ended and not self.tasks:
            assert all(cleanup.runs == 1 for cleanup in self.cleanups)
        if websocket._ended is None:
            assert all(cleanup.runs == 0 for cleanup in self.cleanups)
            assert websocket.close_code is None
        if not self.tasks:
            assert not websocket._receiving
            assert (server.state == "open") is (
                websocket.application_state is CONNECTED
            ) or server.client_left
            assert (server.state == "closed") <= (websocket.application_state is DISCONNECTED)

    def finish(self) -> None:
        """Cancel what still waits, and see that the peer's end reaches an app that asks for it."""
        while self.tasks:
            self.step(0, Cancelled())
            self.check()


def play(actions: list[tuple[str, Any]], of: type[WebSocket] = WebSocket, extension: bool = True) -> None:
    session = Session(of, extension)
    try:
        for action, argument in actions:
            session.do(action, argument)
        session.finish()
    finally:
        for _, task in session.tasks:
            task.close()
        Server.made.clear()  # judged above


@examples(1500)
@given(st.lists(ACTIONS, max_size=25), st.booleans())
def test_a_random_session(actions: list[tuple[str, Any]], extension: bool) -> None:
    play(actions, extension=extension)


@examples(1000)
@given(st.lists(ACTIONS, max_size=25))
def test_a_random_session_after_accept(actions: list[tuple[str, Any]]) -> None:
    play([("cleanup", None), ("call", "accept"), *actions])


@examples(500)
@given(st.lists(ACTIONS, max_size=15))
def test_a_random_session_while_denying(actions: list[tuple[str, Any]]) -> None:
    play([("cleanup", None), ("call", "raw start"), *actions])


class SendsAfterClose(WebSocket):
    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        await super().close(code, reason)
        await self._send({"type": "websocket.send", "text": "one more"})


class ReceivesAfterTheEnd(WebSocket):
    async def receive(self, timeout: float | None = None) -> Any:
        return await self._receive()


class ForgetsItsState(WebSocket):
    async def send_text(self, data: str, timeout: float | None = None) -> None:
        await self._send({"type": "websocket.send", "text": data})


class LeaksOSError(WebSocket):
    async def send_text(self, data: str, timeout: float | None = None) -> None:
        if not self._open:
            self._after("websocket.send")
        await self._send({"type": "websocket.send", "text": data})


class LeaksKeyError(WebSocket):
    async def receive_text(self, timeout: float | None = None) -> str:
        message = await self.receive()
        return message["text"]  # type: ignore[no-any-return]


class ForgetsCleanups(WebSocket):
    async def _run_cleanups(self, failure: BaseException | None = None) -> None:
        self._cleanups = None


class CleansTwice(WebSocket):
    async def _run_cleanups(self, failure: BaseException | None = None) -> None:
        for callback in self._cleanups or ():
            callback()


class MovesAfterTheSend(WebSocket):
    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        if self.application_state is not DISCONNECTED and self.client_state is not DISCONNECTED:
            await self._send({"type": "websocket.close", "code": code, "reason": reason or ""})
            self.application_state = DISCONNECTED


class StaysOpen(WebSocket):
    def _arrived(self, message: Any) -> bool:
        ended = super()._arrived(message)
        if ended:
            self._send_now = self._send
        return ended


@pytest.mark.parametrize(
    ("of", "actions"),
    [
        (SendsAfterClose, [("call", "accept"), ("call", "close")]),
        (ReceivesAfterTheEnd, [("peer", 8), ("call", "receive"), ("call", "receive"), ("call", "receive")]),
        (ForgetsItsState, [("call", "send_text")]),
        (LeaksOSError, [("call", "accept"), ("fail", ClientDisconnected), ("call", "send_text")]),
        (LeaksKeyError, [("call", "accept"), ("peer", 3), ("call", "receive_text")]),
        (ForgetsCleanups, [("cleanup", None), ("call", "close")]),
        (
            CleansTwice,
            [("cleanup", None), ("call", "accept"), ("peer", 8), ("call", "close"), ("call", "receive")],
        ),
        (
            MovesAfterTheSend,
            [("call", "accept"), ("hold", "websocket.close"), ("call", "close"), ("call", "close")],
        ),
        (StaysOpen, [("call", "accept"), ("peer", 8), ("call", "receive_text")]),
    ],
    ids=lambda it: it.__name__ if isinstance(it, type) else "",
)
def test_a_fault_is_caught(of: type[WebSocket], actions: list[tuple[str, Any]]) -> None:
    """Planted: an implementation that misbehaves does not get through, and ours does with the same calls."""
    play(actions)
    with pytest.raises((AssertionError, KeyError, OSError)):
        play(actions, of)


@pytest.mark.parametrize("of", [SendsAfterClose, ForgetsItsState, LeaksKeyError, ForgetsCleanups])
def test_the_random_sessions_find_a_fault_by_themselves(of: type[WebSocket]) -> None:
    @settings(max_examples=2000, database=None, derandomize=True, report_multiple_bugs=False)
    @given(st.lists(ACTIONS, max_size=25))
    def search(actions: list[tuple[str, Any]]) -> None:
        play([("cleanup", None), ("call", "accept"), *actions], of)

    with pytest.raises((AssertionError, KeyError, OSError)):
        search()


def test_a_violation_is_an_assertion() -> None:
    assert issubclass(Violation, AssertionError)
