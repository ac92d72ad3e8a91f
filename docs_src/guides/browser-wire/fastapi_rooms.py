from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException

from lilya.websockets.channels import Channels, Grant, serve
from lilya.websockets.fastapi import WebSocket
from lilya.websockets.tokens import bearer_token

channels = Channels()
TOKENS = {"token-of-ann": "ann", "token-of-bob": "bob"}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with channels:
        yield


app = FastAPI(lifespan=lifespan)


async def user_of(websocket: WebSocket) -> str:
    token = bearer_token(websocket, subprotocol="bearer")
    if token not in TOKENS:
        raise HTTPException(401)
    return TOKENS[token]


@app.websocket("/live")
async def live(websocket: WebSocket, user: Annotated[str, Depends(user_of)]) -> None:
    def authorize(channel: str) -> Grant | None:
        return Grant(publish=True) if channel in ("lobby", f"user:{user}") else None

    await serve(websocket, channels, authorize, key=user)


@app.post("/build/{user}")
async def built(user: str) -> str:
    return await channels.publish_json(f"user:{user}", {"text": "Your build has finished"})
