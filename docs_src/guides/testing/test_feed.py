import pytest

from lilya.websockets import WebSocket
from lilya.websockets.testing import connect
from lilya.websockets.types import Receive, Scope, Send

sent: list[int] = []


async def feed(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    await websocket.receive_text()
    for number in range(3):
        await websocket.send_json(number)
        sent.append(number)


@pytest.mark.anyio
async def test_a_slow_client_holds_the_feed_up() -> None:
    sent.clear()
    async with connect(feed) as session:
        session.stall()
        await session.send_text("go")
        await session.settled()
        assert sent == []
        session.resume()
        assert await session.receive_json() == 0
        await session.vanish()
