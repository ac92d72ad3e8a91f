from lilya.websockets.types import Message, Receive, Scope, Send

PREPARED = "lilya.websocket.prepared"

readers: dict[Send, bool] = {}  # and whether the server keeps frames


async def publish(news: str) -> None:
    plain: Message = {"type": "websocket.send", "text": news}
    # One dictionary for all sends of one message: the server keeps in it what it made for the first.
    shared: Message = {**plain, "prepared": {}}
    for send, keeps_frames in list(readers.items()):
        try:
            await send(shared if keeps_frames else plain)
        except OSError:  # this reader has left
            readers.pop(send, None)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    readers[send] = PREPARED in (scope.get("extensions") or {})
    while (message := await receive())["type"] == "websocket.receive":
        await publish(f"News: {message.get('text')}")
    readers.pop(send, None)
