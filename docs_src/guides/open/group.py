import anyio

from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def echo(websocket: WebSocket) -> None:
    async for text in websocket.iter_text():
        await websocket.send_text(f"You said: {text}")


async def feed(websocket: WebSocket) -> None:
    for number in range(1, 1000):
        await websocket.send_json({"news": number})
        await anyio.sleep(60)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    async with WebSocket(scope, receive, send) as websocket, anyio.create_task_group() as tasks:
        tasks.start_soon(feed, websocket)
        await echo(websocket)
        tasks.cancel_scope.cancel()
