import anyio

from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def stop_at_the_end(websocket: WebSocket, work: anyio.CancelScope) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
    work.cancel()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop_at_the_end, websocket, tasks.cancel_scope)
        await websocket.send_text("Working for an hour")
        await anyio.sleep(3600)
        await websocket.send_text("Done")
        await websocket.close()
