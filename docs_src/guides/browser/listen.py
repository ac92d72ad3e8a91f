"""Shows what is said in a room, each message once: python listen.py ws://127.0.0.1:8000/ws"""

import asyncio
import json
import random
import sys
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

FINAL = {1000, 1002, 1003, 1007, 1008, 1009, 1010}  # trying again would end in the same way


async def listen(url: str) -> None:
    join: dict[str, Any] = {"type": "join", "channel": "room:1", "history": 20}
    # Connects again whenever the connection is lost, and waits longer each time that it cannot.
    async for websocket in connect(url, subprotocols=[Subprotocol("lilya.channels.v1")], proxy=None):
        try:
            await websocket.send(json.dumps(join))
            async for text in websocket:
                message = json.loads(text)
                since = message.get("id")
                match message["type"]:
                    case "joined":
                        since = message["position"]
                    case "event":
                        show(f"{message['data']['from']}: {message['data']['text']}")
                    case "gap":
                        show("Messages are missing here.")
                    case "error":
                        sys.exit(message["message"])
                if since:  # go on from here after a reconnect
                    join = {"type": "join", "channel": "room:1", "since": since}
        except ConnectionClosed:
            pass
        if websocket.close_code in FINAL or (websocket.close_code or 0) >= 3000:
            sys.exit(f"closed with {websocket.close_code} {websocket.close_reason}")
        await asyncio.sleep(random.random())  # others were thrown out at the same instant


def show(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(listen(sys.argv[1]))
