from litestar import Litestar

from lilya.websockets.litestar import WebSocket, websocket


@websocket("/echo")
async def echo(socket: WebSocket) -> None:
    async with socket:
        async for text in socket.iter_text():
            await socket.send_text(f"You said: {text}")


app = Litestar([echo])
