"""Every coroutine test runs on asyncio and on trio, with a time limit; no server may have been mistreated."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, settings

from .server import Server

LIMIT = 10  # seconds; each test needs a fraction of one

settings.register_profile(
    "lilya_websockets",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lilya_websockets")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "contract(*rows): the rows of the contract that the test checks")
    config.addinivalue_line("markers", "violations: the test wants the server to object")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _limited(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def limited(*args: Any, **kwargs: Any) -> None:
        with anyio.fail_after(LIMIT):
            await function(*args, **kwargs)

    return limited


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _limited(item.obj)


@pytest.fixture(autouse=True)
def no_violations(request: pytest.FixtureRequest) -> Iterator[None]:
    """No server that the test makes is sent, or asked for, what it must not be."""
    Server.made.clear()
    yield
    violations = [violation for server in Server.made for violation in server.violations]
    Server.made.clear()
    if request.node.get_closest_marker("violations"):
        assert violations, "the server had nothing to object to"
    else:
        assert not violations
