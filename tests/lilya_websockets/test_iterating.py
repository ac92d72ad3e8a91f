"""`iter_text`, `iter_bytes`, `iter_json`."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from lilya.websockets import WebSocketDataError, WebSocketDisconnect, WebSocketState

from .server import ClientDisconnected, Server, data, disconnect, opened, text

pytestmark = pytest.mark.anyio

ITERATIONS = [
    ("iter_text", (), [text("a"), text(""), text("é")], ["a", "", "é"]),
    ("iter_bytes", (), [data(b"a"), data(b""), data(b"\xff")], [b"a", b"", b"\xff"]),
    ("iter_json", (), [text("1"), text("null"), text('{"a":[]}')], [1, None, {"a": []}]),
    ("iter_json", ("binary",), [data(b"1"), data(b"null"), data(b"[]")], [1, None, []]),
]


@pytest.mark.contract("iter-ends-quietly", "close-code-readable")
@pytest.mark.parametrize(
    "end", [disconnect(4000, "bye"), ClientDisconnected()], ids=["disconnect", "oserror"]
)
@pytest.mark.parametrize(("method", "arguments", "events", "values"), ITERATIONS)
async def test_until_the_client_leaves(
    method: str, arguments: tuple[Any, ...], events: list[Any], values: list[Any], end: Any
) -> None:
    websocket, server = opened(*events, end)
    assert [value async for value in getattr(websocket, method)(*arguments)] == values
    expected = (4000, "bye") if isinstance(end, dict) else (1006, "")
    assert (websocket.close_code, websocket.close_reason) == expected
    assert websocket.client_state is WebSocketState.DISCONNECTED
    asked = server.receives
    assert [value async for value in getattr(websocket, method)(*arguments)] == []
    assert server.receives == asked


@pytest.mark.contract("iter-ends-quietly")
@pytest.mark.parametrize(("method", "arguments", "events", "values"), ITERATIONS)
async def test_until_the_app_closes(
    method: str, arguments: tuple[Any, ...], events: list[Any], values: list[Any]
) -> None:
    websocket, server = opened(*events)
    got = []
    async for value in getattr(websocket, method)(*arguments):
        got.append(value)
        await websocket.close(4001)
    assert got == values[:1]
    assert server.types == ["websocket.close"]
    assert websocket.close_code == 4001


@pytest.mark.parametrize(("method", "arguments", "events", "values"), ITERATIONS)
async def test_a_send_that_fails_ends_the_loop_with_its_exception(
    method: str, arguments: tuple[Any, ...], events: list[Any], values: list[Any]
) -> None:
    websocket, server = opened(*events)
    server.fail(ClientDisconnected())
    got = []

    async def echo() -> None:
        async for value in getattr(websocket, method)(*arguments):
            got.append(value)
            await websocket.send_text("a")

    with pytest.raises(WebSocketDisconnect):
        await echo()
    assert got == values[:1]


@pytest.mark.contract("receive-cancelled")
@pytest.mark.parametrize(("method", "arguments", "events", "values"), ITERATIONS)
async def test_leaving_the_loop_and_cancelling_it_lose_nothing(
    method: str, arguments: tuple[Any, ...], events: list[Any], values: list[Any]
) -> None:
    websocket, server = opened(events[0])
    iterator = getattr(websocket, method)(*arguments)
    async for value in iterator:
        assert value == values[0]
        break

    async def forever() -> None:
        async for _ in iterator:
            raise AssertionError("nothing has come")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(forever)
        await server.waiting.wait()
        tasks.cancel_scope.cancel()
    server.push(*events[1:], disconnect())
    assert [value async for value in iterator] == values[1:]


async def test_a_message_of_the_wrong_kind_does_not_end_the_iterator() -> None:
    websocket, _ = opened(text("a"), data(b"b"), text("c"), disconnect())
    iterator = websocket.iter_text()
    assert await anext(iterator) == "a"
    with pytest.raises(WebSocketDataError):
        await anext(iterator)
    assert [value async for value in iterator] == ["c"]


async def test_an_iterator_is_its_own() -> None:
    websocket, _ = opened()
    for iterator in (websocket.iter_text(), websocket.iter_json()):
        assert aiter(iterator) is iterator


@pytest.mark.contract("iter-ends-quietly")
async def test_a_raw_accept_and_no_client() -> None:
    server = Server(disconnect(), connecting=False)
    websocket = server.websocket()
    await websocket.send({"type": "websocket.accept"})
    assert [value async for value in websocket.iter_text()] == []
