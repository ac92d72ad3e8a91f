from django.test import Client

from docs_src.guides.django.site import app
from lilya.websockets.testing import TestClient


def test_a_room() -> None:
    with TestClient(app) as client, client.websocket_connect("/rooms/blue") as session:
        session.send_text("hello")
        assert session.receive_text() == "hello"
        session.receive_nothing(0.01)


def test_a_view_publishes() -> None:
    with TestClient(app) as client, client.websocket_connect("/rooms/blue") as session:
        Client().post("/announce/blue", {"text": "Your build has finished"})
        assert session.receive_text() == "Your build has finished"


def test_http_is_still_djangos() -> None:
    assert Client().get("/").content == b"Hello over HTTP."
