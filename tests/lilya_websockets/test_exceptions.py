"""Who failed, as types."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from typing import Any

import pytest

import lilya.websockets.exceptions
from lilya.websockets import (
    WebSocketClosed,
    WebSocketDataError,
    WebSocketDisconnect,
    WebSocketRuntimeError,
)

from .server import Server, disconnect, opened, steps


class Response:
    """An HTTP response class as frameworks have them: its `__init__` calls no other."""

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


class DenialOfItsOwn(Response, WebSocketDisconnect):
    pass


class DisconnectFirst(WebSocketDisconnect, Response):
    pass


@pytest.mark.contract("exceptions-tree")
def test_the_tree() -> None:
    assert WebSocketDisconnect.__bases__ == (Exception,)
    assert WebSocketClosed.__bases__ == (WebSocketDisconnect, WebSocketRuntimeError)
    assert WebSocketRuntimeError.__bases__ == (RuntimeError,)
    assert WebSocketDataError.__bases__ == (ValueError,)


@pytest.mark.contract("exceptions-tree")
def test_a_bug_is_no_end_and_an_end_is_no_bug() -> None:
    assert not issubclass(WebSocketDisconnect, RuntimeError)
    assert not issubclass(WebSocketRuntimeError, WebSocketDisconnect)
    assert not issubclass(WebSocketDataError, (WebSocketDisconnect, RuntimeError))


@pytest.mark.parametrize(
    ("error", "args", "fields"),
    [
        (WebSocketDisconnect(), (1000, ""), {"code": 1000, "reason": ""}),
        (WebSocketDisconnect(1001), (1001, ""), {"code": 1001, "reason": ""}),
        (WebSocketDisconnect(code=4000, reason="bye"), (4000, "bye"), {"code": 4000, "reason": "bye"}),
        (WebSocketDisconnect(1000, None), (1000, ""), {"code": 1000, "reason": ""}),
        (
            WebSocketClosed(),
            (1005, "", "use the WebSocket", "it has ended"),
            {"code": 1005, "reason": "", "attempted": "use the WebSocket", "ended": "it has ended"},
        ),
        (
            WebSocketClosed(1001, "bye", "send", "the client closed it"),
            (1001, "bye", "send", "the client closed it"),
            {"code": 1001, "reason": "bye", "attempted": "send", "ended": "the client closed it"},
        ),
        (
            WebSocketDataError({"type": "websocket.receive", "text": "a"}, "expected bytes"),
            ({"type": "websocket.receive", "text": "a"}, "expected bytes"),
            {"message": {"type": "websocket.receive", "text": "a"}, "problem": "expected bytes"},
        ),
        (
            WebSocketDataError({}),
            ({}, "the message is not what was asked for"),
            {"message": {}, "problem": "the message is not what was asked for"},
        ),
        (WebSocketRuntimeError("out of turn"), ("out of turn",), {}),
    ],
)
@pytest.mark.contract("exceptions-pickle")
def test_fields_args_and_pickle(error: Exception, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
    for copy in (error, *(pickle.loads(pickle.dumps(error, protocol)) for protocol in range(2, 6))):
        assert type(copy) is type(error)
        assert copy.args == args
        assert str(copy) == str(error) != ""
        assert {name: getattr(copy, name) for name in fields} == fields


@pytest.mark.contract("upstream-disconnect-subclass")
@pytest.mark.parametrize("protocol", range(2, 6))
def test_beside_an_http_response_class(protocol: int) -> None:
    error = DenialOfItsOwn(403)
    copy = pickle.loads(pickle.dumps(error, protocol))

    assert (copy.status_code, copy.code, copy.reason) == (403, 1005, "")
    assert str(copy) == "the WebSocket was disconnected (code 1005)"
    with pytest.raises(WebSocketDisconnect):
        raise copy
    assert DisconnectFirst(1001, "bye").reason == "bye"


def test_str_is_made_from_the_fields() -> None:
    assert str(WebSocketDisconnect(1001, "bye")) == "the WebSocket was disconnected (code 1001, reason 'bye')"
    assert str(WebSocketDisconnect(1001)) == "the WebSocket was disconnected (code 1001)"
    assert str(WebSocketClosed(1001, "bye", "send text", "the client closed it")) == (
        "cannot send text any longer: the client closed it (code 1001, reason 'bye'). "
        "Leave the handler, or catch WebSocketDisconnect where the end is expected"
    )
    assert str(WebSocketDataError({}, "expected text, got binary data")) == (
        "expected text, got binary data. The message is in `.message`, and the WebSocket is still open"
    )


@pytest.mark.contract("exceptions-say-what-where-and-what-to-do")
@pytest.mark.parametrize(
    ("method", "arguments", "not_yet", "no_longer"),
    [
        (
            "receive_text",
            (),
            "receive text yet: the WebSocket is not accepted. Call accept",
            "receive text any",
        ),
        ("receive_bytes", (), "receive bytes yet: the WebSocket is not accept", "receive bytes any longer"),
        ("receive_json", (), "receive text yet: the WebSocket is not accepted", "receive text any longer"),
        ("send_text", ("a",), "state CONNECTING: not accepted yet", "cannot send any longer"),
        ("send_bytes", (b"a",), "state CONNECTING: not accepted yet", "cannot send any longer"),
        ("send_json", (1,), "state CONNECTING: not accepted yet", "cannot send any longer"),
    ],
)
def test_not_yet_and_no_longer(method: str, arguments: tuple[Any, ...], not_yet: str, no_longer: str) -> None:
    websocket = Server().websocket()
    with pytest.raises(WebSocketRuntimeError) as early:
        steps(getattr(websocket, method)(*arguments))
    websocket, _ = opened(disconnect(1001, "bye"))
    steps(websocket.receive())
    with pytest.raises(WebSocketClosed) as late:
        steps(getattr(websocket, method)(*arguments))

    assert not_yet in str(early.value)
    assert not isinstance(early.value, WebSocketClosed)
    assert no_longer in str(late.value)
    assert "the client closed it (code 1001, reason 'bye')" in str(late.value)


@pytest.mark.contract("exceptions-say-what-where-and-what-to-do")
@pytest.mark.parametrize("how", ["app", "network", "response"])
def test_who_ended_it_is_said(how: str) -> None:
    if how == "app":
        websocket, server = opened()
        steps(websocket.close())
        words = "the app closed it (code 1000)"
    elif how == "network":
        websocket, server = opened(disconnect(1006))
        steps(websocket.receive())
        words = "the connection was lost (code 1006)"
    else:
        server = Server()
        websocket = server.websocket()
        steps(websocket.send({"type": "http.response.start", "status": 404}))
        steps(websocket.send({"type": "http.response.body"}))
        words = "the app answered with an HTTP response (code 1005)"
    with pytest.raises(WebSocketClosed) as caught:
        steps(websocket.send_text("a"))
    assert words in str(caught.value)


def run(source: str, *options: str) -> str:
    completed = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


@pytest.mark.contract("exceptions-lilya")
def test_beside_lilya_the_runtime_error_is_lilyas_own() -> None:
    output = run(
        """
        import pickle, sys, types
        fake = types.ModuleType("lilya.exceptions")
        class WebSocketRuntimeError(RuntimeError): ...
        WebSocketRuntimeError.__module__ = "lilya.exceptions"
        fake.WebSocketRuntimeError = WebSocketRuntimeError
        sys.modules["lilya.exceptions"] = fake
        import lilya.websockets as ours
        print(ours.WebSocketRuntimeError is WebSocketRuntimeError)
        print(issubclass(ours.WebSocketClosed, WebSocketRuntimeError))
        closed = pickle.loads(pickle.dumps(ours.WebSocketClosed(1001, "bye")))
        print(closed.code, closed.reason, type(closed) is ours.WebSocketClosed)
        try:
            ours.WebSocket({"type": "websocket"}, None, None).receive_text().send(None)
        except WebSocketRuntimeError:
            print("caught")
        """
    )
    assert output.split() == ["True", "True", "1001", "bye", "True", "caught"]


@pytest.mark.contract("exceptions-lilya")
def test_without_lilya_it_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the module once more, in both worlds, so that each branch is seen by the coverage too."""
    import importlib.util
    from types import ModuleType

    def another() -> ModuleType:
        spec = importlib.util.spec_from_file_location("another", lilya.websockets.exceptions.__file__)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    theirs = ModuleType("lilya.exceptions")
    theirs.WebSocketRuntimeError = type("WebSocketRuntimeError", (RuntimeError,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lilya.exceptions", theirs)
    assert another().WebSocketRuntimeError is theirs.WebSocketRuntimeError
    monkeypatch.setitem(sys.modules, "lilya.exceptions", None)
    assert another().WebSocketRuntimeError.__module__ == "another"
