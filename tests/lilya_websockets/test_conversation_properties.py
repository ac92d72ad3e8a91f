"""Random sessions in a block, on real event loops with a virtual clock.

Several tasks use the WebSocket, a peer sends and leaves, the server fails and blocks, tasks are cancelled.
Whatever happens: only documented exceptions come out, the strict server has nothing to object to, what is
received is what came, in order, with nothing lost or doubled, and the block is left in bounded time.
"""

from __future__ import annotations

import sys
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.websockets import WebSocket as StarlettesWebSocket
from trio.testing import MockClock

from lilya.websockets import (
    WebSocket,
    WebSocketDataError,
    WebSocketDisconnect,
    WebSocketRuntimeError,
    WebSocketState,
)
from lilya.websockets._conversation import LEFT, Conversation
from lilya.websockets._reader import Reader

from .examples import examples
from .server import ClientDisconnected, Server, data, disconnect, text
from .test_conversation_time import VirtualLoop

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

DISCONNECTED = WebSocketState.DISCONNECTED
LIMIT = 100.0  # virtual seconds


class Refused(RuntimeError):
    """A fault of the server; may come out as it is."""


class Boom(Exception):
    """A fault of the body."""


OUT_OF_TURN = (WebSocketRuntimeError, WebSocketDisconnect, Refused)
CALLS: dict[str, tuple[Any, tuple[type[Exception], ...]]] = {
    "receive": (lambda it: it.receive(), OUT_OF_TURN),
    "receive_text": (lambda it: it.receive_text(), (*OUT_OF_TURN, WebSocketDataError)),
    "receive_bytes": (lambda it: it.receive_bytes(), (*OUT_OF_TURN, WebSocketDataError)),
    "receive_text in time": (
        lambda it: it.receive_text(timeout=0.5),
        (*OUT_OF_TURN, WebSocketDataError, TimeoutError),
    ),
    "iter_text": (
        lambda it: anext(it.iter_text()),
        (WebSocketRuntimeError, WebSocketDataError, StopAsyncIteration, Refused),
    ),
    "wait_disconnected": (lambda it: it.wait_disconnected(), ()),
    "send_text": (lambda it: it.send_text("é"), OUT_OF_TURN),
    "send_bytes in time": (lambda it: it.send_bytes(b"a", timeout=0.5), (*OUT_OF_TURN, TimeoutError)),
    "raw send": (lambda it: it.send({"type": "websocket.send", "text": "a"}), OUT_OF_TURN),
    "raw close": (lambda it: it.send({"type": "websocket.close", "code": 4000}), OUT_OF_TURN),
    "close": (lambda it: it.close(4001, "a"), (WebSocketRuntimeError, Refused)),
    "accept": (lambda it: it.accept(), OUT_OF_TURN),
}
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "cancel_on_disconnect": st.booleans(),
        "idle_timeout": st.sampled_from([0.3, 2.0]),
        "heartbeat": st.sampled_from([0.4, 3.0]),
        "heartbeat_timeout": st.just(0.2),
        "max_message_size": st.just(100),
        "max_messages_per_second": st.sampled_from([3, 50.0]),
        "buffer_messages": st.sampled_from([1, 2, 64]),
        "buffer_bytes": st.sampled_from([1, 300]),
        "close_timeout": st.just(0.25),
    },
)
ACTIONS = st.one_of(
    st.tuples(st.just("call"), st.sampled_from(sorted(CALLS))),
    st.tuples(st.just("text"), st.sampled_from([1, 1, 1, 50, 200])),
    st.tuples(st.just("bytes"), st.just(1)),
    st.tuples(st.just("leave"), st.sampled_from([disconnect(4001), disconnect(None), "oserror"])),
    st.tuples(st.just("turn"), st.integers(1, 5)),
    st.tuples(st.just("time"), st.sampled_from([0.1, 0.3, 1.0])),
    st.tuples(st.just("cancel"), st.integers(0, 3)),
    st.tuples(st.just("fail"), st.sampled_from([Refused, ClientDisconnected])),
    st.tuples(st.just("refuse receive"), st.none()),
    st.tuples(st.just("hold"), st.sampled_from(["websocket.send", "websocket.close"])),
    st.tuples(st.just("release"), st.none()),
)
ENDS = st.sampled_from(["return", "return", "raise", "cancel"])


class Announcing(Server):
    announces = True


