from fastapi import FastAPI

from lilya.websockets.draining import drain
from lilya.websockets.fastapi import WebSocket

api = FastAPI()
app = drain(api, within=10)


@api.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    async with websocket:
        async for text in websocket.iter_text():
            await websocket.send_text(text)
