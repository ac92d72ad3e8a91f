"""`serve` over real uvicorn, with each of its WebSocket classes and with ours: clients that come back."""

from __future__ import annotations

import json
import random
from typing import Any

import anyio
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lilya.websockets import WebSocket
from lilya.websockets.channels import SUBPROTOCOL, Channels, Grant, serve
from lilya.websockets.tokens import bearer_token

from .serving import Serving

pytestmark = pytest.mark.anyio

OURS = "lilya.websockets.uvicorn:WebSocketProtocol"
# The oldest one warns of its end, and so does what it stands on.
OLDEST = pytest.param("websockets", marks=pytest.mark.filterwarnings("ignore"))
PROTOCOLS = ["websockets-sansio", "wsproto", OLDEST, pytest.param(OURS, id="ours")]
MESSAGES = 40  # of each client
CLIENTS = 3


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # as uvicorn


class Rooms(Serving):
    """An app whose clients may do everything."""

    def __init__(self, protocol: str) -> None:
        self.channels = Channels(history=1000)
        super().__init__(protocol, lifespan="on")

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            async with self.channels:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        websocket = WebSocket(scope, receive, send)
        user = bearer_token(websocket, subprotocol="bearer")
        await serve(websocket, self.channels, lambda channel: Grant(publish=True, member=user), key=user)

    def open(self, user: str, *subprotocols: str) -> Any:
        offered: Any = subprotocols or (SUBPROTOCOL, "bearer", user)
        return connect(f"ws://127.0.0.1:{self.port}/", subprotocols=offered, proxy=None)


async def say(connection: ClientConnection, kind: str, **fields: Any) -> None:
    await connection.send(json.dumps({"type": kind, **fields}))


async def hear(connection: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await connection.recv())
    return message


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_conversation(protocol: str) -> None:
    rooms = Rooms(protocol)
    with rooms:
        with pytest.raises(InvalidStatus) as refused:
            async with rooms.open("ann", "lilya.channels.v2"):
                pass
        assert refused.value.response.status_code == 400
        async with rooms.open("ann") as ann, rooms.open("bob") as bob:
            assert ann.subprotocol == SUBPROTOCOL
            for connection in (ann, bob):
                await say(connection, "join", channel="a")
                assert (await hear(connection))["type"] == "joined"
            await say(bob, "publish", channel="a", key="1", data="ü" * 1000)
            assert {(await hear(bob))["type"], (await hear(bob))["type"]} == {"published", "event"}
            event = await hear(ann)
            assert (event["data"], event["key"]) == ("ü" * 1000, "1")
            await bob.send("x" * 70_000)
            assert (await hear(bob))["code"] == "too_large"
            await say(bob, "ping")
            assert await hear(bob) == {"type": "pong"}
            rooms.server.should_exit = True
            for connection in (ann, bob):
                with pytest.raises(ConnectionClosed) as closed:
                    await hear(connection)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1012


class Client:
    """Sends numbers, each until it is answered, over connections that break; and notes what it gets."""

    def __init__(self, rooms: Rooms, user: str) -> None:
        self.rooms = rooms
        self.user = user
        self.unanswered = list(range(MESSAGES))
        self.position: str | None = None
        self.events: list[list[Any]] = []
        self.breaks = 0
        self._random = random.Random(user)

    async def run(self) -> None:
        while self.unanswered or len(self.events) < CLIENTS * MESSAGES:
            try:
                async with self.rooms.open(self.user) as connection:
                    await self._speak(connection)
            except (ConnectionClosed, OSError):
                pass

    async def _speak(self, connection: ClientConnection) -> None:
        await say(connection, "join", channel="a", since=self.position, history=0)
        for number in self.unanswered:
            await say(connection, "publish", channel="a", key=f"{number}", data=[self.user, number])
        # Near the end it is left in peace.
        patience = self._random.randint(0, 8) if self.breaks < 10 else 10_000
        while self.unanswered or len(self.events) < CLIENTS * MESSAGES:
            if patience == 0:
                self.breaks += 1
                connection.transport.abort()
                return
            patience -= 1
            message = await hear(connection)
            assert message["type"] in ("joined", "published", "event"), message
            if message["type"] == "published":
                self.unanswered.remove(int(message["key"]))
            elif message["type"] == "event":
                self.events.append(message["data"])
                self.position = message["id"]
            elif self.position is None:
                self.position = message["position"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_exactly_once_and_in_order_over_connections_that_break(protocol: str) -> None:
    rooms = Rooms(protocol)
    with rooms:
        clients = [Client(rooms, f"user{number}") for number in range(CLIENTS)]
        # All of them see all: the first event comes after they have a position.
        for client in clients:
            async with rooms.open(client.user) as connection:
                await say(connection, "join", channel="a")
                client.position = (await hear(connection))["position"]
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(client.run)
        assert all(client.breaks == 10 for client in clients)
        expected = clients[0].events
        assert sorted(expected) == [[client.user, number] for client in clients for number in range(MESSAGES)]
        for client in clients:
            assert client.events == expected
            mine = [number for user, number in expected if user == client.user]
            assert mine == list(range(MESSAGES))
        rooms.settled()
