"""The pytest plugin of `lilya-websockets`: one fixture.

pytest imports this module in every run of everybody who has the package installed. So it imports nothing but
pytest, and is outside of `lilya.websockets`, which would come with it; the test client is imported by the
first test that uses the fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lilya.websockets.testing import TestClient
    from lilya.websockets.types import AnyASGIApp

__all__ = ["websocket_client"]


@pytest.fixture
def websocket_client() -> Iterator[Callable[..., TestClient]]:
    """Clients whose app has been started up, and is shut down when the test is over.

        def test_echo(websocket_client):
            with websocket_client(app).websocket_connect("/") as session:
                session.send_text("hello")

    Called with the app and the options of `TestClient`.
    """
    from lilya.websockets.testing import TestClient

    with ExitStack() as stack:

        def client(app: AnyASGIApp, **options: Any) -> TestClient:
            return stack.enter_context(TestClient(app, **options))

        yield client
