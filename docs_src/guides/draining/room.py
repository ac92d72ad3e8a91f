from lilya.websockets import WebSocket
from lilya.websockets.draining import close_all
from lilya.websockets.types import Receive, Scope, Send

room: set[WebSocket] = set()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    async with WebSocket(scope, receive, send) as websocket:
        room.add(websocket)
        websocket.add_cleanup(lambda: room.discard(websocket))
        async for text in websocket.iter_text():
            if text == "/close":
                await close_all(room, 4000, "The room is closed.")
            else:
                await websocket.send_text(f"{len(room)} in the room.")
