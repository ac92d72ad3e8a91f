"""`close`, and `WebSocketClose`."""

from __future__ import annotations

import enum
from typing import Any

import anyio
import pytest

from lilya.websockets import (
    WebSocketClose,
    WebSocketClosed,
    WebSocketDisconnect,
    WebSocketRuntimeError,
    WebSocketState,
)

from .server import ClientDisconnected, Server, disconnect, opened, steps

pytestmark = pytest.mark.anyio

CONNECTING, CONNECTED, DISCONNECTED, RESPONSE = WebSocketState


class Code(enum.IntEnum):
    MINE = 4001


@pytest.mark.contract("close-codes", "close-code-readable")
@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ({}, 1000, ""),
        ({"code": 1000}, 1000, ""),
        ({"code": 1001, "reason": None}, 1001, ""),
        ({"code": 4999, "reason": "été"}, 4999, "été"),
        ({"reason": "bye"}, 1000, "bye"),
        ({"code": Code.MINE}, 4001, ""),
        ({"reason": "é" * 61 + "a"}, 1000, "é" * 61 + "a"),
    ],
)
async def test_close(arguments: dict[str, Any], code: int, reason: str) -> None:
    websocket, server = opened()
    await websocket.close(**arguments)
    assert server.sent == [{"type": "websocket.close", "code": code, "reason": reason}]
    assert (websocket.close_code, websocket.close_reason) == (code, reason)
    assert (websocket.client_state, websocket.application_state) == (CONNECTED, DISCONNECTED)


def test_every_code_over_the_strict_server() -> None:
    """Each code is sent, or refused with nothing sent and no state changed."""
    for code in range(-1, 5002):
        websocket, server = opened()
        try:
            steps(websocket.close(code))
        except ValueError:
            steps(websocket.send_text("still open"))
        assert len(server.sent) == 1


@pytest.mark.contract("close-codes", "exceptions-wrong-arguments")
@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"code": 1004}, ValueError),
        ({"code": 1005}, ValueError),
        ({"code": 1006}, ValueError),
        ({"code": 1015}, ValueError),
        ({"code": 999}, ValueError),
        ({"code": 2999}, ValueError),
        ({"code": 5000}, ValueError),
        ({"code": True}, ValueError),
        ({"code": "1000"}, TypeError),
        ({"code": 1000.0}, TypeError),
        ({"code": None}, TypeError),
        ({"reason": "a" * 124}, ValueError),
        ({"reason": "é" * 62}, ValueError),
        ({"reason": b"a"}, TypeError),
        ({"reason": "\ud800"}, ValueError),
    ],
)
async def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], accepted: bool) -> None:
    server = Server()
    websocket = await server.accepted() if accepted else server.websocket()
    before = (websocket.client_state, websocket.application_state)
    with pytest.raises(error):
        await websocket.close(**arguments)
    assert (websocket.client_state, websocket.application_state) == before
    assert websocket.close_code is None
    assert server.sent == []
    await websocket.close()
    assert server.types == ["websocket.close"]


@pytest.mark.contract("close-second", "upstream-runtime-errors")
@pytest.mark.parametrize("accepted", [True, False])
async def test_a_second_close(accepted: bool) -> None:
    server = Server()
    websocket = await server.accepted() if accepted else server.websocket()
    await websocket.close(4001, "enough")
    for _ in range(2):
        with pytest.raises(WebSocketClosed, match="cannot close any longer: the app closed it") as caught:
            await websocket.close()
    assert (caught.value.code, caught.value.reason) == (4001, "enough")
    assert isinstance(caught.value, WebSocketRuntimeError)
    assert len(server.sent) == 1


@pytest.mark.contract("close-second")
async def test_a_second_close_after_the_client_has_answered_the_first() -> None:
    websocket, server = opened(disconnect(1000))
    await websocket.close()
    await websocket.receive()
    with pytest.raises(WebSocketClosed):
        await websocket.close()
    assert len(server.sent) == 1


@pytest.mark.contract("close-second")
async def test_two_tasks_that_close() -> None:
    websocket, server = opened()
    server.held.add("websocket.close")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(websocket.close, 4001)
        await server.holding.wait()
        with pytest.raises(WebSocketClosed):
            await websocket.close(4002)
        server.release()
    assert [message["code"] for message in server.sent] == [4001]
    assert websocket.close_code == 4001


@pytest.mark.contract("close-after-client")
@pytest.mark.parametrize("left", ["receive", "raw receive", "send"])
async def test_close_after_the_client_left(left: str) -> None:
    websocket, server = opened(disconnect(1001, "bye"))
    code, reason = 1001, "bye"
    if left == "raw receive":
        await websocket.receive()
    elif left == "receive":
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()
    else:
        code, reason = 1006, ""
        server.fail(ClientDisconnected())
        with pytest.raises(WebSocketDisconnect):
            await websocket.send_text("a")
    for _ in range(2):
        await websocket.close(4000, "mine")
    assert server.sent == []
    assert (websocket.close_code, websocket.close_reason) == (code, reason)
    assert websocket.client_state is websocket.application_state is DISCONNECTED
    with pytest.raises(ValueError, match="close code"):
        await websocket.close(5)


@pytest.mark.contract("close-after-client")
async def test_close_after_the_client_left_before_accept() -> None:
    server = Server(disconnect(1001), connecting=False)
    websocket = server.websocket()
    await websocket.receive()
    await websocket.close()
    assert server.sent == []


