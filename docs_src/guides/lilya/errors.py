from lilya.apps import Lilya
from lilya.middleware import DefineMiddleware
from lilya.routing import WebSocketPath

from lilya.websockets import WebSocket
from lilya.websockets.lilya import ErrorsToServer


async def double(websocket: WebSocket) -> None:
    async with websocket:
        async for text in websocket.iter_text():
            await websocket.send_text(str(2 * int(text)))


app = Lilya(routes=[WebSocketPath("/", double)], middleware=[DefineMiddleware(ErrorsToServer)])
