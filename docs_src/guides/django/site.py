import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import Resolver404, path, resolve

from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels
from lilya.websockets.draining import drain
from lilya.websockets.types import Receive, Scope, Send

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "docs_src.guides.django.settings")
django_app = get_asgi_application()
channels = Channels("memory://")


async def home(request: HttpRequest) -> HttpResponse:
    return HttpResponse("Hello over HTTP.")


def announce(request: HttpRequest, name: str) -> HttpResponse:
    channels.publish_from_thread(name, request.POST["text"])
    return HttpResponse(status=204)


async def echo(websocket: WebSocket) -> None:
    async with websocket:
        async for text in websocket.iter_text():
            await websocket.send_text(f"You said: {text}")


async def room(websocket: WebSocket, name: str) -> None:
    async with websocket, channels.join(name, websocket):
        async for text in websocket.iter_text():
            await channels.publish(name, text)


urlpatterns = [path("", home), path("announce/<slug:name>", announce)]
websocket_urlpatterns = (path("echo", echo), path("rooms/<slug:name>", room))


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    async with channels:
        yield


async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await django_app(scope, receive, send)
    elif scope["type"] == "websocket":
        websocket = WebSocket(scope, receive, send)
        try:
            match = resolve(scope["path"], websocket_urlpatterns)
        except Resolver404:
            await websocket.deny(404)
        else:
            handler: Callable[..., Awaitable[None]] = match.func
            await handler(websocket, **match.kwargs)
    else:  # the lifespan, which Django does not answer
        await receive()
        async with lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


app = drain(dispatch, within=10)
