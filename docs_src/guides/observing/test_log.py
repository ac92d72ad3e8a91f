import logging
import re

import pytest

from docs_src.guides.observing.log import app
from lilya.websockets.testing import WebSocketDenialResponse, connect

pytestmark = pytest.mark.anyio

LINES = [
    "opened connection=ID path=/chat",
    "ended connection=ID path=/chat by=client code=1000 seconds=N"
    " received=1 bytes_received=5 sent=1 bytes_sent=15",
    "refused connection=ID path=/chat by=OriginGuard status=403"
    """ why="Origin is neither the request's own nor one of `origins`\"""",
]


async def test_the_lines(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lilya.websockets.connections"):
        async with connect(app, "/chat?token=secret") as session:
            await session.send_text("Hello")
            assert await session.receive_text() == "You said: Hello"
        with pytest.raises(WebSocketDenialResponse):
            async with connect(app, "/chat", headers={"origin": "https://evil.example"}):
                pass
    lines = [
        record.getMessage() for record in caplog.records if record.name == "lilya.websockets.connections"
    ]
    same = [re.sub(r"=[0-9a-f]{16} ", "=ID ", re.sub(r"seconds=\S+", "seconds=N", line)) for line in lines]
    assert same == LINES
