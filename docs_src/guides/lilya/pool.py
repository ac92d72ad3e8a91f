from collections.abc import AsyncIterator

from lilya.apps import Lilya
from lilya.dependencies import Provide, Provides
from lilya.routing import WebSocketPath

from lilya.websockets import WebSocket

free = ["a session"]  # of a database, say


async def session() -> AsyncIterator[str]:
    taken = free.pop()
    try:
        yield taken
    finally:
        free.append(taken)


async def work(websocket: WebSocket, session: str = Provides()) -> None:
    await websocket.accept()
    await websocket.send_text(f"working with {session}, {len(free)} left")
    async for text in websocket.iter_text():
        await websocket.send_text(f"{session}: {text}")


app = Lilya(routes=[WebSocketPath("/", work, dependencies={"session": Provide(session)})])
