from docs_src.start.tutorial.room import app
from lilya.websockets.testing import TestClient


def test_everybody_gets_a_message() -> None:
    with (
        TestClient(app) as client,
        client.websocket_connect("/chat?name=ann") as ann,
        client.websocket_connect("/chat?name=bob") as bob,
    ):
        ann.send_text("Hello, Bob")
        assert bob.receive_text() == "ann: Hello, Bob"
        assert ann.receive_text() == "ann: Hello, Bob"


def test_who_comes_later_gets_the_last_messages() -> None:
    with TestClient(app) as client:
        with client.websocket_connect("/chat?name=ann") as ann:
            ann.send_text("Is anybody here?")
            assert ann.receive_text() == "ann: Is anybody here?"
        with client.websocket_connect("/chat?name=bob") as bob:
            assert bob.receive_text() == "ann: Is anybody here?"
