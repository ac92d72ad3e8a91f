"""`send`, `send_text`, `send_bytes`, `send_json`."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from lilya.websockets import (
    PreparedMessage,
    WebSocket,
    WebSocketClosed,
    WebSocketDisconnect,
    WebSocketRuntimeError,
    WebSocketState,
)

from .server import ClientDisconnected, Server, disconnect, opened, text

pytestmark = pytest.mark.anyio

CONNECTING, CONNECTED, DISCONNECTED, RESPONSE = WebSocketState

SENDS = [
    ("send_text", ("a",)),
    ("send_bytes", (b"a",)),
    ("send_json", ("a",)),
    ("send_json", ("a", "binary")),
    ("send_prepared", (PreparedMessage("a"),)),
    ("send", ({"type": "websocket.send", "text": "a"},)),
]

PREPARED = "lilya.websocket.prepared"


@pytest.mark.contract("send-arguments", "send-json", "send-raw-payload")
@pytest.mark.parametrize(
    ("method", "arguments", "sent"),
    [
        ("send_text", ("é",), {"text": "é"}),
        ("send_text", ("",), {"text": ""}),
        ("send_bytes", (b"",), {"bytes": b""}),
        ("send_bytes", (b"\xff",), {"bytes": b"\xff"}),
        ("send_bytes", (bytearray(b"a"),), {"bytes": b"a"}),
        ("send_bytes", (memoryview(b"abcd")[::2],), {"bytes": b"ac"}),
        ("send_json", ({"é": [1, None]},), {"text": '{"é":[1,null]}'}),
        ("send_json", ("\ud800",), {"text": '"\\ud800"'}),
        ("send_json", ({"é": 1}, "binary"), {"bytes": '{"é":1}'.encode()}),
        ("send_json", (None,), {"text": "null"}),
        ("send", ({"type": "websocket.send", "text": "a", "bytes": None},), {"text": "a"}),
        ("send", ({"type": "websocket.send", "bytes": bytearray(b"a")},), {"bytes": b"a"}),
        ("send", ({"type": "websocket.send", "text": ""},), {"text": ""}),
    ],
)
async def test_what_is_sent(method: str, arguments: tuple[Any, ...], sent: dict[str, Any]) -> None:
    websocket, server = opened()
    await getattr(websocket, method)(*arguments)
    assert server.sent == [{"type": "websocket.send", **sent}]
    assert websocket.client_state is websocket.application_state is CONNECTED


@pytest.mark.contract("send-prepared")
@pytest.mark.parametrize(
    ("data", "key", "sent"),
    [("é", "text", "é"), ("", "text", ""), (b"", "bytes", b""), (bytearray(b"a"), "bytes", b"a")],
)
@pytest.mark.parametrize("extensions", [None, {}, {"another": {}}])
async def test_a_prepared_message_elsewhere(data: Any, key: str, sent: Any, extensions: Any) -> None:
    websocket, server = opened(extensions=extensions)
    message = PreparedMessage(data)
    assert message.data == sent
    await websocket.send_prepared(message)
    await websocket.send_prepared(message)
    first, second = server.sent
    assert first == second == {"type": "websocket.send", key: sent}
    assert first is not second


@pytest.mark.contract("send-prepared")
@pytest.mark.parametrize(("data", "key"), [("é", "text"), (b"", "bytes")])
async def test_a_prepared_message_is_framed_once(data: Any, key: str) -> None:
    message = PreparedMessage(data)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "websocket.send":
            message["prepared"].setdefault("frame", len(sent))

    for _ in range(3):
        websocket = WebSocket(
            {"type": "websocket", "path": "/", "headers": [], "extensions": {PREPARED: {}}}, receive, send
        )
        await websocket.accept()
        await websocket.send_prepared(message)
    assert [message for message in sent if message["type"] == "websocket.send"] == [
        {"type": "websocket.send", key: data, "prepared": {"frame": 2}}
    ] * 3


@pytest.mark.contract("send-prepared", "exceptions-wrong-arguments")
@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (5, TypeError, "bytes-like, got int"),
        (None, TypeError, "got None"),
        ("\ud800", ValueError, "surrogate"),
    ],
)
def test_what_cannot_be_prepared(data: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        PreparedMessage(data)


def test_a_prepared_message_shows_its_beginning() -> None:
    assert repr(PreparedMessage("Hello")) == "<PreparedMessage with text ('Hello')>"
    assert repr(PreparedMessage(b"x" * 100)).endswith("…)>")


@pytest.mark.contract("exceptions-wrong-arguments", "send-arguments", "send-raw-payload", "send-json")
@pytest.mark.parametrize(
    ("method", "arguments", "error", "words"),
    [
        ("send_text", (b"a",), TypeError, "bytes: decode it, or use send_bytes"),
        ("send_text", (None,), TypeError, "text must be str, got None"),
        ("send_text", ({},), TypeError, "dict: use send_json"),
        ("send_text", ("\ud800",), ValueError, "lone surrogate"),
        ("send_bytes", ("a",), TypeError, "or use send_text"),
        ("send_bytes", (5,), TypeError, "bytes-like, got int"),
        ("send_bytes", (None,), TypeError, "bytes-like, got None"),
        ("send_bytes", ([1],), TypeError, "bytes-like, got list"),
        ("send_prepared", ("a",), TypeError, "takes a PreparedMessage, got str"),
        ("send_json", (object(),), TypeError, "not JSON serializable"),
        ("send_json", (float("nan"),), ValueError, "^the data holds NaN or an infinity, which"),
        ("send_json", ([float("inf")], "binary"), ValueError, "an infinity, which JSON does not have$"),
        ("send", ({"type": "websocket.send"},), ValueError, "exactly one of"),
        ("send", ({"type": "websocket.send", "text": "a", "bytes": b"a"},), ValueError, "got both"),
        ("send", ({"type": "websocket.send", "text": b"a"},), TypeError, "text must be str"),
        ("send", ({},), TypeError, "a mapping with a 'type', got neither text nor binary data"),
        ("send", ({"type": None},), TypeError, "a mapping with a 'type'"),
        ("send", ({"type": []},), TypeError, "a mapping with a 'type'"),
        ("send", (None,), TypeError, "a mapping with a 'type', got None instead"),
        ("send", ("websocket.send",), TypeError, "a mapping with a 'type'"),
        ("send", ([("type", "websocket.send")],), TypeError, "a mapping with a 'type'"),
        ("send", ({"type": "websocket.close", "code": 1005},), ValueError, "never sent"),
        ("send", ({"type": "websocket.close", "code": None},), TypeError, "must be int, got None"),
        ("send", ({"type": "websocket.close", "reason": "a" * 124},), ValueError, "123 bytes"),
    ],
)
async def test_wrong_arguments(
    method: str, arguments: tuple[Any, ...], error: type[Exception], words: str
) -> None:
    websocket, server = opened()
    with pytest.raises(error, match=words) as caught:
        await getattr(websocket, method)(*arguments)
    assert type(caught.value) is error
    assert server.sent == []
    assert websocket.client_state is websocket.application_state is CONNECTED
    await websocket.send_text("still open")


@pytest.mark.contract("exceptions-wrong-arguments")
@pytest.mark.parametrize("mode", ["text", "binary"])
async def test_an_encoder_that_returns_bytes(mode: str) -> None:
    class OfBytes(WebSocket):
        dumps = staticmethod(lambda value: b'{"a":1}')

    server = Server()
    websocket = await server.accepted(OfBytes)
    await websocket.send_json(None, mode)
    payload: dict[str, Any] = {"text": '{"a":1}'} if mode == "text" else {"bytes": b'{"a":1}'}
    assert server.sent == [{"type": "websocket.send", **payload}]


@pytest.mark.contract("send-dumps-loads")
async def test_dumps_is_replaced_by_subclassing() -> None:
    plain: type[WebSocket] = type("Plain", (WebSocket,), {"dumps": lambda value: f"<{value}>"})
    inherited: type[WebSocket] = type("Inherited", (plain,), {})
    for of in (plain, inherited):
        server = Server()
        websocket = await server.accepted(of)
        await websocket.send_json(1)
        await websocket.send_json("\ud800é", mode="binary")
        assert server.sent[0]["text"] == "<1>"
        assert server.sent[1]["bytes"] == "<\\ud800é>".encode()


@pytest.mark.contract("send-oserror")
@pytest.mark.parametrize(("method", "arguments"), SENDS)
@pytest.mark.parametrize("after", [0, 1, 5])
async def test_an_oserror_at_the_nth_send(method: str, arguments: tuple[Any, ...], after: int) -> None:
    websocket, server = opened()
    cause = ClientDisconnected("gone")
    server.fail(cause, after=after)
    for _ in range(after):
        await getattr(websocket, method)(*arguments)
    with pytest.raises(WebSocketDisconnect) as caught:
        await getattr(websocket, method)(*arguments)
    assert type(caught.value) is WebSocketDisconnect
    assert (caught.value.code, caught.value.reason) == (1006, "")
    assert caught.value.__cause__ is cause
    assert websocket.client_state is websocket.application_state is DISCONNECTED
    assert (websocket.close_code, websocket.close_reason) == (1006, "")
    assert len(server.sent) == after
    with pytest.raises(WebSocketClosed, match=r"the connection was lost \(code 1006\)"):
        await getattr(websocket, method)(*arguments)
    with pytest.raises(WebSocketClosed):
        await websocket.receive()


@pytest.mark.contract("send-oserror")
@pytest.mark.parametrize("kind", ["close", "body"])
async def test_an_oserror_at_the_last_message(kind: str) -> None:
    """Whatever was being sent, it was the network that ended it."""
    if kind == "close":
        websocket, server = opened()
        message = {"type": "websocket.close", "code": 4000, "reason": "a"}
    else:
        server = Server()
        websocket = server.websocket()
        await websocket.send({"type": "http.response.start", "status": 401})
        message = {"type": "http.response.body", "body": b"a"}
    cause = ClientDisconnected()
    server.fail(cause)
    with pytest.raises(WebSocketDisconnect) as caught:
        await websocket.send(message)
    assert (caught.value.code, caught.value.reason, caught.value.__cause__) == (1006, "", cause)
    assert (websocket.close_code, websocket.close_reason) == (1006, "")
    assert websocket.client_state is websocket.application_state is DISCONNECTED


@pytest.mark.parametrize(("method", "arguments"), SENDS)
async def test_another_error_of_the_server_in_send_passes(method: str, arguments: tuple[Any, ...]) -> None:
    websocket, server = opened()
    server.fail(RuntimeError("of the server"))
    with pytest.raises(RuntimeError, match="of the server"):
        await getattr(websocket, method)(*arguments)
    assert websocket.client_state is websocket.application_state is CONNECTED
    await getattr(websocket, method)(*arguments)
    assert len(server.sent) == 1


@pytest.mark.contract("send-after-disconnect")
@pytest.mark.parametrize(("method", "arguments"), SENDS)
async def test_after_a_disconnect_the_server_is_not_asked(method: str, arguments: tuple[Any, ...]) -> None:
    websocket, server = opened(disconnect(4000, "bye"))
    with pytest.raises(WebSocketDisconnect):
        await websocket.receive_text()
    for _ in range(2):
        with pytest.raises(WebSocketClosed, match="cannot send any longer: the client closed it") as caught:
            await getattr(websocket, method)(*arguments)
    assert (caught.value.code, caught.value.reason) == (4000, "bye")
    assert server.sent == []


@pytest.mark.contract("send-after-disconnect")
@pytest.mark.parametrize(("method", "arguments"), SENDS)
async def test_after_the_apps_own_close(method: str, arguments: tuple[Any, ...]) -> None:
    websocket, server = opened()
    await websocket.close()
    with pytest.raises(WebSocketClosed, match="cannot send any longer: the app closed it"):
        await getattr(websocket, method)(*arguments)
    assert server.types == ["websocket.close"]


@pytest.mark.contract("upstream-runtime-errors")
@pytest.mark.parametrize(("method", "arguments"), SENDS)
@pytest.mark.parametrize("state", ["connecting", "denying"])
async def test_before_accept(state: str, method: str, arguments: tuple[Any, ...]) -> None:
    server = Server()
    websocket = server.websocket()
    if state == "denying":
        await websocket.send({"type": "http.response.start", "status": 401})
    with pytest.raises(WebSocketRuntimeError, match=r"tried to send 'websocket\.send' in state") as caught:
        await getattr(websocket, method)(*arguments)
    assert not isinstance(caught.value, WebSocketClosed)
    assert "websocket.send" not in server.types


@pytest.mark.contract("upstream-runtime-errors")
@pytest.mark.parametrize(
    "message_type",
    [
        "websocket.receive",
        "websocket.connect",
        "websocket.disconnect",
        "websocket.http.response",
        "websocket.http.response.trailers",
        "http.response.push",
        "lifespan.startup.complete",
        "",
    ],
)
@pytest.mark.parametrize("accepted", [True, False])
async def test_a_raw_message_out_of_turn(message_type: str, accepted: bool) -> None:
    if accepted:
        websocket, server = opened()
    else:
        server = Server()
        websocket = server.websocket()
    with pytest.raises(WebSocketRuntimeError, match="the app tried to send"):
        await websocket.send({"type": message_type})
    assert server.sent == []


async def test_a_raw_close_keeps_the_state() -> None:
    websocket, server = opened()
    await websocket.send({"type": "websocket.close"})
    assert server.sent == [{"type": "websocket.close", "code": 1000, "reason": ""}]
    assert websocket.application_state is DISCONNECTED
    assert (websocket.close_code, websocket.close_reason) == (1000, "")
    with pytest.raises(WebSocketClosed):
        await websocket.send({"type": "websocket.close"})


@pytest.mark.contract("upstream-accept-mutable")
async def test_the_accept_message_is_a_mutable_dict() -> None:
    for raw in (False, True):
        server = Server()
        websocket = server.websocket()
        if raw:
            await websocket.send({"type": "websocket.accept", "headers": {"a": "b"}})
        else:
            await websocket.accept(headers={"a": "b"})
        (message,) = server.sent
        message["headers"].append((b"x", b"y"))
        message["extra"] = 1
        assert type(message) is dict


async def test_the_callers_message_is_not_changed() -> None:
    websocket, _ = opened()
    message = {"type": "websocket.send", "text": None, "bytes": bytearray(b"a")}
    before = dict(message)
    await websocket.send(message)
    assert message == before


async def test_a_send_races_a_disconnect() -> None:
    websocket, server = opened()
    server.held.add("websocket.send")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(websocket.send_text, "a")
        await server.holding.wait()
        server.push(disconnect(1001))
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()
        with pytest.raises(WebSocketClosed):
            await websocket.send_text("b")
        server.release()
    assert len(server.sent) == 1


async def test_cancelling_a_send_that_blocks() -> None:
    websocket, server = opened()
    server.held.add("websocket.send")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(websocket.send_text, "a")
        await server.holding.wait()
        tasks.cancel_scope.cancel()
    server.release()
    assert websocket.client_state is websocket.application_state is CONNECTED
    await websocket.send_text("b")
    assert [message["text"] for message in server.sent] == ["a", "b"]


@pytest.mark.contract("send-json")
@pytest.mark.parametrize("mode", ["text", "binary"])
@pytest.mark.parametrize("value", [{"\ud800": ["\udfff", "é"]}, None, 1.5, "", [{}], 10**300])
async def test_json_round_trip(value: Any, mode: str) -> None:
    websocket, server = opened()
    await websocket.send_json(value, mode)
    server.push({**server.sent[0], "type": "websocket.receive"})
    assert await websocket.receive_json(mode) == value


@pytest.mark.violations
@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "websocket.send", "text": "a"}],
        [{"type": "websocket.accept", "subprotocol": None, "headers": ()}],
        [{"type": "websocket.accept", "subprotocol": "chat", "headers": []}],
        [{"type": "websocket.accept", "subprotocol": None, "headers": [(b"A", b"")]}],
        [{"type": "websocket.accept", "subprotocol": None, "headers": [(b"a", b"\r\n")]}],
        [{"type": "websocket.accept", "subprotocol": None, "headers": [("a", b"")]}],
        [{"type": "websocket.accept", "subprotocol": None, "headers": [[b"a", b""]]}],
        [{"type": "websocket.accept", "subprotocol": None, "headers": [(b"sec-websocket-key", b"")]}],
        [{"type": "http.response.start", "status": 200, "headers": []}],
        [{"type": "websocket.http.response.start", "status": 101, "headers": []}],
        [{"type": "websocket.http.response.body", "body": b"", "more_body": False}],
        [{"type": "websocket.close", "code": 1005, "reason": ""}],
        [{"type": "websocket.close", "code": True, "reason": ""}],
        [{"type": "websocket.close", "code": 1000, "reason": None}],
        [{"type": "websocket.close", "code": 1000, "reason": "é" * 62}],
        [{"type": "websocket.close", "code": 1000, "reason": ""}] * 2,
        ["accept", {"type": "websocket.send", "text": "a", "bytes": None}],
        ["accept", {"type": "websocket.send"}],
        ["accept", {"type": "websocket.send", "text": b"a"}],
        ["accept", {"type": "websocket.send", "bytes": bytearray()}],
        ["accept", "accept"],
        ["accept", "close", {"type": "websocket.send", "text": "a"}],
        ["start", {"type": "websocket.http.response.body", "body": b"", "more_body": 0}],
        ["start", {"type": "websocket.http.response.body", "body": "", "more_body": True}],
        ["start", "close"],
        ["start", "body", "body"],
    ],
)
async def test_the_server_is_strict(messages: list[Any]) -> None:
    """Planted faults: each of these the server of the tests must object to."""
    short: dict[str, Any] = {
        "accept": {"type": "websocket.accept", "subprotocol": None, "headers": []},
        "close": {"type": "websocket.close", "code": 1000, "reason": ""},
        "start": {"type": "websocket.http.response.start", "status": 200, "headers": []},
        "body": {"type": "websocket.http.response.body", "body": b"", "more_body": False},
    }
    server = Server()
    *legal, illegal = [
        short.get(message, message) if isinstance(message, str) else message for message in messages
    ]
    for message in legal:
        await server.send(message)
    with pytest.raises(AssertionError):
        await server.send(illegal)


@pytest.mark.violations
async def test_the_server_objects_to_what_comes_after_the_end() -> None:
    server = Server(text("a"), disconnect())
    for _ in range(3):
        await server.receive()
    with pytest.raises(AssertionError, match="a receive after the end"):
        await server.receive()
    with pytest.raises(AssertionError, match="after the end"):
        await server.send({"type": "websocket.close", "code": 1000, "reason": ""})


@pytest.mark.violations
async def test_the_server_objects_to_two_receives() -> None:
    server = Server(connecting=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.receive)
        await server.waiting.wait()
        with pytest.raises(AssertionError, match="two receives"):
            await server.receive()
        tasks.cancel_scope.cancel()
