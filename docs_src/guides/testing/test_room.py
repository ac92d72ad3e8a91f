import pytest

from docs_src.guides.testing.room import app
from lilya.websockets.testing import WebSocketDenialResponse, connect

pytestmark = pytest.mark.anyio


async def test_a_message_comes_back() -> None:
    async with connect(app, "/?room=blue") as session:
        await session.send_text("hello")
        assert await session.receive_text() == "blue: hello"
        await session.receive_nothing(0.01)


async def test_no_room() -> None:
    with pytest.raises(WebSocketDenialResponse) as caught:
        async with connect(app, "/"):
            pass
    assert caught.value.status_code == 403