class Session:
    """One connection, its tasks, and what must be true of them."""

    def __init__(self, of: type[WebSocket], options: dict[str, Any], server: type[Server]) -> None:
        self.server = server()
        self.websocket = self.server.websocket(of)
        self.options = options
        self.came: list[Any] = []
        self.received: list[Any] = []
        self.cleaned = 0
        self.left = False
        self.refused = False  # or may have been
        self.scopes: list[anyio.CancelScope] = []
        self.problems: list[BaseException] = []

    async def run(self, actions: list[tuple[str, Any]], end: str) -> None:
        def cleanup() -> None:
            self.cleaned += 1

        self.websocket.add_cleanup(cleanup)
        outside = anyio.CancelScope()
        start = anyio.current_time()
        raised: BaseException | None = None
        with anyio.fail_after(LIMIT):
            try:
                with outside:
                    async with self.websocket.open(**self.options):
                        async with anyio.create_task_group() as tasks:
                            for action, argument in actions:
                                await self.do(tasks, action, argument)
                            if end == "raise":
                                raise Boom
                            if end == "cancel":
                                outside.cancel()
                                await anyio.lowlevel.checkpoint()
                            tasks.cancel_scope.cancel()
            except BaseException as error:
                raised = error
        self.check(raised, end)
        limit = self.options.get("close_timeout", 1.0)
        taken = sum(argument for action, argument in actions if action == "time")
        # Failed sends wait for the reader, and two closes may have to be given up.
        graces = sum(action in ("fail", "leave") for action, _ in actions) * 0.2
        assert anyio.current_time() - start <= taken + graces + 3 * limit + 1

    async def do(self, tasks: Any, action: str, argument: Any) -> None:
        server = self.server
        if action == "call":
            scope = anyio.CancelScope()
            self.scopes.append(scope)
            tasks.start_soon(self.call, argument, scope)
        elif action in ("text", "bytes") and not self.left:
            payload = f"{len(self.came)}:".ljust(argument, "x")
            message = text(payload) if action == "text" else data(payload.encode())
            self.came.append(message)
            server.push(message)
        elif action == "leave" and not self.left:
            self.left = True
            server.push(ClientDisconnected() if argument == "oserror" else dict(argument))
        elif action == "turn":
            for _ in range(argument):
                await anyio.lowlevel.checkpoint()
        elif action == "time":
            await anyio.sleep(argument)
        elif action == "cancel" and self.scopes:
            self.scopes[argument % len(self.scopes)].cancel()
        elif action == "fail":
            self.refused |= argument is Refused
            server.fail(argument("send"))
        elif action == "refuse receive" and not self.left:
            server.push(Refused("receive"))
        elif action == "hold":
            server.held.add(argument)
        elif action == "release":
            server.release()

    async def call(self, name: str, scope: anyio.CancelScope) -> None:
        function, allowed = CALLS[name]
        with scope:
            try:
                result = await function(self.websocket)
            except WebSocketDataError as error:
                self.received.append(error.message)
                if WebSocketDataError not in allowed:
                    self.problems.append(error)
            except Exception as error:
                told = not isinstance(error, WebSocketDisconnect) or (
                    self.websocket.close_code is not None
                    and type(error.code) is int
                    and type(error.reason) is str
                )
                if not isinstance(error, allowed) or not told:
                    self.problems.append(error)
            else:
                if name == "receive":
                    if result["type"] == "websocket.receive":
                        self.received.append(result)
                elif isinstance(result, str):
                    self.received.append(text(result))
                elif isinstance(result, bytes):
                    self.received.append(data(result))

    def check(self, raised: BaseException | None, end: str) -> None:
        websocket, server = self.websocket, self.server
        assert self.problems == []
        assert server.violations == []
        if isinstance(raised, BaseExceptionGroup):
            assert end == "raise"
            (boom,) = raised.exceptions
            assert isinstance(boom, Boom)
        else:
            assert raised is None or (end == "raise" and isinstance(raised, Boom))
        assert self.received == self.came[: len(self.received)]  # in order, none lost, none doubled
        assert not websocket._receiving
        assert websocket.client_state is websocket.application_state is DISCONNECTED
        assert self.cleaned == 1
        assert websocket.closed_by in ("client", "server", "network")
        assert websocket.close_code is not None
        closes = [message["code"] for message in server.sent if message["type"] == "websocket.close"]
        assert len(closes) <= 1
        if closes and websocket.closed_by == "server":
            # A code that was refused is 1000 on the wire.
            assert closes == [websocket.close_code] or (self.refused and closes == [1000])
        assert websocket.messages_received <= len(self.came)