@pytest.mark.contract("close-after-client")
@pytest.mark.parametrize("accepted", [True, False])
async def test_an_oserror_in_close(accepted: bool) -> None:
    server = Server()
    websocket = await server.accepted() if accepted else server.websocket()
    server.fail(ClientDisconnected())
    await websocket.close()
    assert websocket.client_state is websocket.application_state is DISCONNECTED
    with pytest.raises(WebSocketClosed):
        await websocket.close()
    with pytest.raises(WebSocketClosed):
        await websocket.receive()


@pytest.mark.contract("close-server-error")
@pytest.mark.parametrize("how", ["method", "raw"])
@pytest.mark.parametrize("accepted", [True, False])
async def test_a_server_error_in_close(accepted: bool, how: str) -> None:
    server = Server()
    websocket = await server.accepted() if accepted else server.websocket()
    before = (websocket.client_state, websocket.application_state)
    server.fail(RuntimeError("no"))
    message = {"type": "websocket.close", "code": 4000}
    with pytest.raises(RuntimeError, match="no"):
        await (websocket.close(4000, "a") if how == "method" else websocket.send(message))
    assert (websocket.client_state, websocket.application_state) == before
    assert (websocket.close_code, websocket.close_reason) == (None, None)
    if accepted:
        await websocket.send_text("still open")
    await websocket.close(4001, "second")
    assert server.sent[-1] == {"type": "websocket.close", "code": 4001, "reason": "second"}
    assert websocket.close_code == 4001


@pytest.mark.contract("close-server-error")
async def test_a_server_error_in_close_when_the_client_has_left_meanwhile() -> None:
    """There is nothing to go back to then."""
    websocket, server = opened()
    release = anyio.Event()
    refuse = server.send

    async def send(message: Any) -> None:
        await release.wait()
        raise RuntimeError("no")

    websocket._send = send
    errors = []

    async def close() -> None:
        try:
            await websocket.close()
        except RuntimeError as error:
            errors.append(str(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(close)
        await anyio.wait_all_tasks_blocked()
        server.push(disconnect(1001))
        await websocket.receive()
        release.set()
    websocket._send = refuse
    assert errors == ["no"]
    assert websocket.client_state is websocket.application_state is DISCONNECTED
    with pytest.raises(WebSocketClosed):
        await websocket.send_text("a")


async def test_close_while_denying() -> None:
    server = Server()
    websocket = server.websocket()
    await websocket.send({"type": "http.response.start", "status": 401})
    with pytest.raises(WebSocketRuntimeError, match="state RESPONSE: expected"):
        await websocket.close()


async def test_close_while_a_receive_waits() -> None:
    """The receive gets what the server has to say about it."""
    websocket, server = opened()
    errors = []

    async def receive() -> None:
        try:
            await websocket.receive_text()
        except WebSocketDisconnect as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await server.waiting.wait()
        await websocket.close(4001)
        server.push(disconnect(1000))
    assert [(type(error), error.code) for error in errors] == [(WebSocketDisconnect, 4001)]
    assert websocket.close_code == 4001


async def test_an_oserror_in_a_receive_after_the_apps_own_close() -> None:
    """The end that came first counts."""
    websocket, _ = opened(ClientDisconnected())
    await websocket.close(4001, "enough")
    with pytest.raises(WebSocketDisconnect) as caught:
        await websocket.receive()
    assert (caught.value.code, caught.value.reason) == (4001, "enough")
    assert (websocket.close_code, websocket.close_reason) == (4001, "enough")


async def test_a_close_while_the_server_is_about_to_refuse_the_accept() -> None:
    """Refused too late: the close has gone out, and nothing comes back to life."""
    server = Server()
    websocket = server.websocket()
    release = anyio.Event()

    async def refuse(message: Any) -> None:
        await release.wait()
        raise RuntimeError("no")

    websocket._send = refuse
    errors = []

    async def accept() -> None:
        try:
            await websocket.accept()
        except RuntimeError as error:
            errors.append(str(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accept)
        await anyio.wait_all_tasks_blocked()
        websocket._send = server.send
        await websocket.close(4001)
        release.set()
    assert errors == ["no"]
    assert websocket.application_state is DISCONNECTED
    assert websocket.close_code == 4001
    with pytest.raises(WebSocketClosed):
        await websocket.close()


async def test_cancelling_a_close_that_blocks() -> None:
    """It counts as sent."""
    websocket, server = opened()
    server.held.add("websocket.close")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(websocket.close)
        await server.holding.wait()
        tasks.cancel_scope.cancel()
    assert websocket.application_state is DISCONNECTED
    with pytest.raises(WebSocketClosed):
        await websocket.close()
    assert len(server.sent) == 1


@pytest.mark.contract("websocket-close-app")
@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [((), 1000, ""), ((4001,), 4001, ""), ((Code.MINE, "enough"), 4001, "enough")],
)
async def test_the_app_that_closes(arguments: tuple[Any, ...], code: int, reason: str) -> None:
    server = Server()
    app = WebSocketClose(*arguments)
    await app(server.scope, server.receive, server.send)
    assert server.sent == [{"type": "websocket.close", "code": code, "reason": reason}]
    assert server.receives == 0
    assert (app.code, app.reason) == (code, reason)


@pytest.mark.contract("websocket-close-app", "exceptions-no-bare-error")
async def test_the_app_that_closes_when_the_client_is_gone() -> None:
    server = Server()
    server.fail(ClientDisconnected())
    await WebSocketClose(code=1001, reason="bye")(server.scope, server.receive, server.send)
    assert server.sent == []


@pytest.mark.contract("websocket-close-app", "exceptions-wrong-arguments")
@pytest.mark.parametrize(
    ("arguments", "error"), [((1005,), ValueError), (("a",), TypeError), ((1000, "a" * 124), ValueError)]
)
def test_the_app_that_closes_with_wrong_arguments(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        WebSocketClose(*arguments)
