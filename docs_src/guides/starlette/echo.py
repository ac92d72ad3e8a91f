from starlette.applications import Starlette

from lilya.websockets.starlette import WebSocket, WebSocketRoute


async def echo(websocket: WebSocket) -> None:
    async with websocket:
        async for text in websocket.iter_text():
            await websocket.send_text(f"You said: {text}")


app = Starlette(routes=[WebSocketRoute("/echo", echo)])
