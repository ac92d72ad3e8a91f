from collections.abc import Awaitable, Callable
from functools import wraps

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from lilya.websockets.starlette import WebSocket, WebSocketRoute

TOKENS = {"s3cret": "ann", "guest": "guest"}
Handler = Callable[[WebSocket, str], Awaitable[None]]


def signed_in(handler: Handler) -> Callable[[WebSocket], Awaitable[None]]:
    @wraps(handler)
    async def checked(websocket: WebSocket) -> None:
        user = TOKENS.get(websocket.query_params.get("token", ""))
        if user is None:
            raise HTTPException(401, "Sign in first.")
        if user == "guest":
            raise HTTPException(403, "Guests may only read.")
        await handler(websocket, user)

    return checked


@signed_in
async def edit(websocket: WebSocket, user: str) -> None:
    async with websocket:
        await websocket.send_text(f"Hello, {user}.")


app = Starlette(routes=[WebSocketRoute("/edit", edit)])
