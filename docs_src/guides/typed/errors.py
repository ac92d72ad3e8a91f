from pydantic import BaseModel, Field

from lilya.websockets import WebSocket, WebSocketDataError
from lilya.websockets.types import Receive, Scope, Send


class Bid(BaseModel):
    item: str
    amount: int = Field(gt=0)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket[Bid](scope, receive, send)
    async with websocket:
        while True:
            try:
                bid = await websocket.receive_message(timeout=60)
            except WebSocketDataError as error:
                for detail in error.errors():
                    await websocket.send_text(f"{detail['loc']} {detail['type']}: {detail['msg']}")
            else:
                await websocket.send_message(bid)
