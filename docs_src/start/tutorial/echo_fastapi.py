from fastapi import FastAPI

from lilya.websockets.fastapi import WebSocket

app = FastAPI()


@app.websocket("/chat")
async def chat(websocket: WebSocket) -> None:
    async with websocket:
        async for text in websocket.iter_text():
            await websocket.send_text(f"You said: {text}")
