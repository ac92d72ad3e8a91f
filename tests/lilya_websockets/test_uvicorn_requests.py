"""uvicorn's `--limit-max-requests` and WebSockets, as the page *Faster on uvicorn* has it."""

from __future__ import annotations

import http.client

import pytest

from .frames import CLOSE, LIMIT, close, eventually
from .serving import Serving

BOTH = ["websockets-sansio", "lilya.websockets.uvicorn:WebSocketProtocol"]


@pytest.mark.parametrize("protocol", BOTH)
def test_websockets_are_not_counted_but_closed_when_the_limit_is_reached(protocol: str) -> None:
    with Serving(protocol, limit_max_requests=1) as server:
        for _ in range(3):
            client, seen = server.connect()
            with client:
                client.send(close())
                assert client.frame().opcode == CLOSE
            seen.wait()
        eventually(lambda: server.idle, "every connection has ended")
        assert server.server.server_state.total_requests == 0
        client, seen = server.connect()
        with client:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)
            connection.request("GET", "/")
            connection.getresponse().read()
            connection.close()
            # The limit is reached: the server stops, and tells the WebSocket so.
            end = client.frame()
            assert (end.opcode, end.data[:2]) == (CLOSE, b"\x03\xf4")  # 1012
        assert seen.wait()[-1][:2] == ("disconnect", 1012)
        assert server.server.server_state.total_requests == 1
