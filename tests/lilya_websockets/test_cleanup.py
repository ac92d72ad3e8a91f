"""`add_cleanup`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from lilya.websockets import WebSocket, WebSocketClosed, WebSocketDisconnect

from .server import ClientDisconnected, Server, disconnect, opened

pytestmark = pytest.mark.anyio


async def deny(websocket: WebSocket) -> None:
    await websocket.send({"type": "http.response.start", "status": 401})
    await websocket.send({"type": "http.response.body"})


async def lose(websocket: WebSocket, how: str) -> None:
    try:
        await getattr(websocket, how)(*(["a"] if how == "send_text" else []))
    except WebSocketDisconnect:
        return
    raise AssertionError("the client is still there")


ENDS: dict[str, tuple[bool, list[Any], dict[int, Exception], Callable[[WebSocket], Any]]] = {
    # name: (accepted, events, faults by number of the send, what ends it)
    "close": (True, [], {}, lambda it: it.close()),
    "raw close": (True, [], {}, lambda it: it.send({"type": "websocket.close"})),
    "close before accept": (False, [], {}, lambda it: it.close()),
    "close, client gone": (True, [], {1: ClientDisconnected()}, lambda it: it.close()),
    "denial": (False, [], {}, deny),
    "disconnect": (True, [disconnect()], {}, lambda it: lose(it, "receive_text")),
    "disconnect, json": (True, [disconnect()], {}, lambda it: lose(it, "receive_json")),
    "raw disconnect": (True, [disconnect()], {}, lambda it: it.receive()),
    "iterator": (True, [disconnect()], {}, lambda it: anext(it.iter_text(), None)),
    "receive fails": (True, [ClientDisconnected()], {}, lambda it: lose(it, "receive_text")),
    "send fails": (True, [], {1: ClientDisconnected()}, lambda it: lose(it, "send_text")),
    "accept fails": (False, [], {0: ClientDisconnected()}, lambda it: lose(it, "accept")),
}


@pytest.mark.contract("cleanup-once-in-order")
@pytest.mark.parametrize("end", ENDS)
async def test_each_runs_once_in_order_at_each_end(end: str) -> None:
    accepted, events, faults, ending = ENDS[end]
    server = Server(*events)
    websocket = await server.accepted() if accepted else server.websocket()
    server.faults = faults.copy()
    ran: list[int] = []

    async def later(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        ran.append(number)

    for number in range(3):
        websocket.add_cleanup(lambda number=number: ran.append(number))  # type: ignore[misc]
    websocket.add_cleanup(lambda: later(3))
    assert ran == []
    await ending(websocket)
    assert ran == [0, 1, 2, 3]
    if websocket.client_state.name == "CONNECTED":
        server.push(disconnect())
        await websocket.receive()
    try:
        await websocket.close()
    except WebSocketClosed:
        pass
    assert ran == [0, 1, 2, 3]
    with pytest.raises(WebSocketClosed, match="cannot add a cleanup any longer"):
        websocket.add_cleanup(lambda: None)


@pytest.mark.contract("cleanup-all-run")
@pytest.mark.parametrize("end", ENDS)
async def test_all_run_even_if_one_raises(end: str, caplog: pytest.LogCaptureFixture) -> None:
    accepted, events, faults, ending = ENDS[end]
    server = Server(*events)
    websocket = await server.accepted() if accepted else server.websocket()
    server.faults = faults.copy()
    ran: list[str] = []

    def fail(name: str) -> Callable[[], None]:
        def run() -> None:
            ran.append(name)
            raise LookupError(name)

        return run

    async def fail_later() -> None:
        fail("b")()

    websocket.add_cleanup(fail("a"))
    websocket.add_cleanup(fail_later)
    websocket.add_cleanup(lambda: ran.append("c"))
    with pytest.raises(LookupError, match="a"):
        await ending(websocket)
    assert ran == ["a", "b", "c"]
    assert [record.getMessage() for record in caplog.records] == ["a cleanup failed after another one"]
    assert caplog.records[0].name == "lilya.websockets"
    assert caplog.records[0].exc_info is not None
    assert str(caplog.records[0].exc_info[1]) == "b"


@pytest.mark.contract("cleanup-once-in-order")
@pytest.mark.parametrize("kind", ["close", "raw close", "denial"])
async def test_a_cancelled_end_is_an_end(kind: str) -> None:
    """It counts as sent, so nothing else would run them."""
    server = Server()
    websocket = server.websocket() if kind == "denial" else await server.accepted()
    ran: list[str] = []

    async def waits() -> None:
        ran.append("b")
        await anyio.sleep_forever()

    def fails() -> None:
        ran.append("c")
        raise LookupError

    websocket.add_cleanup(lambda: ran.append("a"))
    websocket.add_cleanup(waits)
    websocket.add_cleanup(fails)
    websocket.add_cleanup(lambda: ran.append("d"))
    server.held |= {"websocket.close", "websocket.http.response.body"}
    ends: dict[str, Callable[[], Any]] = {
        "close": websocket.close,
        "raw close": lambda: websocket.send({"type": "websocket.close"}),
        "denial": lambda: deny(websocket),
    }
    after: list[str] = []

    async def end() -> None:
        await ends[kind]()
        after.append("not cancelled")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end)
        await server.holding.wait()
        tasks.cancel_scope.cancel()
    assert ran == ["a", "b", "c", "d"]
    assert after == []


async def test_a_cancellation_goes_before_an_error(caplog: pytest.LogCaptureFixture) -> None:
    websocket, _ = opened()
    ran: list[str] = []

    def fails() -> None:
        raise LookupError("the error")

    async def waits() -> None:
        ran.append("waits")
        await anyio.sleep_forever()

    websocket.add_cleanup(fails)
    websocket.add_cleanup(waits)
    websocket.add_cleanup(lambda: ran.append("after"))
    after: list[str] = []

    async def close() -> None:
        await websocket.close()
        after.append("not cancelled")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(close)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert ran == ["waits", "after"]
    assert after == []
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["the error"]


async def test_a_cleanup_sees_the_end() -> None:
    websocket, _ = opened(disconnect(4000, "bye"))
    seen: list[Any] = []

    async def cleanup() -> None:
        seen.append((websocket.close_code, websocket.close_reason))
        with pytest.raises(WebSocketClosed):
            await websocket.send_text("a")
        with pytest.raises(WebSocketClosed):
            await websocket.receive()
        with pytest.raises(WebSocketClosed):
            websocket.add_cleanup(lambda: None)
        await websocket.close()

    websocket.add_cleanup(cleanup)
    with pytest.raises(WebSocketDisconnect):
        await websocket.receive_text()
    assert seen == [(4000, "bye")]


async def test_a_refused_close_is_no_end() -> None:
    websocket, server = opened()
    ran: list[str] = []
    websocket.add_cleanup(lambda: ran.append("a"))
    server.fail(RuntimeError("no"))
    with pytest.raises(RuntimeError, match="no"):
        await websocket.close()
    assert ran == []
    websocket.add_cleanup(lambda: ran.append("b"))
    await websocket.close()
    assert ran == ["a", "b"]


@pytest.mark.contract("exceptions-wrong-arguments")
@pytest.mark.parametrize("fn", [None, 5, "a"])
async def test_what_cannot_be_called(fn: Any) -> None:
    websocket, _ = opened()
    with pytest.raises(TypeError, match="a cleanup must be callable, got"):
        websocket.add_cleanup(fn)


async def test_two_tasks_notice_the_end_at_the_same_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    websocket, server = opened()
    ran: list[str] = []

    async def slow() -> None:
        ran.append("a")
        await anyio.lowlevel.checkpoint()

    websocket.add_cleanup(slow)
    server.held.add("websocket.close")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(websocket.close)
        await server.holding.wait()
        server.push(disconnect())
        await websocket.receive()
        server.release()
    assert ran == ["a"]
    assert [record for record in caplog.records if record.name == "lilya.websockets"] == []
