from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send

words: list[str] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    async for word in websocket.iter_text():
        words.append(word)
        await websocket.send_text(" ".join(words))
