from fastapi import FastAPI

from lilya.websockets.fastapi import WebSocket
from lilya.websockets.observing import observe
from lilya.websockets.opentelemetry import OpenTelemetryObserver

app = FastAPI()


@app.websocket("/rooms/{name}")
async def room(websocket: WebSocket, name: str) -> None:
    async with websocket:
        async for text in websocket.iter_text():
            await websocket.send_text(f"{name}: {text}")


app.add_middleware(observe, OpenTelemetryObserver())
