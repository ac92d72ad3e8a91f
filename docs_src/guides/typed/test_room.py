import pytest

from docs_src.guides.typed.room import Came, Here, Said, Say, ToClient, ToServer, Who, app
from lilya.websockets import WebSocket
from lilya.websockets.testing import AsyncTestClient

pytestmark = pytest.mark.anyio


async def test_the_room() -> None:
    async with AsyncTestClient(app) as client, client.websocket_connect("/?name=ann") as session:
        ann = session.typed(WebSocket[ToServer, ToClient])
        assert await ann.receive_message() == Came(name="ann")
        await ann.send_message(Say(text="hello"))
        assert await ann.receive_message() == Said(name="ann", text="hello")
        await ann.send_message(Who())
        assert await ann.receive_message() == Here(names=["ann"])
