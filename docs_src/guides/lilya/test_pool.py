from lilya.testclient import TestClient

from docs_src.guides.lilya.pool import app, free


def test_the_session_comes_back() -> None:
    client = TestClient(app)
    for _ in range(2):
        with client.websocket_connect("/") as session:
            assert session.receive_text() == "working with a session, 0 left"
        assert free == ["a session"]
