from anyio import WouldBlock, create_memory_object_stream, create_task_group
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from lilya.websockets import PreparedMessage, WebSocket, WebSocketDisconnect
from lilya.websockets.types import Receive, Scope, Send

outboxes: set[MemoryObjectSendStream[PreparedMessage]] = set()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    async with WebSocket(scope, receive, send) as websocket:
        outbox, waiting = create_memory_object_stream[PreparedMessage](64)
        with outbox, waiting:
            async with create_task_group() as tasks:
                tasks.start_soon(write, websocket, waiting)
                outboxes.add(outbox)
                try:
                    async for text in websocket.iter_text():
                        send_to_all(PreparedMessage(f"To all: {text}"))
                finally:
                    outboxes.discard(outbox)
                tasks.cancel_scope.cancel()


def send_to_all(message: PreparedMessage) -> None:
    for outbox in list(outboxes):
        try:
            outbox.send_nowait(message)
        except WouldBlock:  # its client is too slow
            outboxes.discard(outbox)
            outbox.close()


async def write(websocket: WebSocket, waiting: MemoryObjectReceiveStream[PreparedMessage]) -> None:
    try:
        async for message in waiting:
            await websocket.send_prepared(message, timeout=5)
    except (TimeoutError, WebSocketDisconnect):
        pass
    await websocket.close(1013, "You read too slowly.")
