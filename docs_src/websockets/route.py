from lilya.websockets import WebSocket, WebSocketClose
from lilya.websockets.types import Receive, Scope, Send


async def greet(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    await websocket.send_text(f"Welcome, {websocket.path_params['username']}!")
    await websocket.close()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    path = scope["path"].removeprefix(scope.get("root_path") or "")
    _, first, *rest = path.split("/")
    if first == "users" and len(rest) == 1:
        scope["path_params"] = {"username": rest[0]}
        await greet(scope, receive, send)
    else:
        await WebSocketClose()(scope, receive, send)
