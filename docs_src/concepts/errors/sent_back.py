from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    async for data in websocket.iter_json():
        try:
            await websocket.send_json(data)
            await websocket.send_text(f"Hello, {data['name']}!")
        except ValueError as error:
            await websocket.send_text(str(error))
