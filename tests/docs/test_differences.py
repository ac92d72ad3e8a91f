"""The page *Differences*: one test for each entry, and each entry names its test."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import lilya.websockets
from lilya.websockets import (
    URL,
    Header,
    QueryParam,
    WebSocket,
    WebSocketClose,
    WebSocketClosed,
    WebSocketDataError,
    WebSocketDisconnect,
    WebSocketRuntimeError,
    WebSocketState,
)
from lilya.websockets.types import Message, Receive, Scope, Send
from tests.docs.pages import at, name_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "project" / "differences.md"
CONNECT: Message = {"type": "websocket.connect"}

pytestmark = [pytest.mark.anyio, pytest.mark.page("docs/project/differences.md", "# Differences")]


class Connection:
    """A server without a network: hands out the messages that it is given, and keeps what is sent."""

    def __init__(self, messages: Iterable[Message] = (), **scope: Any) -> None:
        self.messages = iter([CONNECT, *messages])
        self.asked = 0
        self.sent: list[Message] = []
        self.refuses: Exception | None = None
        self.scope: Scope = {"type": "websocket", "path": "/", "headers": [], **scope}
        self.websocket = WebSocket(self.scope, self.receive, self.send)

    async def receive(self) -> Message:
        self.asked += 1
        return next(self.messages)

    async def send(self, message: Message) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.sent.append(message)


async def accepted(*messages: Message, **scope: Any) -> Connection:
    connection = Connection(messages, **scope)
    await connection.websocket.accept()
    return connection


def frame(**payload: Any) -> Message:
    return {"type": "websocket.receive", **payload}


def disconnect(**end: Any) -> Message:
    return {"type": "websocket.disconnect", **end}


# The page


def entries(text: str) -> list[str]:
    """The top-level list items of a page."""
    items: list[str] = []
    for line in text.partition("\nWord for word")[0].split("\n"):
        if line.startswith("* "):
            items.append(line)
        elif items and line.startswith("  "):
            items[-1] += "\n" + line
    return items


def unheld(text: str, root: Path) -> list[str]:
    """The entries that name no test, and the tests that do not exist."""
    problems = []
    found = entries(text)
    if not found:
        problems.append(f"{name_of(PAGE)}:1: the page has no entries")
    for entry in found:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", entry)
        if not tests:
            problems.append(f"{at(PAGE, entry, text)}: no test is named")
        for file, name in tests:
            path = root / file
            tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
            functions = {
                node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            if name not in functions:
                problems.append(f"{at(PAGE, entry, text)}: there is no {file}::{name}")
    return problems


def test_each_entry_names_an_existing_test() -> None:
    assert unheld(PAGE.read_text(encoding="utf-8"), ROOT) == []


def test_each_test_of_a_difference_is_named() -> None:
    named = set(re.findall(r"test_differences\.py::(\w+)`", PAGE.read_text(encoding="utf-8")))
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    own = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
    assert own - named == {
        "test_each_entry_names_an_existing_test",
        "test_each_test_of_a_difference_is_named",
        "test_planted_fault",
    }


@pytest.mark.parametrize(
    "planted",
    [
        "",
        "* An entry without a test.",
        "* An entry. `tests/docs/test_differences.py::test_that_nobody_wrote`",
        "* An entry. `tests/docs/test_nothing.py::test_planted_fault`",
        "* Good. `tests/docs/test_differences.py::test_planted_fault`\n* Another, without.",
    ],
)
def test_planted_fault(planted: str) -> None:
    found = unheld(planted, ROOT)
    assert found
    assert all(re.match(r"docs/project/differences\.md:\d+: ", each) for each in found)


# Receiving


async def test_the_other_kind_of_frame() -> None:
    connection = await accepted(frame(bytes=b"\0"), frame(text="go on"))
    with pytest.raises(WebSocketDataError) as caught:
        await connection.websocket.receive_text()
    assert caught.value.message == frame(bytes=b"\0")
    assert await connection.websocket.receive_text() == "go on"


async def test_a_payload_of_none() -> None:
    connection = await accepted(frame(text=None, bytes=b"x"))
    with pytest.raises(WebSocketDataError):
        await connection.websocket.receive_text()


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "NaN", "-Infinity", "1" * 5000])
async def test_broken_json(text: str) -> None:
    connection = await accepted(frame(text=text), frame(text="1"))
    if text.isdigit() and not hasattr(__import__("sys"), "get_int_max_str_digits"):
        pytest.skip("this Python reads integers of any length")
    with pytest.raises(WebSocketDataError):
        await connection.websocket.receive_json()
    assert await connection.websocket.receive_json() == 1


async def test_json_that_is_not_utf8() -> None:
    connection = await accepted(frame(bytes=b"\xff"))
    with pytest.raises(WebSocketDataError):
        await connection.websocket.receive_json(mode="binary")


async def test_iterating_binary_json() -> None:
    connection = await accepted(frame(bytes=b"[1]"), disconnect(code=1000))
    assert [data async for data in connection.websocket.iter_json(mode="binary")] == [[1]]


@pytest.mark.parametrize("end", [{}, {"code": None, "reason": None}])
async def test_a_disconnect_without_a_code(end: dict[str, Any]) -> None:
    connection = await accepted(disconnect(**end))
    with pytest.raises(WebSocketDisconnect) as caught:
        await connection.websocket.receive_text()
    assert (caught.value.code, caught.value.reason) == (1005, "")


async def test_receiving_after_the_end() -> None:
    connection = await accepted(disconnect(code=1001))
    websocket = connection.websocket
    with pytest.raises(WebSocketDisconnect):
        await websocket.receive_text()
    asked = connection.asked
    with pytest.raises(WebSocketClosed, match="any longer"):
        await websocket.receive_text()
    with pytest.raises(WebSocketClosed):
        await websocket.receive()
    assert connection.asked == asked
    assert (websocket.close_code, websocket.close_reason) == (1001, "")


async def test_receiving_after_ones_own_close() -> None:
    connection = await accepted(frame(text="late"))
    await connection.websocket.close()
    with pytest.raises(WebSocketClosed, match="any longer"):
        await connection.websocket.receive_text()


async def test_two_receives_at_once() -> None:
    connection = await accepted()
    websocket = connection.websocket

    async def ask_again() -> Message:
        with pytest.raises(WebSocketRuntimeError, match="another task"):
            await websocket.receive_text()
        return frame(text="first")

    websocket._receive_now = ask_again
    assert await websocket.receive_text() == "first"


async def test_leaving_before_accept() -> None:
    connection = Connection()
    connection.messages = iter([disconnect(code=1006)])
    with pytest.raises(WebSocketDisconnect):
        await connection.websocket.accept()


# Sending and closing


async def test_the_servers_oserror() -> None:
    connection = await accepted()
    connection.refuses = ConnectionResetError("gone")
    with pytest.raises(WebSocketDisconnect) as caught:
        await connection.websocket.send_text("hello")
    assert caught.value.code == 1006
    assert caught.value.__cause__ is connection.refuses
    assert connection.websocket.client_state is WebSocketState.DISCONNECTED


async def test_sending_after_the_end() -> None:
    connection = await accepted(disconnect(code=1000))
    async for _ in connection.websocket.iter_text():
        pass
    with pytest.raises(WebSocketClosed):
        await connection.websocket.send_text("hello?")
    assert len(connection.sent) == 1


async def test_closing_after_the_end() -> None:
    connection = await accepted(disconnect(code=1000))
    async for _ in connection.websocket.iter_text():
        pass
    await connection.websocket.close()
    assert len(connection.sent) == 1


async def test_wrong_payloads() -> None:
    connection = await accepted()
    wrong: Any = 3
    with pytest.raises(TypeError):
        await connection.websocket.send_text(wrong)
    with pytest.raises(TypeError):
        await connection.websocket.send_bytes(wrong)
    with pytest.raises(ValueError, match="surrogate"):
        await connection.websocket.send_text("\ud800")
    assert len(connection.sent) == 1


async def test_bytes_like_objects() -> None:
    connection = await accepted()
    await connection.websocket.send_bytes(memoryview(b"ab"))
    assert connection.sent[-1] == {"type": "websocket.send", "bytes": b"ab"}


@pytest.mark.parametrize(("code", "reason"), [(1005, None), (1006, None), (500, None), (1000, "é" * 62)])
async def test_close_arguments(code: int, reason: str | None) -> None:
    connection = await accepted()
    with pytest.raises(ValueError, match="a close"):
        await connection.websocket.close(code, reason)
    with pytest.raises(ValueError, match="a close"):
        WebSocketClose(code, reason)
    await connection.websocket.close()
    assert connection.sent[-1]["code"] == 1000


async def test_a_message_that_the_server_refuses() -> None:
    connection = await accepted()
    connection.refuses = RuntimeError("not now")
    with pytest.raises(RuntimeError, match="not now"):
        await connection.websocket.close()
    connection.refuses = None
    await connection.websocket.close()
    assert connection.sent[-1]["type"] == "websocket.close"


async def test_cleanups_run_at_the_clients_end() -> None:
    connection = await accepted(disconnect(code=1000))
    done: list[str] = []

    def fail() -> None:
        raise LookupError("the first one fails")

    connection.websocket.add_cleanup(fail)
    connection.websocket.add_cleanup(lambda: done.append("second"))
    with pytest.raises(LookupError):
        await connection.websocket.receive_text()
    assert done == ["second"]


async def test_several_objects_over_one_connection() -> None:
    connection = Connection(path_params={})
    receive = connection.receive
    handlers, dependencies = (WebSocket(connection.scope, receive, connection.send) for _ in range(2))
    done: list[str] = []
    dependencies.add_cleanup(lambda: done.append("cleanup"))
    await handlers.accept()
    await dependencies.send_text("hello")
    await handlers.close()
    assert done == ["cleanup"]
    with pytest.raises(WebSocketClosed):
        await dependencies.send_text("still there?")


async def test_json_is_the_standard_librarys() -> None:
    class Money(WebSocket):
        dumps = staticmethod(lambda data: f'"{data}"')

    connection = await accepted()
    with pytest.raises(TypeError):
        await connection.websocket.send_json(Decimal(1))
    websocket = Money(connection.scope, Connection().receive, connection.send)
    await websocket.accept()
    await websocket.send_json(Decimal(1))
    assert connection.sent[-1] == {"type": "websocket.send", "text": '"1"'}


# Accepting and denying


async def test_a_denial_response() -> None:
    async def teapot(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 418})
        await send({"type": "http.response.body"})

    connection = Connection(extensions={"websocket.http.response": {}})
    await connection.websocket.send_denial_response(teapot)
    assert [message["type"] for message in connection.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert WebSocketState(3).name == "RESPONSE"


async def test_a_subprotocol_that_was_not_offered() -> None:
    connection = Connection(subprotocols=["chat"])
    with pytest.raises(ValueError, match="offered"):
        await connection.websocket.accept("news")
    await connection.websocket.accept("chat")


async def test_headers_of_accept() -> None:
    connection = Connection()
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        await connection.websocket.accept(headers={"X-Served-By": "blue\r\nx: y"})
    await connection.websocket.accept(headers={"X-Served-By": "blue"})
    assert connection.sent[-1]["headers"] == [(b"x-served-by", b"blue")]


# The scope


async def test_the_url_is_a_string() -> None:
    url = Connection(headers=[(b"host", b"example.org")], path="/chat").websocket.url
    assert isinstance(url, str)
    assert url == "ws://example.org/chat"
    assert hash(url) == hash("ws://example.org/chat")
    assert url.replace(scheme="wss") == "wss://example.org/chat"


async def test_a_host_that_is_none() -> None:
    url = Connection(
        headers=[(b"host", b"example.org/?")], path="/chat", server=("10.0.0.1", 80)
    ).websocket.url
    assert url == "ws://10.0.0.1/chat"


async def test_the_path_is_quoted() -> None:
    url = Connection(path="/a b?c", server=("10.0.0.1", 80)).websocket.url
    assert (url.path, url.query) == ("/a%20b%3Fc", "")


async def test_headers_of_any_bytes() -> None:
    connection = Connection(headers=[(b"x-name", b"\xe9\xff")])
    assert connection.websocket.headers["X-Name"] == "\xe9\xff"
    assert list(connection.websocket.headers) == ["x-name"]
    assert connection.scope["headers"] == [(b"x-name", b"\xe9\xff")]
    assert type(connection.scope["headers"]) is list


async def test_headers_are_read_only() -> None:
    headers: Any = Connection(headers=[(b"x-name", b"1")]).websocket.headers
    with pytest.raises(TypeError):
        headers["x-name"] = "2"
    assert not hasattr(type(headers), "add")


async def test_names_that_are_not_here() -> None:
    entry = next(entry for entry in entries(PAGE.read_text(encoding="utf-8")) if "not here" in entry)
    names = set(re.findall(r"`(\w+)`", entry))
    assert len(names) == 14
    owners = (lilya.websockets, WebSocket, URL, Header, QueryParam)
    # a WebSocket and a URL each have a `base_url` upstream, and only the WebSocket's is here
    assert {name for name in names if any(hasattr(owner, name) for owner in owners)} == {"base_url"}
    assert not hasattr(URL, "base_url")


async def test_query_strings_of_any_bytes() -> None:
    assert Connection(query_string=b"q=\xff").websocket.query_params["q"] == "\ufffd"


async def test_the_order_of_pairs() -> None:
    params = Connection(query_string=b"d=1&c=2&b=3&a=4&d=5").websocket.query_params
    assert list(params.multi_items()) == [("d", "1"), ("c", "2"), ("b", "3"), ("a", "4"), ("d", "5")]
    assert str(params) == "d=1&c=2&b=3&a=4&d=5"


async def test_a_scope_with_little_in_it() -> None:
    websocket = Connection().websocket
    assert dict(websocket.query_params) == {}
    assert (websocket.client, websocket.server, websocket.path_params) == (None, None, {})


async def test_a_scope_of_another_type() -> None:
    connection = Connection()
    with pytest.raises(ValueError, match='"websocket"'):
        WebSocket({"type": "lifespan"}, connection.receive, connection.send)


async def test_a_middleware_that_is_missing() -> None:
    with pytest.raises(WebSocketRuntimeError, match="AuthenticationMiddleware"):
        _ = Connection().websocket.user


# The given page


async def test_receive_json_takes_no_data() -> None:
    assert list(inspect.signature(WebSocket.receive_json).parameters) == ["self", "mode", "timeout"]


async def test_the_modes_of_json() -> None:
    for method in (WebSocket.send_json, WebSocket.receive_json, WebSocket.iter_json):
        assert inspect.signature(method).parameters["mode"].default == "text"


async def test_a_denial_response_accepts_nothing() -> None:
    await test_a_denial_response()


async def test_closing_before_accept() -> None:
    connection = Connection()
    await connection.websocket.close()
    assert connection.sent == [{"type": "websocket.close", "code": 1000, "reason": ""}]
    assert connection.asked == 0
