"""What is legal, as data.

The rules of this file:

- The two sides of a WebSocket are independent, so there are two tables. `client_state` moves on what is
  received, `application_state` on what is sent. Neither table reads the other's state.
- A table holds legal steps only: `table[state][message type]` is the state afterwards. A missing entry is
  illegal. The docs page *Lifecycle* is drawn from these tables.
- The step functions are pure. An illegal step raises and changes nothing, since there is nothing to change.
- The message types of a denial response are listed under the names that an HTTP response uses; the
  `websocket.` prefix of the ASGI extension is added and removed at the boundary.

The fast paths of `_websocket.py` (text and bytes, both ways) skip the tables. They may, because what they
skip are self-loops: a test holds the tables to that.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from .exceptions import WebSocketRuntimeError

__all__ = ["RECEIVE", "SEND", "WebSocketState", "after_receive", "after_send"]


class WebSocketState(IntEnum):
    """The state of one side of the connection."""

    CONNECTING = 0
    """Before the handshake is complete: no `websocket.connect` was received, or no answer was sent."""
    CONNECTED = 1
    """Messages can be received or sent on this side."""
    DISCONNECTED = 2
    """This side has ended. Nothing more can be received or sent on it."""
    RESPONSE = 3
    """The app is sending an HTTP response instead of accepting (ASGI's denial response extension)."""

    # An enum's own hash is a Python function; the tables are looked up several times per connection.
    __hash__ = int.__hash__


CONNECTING: Final = WebSocketState.CONNECTING
CONNECTED: Final = WebSocketState.CONNECTED
DISCONNECTED: Final = WebSocketState.DISCONNECTED
RESPONSE: Final = WebSocketState.RESPONSE

RECEIVE: Final[dict[WebSocketState, dict[str, WebSocketState]]] = {
    CONNECTING: {
        "websocket.connect": CONNECTED,
        # A client that leaves before the handshake is answered.
        "websocket.disconnect": DISCONNECTED,
    },
    CONNECTED: {
        "websocket.receive": CONNECTED,
        "websocket.disconnect": DISCONNECTED,
    },
    DISCONNECTED: {},
    RESPONSE: {},
}
"""`client_state`: what may be received in a state, and the state after it."""

SEND: Final[dict[WebSocketState, dict[str, WebSocketState]]] = {
    CONNECTING: {
        "websocket.accept": CONNECTED,
        # Before accept, the server answers with HTTP 403 (ASGI spec, "Close - send event").
        "websocket.close": DISCONNECTED,
        "http.response.start": RESPONSE,
    },
    CONNECTED: {
        "websocket.send": CONNECTED,
        "websocket.close": DISCONNECTED,
    },
    RESPONSE: {
        # While more of the body is to come; `after_send` ends the response with the last part.
        "http.response.body": RESPONSE,
    },
    DISCONNECTED: {},
}
"""`application_state`: what may be sent in a state, and the state after it."""

_NO_LONGER: Final = "the conversation has ended, and nothing more can be {done}"

_NOT_YET: Final[dict[tuple[WebSocketState, str], str]] = {
    (CONNECTING, "websocket.send"): 'not accepted yet: "websocket.accept" must be sent first',
    (CONNECTED, "websocket.accept"): "already accepted: it can be accepted only once",
    (
        CONNECTED,
        "http.response.start",
    ): "already accepted: an HTTP response can only be sent instead",
    (RESPONSE, "websocket.accept"): "already denied: an HTTP response has been started",
}


def after_receive(state: WebSocketState, message_type: str) -> WebSocketState:
    """The `client_state` after a message was received.

    Args:
        state: The state before.
        message_type: The `type` of the ASGI message.

    Raises:
        WebSocketRuntimeError: The server must not send this message in this state.
    """
    try:
        return RECEIVE[state][message_type]
    except (KeyError, TypeError):  # an unhashable type is as unknown as an unlisted one
        raise WebSocketRuntimeError(
            _explain("received", "server sent", RECEIVE, state, message_type)
        ) from None


def after_send(state: WebSocketState, message_type: str, *, more_body: bool = False) -> WebSocketState:
    """The `application_state` after a message was sent.

    Args:
        state: The state before.
        message_type: The `type` of the ASGI message, a denial response's without its `websocket.` prefix.
        more_body: Whether more of a denial response's body follows; read for `http.response.body` only.

    Raises:
        WebSocketRuntimeError: The app must not send this message in this state.
    """
    try:
        after = SEND[state][message_type]
    except (KeyError, TypeError):
        raise WebSocketRuntimeError(
            _explain("sent", "app tried to send", SEND, state, message_type)
        ) from None
    if after is RESPONSE and message_type == "http.response.body" and not more_body:
        return DISCONNECTED
    return after


def _explain(
    done: str,
    who: str,
    table: dict[WebSocketState, dict[str, WebSocketState]],
    state: WebSocketState,
    message_type: object,
) -> str:
    seen = f"the {who} {message_type!r}"
    legal = table[state]
    if not legal:
        return f"{seen}, but {_NO_LONGER.format(done=done)}"
    expected = " or ".join(f'"{name}"' for name in legal)
    why = (
        _NOT_YET.get((state, message_type)) if isinstance(message_type, str) else None
    ) or f"expected {expected}"
    return f"{seen} in state {state.name}: {why}"
