"""What the tests of upstream pin: facts that a drop-in must keep."""

from __future__ import annotations

from typing import Any

import pytest

from lilya.websockets import WebSocket, WebSocketRuntimeError, WebSocketState

from .server import Server, opened, steps, text


def never(*arguments: Any) -> Any:
    raise AssertionError("the server must not be asked")


SCOPE: dict[str, Any] = {
    "type": "websocket",
    "path": "/a",
    "headers": [(b"host", b"h"), (b"a", b"1"), (b"b", b"2"), (b"a", b"3")],
    "query_string": b"a=1&b=2&a=3",
}


@pytest.mark.contract("upstream-not-callable")
def test_an_instance_is_not_callable() -> None:
    assert not callable(WebSocket(SCOPE, never, never))


@pytest.mark.contract("upstream-constructor")
def test_the_constructor() -> None:
    by_position = WebSocket(SCOPE, never, never)
    by_keyword = WebSocket(scope=SCOPE, receive=never, send=never)
    assert by_position.scope is by_keyword.scope is SCOPE
    with pytest.raises(TypeError):
        WebSocket(SCOPE)  # type: ignore[call-arg]


@pytest.mark.contract("upstream-instances")
def test_two_instances_over_equal_scopes() -> None:
    one, another = WebSocket(SCOPE, never, never), WebSocket(dict(SCOPE), never, never)
    assert one.scope == another.scope
    assert one == one
    assert one != another
    assert one != one.scope
    assert len({one, another, one}) == 2
    assert bool(one)


@pytest.mark.contract("upstream-instances")
def test_two_instances_share_nothing_but_the_server() -> None:
    server = Server(text("a"))
    one, another = server.websocket(), server.websocket()
    steps(one.accept())
    assert (one.client_state, another.client_state) == (WebSocketState.CONNECTED, WebSocketState.CONNECTING)
    assert one.headers is not another.headers
    one.state.a = 1
    assert another.state.a == 1  # that is the scope's


@pytest.mark.contract("upstream-dict")
def test_dict_is_the_scope() -> None:
    scope = dict(SCOPE)
    websocket = WebSocket(scope, never, never)
    assert dict(websocket) == scope == SCOPE
    for name in ("url", "headers", "query_params", "cookies", "client", "base_url", "path_params"):
        getattr(websocket, name)
    assert dict(websocket) == SCOPE


@pytest.mark.contract("upstream-dict-headers")
def test_dict_of_headers_and_query() -> None:
    websocket = WebSocket(dict(SCOPE), never, never)
    assert dict(websocket.headers) == {"host": "h", "a": "1", "b": "2"}
    assert dict(websocket.query_params) == {"a": "1", "b": "2"}
    for mapping in (websocket.headers, websocket.query_params):
        assert all(isinstance(key, str) and type(value) is str for key, value in dict(mapping).items())


@pytest.mark.contract("upstream-states-are-assignable")
@pytest.mark.parametrize("state", list(WebSocketState))
@pytest.mark.parametrize("name", ["client_state", "application_state"])
def test_states_are_assignable(name: str, state: WebSocketState) -> None:
    websocket = WebSocket(SCOPE, never, never)
    for value in (state, int(state)):
        setattr(websocket, name, value)
        assert getattr(websocket, name) is state
    with pytest.raises(ValueError, match="not a valid WebSocketState"):
        setattr(websocket, name, 4)


@pytest.mark.contract("upstream-states-are-assignable")
def test_an_assigned_state_is_obeyed() -> None:
    websocket, server = opened()
    websocket.application_state = WebSocketState.CONNECTING
    with pytest.raises(WebSocketRuntimeError, match="not accepted yet"):
        steps(websocket.send_text("a"))
    websocket.application_state = WebSocketState.CONNECTED
    steps(websocket.send_text("b"))
    websocket.client_state = WebSocketState.DISCONNECTED
    with pytest.raises(WebSocketRuntimeError, match="the conversation has ended"):
        steps(websocket.send_text("c"))
    steps(websocket.close())
    assert [message["text"] for message in server.sent] == ["b"]


@pytest.mark.contract("upstream-states-are-assignable")
def test_a_websocket_can_be_handed_on_by_assigning_its_states() -> None:
    """As a middleware does that has accepted on another instance."""
    _, server = opened(text("a"))
    websocket = server.websocket()
    websocket.client_state = websocket.application_state = WebSocketState.CONNECTED
    assert steps(websocket.receive_text()) == "a"
    steps(websocket.send_text("b"))


@pytest.mark.contract("upstream-runtime-errors")
@pytest.mark.parametrize(
    "use",
    [
        lambda it: it.receive_text(),
        lambda it: it.receive_bytes(),
        lambda it: it.receive_json(),
        lambda it: it.receive_json(mode="invalid"),
        lambda it: it.send_text("a"),
        lambda it: it.send_bytes(b"a"),
        lambda it: it.send_json({}),
        lambda it: it.send_json({}, mode="invalid"),
        lambda it: it.send({"type": "websocket.send", "text": "a"}),
        lambda it: it.send({"type": "websocket.invalid"}),
        lambda it: anext(it.iter_text()),
    ],
)
def test_misuse_before_accept(use: Any) -> None:
    server = Server()
    with pytest.raises(WebSocketRuntimeError):
        steps(use(server.websocket()))
    assert server.sends == server.receives == 0
