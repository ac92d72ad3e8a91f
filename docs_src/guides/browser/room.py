from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from lilya.websockets.channels import Channels, Grant, Refused, serve

CLIENT = files("lilya.websockets.channels") / "client.js"
PAGE = Path(__file__).with_name("room.html")

channels = Channels()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with channels:
        yield


async def page(request: Request) -> Response:
    return FileResponse(PAGE)


async def client(request: Request) -> Response:
    return Response(CLIENT.read_bytes(), media_type="text/javascript")


async def talk(websocket: WebSocket) -> None:
    name = websocket.query_params.get("name", "somebody")

    def authorize(channel: str) -> Grant | None:
        if channel.startswith("room:"):
            return Grant(publish=True, presence=True, member={"name": name})
        return None

    def on_publish(channel: str, data: object) -> object:
        if isinstance(data, str) and 0 < len(data) <= 1000:
            return {"from": name, "text": data}
        raise Refused("a message is text of 1 to 1,000 characters", "invalid")

    async def on_request(data: object) -> object:
        return await channels.count("room:1")

    await serve(websocket, channels, authorize, key=name, on_publish=on_publish, on_request=on_request)


app = Starlette(
    routes=[Route("/", page), Route("/client.js", client), WebSocketRoute("/ws", talk)], lifespan=lifespan
)
