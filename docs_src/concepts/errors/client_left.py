import logging

from lilya.websockets import WebSocket, WebSocketDisconnect
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    try:
        while True:
            move = await websocket.receive_text()
            await websocket.send_text(f"Your move: {move}")
    except WebSocketDisconnect as end:
        logging.info("The player left: %s %s", end.code, end.reason)
