import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import aget_user
from django.core.asgi import get_asgi_application
from django.db import close_old_connections
from django.http import HttpRequest

from lilya.websockets import WebSocket
from lilya.websockets.origins import OriginGuard
from lilya.websockets.types import Receive, Scope, Send

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "docs_src.guides.django.settings")
django_app = get_asgi_application()


@asynccontextmanager
async def database() -> AsyncIterator[None]:
    """What a request does about connections of the database: drop the broken and the expired ones."""
    await sync_to_async(close_old_connections)()
    try:
        yield
    finally:
        await sync_to_async(close_old_connections)()


async def user_of(websocket: WebSocket) -> Any:
    engine = import_module(settings.SESSION_ENGINE)
    request = HttpRequest()
    request.session = engine.SessionStore(websocket.cookies.get(settings.SESSION_COOKIE_NAME))
    async with database():
        return await aget_user(request)


async def edit(websocket: WebSocket) -> None:
    user = await user_of(websocket)
    if not user.is_authenticated:
        await websocket.deny(401, "Sign in first.")
    elif not user.is_staff:
        await websocket.deny(403, "Guests may only read.")
    else:
        async with websocket:
            await websocket.send_text(f"Hello, {user.username}.")


async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await edit(WebSocket(scope, receive, send))
    else:
        await django_app(scope, receive, send)


app = OriginGuard(dispatch)
