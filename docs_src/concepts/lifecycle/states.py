from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


def states(websocket: WebSocket) -> str:
    client, application = websocket.client_state, websocket.application_state
    return f"client {client.name}, app {application.name}"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    seen = [states(websocket)]

    await websocket.receive()  # the client's websocket.connect
    seen.append(states(websocket))

    await websocket.accept()
    seen.append(states(websocket))

    for line in seen:
        await websocket.send_text(line)
    await websocket.close()
