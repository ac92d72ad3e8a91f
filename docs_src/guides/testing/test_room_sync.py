from collections.abc import Callable

from docs_src.guides.testing.room import app
from lilya.websockets.testing import TestClient


def test_a_message_comes_back() -> None:
    with TestClient(app).websocket_connect("/?room=blue") as session:
        session.send_text("hello")
        assert session.receive_text() == "blue: hello"


def test_with_the_fixture(websocket_client: Callable[..., TestClient]) -> None:
    client = websocket_client(app, timeout=1)
    with client.websocket_connect("/", params={"room": "red"}) as session:
        session.send_text("hello")
        assert session.receive_text() == "red: hello"
