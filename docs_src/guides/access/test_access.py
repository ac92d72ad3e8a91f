from base64 import b64encode

import pytest
from itsdangerous import TimestampSigner

from docs_src.guides.access.session import SECRET, app
from lilya.websockets.testing import WebSocketDenialResponse, connect, unguarded_routes

pytestmark = pytest.mark.anyio


def headers(origin: str) -> dict[str, str]:
    session = TimestampSigner(SECRET).sign(b64encode(b'{"user": "ann"}')).decode()
    return {"origin": origin, "cookie": f"session={session}"}


async def test_a_user_who_has_signed_in() -> None:
    async with connect(app, "/orders", headers=headers("https://shop.example.com")) as session:
        assert await session.receive_text() == "Welcome, ann!"


async def test_the_same_user_on_another_page() -> None:
    with pytest.raises(WebSocketDenialResponse) as caught:
        async with connect(app, "/orders", headers=headers("https://evil.example")):
            pass
    assert caught.value.status_code == 403


def test_every_websocket_is_guarded() -> None:
    assert unguarded_routes(app) == []
