"""`accept`, and the raw message that does the same."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from lilya.websockets import (
    WebSocketClosed,
    WebSocketDisconnect,
    WebSocketRuntimeError,
    WebSocketState,
)

from .server import ClientDisconnected, Server, connect, disconnect, header_pairs, opened, steps, text

pytestmark = pytest.mark.anyio

CONNECTING, CONNECTED, DISCONNECTED, RESPONSE = WebSocketState

RAW = {"type": "websocket.accept"}


@pytest.mark.contract("accept-consumes-connect", "accept-headers-list")
async def test_accept_receives_exactly_the_connect() -> None:
    server = Server(text("a"))
    websocket = server.websocket()
    await websocket.accept()
    assert server.sent == [{"type": "websocket.accept", "subprotocol": None, "headers": []}]
    assert server.receives == 1
    assert websocket.client_state is websocket.application_state is CONNECTED


@pytest.mark.contract("accept-consumes-connect")
async def test_accept_receives_nothing_if_the_app_did() -> None:
    server = Server(text("a"))
    websocket = server.websocket()
    assert await websocket.receive() == connect()
    assert (websocket.client_state, websocket.application_state) == (CONNECTED, CONNECTING)
    await websocket.accept()
    assert server.receives == 1
    assert await websocket.receive_text() == "a"


@pytest.mark.contract("accept-other-first-message", "exceptions-no-bare-error")
@pytest.mark.parametrize(
    "message",
    [
        text("a"),
        {"type": "lifespan.startup"},
        {"type": "http.request"},
        {"type": None},
        {"type": []},
        {"type": {}},
        {},
        None,
        5,
        "ab",
        [],
    ],
    ids=repr,
)
async def test_another_first_message(message: Any) -> None:
    server = Server(message, connecting=False)
    websocket = server.websocket()
    with pytest.raises(WebSocketRuntimeError, match="the server sent") as caught:
        await websocket.accept()
    if isinstance(message, dict) and "type" in message:
        assert repr(message["type"]) in str(caught.value)
    else:
        assert "what is no ASGI message" in str(caught.value)
    assert server.sent == []
    assert websocket.client_state is websocket.application_state is CONNECTING
    server.push(connect())
    await websocket.accept()
    assert server.types == ["websocket.accept"]


@pytest.mark.contract("accept-disconnect", "cleanup-once-in-order")
async def test_a_disconnect_in_place_of_connect() -> None:
    server = Server(disconnect(1001, "bye"), connecting=False)
    websocket = server.websocket()
    ran: list[str] = []
    websocket.add_cleanup(lambda: ran.append("a"))
    with pytest.raises(WebSocketDisconnect) as caught:
        await websocket.accept()
    assert type(caught.value) is WebSocketDisconnect
    assert (caught.value.code, caught.value.reason) == (1001, "bye")
    assert (websocket.close_code, websocket.close_reason) == (1001, "bye")
    assert ran == ["a"]
    assert server.sent == []
    with pytest.raises(WebSocketClosed, match="cannot accept any longer: the client closed it"):
        await websocket.accept()


@pytest.mark.contract("accept-headers", "accept-headers-list")
@pytest.mark.parametrize(
    "headers",
    [
        lambda: [("X-A", "1"), (b"X-B", b"2"), ("x-c", b"3"), (b"x-d", "4")],
        lambda: {"X-A": "1", "X-B": b"2", b"x-c": "3", "x-d": "4"},
        lambda: (pair for pair in [("X-A", "1"), ("X-B", "2"), ("X-C", "3"), ("X-D", "4")]),
    ],
    ids=["pairs", "mapping", "generator"],
)
async def test_headers(headers: Any) -> None:
    server = Server()
    await server.websocket().accept(headers=headers())
    assert server.sent[0]["headers"] == [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-c", b"3"), (b"x-d", b"4")]


@pytest.mark.contract("accept-subprotocol")
@pytest.mark.parametrize("how", ["method", "raw"])
async def test_a_subprotocol_that_was_offered(how: str) -> None:
    server = Server(subprotocols=["soap", "chat"])
    websocket = server.websocket()
    if how == "method":
        await websocket.accept("chat", [("x-a", "1")])
    else:
        await websocket.send({"type": "websocket.accept", "subprotocol": "chat", "headers": {"X-A": "1"}})
    assert server.sent == [
        {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-a", b"1")]},
    ]


@pytest.mark.contract("exceptions-wrong-arguments", "accept-subprotocol", "accept-headers")
@pytest.mark.parametrize("how", ["method", "raw"])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"subprotocol": "soap"}, ValueError),
        ({"subprotocol": "a b"}, ValueError),
        ({"subprotocol": b"chat"}, TypeError),
        ({"headers": 5}, TypeError),
        ({"headers": [("a", "\r\n")]}, ValueError),
        ({"headers": {"sec-websocket-protocol": "chat"}}, ValueError),
    ],
)
async def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], how: str) -> None:
    server = Server(subprotocols=["chat", "a b"])
    websocket = server.websocket()
    accept = websocket.accept if how == "method" else lambda **it: websocket.send(RAW | it)
    with pytest.raises(error):
        await accept(**arguments)
    assert server.receives == server.sends == 0
    assert websocket.client_state is websocket.application_state is CONNECTING


@pytest.mark.contract("accept-twice")
@pytest.mark.parametrize("how", ["method", "raw"])
async def test_a_second_accept(how: str) -> None:
    websocket, server = opened()
    with pytest.raises(WebSocketRuntimeError, match="already accepted"):
        await (websocket.accept() if how == "method" else websocket.send({"type": "websocket.accept"}))
    assert server.sent == []
    await websocket.send_text("a")


@pytest.mark.contract("accept-twice")
async def test_two_tasks_that_accept() -> None:
    server = Server(connecting=False)
    websocket = server.websocket()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(websocket.accept)
        await server.waiting.wait()
        with pytest.raises(WebSocketRuntimeError, match="cannot accept: another task is already receiving"):
            await websocket.accept()
        server.push(connect())
    assert server.types == ["websocket.accept"]


async def test_an_accept_while_another_task_has_closed() -> None:
    server = Server(connecting=False)
    websocket = server.websocket()
    errors: list[Exception] = []

    async def accept() -> None:
        try:
            await websocket.accept()
        except WebSocketClosed as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accept)
        await server.waiting.wait()
        await websocket.close(4001)
        server.push(connect())
    assert str(errors[0]).startswith("cannot accept any longer: the app closed it")
    assert server.types == ["websocket.close"]


@pytest.mark.parametrize("message", [connect(), disconnect(), text("a")], ids=lambda it: it["type"])
async def test_an_accept_while_a_close_has_found_the_client_gone(message: Any) -> None:
    """What still arrives was legal when the server sent it."""
    server = Server(connecting=False)
    websocket = server.websocket()
    errors: list[Exception] = []

    async def accept() -> None:
        try:
            await websocket.accept()
        except WebSocketClosed as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accept)
        await server.waiting.wait()
        server.fail(ClientDisconnected())
        await websocket.close()
        server.push(message)
    assert len(errors) == 1
    assert server.sent == []
    assert websocket.client_state is websocket.application_state is DISCONNECTED
    with pytest.raises(WebSocketClosed):
        await websocket.receive()


@pytest.mark.contract("accept-refused-by-server")
@pytest.mark.parametrize("how", ["method", "raw"])
@pytest.mark.parametrize("then", ["accept", "deny", "close"])
async def test_the_server_refuses_the_accept(then: str, how: str) -> None:
    server = Server()
    websocket = server.websocket()
    server.fail(RuntimeError("no"))
    with pytest.raises(RuntimeError, match="no"):
        await (websocket.accept() if how == "method" else websocket.send({"type": "websocket.accept"}))
    assert websocket.application_state is CONNECTING
    with pytest.raises(WebSocketRuntimeError, match="not accepted yet"):
        await websocket.send_text("a")
    if then == "accept":
        await websocket.accept()
    elif then == "deny":
        await websocket.send({"type": "http.response.start", "status": 503})
        await websocket.send({"type": "http.response.body"})
    else:
        await websocket.close()
    assert server.types[0] in ("websocket.accept", "websocket.http.response.start", "websocket.close")


@pytest.mark.contract("send-oserror")
@pytest.mark.parametrize("how", ["method", "raw"])
async def test_the_client_is_gone_at_accept(how: str) -> None:
    server = Server()
    websocket = server.websocket()
    cause = ClientDisconnected()
    server.fail(cause)
    with pytest.raises(WebSocketDisconnect) as caught:
        await (websocket.accept() if how == "method" else websocket.send({"type": "websocket.accept"}))
    assert caught.value.code == 1006
    assert caught.value.__cause__ is cause
    assert websocket.client_state is websocket.application_state is DISCONNECTED


async def test_the_client_is_gone_before_connect() -> None:
    server = Server(ClientDisconnected(), connecting=False)
    websocket = server.websocket()
    with pytest.raises(WebSocketDisconnect) as caught:
        await websocket.accept()
    assert caught.value.code == 1006
    assert websocket.client_state is websocket.application_state is DISCONNECTED


@pytest.mark.contract("receive-cancelled")
async def test_cancelling_an_accept_that_waits() -> None:
    server = Server(connecting=False)
    websocket = server.websocket()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(websocket.accept)
        await server.waiting.wait()
        tasks.cancel_scope.cancel()
    assert websocket.client_state is websocket.application_state is CONNECTING
    server.push(connect())
    await websocket.accept()
    assert server.types == ["websocket.accept"]


@pytest.mark.contract("close-before-accept")
async def test_close_before_accept_receives_nothing() -> None:
    server = Server()
    await server.websocket().close()
    assert server.receives == 0
    assert server.sent == [{"type": "websocket.close", "code": 1000, "reason": ""}]


@pytest.mark.contract("upstream-raw-accept", "accept-headers-list")
async def test_a_raw_accept_before_any_receive() -> None:
    server = Server(text("a"), data := text("b"))
    websocket = server.websocket()
    await websocket.send({"type": "websocket.accept"})
    assert server.receives == 0
    assert server.sent == [{"type": "websocket.accept", "subprotocol": None, "headers": []}]
    assert (websocket.client_state, websocket.application_state) == (CONNECTING, CONNECTED)
    await websocket.send_text("before the connect")
    assert await websocket.receive_text() == "a"
    assert await websocket.receive() == data


@pytest.mark.contract("upstream-raw-accept")
async def test_a_disconnect_in_place_of_connect_after_a_raw_accept() -> None:
    server = Server(disconnect(1001), connecting=False)
    websocket = server.websocket()
    await websocket.send({"type": "websocket.accept"})
    with pytest.raises(WebSocketDisconnect) as caught:
        await websocket.receive_text()
    assert caught.value.code == 1001
    assert type(caught.value) is WebSocketDisconnect


async def test_a_close_while_a_receive_waits_for_the_connect() -> None:
    """The receive must not go on to wait for a message that cannot come."""
    server = Server(connecting=False)
    websocket = server.websocket()
    await websocket.send({"type": "websocket.accept"})
    errors: list[Exception] = []

    async def receive() -> None:
        try:
            await websocket.receive_text()
        except WebSocketClosed as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await server.waiting.wait()
        await websocket.close()
        server.push(connect())
    assert len(errors) == 1
    assert server.receives == 1


def test_one_shot_headers_of_the_scope_do_no_harm() -> None:
    server = Server(headers=header_pairs("a"))
    steps(server.websocket().accept())
    assert server.types == ["websocket.accept"]


@pytest.mark.contract("select-subprotocol")
@pytest.mark.parametrize(
    ("offered", "preferences", "selected"),
    [
        (["a", "b"], ["b", "a"], "b"),
        (["a", "b"], ("c", "a", "b"), "a"),
        (["a"], ["b"], None),
        (["a"], [], None),
        ([], ["a"], None),
        (None, ["a"], None),
        (..., ["a"], None),
        (["Chat"], ["chat"], None),
        (["a", "b"], {"c": 1, "b": 2}, "b"),
    ],
)
async def test_selecting_a_subprotocol(offered: Any, preferences: Any, selected: str | None) -> None:
    server = Server(subprotocols=offered)
    websocket = server.websocket()
    assert websocket.select_subprotocol(preferences) == selected
    await websocket.accept(selected)
    assert websocket.accepted_subprotocol == selected


@pytest.mark.contract("select-subprotocol", "exceptions-wrong-arguments")
@pytest.mark.parametrize("preferences", ["chat", b"chat", None, 5, ["a", b"b"], [None]])
def test_preferences_that_are_none(preferences: Any) -> None:
    with pytest.raises(TypeError, match=r"preferences must be an iterable of str|a subprotocol must be str"):
        Server(subprotocols=["a"]).websocket().select_subprotocol(preferences)
