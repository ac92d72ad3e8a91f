from prometheus_client import CollectorRegistry, make_asgi_app

from lilya.websockets import WebSocket
from lilya.websockets.observing import observe
from lilya.websockets.prometheus import PrometheusObserver
from lilya.websockets.types import Receive, Scope, Send

registry = CollectorRegistry()
metrics = make_asgi_app(registry)


async def chat(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":  # serve this to Prometheus only
        await metrics(scope, receive, send)
        return
    async with WebSocket(scope, receive, send) as websocket:
        async for text in websocket.iter_text():
            await websocket.send_text(f"You said: {text}")


app = observe(chat, PrometheusObserver(registry))
