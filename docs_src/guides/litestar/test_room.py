from litestar.testing import TestClient

from docs_src.guides.litestar.room import app, litestar
from lilya.websockets import testing


def test_with_the_client_of_litestar() -> None:
    with TestClient(litestar) as client, client.websocket_connect("/rooms/blue") as session:
        session.send_text("hello")
        assert session.receive_text() == "hello"


def test_with_the_client_of_this_package() -> None:
    with testing.TestClient(app) as client, client.websocket_connect("/rooms/blue") as session:
        session.send_text("hello")
        assert session.receive_text() == "hello"
        session.receive_nothing(0.01)
