from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels, Dropped, Event
from lilya.websockets.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    async with (
        WebSocket(scope, receive, send) as websocket,
        Channels("memory://") as channels,
        channels.subscribe("news") as fast,
        channels.subscribe("news", policy="drop_oldest", max_messages=2) as slow,
    ):
        for number in range(1, 8):
            await channels.publish("news", f"news {number}")
            await anext(fast)
        while slow.pending:
            match await anext(slow):
                case Event(data=str(text)):
                    await websocket.send_text(text)
                case Dropped(count=count):
                    await websocket.send_text(f"{count} are missing here")
        await websocket.send_text(f"{slow.dropped} of {fast.sent} dropped")
