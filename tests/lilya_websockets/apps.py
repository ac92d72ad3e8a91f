"""Apps with a fault each, for the tests of the test client."""

from __future__ import annotations

import anyio

from lilya.websockets import WebSocket
from lilya.websockets.types import Message, Receive, Scope, Send

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close"}
TEXT: Message = {"type": "websocket.send", "text": "hello"}
START: Message = {"type": "websocket.http.response.start", "status": 401}
BODY: Message = {"type": "websocket.http.response.body"}


class Boom(Exception):
    """What a broken app raises."""


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        await websocket.send({**message, "type": "websocket.send"})


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    await receive()
    await receive()


async def never_accepts(scope: Scope, receive: Receive, send: Send) -> None:
    await anyio.sleep_forever()


async def never_ends(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    await anyio.sleep_forever()


async def raises_before_accept(scope: Scope, receive: Receive, send: Send) -> None:
    raise Boom("before accept")


async def raises_after_accept(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    await send(TEXT)
    await receive()
    raise Boom("after accept")


async def raises_after_close(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    await send(CLOSE)
    raise Boom("after close")


async def swallows_cancellation(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    while True:
        try:
            await anyio.sleep_forever()
        except GeneratorExit:
            raise
        except BaseException:  # the fault
            pass


async def returns_after_accept(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
