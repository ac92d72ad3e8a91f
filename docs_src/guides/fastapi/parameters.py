from typing import Annotated

from fastapi import Depends, FastAPI

from lilya.websockets.fastapi import WebSocket

app = FastAPI()


async def name_of(websocket: WebSocket, name: str = "somebody") -> str:
    websocket.state.name = name
    return name.title()


@app.websocket("/rooms/{number}")
async def room(websocket: WebSocket, number: int, name: Annotated[str, Depends(name_of)]) -> None:
    async with websocket:
        await websocket.send_json({"room": number, "name": name, "as given": websocket.state.name})
