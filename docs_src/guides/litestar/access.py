from typing import Any

from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler
from litestar.params import FromQuery

from lilya.websockets.litestar import WebSocket, websocket

TOKENS = {"s3cret": "ann", "guest": "guest"}


async def signed_in(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    socket = WebSocket.wrap(connection)
    if socket.query_params.get("token") not in TOKENS:
        await socket.deny(401, "Sign in first.")
        raise NotAuthorizedException


async def editor(socket: WebSocket, token: FromQuery[str]) -> str:
    if TOKENS[token] == "guest":
        await socket.deny(403, "Guests may only read.")
        raise PermissionDeniedException
    return TOKENS[token]


@websocket("/edit", guards=[signed_in], dependencies={"user": Provide(editor)})
async def edit(socket: WebSocket, user: NamedDependency[str]) -> None:
    async with socket:
        await socket.send_text(f"Hello, {user}.")


app = Litestar([edit])