def play(
    actions: list[tuple[str, Any]],
    end: str = "return",
    options: dict[str, Any] | None = None,
    of: type[WebSocket] = WebSocket,
    backends: tuple[str, ...] = ("asyncio", "trio"),
    server: type[Server] = Server,
) -> None:
    for backend in backends:
        session = Session(of, options or {}, server)
        anyio.run(
            session.run,
            actions,
            end,
            backend=backend,
            backend_options={"clock": MockClock(autojump_threshold=0)}
            if backend == "trio"
            else {"loop_factory": VirtualLoop},
        )
        Server.made.clear()  # judged above


@examples(300)
@given(st.lists(ACTIONS, max_size=25), ENDS, OPTIONS)
@pytest.mark.contract(
    "block-nothing-lost", "block-closes", "exceptions-no-bare-error", "block-leaving-bounded"
)
@pytest.mark.quiet
def test_a_random_session(actions: list[tuple[str, Any]], end: str, options: dict[str, Any]) -> None:
    play(actions, end, options)


@examples(300)
@given(st.lists(ACTIONS, max_size=25), ENDS, st.booleans())
@pytest.mark.contract(
    "block-nothing-lost", "block-closes", "exceptions-no-bare-error", "block-leaving-bounded"
)
@pytest.mark.quiet
def test_a_random_session_without_a_reader(actions: list[tuple[str, Any]], end: str, cancels: bool) -> None:
    play(actions, end, {"cancel_on_disconnect": cancels}, server=Announcing)


class ThroughStarlettes(Announcing):
    """A server whose messages come and go through Starlette's object."""

    def websocket(self, of: Any = WebSocket) -> Any:
        return of.wrap(StarlettesWebSocket(self.scope, self.receive, self.send))


@examples(300)
@given(st.lists(ACTIONS, max_size=25), ENDS, st.booleans())
@pytest.mark.contract(
    "block-nothing-lost", "block-closes", "exceptions-no-bare-error", "block-leaving-bounded"
)
@pytest.mark.quiet
def test_a_random_session_over_another_object(
    actions: list[tuple[str, Any]], end: str, cancels: bool
) -> None:
    play(actions, end, {"cancel_on_disconnect": cancels}, server=ThroughStarlettes)


# Planted faults


async def loses_on_cancellation(self: Any) -> Any:
    message = await RECEIVE(self)
    await anyio.lowlevel.checkpoint()
    return message


def puts_in_front(self: Any, item: Any, size: int = 0) -> None:
    self._inbox.items.appendleft((item, size))
    if self._arrival is not None:
        self._arrival.set()


async def closes_twice(self: Any, message: Any) -> None:
    await CLOSE(self, message)
    await self._server[1](message)


async def waits_for_the_close(self: Any, message: Any) -> None:
    await self._server[1](message)


def forgets_to_end(self: Any, source: Any) -> None:
    self._state = LEFT


RECEIVE, CLOSE = Reader.receive, Conversation.close
TALK: list[tuple[str, Any]] = [("text", 1), ("text", 1), ("turn", 5), ("call", "receive_text"), ("turn", 5)]


@pytest.mark.parametrize(
    ("of", "method", "fault", "actions"),
    [
        (
            Reader,
            "receive",
            loses_on_cancellation,
            [*TALK[:3], ("call", "receive_text"), ("turn", 1), ("cancel", 0), ("turn", 2), *TALK[3:]],
        ),
        (Reader, "_put", puts_in_front, TALK),
        (Conversation, "close", closes_twice, []),
        (Conversation, "close", waits_for_the_close, [("hold", "websocket.close")]),
        (Conversation, "_give_back", forgets_to_end, []),
    ],
    ids=lambda it: it.__name__ if callable(it) else "",
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_fault_is_caught(
    of: type,
    method: str,
    fault: Any,
    actions: list[tuple[str, Any]],
    backend: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted: a block that misbehaves does not get through, and ours does with the same calls."""
    play(actions, backends=(backend,))
    monkeypatch.setattr(of, method, fault)
    with pytest.raises((AssertionError, TimeoutError)):
        play(actions, backends=(backend,))
    Server.made.clear()
