"""What the test client lets an app send, and what it tells the app of a request."""

from __future__ import annotations

from typing import Any

import pytest

from lilya.websockets.testing import websocket_scope
from lilya.websockets.testing._rules import Stage, malformed, tolerated

from .apps import ACCEPT, BODY, CLOSE, START


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ([], "a message is a dict, not list"),
        ({}, "the type is one of"),
        ({"type": "http.response.start"}, "not 'http.response.start'"),
        ({**ACCEPT, "subprotocol": "a"}, "the subprotocol is one of those offered"),
        ({**ACCEPT, "headers": {}}, "'headers' is a list of pairs of bytes, not dict"),
        ({**ACCEPT, "headers": [("a", "b")]}, "a header is a pair of bytes"),
        ({**ACCEPT, "headers": [(b"A", b"b")]}, "a header name is a lower-case token"),
        ({**ACCEPT, "headers": [(b"a b", b"b")]}, "a header name is a lower-case token"),
        ({**ACCEPT, "headers": [(b"a", b"b\r\nc: d")]}, "a header value has no CR, LF or NUL"),
        ({**ACCEPT, "headers": [(b"sec-websocket-protocol", b"a")]}, "is set by the key 'subprotocol'"),
        ({"type": "websocket.send"}, "exactly one of 'text' and 'bytes'"),
        ({"type": "websocket.send", "text": "", "bytes": b""}, "exactly one of 'text' and 'bytes'"),
        ({"type": "websocket.send", "bytes": ""}, "'bytes' is a bytes, not str"),
        ({"type": "websocket.send", "text": b""}, "'text' is a str, not bytes"),
        ({"type": "websocket.send", "text": "\ud800"}, "'text' encodes to UTF-8"),
        ({**CLOSE, "code": 1005}, "not 1005"),
        ({**CLOSE, "code": True}, "not True"),
        ({**CLOSE, "code": 2999}, "not 2999"),
        ({**CLOSE, "reason": b""}, "'reason' is a str or None, not bytes"),
        ({**CLOSE, "reason": "\ud800"}, "'reason' encodes to UTF-8"),
        ({**CLOSE, "reason": "é" * 62}, "'reason' has at most 123 bytes, not 124"),
        ({**START, "status": 101}, "'status' is an int from 200 to 599, not 101"),
        ({**START, "headers": [(b"a", b"b", b"c")]}, "a header is a pair of bytes"),
        ({**BODY, "body": ""}, "'body' is a bytes, not str"),
        ({**BODY, "more_body": 1}, "'more_body' is a bool, not 1"),
    ],
)
def test_a_malformed_message_is_named(message: Any, problem: str) -> None:
    found = malformed(message) or ""
    assert found.startswith("malformed message: ")
    assert problem in found
    assert "; the app sent " in found


@pytest.mark.parametrize(
    "message",
    [
        {**ACCEPT, "subprotocol": None, "headers": [(b"x-a", b"\xff")]},
        {**ACCEPT, "subprotocol": "b", "headers": []},
        {"type": "websocket.send", "text": ""},
        {"type": "websocket.send", "text": None, "bytes": b""},
        CLOSE,
        {**CLOSE, "code": 4999, "reason": "é" * 61},
        {**START, "headers": []},
        BODY,
        {**BODY, "more_body": True},
    ],
)
def test_a_well_formed_message(message: Any) -> None:
    assert malformed(message, ["a", "b"]) is None


def test_a_denial_needs_the_extension() -> None:
    assert "the scope has no extension 'websocket.http.response'" in (malformed(START, denials=False) or "")


def test_a_long_message_is_shortened() -> None:
    found = malformed({"type": "a" * 1000}) or ""
    assert found.endswith("…")
    assert len(found.partition("; the app sent ")[2]) == 201


@pytest.mark.parametrize(
    ("url", "path", "raw_path", "query"),
    [
        ("/", "/", b"/", b""),
        ("", "/", b"/", b""),
        ("chat", "/chat", b"/chat", b""),
        ("/caf%C3%A9/a%2Fb?x=%20&y", "/café/a/b", b"/caf%C3%A9/a%2Fb", b"x=%20&y"),
        ("/café b#top", "/café b", b"/caf%C3%A9%20b", b""),
        ("//evil/x?next=ws://a/", "//evil/x", b"//evil/x", b"next=ws://a/"),
        ("?a=é", "/", b"/", b"a=%C3%A9"),
        ("ws://example.org:81/x?y", "/x", b"/x", b"y"),
        ("https://example.org", "/", b"/", b""),
    ],
)
def test_the_url(url: str, path: str, raw_path: bytes, query: bytes) -> None:
    scope = websocket_scope(url)
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, raw_path, query)


def test_the_server_is_that_of_the_url() -> None:
    shown = [
        (scope["scheme"], scope["server"], dict(scope["headers"])[b"host"])
        for scope in (
            websocket_scope("/"),
            websocket_scope("wss://user@example.org/"),
            websocket_scope("http://[::1]:81/"),
        )
    ]
    assert shown == [
        ("ws", ("testserver", 80), b"testserver"),
        ("wss", ("example.org", 443), b"example.org"),
        ("ws", ("::1", 81), b"[::1]:81"),
    ]
    with pytest.raises(ValueError, match=r"begins with ws:// or wss://, or is a path; got 'ftp://a/'"):
        websocket_scope("ftp://a/")
    with pytest.raises(ValueError, match="got 'ftp://a'"):
        websocket_scope("/", base_url="ftp://a")


def test_the_headers() -> None:
    scope = websocket_scope(
        "/",
        subprotocols=["a", "b"],
        headers=[("X-A", "é"), ("host", "example.org"), ("sec-websocket-key", "k")],
        cookies={"a": "1", "b": "2"},
    )
    assert scope["headers"] == [
        (b"host", b"example.org"),
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-protocol", b"a, b"),
        (b"cookie", b"a=1; b=2"),
        (b"x-a", b"\xe9"),
        (b"sec-websocket-key", b"k"),
    ]
    assert scope["subprotocols"] == ["a", "b"]
    own = websocket_scope("/", headers={"sec-websocket-protocol": "a, b"})
    assert own["subprotocols"] == ["a", "b"]
    assert [value for name, value in own["headers"] if name == b"sec-websocket-protocol"] == [b"a, b"]


def test_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match="subprotocols must be a list of str, got the str 'chat'"):
        websocket_scope("/", subprotocols="chat")
    with pytest.raises(ValueError, match="must not hold CR"):
        websocket_scope("/", headers={"a": "b\r\n"})


def test_what_is_given_counts() -> None:
    state = {"a": 1}
    scope = websocket_scope("/", state=state, params={"x": [1, 2]}, scope={"path": "/y", "extra": 1})
    assert (scope["path"], scope["extra"], scope["query_string"]) == ("/y", 1, b"x=1&x=2")
    assert scope["state"] == state
    assert scope["state"] is not state


@pytest.mark.parametrize("reason", [[{"type": "missing"}], b"bytes", "é" * 62])
def test_the_reason_of_a_close_before_accept_is_tolerated(reason: Any) -> None:
    message = {**CLOSE, "code": 1008, "reason": reason}
    assert malformed(message) is not None
    assert tolerated(message, Stage.CONNECTING) == {**CLOSE, "code": 1008, "reason": None}
    assert tolerated(message, Stage.OPEN) is None


@pytest.mark.parametrize("message", [{**CLOSE, "code": 1005}, {**ACCEPT, "headers": {}}, {}])
def test_nothing_else_is(message: Any) -> None:
    assert tolerated(message, Stage.CONNECTING) is None
