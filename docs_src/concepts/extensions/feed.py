import anyio

from lilya.websockets.types import Message, Receive, Scope, Send

END = "lilya.websocket.end"


async def until_left(receive: Receive, feed: anyio.CancelScope) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass
    feed.cancel()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    async with anyio.create_task_group() as tasks:

        def leave(end: Message) -> None:
            tasks.cancel_scope.cancel()

        extensions = scope.get("extensions") or {}
        if END in extensions:  # the server tells
            extensions[END]["watch"](leave)
        else:  # a task has to find out
            tasks.start_soon(until_left, receive, tasks.cancel_scope)
        for number in range(1, 1_000_000):
            await send({"type": "websocket.send", "text": f"News {number}"})
            await anyio.sleep(1)
