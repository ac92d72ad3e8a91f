"""Tokens: each place a client can put one, what is not read, and that no token is shown."""

from __future__ import annotations

import hmac
import logging
import traceback
from typing import Any

import anyio
import pytest
from websockets.asyncio.client import connect as client
from websockets.exceptions import InvalidStatus

from lilya.websockets import Header, WebSocket, WebSocketDisconnect, WebSocketRuntimeError
from lilya.websockets.testing import connect
from lilya.websockets.tokens import bearer_token, first_message_token, token_matches

from .test_uvicorn import serving

pytestmark = pytest.mark.anyio

OURS = "lilya.websockets.uvicorn:WebSocketProtocol"
EVERY = {"subprotocol": "bearer", "query": "ticket", "cookie": "session"}


def scope_of(
    authorization: list[str] | None = None,
    *,
    subprotocols: list[str] | None = None,
    query: bytes = b"",
    cookies: list[str] | None = None,
) -> dict[str, Any]:
    headers = [(b"Authorization", value.encode("latin-1")) for value in authorization or []]
    headers += [(b"cookie", value.encode("latin-1")) for value in cookies or []]
    scope: dict[str, Any] = {"type": "websocket", "path": "/", "headers": headers, "query_string": query}
    return scope if subprotocols is None else {**scope, "subprotocols": subprotocols}


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("BEARER   a.b-c_d~e+f/g==", "a.b-c_d~e+f/g=="),
        (" Bearer abc ", "abc"),
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearer  =", None),
        ("Bearerabc", None),
        ("Bearer\tabc", None),
        ("Bearer a b", None),
        ("Bearer a, Bearer b", None),
        ("Bearer a=b", None),
        ("Bearer \xe4", None),
        ("\tBearer abc\t", "abc"),
        ("Bearer abc\n", None),
        ("Bearer a\nb", None),
        ('Bearer "abc"', None),
        ("Basic YTpi", None),
        ("Token abc", None),
        ("abc", None),
        ("", None),
    ],
)
def test_the_header(value: str, token: str | None) -> None:
    assert bearer_token(scope_of([value])) == token


@pytest.mark.parametrize(
    ("scope", "token"),
    [
        (scope_of(["Bearer a", "Bearer a"]), None),
        (scope_of(), None),
        (scope_of(subprotocols=["bearer", "abc"]), "abc"),
        (scope_of(subprotocols=["chat", "bearer", "a.b.c"]), "a.b.c"),
        (scope_of(subprotocols=["bearer", "abc", "chat"]), "abc"),
        (scope_of(subprotocols=["bearer"]), None),
        (scope_of(subprotocols=["abc"]), None),
        (scope_of(subprotocols=["Bearer", "abc"]), None),
        (scope_of(subprotocols=["bearer", "a", "bearer", "b"]), None),
        (scope_of(subprotocols=["bearer", ""]), None),
        (scope_of(query=b"ticket=abc"), "abc"),
        (scope_of(query=b"a=b&ticket=a%2Fb"), "a/b"),
        (scope_of(query=b"ticket="), None),
        (scope_of(query=b"ticket=a&ticket=a"), None),
        (scope_of(query=b"Ticket=a"), None),
        (scope_of(query=b"ticket=%ff"), "\ufffd"),
        (scope_of(cookies=["session=abc"]), "abc"),
        (scope_of(cookies=["a=b; session=abc; c=d"]), "abc"),
        (scope_of(cookies=["a=b", "session=abc"]), "abc"),
        (scope_of(cookies=['session="abc"']), "abc"),
        (scope_of(cookies=["session="]), None),
        (scope_of(cookies=["session=abc; session=def"]), None),
        (scope_of(cookies=["session=abc", " session =abc"]), None),
        (scope_of(cookies=["xsession=abc", "session"]), None),
        (scope_of(["Bearer a"], subprotocols=["bearer", "b"], query=b"ticket=c", cookies=["session=d"]), "a"),
        (scope_of(["Basic a"], subprotocols=["bearer", "b"], query=b"ticket=c", cookies=["session=d"]), "b"),
        (scope_of(subprotocols=["chat"], query=b"ticket=c", cookies=["session=d"]), "c"),
    ],
)
def test_the_other_places_are_read_if_they_are_named(scope: dict[str, Any], token: str | None) -> None:
    assert bearer_token(scope, **EVERY) == token
    assert bearer_token(scope) == (token if token == "a" else None)
    for name in EVERY:
        others = {key: value for key, value in EVERY.items() if key != name}
        if bearer_token(scope, **others) != token:
            assert bearer_token(scope, **{name: EVERY[name]}) == token


