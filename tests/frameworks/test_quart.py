"""Quart with `lilya.websockets.quart`: ours is between the server and Quart, whose own object goes on."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("quart", reason="they have an environment of their own: nox -s tests")

from quart import Quart, g, make_response, session
from quart import websocket as theirs
from quart.signals import websocket_received, websocket_sent
from werkzeug.wrappers import Response as WerkzeugResponse

from lilya.websockets.quart import WebSocket, WebSocketDataError, WebSocketDisconnect, init_app, websocket
from lilya.websockets.testing import TestClient, WebSocketDenialResponse


@pytest.fixture
def app() -> Quart:
    app = Quart(__name__)
    init_app(app)
    return app


def test_ours_and_theirs_are_one(app: Quart) -> None:
    signals: list[Any] = []

    async def noted(payload: Any) -> None:
        signals.append(payload)

    @app.websocket("/<room>")
    async def handler(room: str) -> None:
        await theirs.accept({"x-room": room}, theirs.requested_subprotocols[0])
        await theirs.accept()  # once more is nothing
        assert websocket.accepted_subprotocol == "chat"
        await websocket.send_text(str(await theirs.receive()))
        await theirs.send(await theirs.receive())
        with pytest.raises(WebSocketDataError):
            await websocket.receive_text()
        await theirs.close(4002, "bye")
        assert (websocket.close_code, websocket.close_reason) == (4002, "bye")

    with (
        websocket_received.connected_to(noted),
        websocket_sent.connected_to(noted),
        TestClient(app).websocket_connect("/blue", ["chat"]) as client,
    ):
        assert (client.subprotocol, client.headers["x-room"]) == ("chat", "blue")
        for payload in ("a", b"b", b"c"):
            client.send_text(payload) if isinstance(payload, str) else client.send_bytes(payload)
        assert client.receive_text() == "a"
        assert client.receive_bytes() == b"b"
        assert client.receive() == {"type": "websocket.close", "code": 4002, "reason": "bye"}
    assert signals == ["a", b"b", b"b"]


def test_theirs_accepts_by_itself(app: Quart) -> None:
    @app.websocket("/")
    async def handler() -> None:
        while True:
            await theirs.send(f"You said: {await theirs.receive()!s}")

    with TestClient(app).websocket_connect("/") as client:
        client.send_text("hello")
        assert client.receive_text() == "You said: hello"


def test_the_context(app: Quart) -> None:
    app.secret_key = "s"

    @app.before_websocket
    async def before() -> None:
        g.user = websocket.query_params["user"]

    @app.websocket("/")
    async def handler() -> None:
        async with websocket:
            await websocket.send_json([g.user, dict(session), theirs.args["user"]])

    with TestClient(app).websocket_connect("/?user=ann") as client:
        assert client.receive_json() == ["ann", {}, "ann"]


def test_outside_of_a_connection_there_is_none() -> None:
    with pytest.raises(RuntimeError, match="there is no WebSocket here"):
        websocket.close_code  # noqa: B018


def test_a_client_that_leaves_an_unguarded_handler_is_no_error(
    app: Quart, caplog: pytest.LogCaptureFixture
) -> None:
    @app.websocket("/")
    async def handler() -> None:
        await websocket.accept()
        await websocket.receive_text()

    with TestClient(app).websocket_connect("/") as client:
        client.close(4001)
    assert caplog.records == []


@pytest.mark.parametrize("kind", ["quart", "werkzeug"])
def test_a_response_instead(app: Quart, kind: str) -> None:
    @app.websocket("/")
    async def handler() -> Any:
        if kind == "werkzeug":
            return WerkzeugResponse("no", 418, {"x-why": "tea"})
        return await make_response("no", 418, {"x-why": "tea"})

    with pytest.raises(WebSocketDenialResponse) as refused:
        TestClient(app).websocket_connect("/").__enter__()
    assert (refused.value.status_code, refused.value.text) == (418, "no")
    assert refused.value.headers["x-why"] == "tea"


@pytest.mark.parametrize(("fails", "code"), [(True, 1011), (False, 1000)])
def test_the_end_of_a_handler_by_hand(app: Quart, fails: bool, code: int) -> None:
    @app.websocket("/")
    async def handler() -> None:
        await websocket.accept()
        if fails:
            raise ValueError

    with TestClient(app).websocket_connect("/") as client:
        assert client.receive()["code"] == code


def test_a_handler_that_neither_accepts_nor_answers(app: Quart) -> None:
    @app.websocket("/")
    async def handler() -> None:
        pass

    with pytest.raises(RuntimeError, match="returned without accepting"):
        TestClient(app).websocket_connect("/").__enter__()


def test_handed_on_to_another_task_it_is_the_object(app: Quart) -> None:
    kept: list[WebSocket] = []

    @app.websocket("/")
    async def handler() -> None:
        kept.append(WebSocket.wrap(websocket))
        async with websocket:
            pass

    with TestClient(app).websocket_connect("/"):
        pass
    assert type(kept[0]) is WebSocket
    assert kept[0].close_code == 1000


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_quarts_test_client(app: Quart) -> None:
    seen: list[int] = []

    @app.websocket("/")
    async def handler() -> None:
        await websocket.accept()
        await websocket.send_text((await websocket.receive_text()).upper())
        try:
            await websocket.receive_text()
        except WebSocketDisconnect as left:
            seen.append(left.code)

    async with app.test_client().websocket("/") as client:
        await client.send("a")
        assert await client.receive() == "A"
    assert seen == [1005]


def test_theirs_is_refused_by_wrap(app: Quart) -> None:
    @app.websocket("/")
    async def handler() -> None:
        with pytest.raises(
            TypeError, match=r"quart\.wrappers\.websocket\.Websocket take and return payloads"
        ):
            WebSocket.wrap(theirs)
        async with websocket:
            pass

    with TestClient(app).websocket_connect("/"):
        pass
