"""Beside Lilya, in an environment of its own: `nox -s dropin`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest

from lilya.websockets.testing import TestClient

if importlib.util.find_spec("lilya.apps") is None:
    collect_ignore_glob = ["test_*.py"]  # there is no Lilya here

Connect = Callable[..., Any]


def with_ours(app: Any, path: str = "/", subprotocols: list[str] | None = None, **options: Any) -> Any:
    return TestClient(app).websocket_connect(path, subprotocols, **options)


def with_lilyas(app: Any, path: str = "/", subprotocols: list[str] | None = None, **options: Any) -> Any:
    from lilya.testclient import TestClient

    return TestClient(app).websocket_connect(path, subprotocols, **options)


@pytest.fixture(params=[with_ours, with_lilyas])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Connects to an app, with this package's test client and with Lilya's."""
    make: Connect = request.param
    return make
