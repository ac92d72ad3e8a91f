import os
from secrets import token_hex

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from lilya.websockets import WebSocket
from lilya.websockets.origins import OriginGuard

SECRET = os.environ.get("SECRET_KEY") or token_hex()


async def orders(connection: StarletteWebSocket) -> None:
    websocket = WebSocket(connection.scope, connection.receive, connection.send)
    if "user" not in websocket.session:
        await websocket.deny(401, "Sign in first.")
        return
    async with websocket:
        await websocket.send_text(f"Welcome, {websocket.session['user']}!")
        await websocket.receive_text()


app = Starlette(
    routes=[WebSocketRoute("/orders", orders)],
    middleware=[
        Middleware(OriginGuard, origins=["https://shop.example.com"]),
        Middleware(SessionMiddleware, secret_key=SECRET, same_site="strict", https_only=True),
    ],
)
