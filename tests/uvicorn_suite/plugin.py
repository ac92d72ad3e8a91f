"""A plugin of pytest that adds our class to the classes over which uvicorn's own tests run.

`nox -s conformance` downloads uvicorn's source and runs its tests with this plugin; nothing of them is kept
here.
`--ws-class NAME` chooses among the classes, `lilya` being ours.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lilya.websockets.uvicorn import WebSocketProtocol
from lilya.websockets.uvicorn._phases import Phase

CLASSES = {
    "wsproto": "uvicorn.protocols.websockets.wsproto_impl:WSProtocol",
    "websockets-sansio": "uvicorn.protocols.websockets.websockets_sansio_impl:WebSocketsSansIOProtocol",
    "lilya": f"{__name__}:Observed",
}

RETURNS = (
    "When an app returns or raises, the client gets 1000 or 1011; uvicorn's classes send no close frame."
)
DENIAL = (
    "The head of a denial waits for its body: if the app fails in between, its client still gets a 500. "
    "uvicorn skips this test for its own class that does so, too."
)
TYPE = "It asserts that the protocol is an instance of one of uvicorn's own classes."
QUEUE = "It wants reading paused at the first message that the app has not taken; here several may wait."
ANSWER = (
    "A client that was sent a close frame has the close time-out for its answer, in a shutdown, too. "
    "uvicorn's classes end the TCP connection at once, and a reset may take the frame from the client."
)

STOPS = (
    "The server stops before the app has accepted: the app is told so, with 1012, where uvicorn's tell 1006."
)

# What our class does otherwise on purpose: the name of the test, and why. Each must fail.
OTHERWISE = {
    "test_duplicate_handshake": RETURNS,
    "test_asgi_return_value": RETURNS,
    "test_close_transport_on_asgi_return": RETURNS,
    "test_server_reject_connection_with_invalid_msg": DENIAL,
    "test_server_reject_connection_with_missing_body": DENIAL,
    "test_server_multiple_websocket_http_response_start_events": DENIAL,
    "test_close_resumes_reads_paused_on_an_unconsumed_message": QUEUE,
    "test_shutdown_while_the_close_reply_is_pending": ANSWER,
    "test_connection_lost_before_handshake_complete": STOPS,
    "test_server_keepalive_ping_pong": TYPE,
    "test_server_keepalive_disabled": TYPE,
}


class Observed(WebSocketProtocol):
    """Our class, with the names under which those tests look into a protocol."""

    close_timeout = WebSocketProtocol.close_timeout  # on the instance, too: it has a `__dict__`

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.BaseTransport):
            complete(transport)
        super().connection_made(transport)

    @property
    def transport(self) -> Any:
        return self._transport

    @property
    def close_timer(self) -> asyncio.TimerHandle | None:
        """What is set while the client's close frame is awaited."""
        return self._timer if self._phase is Phase.CLOSING else None


def complete(transport: Any) -> None:
    """Give their stand-in for a transport the methods of a real one that it does not have."""
    kind = type(transport)
    for name, method in (
        ("abort", kind.close),
        ("can_write_eof", lambda self: True),
        ("write_eof", lambda self: None),
        ("get_protocol", lambda self: None),
        ("set_protocol", lambda self, protocol: None),
    ):
        if not hasattr(kind, name):
            setattr(kind, name, method)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ws-class", action="append", choices=list(CLASSES), help="run over this class only")


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise by a mark, which takes the place of the parameters that the fixture has by itself."""
    if "ws_protocol_cls" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--ws-class") or list(CLASSES)
        parameters = [pytest.param(CLASSES[name], id=name) for name in chosen]
        metafunc.definition.add_marker(pytest.mark.parametrize("ws_protocol_cls", parameters, indirect=True))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Expect of the tests that are listed that they fail; each must be there, unless tests were named."""
    missing = set(OTHERWISE)
    ours = [item for item in items if isinstance(item, pytest.Function) and "lilya" in item.name]
    for item in ours:
        reason = OTHERWISE.get(item.originalname)
        if reason is not None:
            missing.discard(item.originalname)
            item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
    if ours and missing and not any("::" in argument for argument in config.args):
        raise pytest.UsageError(f"OTHERWISE lists tests that uvicorn does not have: {sorted(missing)}")
