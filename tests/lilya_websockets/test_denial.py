"""`send_denial_response`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)

from lilya.websockets import (
    WebSocketClosed,
    WebSocketDisconnect,
    WebSocketRuntimeError,
    WebSocketState,
)

from .server import DENIAL, ClientDisconnected, Server, connect, disconnect, opened, steps

pytestmark = pytest.mark.anyio

CONNECTING, CONNECTED, DISCONNECTED, RESPONSE = WebSocketState

START, BODY = f"{DENIAL}.start", f"{DENIAL}.body"


class LilyaLike:
    """A response as Lilya makes them: the prefix depends on the type of the scope."""

    def __init__(self, body: bytes, status_code: int) -> None:
        self.body = body
        self.status_code = status_code

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        prefix = "websocket." if scope["type"] == "websocket" else ""
        await send(
            {
                "type": prefix + "http.response.start",
                "status": self.status_code,
                "headers": [(b"content-length", b"%d" % len(self.body))],
            }
        )
        await send({"type": prefix + "http.response.body", "body": self.body})


async def chunks() -> AsyncIterator[bytes]:
    for chunk in (b"a", b"b", b"c"):
        yield chunk


def bare(*messages: dict[str, Any], prefix: str = "") -> Any:
    async def response(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send({**message, "type": prefix + message["type"]})

    return response


def start(**fields: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 401, **fields}


def body(payload: bytes = b"", **fields: Any) -> dict[str, Any]:
    return {"type": "http.response.body", "body": payload, **fields}


@pytest.mark.contract("denial-any-response", "denial-complete-messages", "denial-ends-with-body")
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
@pytest.mark.parametrize(
    ("response", "status", "content"),
    [
        (lambda: Response("no", 401), 401, b"no"),
        (lambda: PlainTextResponse("nö", 403), 403, "nö".encode()),
        (lambda: JSONResponse({"detail": "no"}, 422), 422, b'{"detail":"no"}'),
        (lambda: HTMLResponse("<p>", 599, headers={"X-A": "b"}), 599, b"<p>"),
        (lambda: RedirectResponse("/login"), 307, b""),
        (lambda: Response(status_code=200), 200, b""),
        (lambda: StreamingResponse(chunks(), 503), 503, b"abc"),
        (lambda: FileResponse(Path(__file__), 404), 404, Path(__file__).read_bytes()),
        (lambda: LilyaLike(b"no", 401), 401, b"no"),
        (lambda: bare(start(), body(b"no")), 401, b"no"),
        (lambda: bare(start(), body(b"no"), prefix="websocket."), 401, b"no"),
        (lambda: bare(start(headers=None), {"type": "http.response.body"}), 401, b""),
        (lambda: bare(start(), body(b"a", more_body=True), body(b"b", more_body=False)), 401, b"ab"),
        (lambda: bare(start(), body(bytearray(b"a"))), 401, b"a"),  # type: ignore[arg-type]
        (lambda: bare(start(headers=[("X-A", "b")]), body(None)), 401, b""),  # type: ignore[arg-type]
        # These never end their body themselves.
        (lambda: bare(start()), 401, b""),
        (lambda: bare(start(), body(b"a", more_body=True)), 401, b"a"),
        (lambda: bare(start(), body(b"a", more_body=True), prefix="websocket."), 401, b"a"),
    ],
    ids=[
        *("Response", "PlainText", "JSON", "HTML", "Redirect", "empty", "Streaming", "File", "Lilya"),
        *("bare", "bare prefixed", "bare None", "bare chunks", "bare bytearray", "bare headers"),
        *("no body", "endless", "endless prefixed"),
    ],
)
async def test_a_response(response: Any, status: int, content: bytes, spec_version: str) -> None:
    server = Server(asgi={"version": "3.0", "spec_version": spec_version})
    websocket = server.websocket()
    await websocket.send_denial_response(response())
    first, *rest = server.sent
    assert (first["type"], first["status"]) == (START, status)
    assert [message["type"] for message in rest] == [BODY] * len(rest)
    assert b"".join(message["body"] for message in rest) == content
    assert [message["more_body"] for message in rest] == [True] * (len(rest) - 1) + [False]
    assert websocket.client_state is websocket.application_state is DISCONNECTED
    assert server.state == "closed"


@pytest.mark.contract("denial-nothing-after", "receive-after-disconnect")
async def test_nothing_is_sent_or_awaited_afterwards() -> None:
    server = Server()
    websocket = server.websocket()
    await websocket.send_denial_response(Response("no", 401))
    sent, asked = len(server.sent), server.receives
    for call in (websocket.receive, websocket.receive_text, websocket.accept, websocket.close):
        with pytest.raises(WebSocketClosed, match="the app answered with an HTTP response"):
            await call()
    with pytest.raises(WebSocketClosed):
        await websocket.send_text("a")
    with pytest.raises(WebSocketClosed, match="cannot deny any longer"):
        await websocket.send_denial_response(Response())
    assert [message async for message in websocket.iter_text()] == []
    assert (len(server.sent), server.receives) == (sent, asked)
    assert (websocket.close_code, websocket.close_reason) == (None, None)


@pytest.mark.contract("denial-needs-extension")
@pytest.mark.parametrize("extensions", [..., None, {}, {"websocket.other": {}}])
async def test_without_the_extension(extensions: Any) -> None:
    server = Server(extensions=extensions)
    websocket = server.websocket()
    with pytest.raises(RuntimeError, match=r"does not offer the extension .* close\(\) before accept\(\)"):
        await websocket.send_denial_response(Response("no", 401))
    with pytest.raises(WebSocketRuntimeError):
        await websocket.send({"type": START, "status": 401})
    assert server.sends == server.receives == 0
    await websocket.close()
    assert server.types == ["websocket.close"]


@pytest.mark.contract("denial-after-accept")
async def test_after_accept() -> None:
    websocket, server = opened()
    with pytest.raises(WebSocketRuntimeError, match="already accepted"):
        await websocket.send_denial_response(Response("no", 401))
    assert server.sent == []
    await websocket.send_text("still open")


@pytest.mark.contract("denial-status", "exceptions-wrong-arguments")
@pytest.mark.parametrize(
    ("message", "error"),
    [
        (start(status=101), ValueError),
        (start(status=199), ValueError),
        (start(status=600), ValueError),
        (start(status=True), ValueError),
        (start(status="401"), TypeError),
        (start(status=None), TypeError),
        (start(headers=[("a", "\r\n")]), ValueError),
        (start(headers=[("a b", "")]), ValueError),
        (start(headers=5), TypeError),
    ],
)
async def test_a_start_that_must_not_be_sent(message: dict[str, Any], error: type[Exception]) -> None:
    server = Server()
    websocket = server.websocket()
    with pytest.raises(error):
        await websocket.send_denial_response(bare(message, body()))
    assert server.sent == []
    assert websocket.application_state is CONNECTING
    await websocket.send_denial_response(Response("no", 401))
    assert server.types == [START, BODY]


@pytest.mark.contract("denial-ends-with-body", "exceptions-wrong-arguments")
async def test_a_body_that_is_none() -> None:
    server = Server()
    with pytest.raises(TypeError, match="bytes-like"):
        await server.websocket().send_denial_response(bare(start(), body("text")))  # type: ignore[arg-type]
    assert server.types == [START, BODY]


@pytest.mark.contract("denial-ends-with-body")
@pytest.mark.parametrize(
    "sent_before", [[], [start()], [start(), body(b"a", more_body=True)], [start(), body()]]
)
async def test_a_response_that_raises(sent_before: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    websocket = server.websocket()

    async def response(scope: Any, receive: Any, send: Any) -> None:
        await bare(*sent_before)(scope, receive, send)
        raise LookupError("midway")

    with pytest.raises(LookupError, match="midway"):
        await websocket.send_denial_response(response)
    if sent_before:
        assert (server.types[0], server.types[-1]) == (START, BODY)
        assert server.sent[-1]["more_body"] is False
        assert websocket.application_state is DISCONNECTED
    else:
        assert websocket.application_state is CONNECTING
        await websocket.close()
    assert caplog.records == []


@pytest.mark.contract("denial-ends-with-body")
async def test_a_response_that_never_starts() -> None:
    server = Server()
    websocket = server.websocket()
    with pytest.raises(WebSocketRuntimeError, match=r"without a response: it sent no http\.response\.start"):
        await websocket.send_denial_response(bare())
    assert websocket.application_state is CONNECTING
    await websocket.accept()


@pytest.mark.parametrize("message", [body(b"early"), {"type": "websocket.send", "text": "a"}])
async def test_a_response_out_of_turn(message: dict[str, Any]) -> None:
    server = Server()
    with pytest.raises(WebSocketRuntimeError, match="state CONNECTING"):
        await server.websocket().send_denial_response(bare(message))
    assert server.sent == []


async def test_a_response_that_goes_on_after_its_end() -> None:
    server = Server()
    with pytest.raises(WebSocketClosed):
        await server.websocket().send_denial_response(bare(start(), body(), body(b"more")))
    assert server.types == [START, BODY]


async def test_a_response_that_starts_twice() -> None:
    server = Server()
    with pytest.raises(WebSocketRuntimeError, match="state RESPONSE"):
        await server.websocket().send_denial_response(bare(start(), start()))
    assert server.types == [START, BODY]


@pytest.mark.contract("send-oserror")
@pytest.mark.parametrize("nth", [0, 1, 2])
async def test_the_client_is_gone_while_the_response_is_sent(
    nth: int, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    websocket = server.websocket()
    cause = ClientDisconnected()
    server.faults[nth] = cause
    ran: list[str] = []
    websocket.add_cleanup(lambda: ran.append("a"))
    with pytest.raises(WebSocketDisconnect) as caught:
        await websocket.send_denial_response(bare(start(), body(b"a", more_body=True), body(b"b")))
    assert type(caught.value) is WebSocketDisconnect
    assert (caught.value.code, caught.value.__cause__) == (1006, cause)
    assert (websocket.close_code, ran) == (1006, ["a"])
    assert len(server.sent) == nth
    assert caplog.records == []


@pytest.mark.parametrize("raises", [False, True])
async def test_the_client_leaves_midway(raises: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A response that notices, by its `receive`, and gives up: a plain disconnect, and no noise."""
    server = Server(disconnect(1001))
    websocket = server.websocket()

    async def response(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        assert (await receive())["type"] == "http.request"
        assert (await receive()) == {"type": "http.disconnect"}
        assert (await receive()) == {"type": "http.disconnect"}
        if raises:
            raise LookupError("gone")

    with pytest.raises(LookupError if raises else WebSocketDisconnect) as caught:
        await websocket.send_denial_response(response)
    if not raises:
        assert type(caught.value) is WebSocketDisconnect
        assert getattr(caught.value, "code", None) == 1001
    assert server.types == [START]
    assert caplog.records == []


async def test_a_stream_of_starlette_whose_client_leaves() -> None:
    server = Server(asgi={"version": "3.0", "spec_version": "2.3"})
    websocket = server.websocket()

    async def endless() -> AsyncIterator[bytes]:
        yield b"a"
        server.push(disconnect(1001))
        await anyio.sleep_forever()

    with pytest.raises(WebSocketDisconnect) as caught:
        await websocket.send_denial_response(StreamingResponse(endless(), 503))
    assert (type(caught.value), caught.value.code) == (WebSocketDisconnect, 1001)
    assert server.types == [START, BODY]


async def test_the_client_leaves_before_the_response() -> None:
    server = Server(disconnect(1001), connecting=False)
    websocket = server.websocket()

    async def response(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        assert await receive() == {"type": "http.disconnect"}

    with pytest.raises(WebSocketDisconnect) as caught:
        await websocket.send_denial_response(response)
    assert caught.value.code == 1001
    assert server.sent == []


async def test_the_scope_of_the_response() -> None:
    server = Server(path="/chat", headers=[(b"a", b"b")])
    seen: dict[str, Any] = {}

    async def response(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        scope["changed"] = True
        await send(start())

    before = dict(server.scope)
    await server.websocket().send_denial_response(response)
    changed = {"type": "http", "method": "GET", "extensions": {}}
    assert seen == before | changed
    assert server.scope == before


@pytest.mark.contract("accept-refused-by-server")
async def test_a_response_that_the_server_refuses() -> None:
    server = Server()
    websocket = server.websocket()
    server.fail(RuntimeError("no"))
    with pytest.raises(RuntimeError, match="no"):
        await websocket.send_denial_response(Response("no", 401))
    assert websocket.application_state is CONNECTING
    await websocket.close()
    assert server.types == ["websocket.close"]


async def test_a_body_that_the_server_refuses_twice(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    server = Server()
    websocket = server.websocket()
    server.faults = {1: RuntimeError("first"), 2: RuntimeError("second")}
    with pytest.raises(RuntimeError, match="first"):
        await websocket.send_denial_response(bare(start(), body(b"a")))
    (record,) = caplog.records
    assert record.getMessage() == "the denial response failed, and could not be ended either"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "second"
    assert websocket.application_state is RESPONSE
    assert websocket.close_code is None


async def test_cancelling_a_response() -> None:
    server = Server()
    websocket = server.websocket()
    server.held.add(START)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(websocket.send_denial_response, Response("no", 401))
        await server.holding.wait()
        tasks.cancel_scope.cancel()
    assert websocket.application_state is RESPONSE
    server.release()
    await websocket.send(body(b"the rest"))
    assert websocket.application_state is DISCONNECTED


def test_after_a_received_connect() -> None:
    server = Server()
    websocket = server.websocket()
    assert steps(websocket.receive()) == connect()
    steps(websocket.send_denial_response(bare(start(), body())))
    assert server.types == [START, BODY]


# `deny`


@pytest.mark.contract("deny", "denial-complete-messages")
@pytest.mark.parametrize(
    ("arguments", "status", "headers", "body"),
    [
        ((), 403, [(b"content-length", b"0")], b""),
        (
            (401, "é"),
            401,
            [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"2")],
            "é".encode(),
        ),
        ((429, b"\0", {"Retry-After": "1"}), 429, [(b"retry-after", b"1"), (b"content-length", b"1")], b"\0"),
        (
            (401, "<p>", {"Content-Type": "text/html", "Content-Length": "3"}),
            401,
            [(b"content-type", b"text/html"), (b"content-length", b"3")],
            b"<p>",
        ),
        (
            (302, bytearray(b""), [("location", "/")]),
            302,
            [(b"location", b"/"), (b"content-length", b"0")],
            b"",
        ),
    ],
)
async def test_denying(arguments: Any, status: int, headers: Any, body: bytes) -> None:
    server = Server()
    websocket = server.websocket()
    await websocket.deny(*arguments)
    assert server.sent == [
        {"type": f"{DENIAL}.start", "status": status, "headers": headers},
        {"type": f"{DENIAL}.body", "body": body, "more_body": False},
    ]
    assert server.receives == 0
    assert websocket.closed_by == "server"
    with pytest.raises(WebSocketClosed):
        await websocket.deny()
    with pytest.raises(WebSocketClosed):
        await websocket.accept()


@pytest.mark.contract("deny")
@pytest.mark.parametrize("extensions", [{}, None, ...])
async def test_denying_where_the_server_cannot(extensions: Any) -> None:
    server = Server(extensions=extensions)
    websocket = server.websocket()
    await websocket.deny(401, "Sign in first.")
    assert server.sent == [{"type": "websocket.close", "code": 1000, "reason": ""}]
    with pytest.raises(WebSocketClosed):
        await websocket.deny()


@pytest.mark.contract("deny")
@pytest.mark.parametrize("extensions", [{}, {DENIAL: {}}])
async def test_denying_what_is_accepted(extensions: Any) -> None:
    server = Server(extensions=extensions)
    websocket = await server.accepted()
    with pytest.raises(WebSocketRuntimeError, match="already accepted"):
        await websocket.deny()
    assert server.sent == []
    async with websocket:
        with pytest.raises(WebSocketRuntimeError, match="already accepted"):
            await websocket.deny()


@pytest.mark.contract("deny")
async def test_denying_in_the_middle_of_a_response() -> None:
    server = Server()
    websocket = server.websocket()
    await websocket.send({"type": "http.response.start", "status": 401})
    with pytest.raises(WebSocketRuntimeError):
        await websocket.deny()
    await websocket.send({"type": "http.response.body"})


@pytest.mark.contract("deny")
@pytest.mark.parametrize("when", ["known", "start", "body"])
async def test_denying_a_client_that_has_left(when: str) -> None:
    """The goal is reached, as for `close`."""
    server = Server(disconnect(1001), connecting=when != "known")
    websocket = server.websocket()
    if when == "known":
        await websocket.receive()
    else:
        server.fail(ClientDisconnected(), after=0 if when == "start" else 1)
    await websocket.deny(401, "a")
    assert websocket.client_state is websocket.application_state is DISCONNECTED
    assert len(server.sent) == (when == "body")


@pytest.mark.contract("deny", "exceptions-wrong-arguments")
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((199,), ValueError),
        ((600,), ValueError),
        (("401",), TypeError),
        ((401, 5), TypeError),
        ((401, None), TypeError),
        ((401, "\ud800"), ValueError),
        ((401, "", {"a b": "c"}), ValueError),
        ((401, "", {"a": "\n"}), ValueError),
        ((401, "", 5), TypeError),
    ],
)
@pytest.mark.parametrize("extensions", [{}, {DENIAL: {}}])
async def test_what_nobody_can_be_denied_with(
    arguments: Any, error: type[Exception], extensions: Any
) -> None:
    server = Server(extensions=extensions)
    websocket = server.websocket()
    with pytest.raises(error):
        await websocket.deny(*arguments)
    assert server.sends == 0
    await websocket.accept()
