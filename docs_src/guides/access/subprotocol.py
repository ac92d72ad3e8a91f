import os

from lilya.websockets import WebSocket
from lilya.websockets.tokens import bearer_token, token_matches
from lilya.websockets.types import Receive, Scope, Send

KEY = os.environ.get("API_KEY", "only-for-trying-this-page")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    if not token_matches(bearer_token(websocket, subprotocol="bearer"), KEY):
        await websocket.deny(401)
        return
    async with websocket.open(websocket.select_subprotocol(["bearer"])):
        await websocket.send_text("Welcome!")
