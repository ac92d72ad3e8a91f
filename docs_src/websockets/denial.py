from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


async def sign_in_first(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as an HTTP app does."""
    headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": b"Sign in first."})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    if websocket.headers.get("authorization") != "Bearer secret":
        await websocket.send_denial_response(sign_in_first)
        return
    await websocket.accept()
    await websocket.send_text("Welcome.")
    await websocket.close()
