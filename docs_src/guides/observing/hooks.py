from lilya.websockets import WebSocket
from lilya.websockets.observing import End, ObservedConnection, Observer, observe
from lilya.websockets.types import Receive, Scope, Send


class Visitors(Observer):
    """How many are here now."""

    def __init__(self) -> None:
        self.here = 0
        self.last = "Nobody has left yet."

    def opened(self, connection: ObservedConnection) -> None:
        self.here += 1

    def ended(self, connection: ObservedConnection, end: End) -> None:
        self.here -= 1
        count = connection.messages_received
        self.last = f"The last one left with {end.code} after {count} message{'' if count == 1 else 's'}."


visitors = Visitors()


async def counter(scope: Scope, receive: Receive, send: Send) -> None:
    async with WebSocket(scope, receive, send) as websocket:
        async for _ in websocket.iter_text():
            await websocket.send_text(f"{visitors.here} here. {visitors.last}")


app = observe(counter, visitors)