def test_anything_that_has_a_scope() -> None:
    class Request:
        scope = scope_of(["Bearer abc"])

    assert bearer_token(Request()) == "abc"
    assert bearer_token(WebSocket(scope_of(["Bearer abc"]), None, None)) == "abc"  # type: ignore[arg-type]
    assert bearer_token({"type": "http", "headers": iter([(b"AUTHORIZATION", b"Bearer abc")])}) == "abc"
    assert bearer_token({"type": "http"}, **EVERY) is None


def test_headers_that_can_be_read_once_are_kept() -> None:
    scope = scope_of(["Bearer abc"])
    pairs = scope["headers"]
    scope["headers"] = iter(pairs)
    assert bearer_token(scope) == "abc"
    assert scope["headers"] == pairs


# The first message


async def first(within: float, *messages: Any) -> Any:
    """What the app got, with a client that sends these and then waits."""
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        got.append(await first_message_token(websocket, within))
        got.append(await websocket.receive_text() if len(messages) > 1 else None)
        await websocket.close()

    async with connect(app, "/") as session:
        for message in messages:
            await (session.send_text(message) if isinstance(message, str) else session.send_bytes(message))
        with pytest.raises(WebSocketDisconnect):
            await session.receive_text()
    return got


async def test_the_first_message() -> None:
    assert await first(5.0, "abc", "next") == ["abc", "next"]
    assert await first(5.0, "") == [None, None]
    assert await first(5.0, b"abc", "next") == [None, "next"]
    assert await first(5.0, "x" * 8192) == ["x" * 8192, None]
    assert await first(5.0, "x" * 8193) == [None, None]


async def test_no_first_message() -> None:
    assert await first(0.0) == [None, None]


async def test_a_client_that_leaves_instead() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        with pytest.raises(WebSocketDisconnect):
            await first_message_token(websocket)

    async with connect(app, "/") as session:
        await session.close()


async def test_before_accept() -> None:
    with pytest.raises(WebSocketRuntimeError):
        await first_message_token(WebSocket(scope_of(), None, None))  # type: ignore[arg-type]


async def test_cancelling_loses_no_message() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        with anyio.move_on_after(0):
            await first_message_token(websocket)
        await websocket.send_text("ready")
        await websocket.send_text(str(await first_message_token(websocket)))

    async with connect(app, "/") as session:
        assert await session.receive_text() == "ready"
        await session.send_text("abc")
        assert await session.receive_text() == "abc"


# Comparing


@pytest.mark.parametrize(
    ("token", "expected", "right"),
    [
        ("abc", ["abc"], True),
        ("abc", ["old", "abc"], True),
        ("abc", ["abc", "old"], True),
        ("abc", ["ab", "abcd", "ABC", "abd"], False),
        ("abc", [], False),
        (None, ["abc"], False),
        (None, ["None"], False),
        ("", ["abc"], False),
        ("ä", ["ä"], True),
        ("ä", ["a"], False),
        ("\udc80", ["\ufffd", "?"], False),
        ("\udc80", ["\udc80"], True),
    ],
)
def test_matching(token: str | None, expected: list[str], right: bool) -> None:
    assert token_matches(token, *expected) is right


def test_every_expected_token_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert token_matches("b", "a", "b", "c")
    assert compared == [(b"b", b"a"), (b"b", b"b"), (b"b", b"c")]


