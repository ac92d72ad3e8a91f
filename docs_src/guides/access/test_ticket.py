import json
import time

import pytest
from starlette.requests import Request

from docs_src.guides.access.ticket import LIFETIME, app, issue
from lilya.websockets.testing import WebSocketDenialResponse, connect

pytestmark = pytest.mark.anyio


async def fetched() -> str:
    headers = [(b"authorization", b"Bearer only-for-trying-this-page")]
    response = await issue(Request({"type": "http", "method": "POST", "headers": headers}))
    ticket: str = json.loads(bytes(response.body))["ticket"]
    return ticket


async def test_a_ticket_opens_a_websocket() -> None:
    async with connect(app, f"/orders?ticket={await fetched()}") as session:
        assert await session.receive_text() == "Welcome, ann!"


async def test_a_ticket_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = await fetched()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LIFETIME + 2)
    with pytest.raises(WebSocketDenialResponse) as caught:
        async with connect(app, f"/orders?ticket={ticket}"):
            pass
    assert caught.value.status_code == 401


async def test_a_forged_ticket() -> None:
    ticket = await fetched()
    with pytest.raises(WebSocketDenialResponse) as caught:
        async with connect(app, f"/orders?ticket={ticket[:-2]}"):
            pass
    assert caught.value.status_code == 401
