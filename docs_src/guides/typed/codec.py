import json
import zlib
from typing import Any

from pydantic import BaseModel

from lilya.websockets import WebSocket
from lilya.websockets.typed import Codec
from lilya.websockets.types import Receive, Scope, Send


class Checked(Codec):
    """JSON behind its checksum, in binary messages."""

    binary = True

    def decode(self, data: bytes) -> Any:
        text = data[4:]
        if zlib.crc32(text).to_bytes(4, "big") != data[:4]:
            raise ValueError("the checksum is wrong")
        return json.loads(text)

    def encode(self, value: Any) -> bytes:
        text = json.dumps(value).encode()
        return zlib.crc32(text).to_bytes(4, "big") + text


class Point(BaseModel):
    x: int
    y: int


class PointSocket(WebSocket[Point], codec=Checked()):
    pass


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    async with PointSocket(scope, receive, send) as websocket:
        async for point in websocket.iter_messages(on_error="close"):
            await websocket.send_message(Point(x=point.y, y=point.x))
