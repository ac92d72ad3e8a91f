from lilya.websockets import WebSocket
from lilya.websockets.testing import TestClient
from lilya.websockets.types import Receive, Scope, Send


async def forgetful(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    question = await websocket.receive_text()
    answer = await websocket.receive_text()
    await websocket.send_text(f"{question} {answer}")


def test_an_answer() -> None:
    with TestClient(forgetful, timeout=0.1).websocket_connect("/") as session:
        session.send_text("How are you?")
        assert session.receive_text() == "Fine."
