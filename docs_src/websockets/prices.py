import json
from decimal import Decimal
from functools import partial

from lilya.websockets import WebSocket
from lilya.websockets.types import Receive, Scope, Send


class MoneySocket(WebSocket):
    """JSON in which numbers with a point are exact decimals, both ways."""

    loads = staticmethod(partial(json.loads, parse_float=Decimal))
    dumps = staticmethod(partial(json.dumps, default=str))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = MoneySocket(scope, receive, send)
    await websocket.accept()
    total = Decimal(0)
    async for item in websocket.iter_json():
        total += item["price"]
        await websocket.send_json({"total": total})
