import pytest

from docs_src.guides.quart.access import app
from lilya.websockets import testing


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_with_the_client_of_quart() -> None:
    async with app.test_client().websocket("/edit?token=s3cret") as session:
        assert await session.receive() == "Hello, ann."


def test_with_the_client_of_this_package() -> None:
    with testing.TestClient(app).websocket_connect("/edit?token=s3cret") as session:
        assert session.receive_text() == "Hello, ann."


def test_nobody_gets_in() -> None:
    with pytest.raises(testing.WebSocketDenialResponse) as refused:
        testing.TestClient(app).websocket_connect("/edit").__enter__()
    assert refused.value.status_code == 401
