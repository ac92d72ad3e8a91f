"""The state tables: every pair of a state and a message type, legal or not, with no loop and no server."""

from __future__ import annotations

from typing import Any

import pytest

from lilya.websockets import WebSocketRuntimeError, WebSocketState
from lilya.websockets._state import RECEIVE, SEND, after_receive, after_send

from .server import DENIAL, Server, steps, text

CONNECTING, CONNECTED, DISCONNECTED, RESPONSE = WebSocketState

# Written out a second time, on purpose: the tables of the package must say the same.
RECEIVED = {
    (CONNECTING, "websocket.connect"): CONNECTED,
    (CONNECTING, "websocket.disconnect"): DISCONNECTED,
    (CONNECTED, "websocket.receive"): CONNECTED,
    (CONNECTED, "websocket.disconnect"): DISCONNECTED,
}
SENT = {
    (CONNECTING, "websocket.accept"): CONNECTED,
    (CONNECTING, "websocket.close"): DISCONNECTED,
    (CONNECTING, "http.response.start"): RESPONSE,
    (CONNECTED, "websocket.send"): CONNECTED,
    (CONNECTED, "websocket.close"): DISCONNECTED,
    (RESPONSE, "http.response.body"): DISCONNECTED,
}
TYPES = [
    "websocket.connect",
    "websocket.receive",
    "websocket.disconnect",
    "websocket.accept",
    "websocket.send",
    "websocket.close",
    "http.response.start",
    "http.response.body",
    f"{DENIAL}.start",
    "http.request",
    "lifespan.startup",
    "",
]
STATES = list(WebSocketState)


def test_the_states_are_numbers_in_the_order_of_a_connection() -> None:
    assert [(state.name, state.value) for state in STATES] == [
        ("CONNECTING", 0),
        ("CONNECTED", 1),
        ("DISCONNECTED", 2),
        ("RESPONSE", 3),
    ]
    assert all(hash(state) == hash(int(state)) for state in STATES)


def test_the_tables_know_every_state_and_no_other() -> None:
    assert list(RECEIVE) == STATES == sorted(SEND)


@pytest.mark.parametrize("message_type", TYPES)
@pytest.mark.parametrize("state", STATES)
def test_after_receive(state: WebSocketState, message_type: str) -> None:
    expected = RECEIVED.get((state, message_type))
    if expected is not None:
        assert after_receive(state, message_type) is expected
    else:
        with pytest.raises(WebSocketRuntimeError) as caught:
            after_receive(state, message_type)
        assert repr(message_type) in str(caught.value)
        assert "server" in str(caught.value)


@pytest.mark.parametrize("message_type", TYPES)
@pytest.mark.parametrize("state", STATES)
def test_after_send(state: WebSocketState, message_type: str) -> None:
    expected = SENT.get((state, message_type))
    if expected is not None:
        assert after_send(state, message_type) is expected
    else:
        with pytest.raises(WebSocketRuntimeError) as caught:
            after_send(state, message_type)
        assert repr(message_type) in str(caught.value)
        assert "app" in str(caught.value)


def test_a_response_goes_on_while_more_of_its_body_follows() -> None:
    assert after_send(RESPONSE, "http.response.body", more_body=True) is RESPONSE
    assert after_send(CONNECTING, "http.response.start", more_body=True) is RESPONSE
    assert after_send(CONNECTED, "websocket.send", more_body=True) is CONNECTED


