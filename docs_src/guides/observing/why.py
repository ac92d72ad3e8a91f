from lilya.websockets import WebSocket
from lilya.websockets.observing import LogObserver, explain, observe
from lilya.websockets.types import Receive, Scope, Send

members: set[WebSocket] = set()


async def room(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    if len(members) >= 1:
        explain(websocket, "the room is full")
        await websocket.deny(503)
        return
    async with websocket:
        members.add(websocket)
        websocket.add_cleanup(lambda: members.discard(websocket))
        await websocket.receive_text()


app = observe(room, LogObserver())
