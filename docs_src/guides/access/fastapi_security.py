import os
from typing import Annotated

from fastapi import FastAPI, HTTPException, Security, WebSocket, WebSocketDisconnect
from fastapi.requests import HTTPConnection
from fastapi.security import SecurityScopes

from lilya.websockets.tokens import bearer_token, token_matches

KEYS = {
    os.environ.get("ANNS_KEY", "anns-key-for-trying-this-page"): {"orders:read"},
    os.environ.get("BOBS_KEY", "bobs-key-for-trying-this-page"): {"invoices:read"},
}

app = FastAPI()


async def current_scopes(connection: HTTPConnection, needed: SecurityScopes) -> set[str]:
    """The same dependency for HTTP and for WebSockets, also for those of browsers."""
    token = bearer_token(connection, subprotocol="bearer")
    for key, scopes in KEYS.items():
        if token_matches(token, key):
            if not scopes.issuperset(needed.scopes):
                raise HTTPException(403)
            return scopes
    raise HTTPException(401, headers={"www-authenticate": "Bearer"})


Reader = Annotated[set[str], Security(current_scopes, scopes=["orders:read"])]


@app.get("/orders")
async def orders(scopes: Reader) -> list[str]:
    return ["tea"]


@app.websocket("/orders/live")
async def live(websocket: WebSocket, scopes: Reader) -> None:
    offered = websocket.scope["subprotocols"]
    await websocket.accept("bearer" if "bearer" in offered else None)
    try:
        await websocket.send_text("tea")
        await websocket.receive_text()
    except WebSocketDisconnect:
        pass
