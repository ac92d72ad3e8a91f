from secrets import token_hex

from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send

seats: dict[str, str] = {}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    ticket = websocket.query_params.get("ticket") or token_hex(8)
    await websocket.accept()
    await websocket.send_json({"ticket": ticket, "seat": seats.get(ticket)})
    async for seat in websocket.iter_text():
        seats[ticket] = seat