@pytest.mark.parametrize("token", ["abc", "", None])
def test_what_cannot_be_expected(token: str | None) -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        token_matches(token, "abc", "")
    with pytest.raises(TypeError, match="must be str, got bytes") as caught:
        token_matches(token, b"SECRET")  # type: ignore[arg-type]
    assert "SECRET" not in str(caught.value)
    with pytest.raises(TypeError, match="must be str, got NoneType"):
        token_matches(token, None)  # type: ignore[arg-type]


# Not shown


async def test_no_token_is_shown() -> None:
    """In what is raised, and in what a `repr` says. `SECRET` is in each place."""
    scope = scope_of(["Bearer SECRET"], subprotocols=["bearer", "SECRET"], cookies=["session=SECRET"])
    scope["query_string"] = b"ticket=SECRET"
    scope["headers"].append((b"sec-websocket-protocol", b"bearer, SECRET"))
    websocket = WebSocket(scope, None, None)  # type: ignore[arg-type]
    assert bearer_token(websocket, **EVERY) == "SECRET"
    shown = [repr(websocket), str(websocket), repr(websocket.headers), str(Header(scope["headers"]))]
    for wrong in ("chat", "x y"):
        try:
            await websocket.accept(wrong)
        except ValueError as error:
            shown += traceback.format_exception(error)
    shown = [line for line in shown if "SECRET" in line]
    assert shown == []


async def test_a_first_message_is_not_shown() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        assert await first_message_token(websocket) is None  # it was binary
        try:
            await websocket.accept()
        except WebSocketRuntimeError as error:
            await websocket.send_text("".join(traceback.format_exception(error)) + repr(websocket))

    async with connect(app, "/") as session:
        await session.send_bytes(b"SECRET")
        assert "SECRET" not in await session.receive_text()


# Over a server, with a client that holds the server to its subprotocols as browsers do


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # uvicorn's
@pytest.mark.parametrize("protocol", [OURS, "websockets-sansio", "wsproto"])
async def test_over_a_server(protocol: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        token = bearer_token(websocket, **EVERY)
        if not token_matches(token, "s3cret"):
            await websocket.deny(401, headers={"www-authenticate": "Bearer"})
            return
        await websocket.accept(websocket.select_subprotocol(["chat", "bearer"]))
        await websocket.send_text("welcome")
        await websocket.close()

    async with serving(app, ws=protocol) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        ways: list[tuple[str, dict[str, Any], str | None]] = [
            (url, {"additional_headers": {"Authorization": "Bearer s3cret"}}, None),
            (url, {"subprotocols": ["bearer", "s3cret"]}, "bearer"),
            (url, {"subprotocols": ["bearer", "s3cret", "chat"]}, "chat"),
            (url + "?ticket=s3cret", {}, None),
            (url, {"additional_headers": {"Cookie": "session=s3cret"}}, None),
        ]
        for where, options, subprotocol in ways:
            async with client(where, **options) as websocket:
                assert websocket.subprotocol == subprotocol
                assert await websocket.recv() == "welcome"
        for offered in (["other"], ["bearer", "other"]):
            with pytest.raises(InvalidStatus) as caught:
                async with client(url, subprotocols=offered):  # type: ignore[arg-type]
                    raise AssertionError("accepted")
            assert caught.value.response.status_code == 401
            assert caught.value.response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # uvicorn's
@pytest.mark.parametrize(
    ("protocol", "shows_the_query", "complains"),
    [(OURS, False, False), ("websockets-sansio", True, True), ("wsproto", True, False)],
)
async def test_what_uvicorn_logs(
    protocol: str, shows_the_query: bool, complains: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """As the pages on access and on logs say, so that they are changed when uvicorn is."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await WebSocket(scope, receive, send).deny(401)

    caplog.set_level(logging.INFO, "uvicorn")
    caplog.set_level(logging.INFO, "uvicorn.error")
    async with serving(app, ws=protocol) as server:
        with pytest.raises(InvalidStatus):
            async with client(f"ws://127.0.0.1:{server.port}/orders?ticket=s3cret"):
                raise AssertionError("accepted")
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")]
    assert any("/orders" in line for line in logged)
    assert any("s3cret" in line for line in logged) == shows_the_query
    assert ("ASGI callable returned without completing handshake." in logged) == complains
