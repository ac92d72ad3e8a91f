import os

from lilya.websockets import WebSocket
from lilya.websockets.limits import LimitGuard, RateLimit
from lilya.websockets.tokens import bearer_token, token_matches
from lilya.websockets.types import Receive, Scope, Send

USERS = {"ann": os.environ.get("ANNS_KEY", "anns-key-for-trying-this-page")}

questions = RateLimit(0.1, burst=2)  # one in 10 seconds, and two at once


async def ask(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    token = bearer_token(websocket)
    user = next((name for name, key in USERS.items() if token_matches(token, key)), None)
    if user is None:
        await websocket.deny(401)
        return
    async with websocket:
        async for question in websocket.iter_text():
            wait = questions.take(user)
            await websocket.send_text(f"Ask again in {wait:.0f} s." if wait else f"{question} 42.")


app = LimitGuard(ask, connections_per_key=20, handshakes_per_second=5)  # of an address, whoever it is
