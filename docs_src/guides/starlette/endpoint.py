from typing import Any

from starlette.applications import Starlette

from lilya.websockets.starlette import WebSocket, WebSocketEndpoint, WebSocketRoute


class Room(WebSocketEndpoint):
    encoding = "json"

    async def on_connect(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json({"room": websocket.path_params["number"]})

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        await websocket.send_json({"you said": data})


app = Starlette(routes=[WebSocketRoute("/rooms/{number:int}", Room)])
