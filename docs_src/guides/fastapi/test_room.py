from fastapi.testclient import TestClient

from docs_src.guides.fastapi.access import app as access
from docs_src.guides.fastapi.access import user_of
from docs_src.guides.fastapi.room import app
from lilya.websockets import testing


def test_with_the_client_of_fastapi() -> None:
    with TestClient(app) as client, client.websocket_connect("/rooms/blue") as session:
        session.send_text("hello")
        assert session.receive_text() == "hello"


def test_with_the_client_of_this_package() -> None:
    with testing.TestClient(app) as client, client.websocket_connect("/rooms/blue") as session:
        session.send_text("hello")
        assert session.receive_text() == "hello"
        session.receive_nothing(0.01)


def test_as_somebody_else() -> None:
    access.dependency_overrides[user_of] = lambda: "bob"
    with testing.TestClient(access).websocket_connect("/edit") as session:
        assert session.receive_text() == "Hello, bob."
    access.dependency_overrides.clear()
