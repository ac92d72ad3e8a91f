from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    if "token" not in websocket.query_params:
        await websocket.deny(401, "Sign in first.", {"www-authenticate": "Bearer"})
        return
    async with websocket:
        await websocket.send_text("Welcome")
