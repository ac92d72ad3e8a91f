import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from lilya.websockets.channels import Channels, Dropped, Event, Gap, Presence
from lilya.websockets.fastapi import WebSocket

channels = Channels("memory://")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with channels:
        yield


app = FastAPI(lifespan=lifespan)


def encode(item: Event | Gap | Dropped | Presence) -> str | None:
    match item:
        case Event():
            return json.dumps({"id": item.id, **item.json()})
        case Gap():
            return json.dumps({"id": item.id, "missing": True})
        case Presence():
            return json.dumps({item.type: item.member.key})
    return None


@app.websocket("/rooms/{room}")
async def join(
    websocket: WebSocket,
    room: str,
    name: str,
    since: str | None = None,
) -> None:
    membership = channels.join(
        room,
        websocket,
        history=10,
        since=since,
        member={},
        key=name,
        presence="keys",
        encode=encode,
    )
    async with websocket:
        try:
            async with membership:
                async for text in websocket.iter_text():
                    await channels.publish_json(room, {"name": name, "text": text})
        except ValueError:
            await websocket.close(1008, "invalid since")
