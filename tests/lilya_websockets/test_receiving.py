"""`receive`, `receive_text`, `receive_bytes`, `receive_json`."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from lilya.websockets import (
    WebSocket,
    WebSocketClosed,
    WebSocketDataError,
    WebSocketDisconnect,
    WebSocketRuntimeError,
    WebSocketState,
)

from .server import ClientDisconnected, Server, connect, data, disconnect, opened, text

pytestmark = pytest.mark.anyio

CONNECTING, CONNECTED, DISCONNECTED, RESPONSE = WebSocketState

METHODS = ["receive", "receive_text", "receive_bytes", "receive_json", "iter_text", "iter_bytes", "iter_json"]


def call(websocket: WebSocket, method: str) -> Any:
    """One message, by any of the methods."""
    result = getattr(websocket, method)()
    return anext(result) if method.startswith("iter") else result


@pytest.mark.contract("receive-none-is-absent")
@pytest.mark.parametrize(
    ("method", "message", "value"),
    [
        ("receive_text", {"text": "é"}, "é"),
        ("receive_text", {"text": ""}, ""),
        ("receive_text", {"text": "a", "bytes": None}, "a"),
        ("receive_text", {"text": "", "bytes": None}, ""),
        ("receive_bytes", {"bytes": b"\xff"}, b"\xff"),
        ("receive_bytes", {"bytes": b""}, b""),
        ("receive_bytes", {"bytes": b"a", "text": None}, b"a"),
        ("iter_text", {"text": ""}, ""),
        ("iter_bytes", {"bytes": b"", "text": None}, b""),
        ("receive_json", {"text": '{"a": [1, null]}'}, {"a": [1, None]}),
        ("receive_json", {"text": "null", "bytes": None}, None),
        ("iter_json", {"text": " 1 "}, 1),
    ],
)
async def test_a_message(method: str, message: dict[str, Any], value: Any) -> None:
    websocket, _ = opened({"type": "websocket.receive", **message})
    assert await call(websocket, method) == value


@pytest.mark.contract("receive-none-is-absent")
async def test_a_raw_message_comes_as_it_is() -> None:
    message = {"type": "websocket.receive", "text": None, "bytes": b"", "extra": 1}
    websocket, _ = opened(message)
    assert await websocket.receive() is message


@pytest.mark.contract("receive-wrong-kind", "exceptions-no-bare-error")
@pytest.mark.parametrize(
    ("method", "message", "words"),
    [
        ("receive_text", {"bytes": b"a"}, r"expected text, got binary data \(b'a'\)"),
        ("receive_text", {"bytes": b"", "text": None}, r"expected text, got binary data \(b''\)"),
        ("receive_text", {}, "expected text, got neither text nor binary data"),
        ("receive_text", {"text": None, "bytes": None}, "expected text, got neither"),
        ("receive_bytes", {"text": "a"}, r"expected binary data, got text \('a'\)"),
        ("receive_bytes", {"bytes": None}, "expected binary data, got neither"),
        ("receive_json", {"bytes": b"1"}, "expected text, got binary data"),
        ("iter_text", {"bytes": b"a"}, "expected text, got binary data"),
        ("iter_bytes", {"text": "a"}, "expected binary data, got text"),
        ("iter_json", {"bytes": b"1"}, "expected text, got binary data"),
    ],
)
async def test_the_wrong_kind(method: str, message: dict[str, Any], words: str) -> None:
    message = {"type": "websocket.receive", **message}
    websocket, _ = opened(message, text("1"), data(b"1"))
    with pytest.raises(WebSocketDataError, match=words) as caught:
        await call(websocket, method)
    assert caught.value.message is message
    assert websocket.client_state is websocket.application_state is CONNECTED
    await websocket.send_text("still here")
    assert await websocket.receive_text() == "1"
    assert await websocket.receive_bytes() == b"1"


JSON_FAULTS = [
    "",
    "{",
    "nul",
    "NaN",
    "-Infinity",
    "[" * 100_000,
    '{"a":' * 100_000,
    "9" * 5000,
    "\ufeff1",
    '"\t"',
]


@pytest.mark.contract("receive-json-invalid", "exceptions-no-bare-error")
@pytest.mark.parametrize("method", ["receive_json", "iter_json"])
@pytest.mark.parametrize(
    ("mode", "payload"),
    [
        *(("text", text(fault)) for fault in JSON_FAULTS),
        *(("binary", data(fault.encode())) for fault in JSON_FAULTS),
        *(
            ("binary", data(fault))
            for fault in (b"\xff", b'"\xed\xa0\x80"', b'{"a": \x80}', b"\xef\xbb\xbf1")
        ),
    ],
    ids=lambda it: repr(it)[:60],
)
async def test_what_is_not_json(mode: str, payload: dict[str, Any], method: str) -> None:
    websocket, _ = opened(payload, text("1"))
    get = (
        websocket.receive_json if method == "receive_json" else lambda mode: anext(websocket.iter_json(mode))
    )
    with pytest.raises(WebSocketDataError, match="expected JSON, got") as caught:
        await get(mode)
    assert isinstance(caught.value.__cause__, (ValueError, RecursionError))
    assert caught.value.message == payload
    assert len(str(caught.value)) < 400
    assert await websocket.receive_json() == 1


@pytest.mark.contract("receive-json-invalid", "exceptions-no-bare-error")
@pytest.mark.parametrize("mode", ["text", "binary"])
@pytest.mark.parametrize("payload", [5, [], object()], ids=["int", "list", "object"])
async def test_a_payload_that_is_none(payload: object, mode: str) -> None:
    """A fault of the server, which must not look like one of the app."""
    key = "text" if mode == "text" else "bytes"
    websocket, _ = opened({"type": "websocket.receive", key: payload})
    with pytest.raises(WebSocketDataError, match=r"expected (text|binary data), got") as caught:
        await websocket.receive_json(mode)
    assert caught.value.message == {"type": "websocket.receive", key: payload}


async def test_json_in_binary_messages() -> None:
    websocket, _ = opened(data('{"é":1}'.encode()), data(b"[]"), data(bytearray(b"2")))  # type: ignore[arg-type]
    assert await websocket.receive_json("binary") == {"é": 1}
    assert await anext(websocket.iter_json(mode="binary")) == []
    assert await websocket.receive_json(mode="binary") == 2


@pytest.mark.contract("upstream-runtime-errors")
@pytest.mark.parametrize("mode", ["bytes", "", None, 5, "TEXT"])
async def test_a_bad_mode(mode: Any) -> None:
    websocket, server = opened(text("1"))
    words = f"must be 'text' or 'binary', got {mode!r}"
    with pytest.raises(WebSocketRuntimeError, match=words):
        await websocket.receive_json(mode)
    with pytest.raises(WebSocketRuntimeError, match=words):
        await websocket.send_json(1, mode)
    with pytest.raises(WebSocketRuntimeError, match=words):
        websocket.iter_json(mode)
    assert server.sends == server.receives == 1  # those of the accept
    assert await websocket.receive_json() == 1


@pytest.mark.contract("receive-disconnect-fields", "close-code-readable")
@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({}, 1005, ""),
        ({"code": None, "reason": None}, 1005, ""),
        ({"code": None}, 1005, ""),
        ({"code": 1000}, 1000, ""),
        ({"code": 4000, "reason": "été"}, 4000, "été"),
        ({"code": 1006, "reason": None}, 1006, ""),
        ({"code": "1000", "reason": b"bye"}, 1005, ""),
        ({"code": 1000.0, "reason": 5}, 1005, ""),
        ({"code": [], "reason": []}, 1005, ""),
    ],
)
@pytest.mark.parametrize("method", ["receive_text", "receive_bytes", "receive_json"])
async def test_a_disconnect(method: str, fields: dict[str, Any], code: int, reason: str) -> None:
    websocket, _ = opened({"type": "websocket.disconnect", **fields})
    assert (websocket.close_code, websocket.close_reason) == (None, None)
    with pytest.raises(WebSocketDisconnect) as caught:
        await call(websocket, method)
    assert type(caught.value) is WebSocketDisconnect
    assert (caught.value.code, caught.value.reason) == (code, reason)
    assert type(caught.value.code) is int
    assert type(caught.value.reason) is str
    assert [websocket.close_code, websocket.close_reason] == [code, reason]
    assert (websocket.client_state, websocket.application_state) == (DISCONNECTED, CONNECTED)


@pytest.mark.contract("receive-after-disconnect")
@pytest.mark.parametrize("method", ["receive", "receive_text", "receive_bytes", "receive_json"])
@pytest.mark.parametrize("ending", ["disconnect", "raw", "oserror"])
async def test_after_the_end_every_receive_raises_at_once(ending: str, method: str) -> None:
    websocket, server = opened(ClientDisconnected() if ending == "oserror" else disconnect(1001, "bye"))
    if ending == "raw":
        assert await websocket.receive() == disconnect(1001, "bye")
    else:
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()
    asked = server.receives
    for _ in range(3):
        with pytest.raises(WebSocketClosed) as caught:
            await call(websocket, method)
    assert caught.value.code == (1006 if ending == "oserror" else 1001)
    assert server.receives == asked


@pytest.mark.contract("receive-after-disconnect")
@pytest.mark.parametrize("method", ["receive_text", "receive_bytes", "receive_json"])
async def test_after_the_apps_own_close(method: str) -> None:
    websocket, server = opened(text("late"), disconnect(1000))
    await websocket.close(4001, "enough")
    with pytest.raises(WebSocketClosed, match="the app closed it") as caught:
        await call(websocket, method)
    assert (caught.value.code, caught.value.reason) == (4001, "enough")
    assert server.receives == 1
    # Raw, what is still on its way can be had.
    assert await websocket.receive() == text("late")
    assert await websocket.receive() == disconnect(1000)
    assert (websocket.close_code, websocket.close_reason) == (4001, "enough")
    with pytest.raises(WebSocketClosed):
        await websocket.receive()


@pytest.mark.contract("send-oserror", "receive-after-disconnect")
@pytest.mark.parametrize("method", ["receive", "receive_text", "receive_bytes", "receive_json"])
async def test_an_oserror_in_receive(method: str) -> None:
    cause = ConnectionResetError()
    websocket, _ = opened(cause)
    with pytest.raises(WebSocketDisconnect) as caught:
        await call(websocket, method)
    assert caught.value.code == 1006
    assert caught.value.__cause__ is cause
    assert websocket.client_state is websocket.application_state is DISCONNECTED
    assert (websocket.close_code, websocket.close_reason) == (1006, "")


@pytest.mark.parametrize("method", METHODS)
async def test_another_error_of_the_server_in_receive_passes(method: str) -> None:
    websocket, _ = opened(KeyError("of the server"), text("1"), data(b"1"))
    with pytest.raises(KeyError, match="of the server"):
        await call(websocket, method)
    assert await websocket.receive_text() == "1"


@pytest.mark.contract("receive-unknown-type", "exceptions-no-bare-error")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.ping"},
        connect(),
        {"type": None},
        {"type": []},
        {"type": {}},
        {},
        None,
        5,
        "ab",
        b"",
        [],
    ],
    ids=repr,
)
async def test_an_unknown_message(message: Any, method: str) -> None:
    websocket, _ = opened(message, text("1"))
    with pytest.raises(WebSocketRuntimeError, match="the server sent") as caught:
        await call(websocket, method)
    assert not isinstance(caught.value, WebSocketClosed)
    if isinstance(message, dict) and "type" in message:
        assert repr(message["type"]) in str(caught.value)
    assert websocket.client_state is CONNECTED
    assert await websocket.receive_text() == "1"


@pytest.mark.contract("iter-before-accept", "upstream-runtime-errors")
@pytest.mark.parametrize("method", [method for method in METHODS if method != "receive"])
@pytest.mark.parametrize("received", [False, True], ids=["before connect", "after connect"])
async def test_before_accept(method: str, received: bool) -> None:
    server = Server(text("1"))
    websocket = server.websocket()
    if received:
        await websocket.receive()
    asked = server.receives
    with pytest.raises(
        WebSocketRuntimeError, match=r"yet: the WebSocket is not accepted\. Call accept"
    ) as caught:
        await call(websocket, method)
    assert not isinstance(caught.value, WebSocketClosed)
    assert server.receives == asked


@pytest.mark.parametrize("method", ["receive_text", "receive_bytes", "iter_json"])
async def test_while_denying(method: str) -> None:
    server = Server()
    websocket = server.websocket()
    await websocket.send({"type": "http.response.start", "status": 401})
    with pytest.raises(WebSocketRuntimeError, match="an HTTP response has been started instead of accepting"):
        await call(websocket, method)
    assert server.receives == 0


@pytest.mark.contract("receive-concurrent")
@pytest.mark.parametrize("second", METHODS)
@pytest.mark.parametrize("first", METHODS)
async def test_two_receives_at_the_same_time(first: str, second: str) -> None:
    websocket, server = opened()
    received = []

    async def receive() -> None:
        received.append(await call(websocket, first))

    message = data(b"1") if "bytes" in first else text("1")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await server.waiting.wait()
        for _ in range(2):  # a refused one changes nothing
            with pytest.raises(WebSocketRuntimeError, match="another task is already receiving"):
                await call(websocket, second)
        server.push(message)
    assert len(received) == 1
    server.push(text("2"))
    assert await websocket.receive_text() == "2"


@pytest.mark.contract("receive-concurrent")
@pytest.mark.parametrize("second", METHODS)
@pytest.mark.parametrize("raw", [False, True])
async def test_a_receive_under_way_while_the_app_accepts(raw: bool, second: str) -> None:
    server = Server()
    websocket = server.websocket()
    await websocket.receive()
    received = []

    async def receive() -> None:
        received.append(await websocket.receive())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await server.waiting.wait()
        await (websocket.send({"type": "websocket.accept"}) if raw else websocket.accept())
        with pytest.raises(WebSocketRuntimeError, match="another task is already receiving"):
            await call(websocket, second)
        server.push(text("1"))
    assert received == [text("1")]
    server.push(text("2"))
    assert await websocket.receive_text() == "2"


@pytest.mark.contract("receive-concurrent")
async def test_a_receive_under_way_while_the_app_closes() -> None:
    websocket, server = opened()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(websocket.receive_text)
        await server.waiting.wait()
        await websocket.close()
        with pytest.raises(WebSocketClosed, match="the app closed it"):
            await websocket.receive_text()
        with pytest.raises(WebSocketRuntimeError, match="another task is already receiving"):
            await websocket.receive()
        tasks.cancel_scope.cancel()
    with pytest.raises(WebSocketClosed, match="the app closed it"):
        await websocket.receive_text()
    assert server.receives == 2  # with the one of accept


@pytest.mark.contract("receive-cancelled")
@pytest.mark.parametrize("method", METHODS)
async def test_cancelling_a_receive(method: str) -> None:
    websocket, server = opened()
    for _ in range(3):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, websocket, method)
            await server.waiting.wait()
            tasks.cancel_scope.cancel()
        server.waiting = anyio.Event()
    assert websocket.client_state is websocket.application_state is CONNECTED
    server.push(text("1"), data(b"2"), disconnect())
    assert await websocket.receive_text() == "1"
    assert await websocket.receive_bytes() == b"2"


@pytest.mark.contract("receive-cancelled")
async def test_cancelling_a_receive_after_a_raw_accept() -> None:
    """At both of its awaits: the one for the connect, and the one for the message."""
    server = Server(connecting=False)
    websocket = server.websocket()
    await websocket.send({"type": "websocket.accept"})
    for client_state in (CONNECTING, CONNECTED):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(websocket.receive_text)
            await server.waiting.wait()
            tasks.cancel_scope.cancel()
        assert websocket.client_state is client_state
        server.waiting = anyio.Event()
        if client_state is CONNECTING:
            server.push(connect())
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(websocket.receive_text)
                await server.waiting.wait()
                tasks.cancel_scope.cancel()
            server.waiting = anyio.Event()
    server.push(text("1"))
    assert await websocket.receive_text() == "1"


@pytest.mark.parametrize("method", ["receive", "receive_text", "receive_bytes", "iter_text"])
@pytest.mark.parametrize(
    "message",
    [text("1"), data(b"1"), disconnect(4000), ClientDisconnected()],
    ids=["text", "bytes", "end", "oserror"],
)
async def test_a_send_finds_the_client_gone_during_a_receive(method: str, message: Any) -> None:
    """What still arrives is delivered; nothing is asked for after it, and the first end counts."""
    websocket, server = opened()
    outcomes: list[Any] = []

    async def receive() -> None:
        try:
            outcomes.append(await call(websocket, method))
        except (WebSocketDisconnect, WebSocketDataError, StopAsyncIteration) as error:
            outcomes.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await server.waiting.wait()
        server.fail(ClientDisconnected())
        with pytest.raises(WebSocketDisconnect):
            await websocket.send_text("a")
        server.push(message)
    assert len(outcomes) == 1
    assert websocket.client_state is websocket.application_state is DISCONNECTED
    assert websocket.close_code == 1006
    with pytest.raises(WebSocketClosed):
        await websocket.receive()


async def test_a_send_finds_the_client_gone_and_then_comes_nonsense() -> None:
    websocket, server = opened()
    errors = []

    async def receive() -> None:
        try:
            await websocket.receive()
        except WebSocketRuntimeError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await server.waiting.wait()
        server.fail(ClientDisconnected())
        with pytest.raises(WebSocketDisconnect):
            await websocket.send_text("a")
        server.push({"type": []})
    assert "the server sent []" in str(errors[0])


@pytest.mark.contract("send-dumps-loads")
async def test_loads_is_replaced_by_subclassing() -> None:
    upper: type[WebSocket] = type("Upper", (WebSocket,), {"loads": lambda text: text.upper()})

    class Method(WebSocket):
        loads = staticmethod(lambda text: text.title())

    inherited: type[WebSocket] = type("Inherited", (upper,), {})

    for of, expected in ((upper, "AB"), (Method, "Ab"), (inherited, "AB")):
        server = Server(text("ab"), data(b"ab"))
        websocket = await server.accepted(of)
        assert await websocket.receive_json() == expected
        assert await websocket.receive_json("binary") == expected
