from starlette.testclient import TestClient

from docs_src.guides.starlette.room import app
from lilya.websockets import testing


def test_with_the_client_of_starlette() -> None:
    with TestClient(app) as client, client.websocket_connect("/rooms/blue") as session:
        session.send_text("hello")
        assert session.receive_text() == "hello"


def test_with_the_client_of_this_package() -> None:
    with testing.TestClient(app) as client, client.websocket_connect("/rooms/blue") as session:
        session.send_text("hello")
        assert session.receive_text() == "hello"
        session.receive_nothing(0.01)
