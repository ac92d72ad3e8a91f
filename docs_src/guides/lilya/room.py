from lilya.apps import Lilya
from lilya.routing import Include, WebSocketPath

from lilya.websockets import WebSocket, WebSocketDataError


async def room(websocket: WebSocket) -> None:
    await websocket.accept()
    name = websocket.path_params["room"]
    try:
        async for text in websocket.iter_text():
            await websocket.send_text(f"{name}: {text}")
    except WebSocketDataError:
        await websocket.close(1003, "text only, please")


app = Lilya(routes=[Include("/rooms", routes=[WebSocketPath("/{room}", room)])])
