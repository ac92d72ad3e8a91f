"""What is known of single servers. The scopes are theirs, as they came (November 2026)."""

from __future__ import annotations

import asyncio
import sys
import types
import warnings
from typing import Any, Final

import pytest

from lilya.websockets import WebSocket, WebSocketDisconnect, _servers
from lilya.websockets.types import Send

from .server import Message, Server, disconnect, opened, steps

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

PATH = {"path": "/", "raw_path": b"/", "root_path": "", "query_string": b"", "subprotocols": []}
GRANIAN: dict[str, Any] = {
    **PATH,
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "extensions": {"http.response.pathsend": {}, "websocket.http.response": {}},
    "http_version": "1.1",
    "scheme": "ws",
    "server": ("127.0.0.1", "8000"),
    "client": ("127.0.0.1", "47244"),
    "state": {},
}
DAPHNE: dict[str, Any] = {
    **PATH,
    "asgi": {"version": "3.0"},
    "client": ["127.0.0.1", 58174],
    "server": ["127.0.0.1", 8000],
    **dict.fromkeys(("scheme", "http_version", "extensions"), ...),
}
HYPERCORN: dict[str, Any] = {
    **PATH,
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "extensions": {"websocket.http.response": {}},
    "client": ("127.0.0.1", 58176),
    "server": ("127.0.0.1", 8000),
    "state": {},
}
BY_HAND: dict[str, Any] = dict.fromkeys(
    ("asgi", "scheme", "http_version", "extensions", "client", "server"), ...
)


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_servers, "_warned", set())


@pytest.mark.contract("accept-headers-dropped")
@pytest.mark.parametrize("raw", [False, True], ids=["accept", "send"])
@pytest.mark.parametrize(("name", "scope"), [("granian", GRANIAN), ("daphne", DAPHNE)])
def test_a_server_that_drops_headers(name: str, scope: dict[str, Any], raw: bool) -> None:
    headers = [("Set-Cookie", "a=b"), ("X-A", "c"), ("Set-Cookie", "c=d")]

    def accept() -> None:
        websocket = Server(**scope).websocket()
        if raw:
            steps(websocket.send({"type": "websocket.accept", "headers": headers}))
        else:
            steps(websocket.accept(headers=headers))

    with pytest.warns(RuntimeWarning) as caught:
        accept()
    (warning,) = caught
    assert str(warning.message) == (
        f"{name} sends no headers with accept(): the client does not get set-cookie, x-a. Send what it says "
        "in a message, set cookies in an HTTP response before the WebSocket, or use another server"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        accept()  # it was said


@pytest.mark.contract("accept-headers-dropped")
@pytest.mark.parametrize("scope", [{}, HYPERCORN, BY_HAND, {**DAPHNE, "client": None}])
def test_a_server_that_is_not_known_to_drop_them(scope: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(Server(**scope).websocket().accept(headers=[("X-A", "b")]))


@pytest.mark.contract("accept-headers-dropped")
@pytest.mark.parametrize("headers", [None, [], {}])
@pytest.mark.parametrize("scope", [GRANIAN, DAPHNE])
def test_no_headers_that_could_be_dropped(headers: Any, scope: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(Server(**scope).websocket().accept(headers=headers))


@pytest.mark.contract("accept-headers-dropped")
def test_the_warning_as_an_error() -> None:
    """Then nothing has been sent, and the app may accept without them."""
    server = Server(**GRANIAN)
    websocket = server.websocket()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning):
            steps(websocket.accept(headers=[("X-A", "b")]))
    assert server.sent == []
    steps(websocket.accept())
    assert server.types == ["websocket.accept"]


def received(websocket: WebSocket) -> tuple[int, int | None, str | None]:
    with pytest.raises(WebSocketDisconnect) as caught:
        steps(websocket.receive_text())
    return caught.value.code, websocket.close_code, websocket.closed_by


LOST: Message = {"type": "websocket.disconnect", "code": 1005}


@pytest.mark.contract("receive-lost")
@pytest.mark.parametrize(
    ("end", "scope", "loaded", "code"),
    [
        (LOST, {}, True, 1006),
        (LOST, {}, False, 1005),
        (LOST, HYPERCORN, True, 1005),
        (LOST, {"asgi": None}, True, 1005),
        (LOST, BY_HAND, True, 1005),
        (disconnect(1005, ""), {}, True, 1005),
        (disconnect(1005, None), {}, True, 1005),
        ({"type": "websocket.disconnect"}, {}, True, 1005),
        ({"type": "websocket.disconnect", "code": 1000}, {}, True, 1000),
    ],
)
def test_a_connection_that_was_lost(
    end: Message, scope: dict[str, Any], loaded: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if loaded:
        monkeypatch.setitem(sys.modules, "uvicorn", types.ModuleType("uvicorn"))
    else:
        monkeypatch.delitem(sys.modules, "uvicorn", raising=False)
    websocket, _ = opened(dict(end), **scope)
    assert received(websocket) == (code, code, "network" if code == 1006 else "client")


@pytest.mark.contract("receive-lost")
def test_a_raw_receive_gives_what_the_server_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", types.ModuleType("uvicorn"))
    websocket, _ = opened(dict(LOST))
    assert steps(websocket.receive()) == LOST
    assert websocket.close_code == 1006


UVICORNS: Final = "Task cancelled, timeout graceful shutdown exceeded"


async def nowhere(message: Message) -> None:
    """A send that is no server's."""


class Stream:
    """The sending part of hypercorn: what is looked at of it."""

    def __init__(self, stopping: bool) -> None:
        self.context = types.SimpleNamespace(terminated=types.SimpleNamespace(is_set=lambda: stopping))

    async def app_send(self, message: Message | None) -> None: ...


class HypercornsStream(Stream):
    __module__ = "hypercorn.protocol.ws_stream"


@pytest.mark.contract("block-closes-for-a-stop")
@pytest.mark.parametrize(
    ("interruption", "send", "stops"),
    [
        (KeyboardInterrupt(), nowhere, True),
        (SystemExit(3), nowhere, True),
        (asyncio.CancelledError(), nowhere, False),
        (asyncio.CancelledError(UVICORNS), nowhere, True),
        (asyncio.CancelledError("the app's own words"), nowhere, False),
        (asyncio.CancelledError(5), nowhere, False),
        (BaseExceptionGroup("several", [asyncio.CancelledError(UVICORNS)]), nowhere, True),
        (asyncio.CancelledError(), HypercornsStream(stopping=True).app_send, True),
        (asyncio.CancelledError(), HypercornsStream(stopping=False).app_send, False),
        (asyncio.CancelledError(), Stream(stopping=True).app_send, False),
    ],
)
def test_whether_a_cancellation_is_a_stop(interruption: BaseException, send: Send, stops: bool) -> None:
    assert _servers.is_stop(interruption, send) is stops
