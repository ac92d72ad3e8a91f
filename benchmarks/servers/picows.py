"""picows: frames in and out, without messages in between."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

PIECE = 65536  # bytes; each is an object of its own: of one that is sent again, a server may keep no copy
group: dict[WSTransport, None] = {}


class Listener(WSListener):  # type: ignore[misc]  # compiled, without types
    def __init__(self, path: bytes) -> None:
        self.path = path.decode()
        self.writable = asyncio.Event()
        self.writable.set()

    def on_ws_connected(self, transport: WSTransport) -> None:
        if self.path == "/join":
            group[transport] = None
        elif self.path == "/flood":
            self.task = asyncio.create_task(self.flood(transport))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif self.path == "/echo":
            transport.send(frame.msg_type, frame.get_payload_as_bytes())
        elif self.path == "/publish":
            for member in group:
                member.send(frame.msg_type, frame.get_payload_as_bytes())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        group.pop(transport, None)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    async def flood(self, transport: WSTransport) -> None:
        for _ in range(512):
            await self.writable.wait()
            transport.send(WSMsgType.BINARY, b"x" * PIECE)


def listener(request: WSUpgradeRequest) -> Listener:
    return Listener(request.path)


async def main() -> None:
    server = await ws_create_server(listener, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


uvloop.install()
asyncio.run(main())
