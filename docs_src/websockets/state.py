from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send

PLANS = {"ada": "premium"}


async def feed(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    await websocket.send_text(f"Your plan: {websocket.state.plan}")
    await websocket.close()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Look the plan up, as a middleware would, and leave it for the feed."""
    websocket = WebSocket(scope, receive, send)
    websocket.state.plan = PLANS.get(websocket.query_params.get("user", ""), "free")
    await feed(scope, receive, send)
