import os
from secrets import token_hex

from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from lilya.websockets import WebSocket
from lilya.websockets.tokens import bearer_token, token_matches

LIFETIME = 30  # seconds

tickets = URLSafeTimedSerializer(os.environ.get("SECRET_KEY") or token_hex(), salt="ticket for /orders")
users = {"ann": os.environ.get("ANNS_TOKEN", "only-for-trying-this-page")}


async def issue(request: Request) -> JSONResponse:
    """Over HTTP, where a page can send its token in a header."""
    token = bearer_token(request)
    for user, expected in users.items():
        if token_matches(token, expected):
            return JSONResponse({"ticket": tickets.dumps(user)}, headers={"cache-control": "no-store"})
    raise HTTPException(401, headers={"www-authenticate": "Bearer"})


async def orders(connection: StarletteWebSocket) -> None:
    websocket = WebSocket(connection.scope, connection.receive, connection.send)
    try:
        user = tickets.loads(bearer_token(websocket, query="ticket") or "", max_age=LIFETIME)
    except BadData:
        await websocket.deny(401, "This ticket is invalid or has expired.")
        return
    async with websocket:
        await websocket.send_text(f"Welcome, {user}!")
        await websocket.receive_text()


app = Starlette(routes=[Route("/ticket", issue, methods=["POST"]), WebSocketRoute("/orders", orders)])
