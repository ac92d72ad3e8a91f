from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException

from lilya.websockets.fastapi import WebSocket

app = FastAPI()
TOKENS = {"s3cret": "ann", "guest": "guest"}


async def user_of(websocket: WebSocket, token: str | None = None) -> str:
    if token not in TOKENS:
        raise HTTPException(401, "Sign in first.")
    return TOKENS[token]


async def editor(user: Annotated[str, Depends(user_of)]) -> str:
    if user == "guest":
        raise HTTPException(403, "Guests may only read.")
    return user


@app.websocket("/edit")
async def edit(websocket: WebSocket, user: Annotated[str, Depends(editor)]) -> None:
    async with websocket:
        await websocket.send_text(f"Hello, {user}.")
