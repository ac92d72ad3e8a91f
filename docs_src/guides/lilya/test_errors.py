import pytest

from docs_src.guides.lilya.errors import app
from lilya.websockets.testing import TestClient, WebSocketDisconnect


def test_an_error_reaches_the_server() -> None:
    session = TestClient(app).websocket_connect("/").__enter__()
    session.send_text("five")
    with pytest.raises(WebSocketDisconnect) as left:
        session.receive_text()
    assert (left.value.code, left.value.reason) == (1011, "")
    with pytest.raises(ValueError, match="five"):
        session.close()
