import os

from lilya.websockets import WebSocket
from lilya.websockets.tokens import first_message_token, token_matches
from lilya.websockets.types import Receive, Scope, Send

KEY = os.environ.get("API_KEY", "only-for-trying-this-page")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    async with websocket.open(max_message_size=8192):
        if not token_matches(await first_message_token(websocket, within=5), KEY):
            await websocket.close(1008, "The first message must be your key.")
            return
        await websocket.send_text("Welcome!")
        async for text in websocket.iter_text():
            await websocket.send_text(f"You said: {text}")