@pytest.mark.contract("exceptions-say-what-where-and-what-to-do")
@pytest.mark.parametrize(
    ("state", "message_type", "words"),
    [
        (CONNECTING, "websocket.send", "state CONNECTING: not accepted yet"),
        (CONNECTED, "websocket.accept", "state CONNECTED: already accepted"),
        (CONNECTED, "http.response.start", "state CONNECTED: already accepted"),
        (RESPONSE, "websocket.accept", "state RESPONSE: already denied"),
        (RESPONSE, "websocket.send", 'state RESPONSE: expected "http.response.body"'),
        (CONNECTING, "websocket.connect", 'expected "websocket.accept" or "websocket.close" or'),
        (DISCONNECTED, "websocket.send", "the conversation has ended, and nothing more can be sent"),
        (DISCONNECTED, "websocket.accept", "the conversation has ended, and nothing more can be sent"),
    ],
)
def test_not_yet_and_no_longer_are_different_sentences(
    state: WebSocketState, message_type: str, words: str
) -> None:
    with pytest.raises(WebSocketRuntimeError) as caught:
        after_send(state, message_type)
    assert words in str(caught.value)


def test_what_comes_after_the_end_is_called_so() -> None:
    with pytest.raises(WebSocketRuntimeError, match="has ended, and nothing more can be received"):
        after_receive(DISCONNECTED, "websocket.receive")
    with pytest.raises(WebSocketRuntimeError, match=r'state CONNECTING: expected "websocket.connect" or'):
        after_receive(CONNECTING, "websocket.receive")


@pytest.mark.parametrize("message_type", [[], {}, None, 5])
def test_a_type_that_is_none_is_illegal_like_any_other(message_type: Any) -> None:
    for step in (after_receive, after_send):
        with pytest.raises(WebSocketRuntimeError):
            step(CONNECTED, message_type)


def test_what_the_fast_paths_skip_are_self_loops() -> None:
    assert RECEIVE[CONNECTED]["websocket.receive"] is CONNECTED
    assert SEND[CONNECTED]["websocket.send"] is CONNECTED


@pytest.mark.contract("upstream-states-are-assignable")
@pytest.mark.parametrize("application", STATES)
@pytest.mark.parametrize("client", STATES)
class TestEveryPairOfStates:
    """The fast paths agree with the tables, in every pair of states that can be assigned."""

    def test_send(self, client: WebSocketState, application: WebSocketState) -> None:
        outcomes: list[tuple[type[Exception] | None, str, list[dict[str, Any]]]] = []
        for send in ("fast", "raw"):
            server = Server()
            server.state = "open"
            websocket = server.websocket()
            websocket.client_state, websocket.application_state = client, application
            try:
                if send == "fast":
                    steps(websocket.send_text("a"))
                else:
                    steps(websocket.send({"type": "websocket.send", "text": "a"}))
            except Exception as error:
                outcomes.append((type(error), str(error), server.sent))
            else:
                outcomes.append((None, "", server.sent))
            assert (websocket.client_state, websocket.application_state) == (client, application)
        assert outcomes[0] == outcomes[1]
        legal = application is CONNECTED and client is not DISCONNECTED
        assert outcomes[0][2] == ([{"type": "websocket.send", "text": "a"}] if legal else [])

    @pytest.mark.parametrize("method", ["receive_text", "iter_text"])
    def test_receive(self, client: WebSocketState, application: WebSocketState, method: str) -> None:
        server = Server(text("a"), connecting=client is CONNECTING)
        websocket = server.websocket()
        websocket.client_state, websocket.application_state = client, application
        try:
            received = steps(
                websocket.receive_text() if method == "receive_text" else anext(websocket.iter_text())
            )
        except (WebSocketRuntimeError, StopAsyncIteration):
            received = None
        legal = application is CONNECTED and (client, "websocket.receive") in RECEIVED
        legal_in_two = application is CONNECTED and client is CONNECTING  # connect is still to come
        assert received == ("a" if legal or legal_in_two else None)

    def test_raw_receive(self, client: WebSocketState, application: WebSocketState) -> None:
        server = Server(text("a"), connecting=False)
        websocket = server.websocket()
        websocket.client_state, websocket.application_state = client, application
        try:
            received = steps(websocket.receive())
        except WebSocketRuntimeError:
            received = None
        assert received == (text("a") if (client, "websocket.receive") in RECEIVED else None)
        assert websocket.client_state is client
