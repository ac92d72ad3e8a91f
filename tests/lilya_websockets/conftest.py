"""Every coroutine test runs on asyncio and on trio, with a time limit. No server may have been mistreated,
and no block cut short in silence.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial, wraps
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

import anyio
import pytest
from hypothesis import HealthCheck, settings

from lilya.websockets._conversation import Conversation
from lilya.websockets.channels import Channels, Membership

from .redis_server import NO_SERVER, RedisServer, redis_binary
from .server import Server

LIMIT = 60  # seconds, for what hangs; each test needs a fraction of one, and more where other programs run

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
    config.addinivalue_line("markers", "limit(seconds): the time that the test has, instead of a minute")
    config.addinivalue_line(
        "markers", "quiet: the test wants a block to be cut short in silence; `perhaps`: or not"
    )
    config.addinivalue_line("markers", "reader: the test is about what only a block's reader meets, or does")
    config.addinivalue_line("markers", "violations: the test wants the server to object")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def plain_loggers() -> None:
    """The loggers of uvicorn as they are before it configures them, which some tests have it do for good."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        if not logger.propagate or logger.level == logging.CRITICAL:
            logger.propagate = True
            logger.handlers.clear()
            logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis for all tests that leave it as it was, and take its keys for their own."""
    if find_spec("redis") is None:
        pytest.skip("the client of Redis is not installed: the extra `redis` brings it")
    if redis_binary() is None:
        pytest.skip(NO_SERVER)
    with RedisServer() as server:
        yield server


@pytest.fixture
def prefix() -> str:
    """What the keys of a test start with on a server of Redis that it shares with others."""
    return uuid4().hex


@pytest.fixture(params=["memory", "redis"])
def make_channels(request: pytest.FixtureRequest) -> Callable[..., Channels]:
    """Makes channels, on every backend in turn. Those of one test are on one."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.ask("FLUSHALL")
        return partial(Channels, server.url)
    return partial(Channels, f"{request.param}://")


def _limited(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    @wraps(function)
    async def limited(*args: Any, **kwargs: Any) -> None:
        with anyio.fail_after(seconds):
            await function(*args, **kwargs)

    return limited


def lend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have servers in memory count as known, and whatever stands before them."""
    monkeypatch.setattr("lilya.websockets._reader.waker_of", lambda receive: lambda: Server.made[-1].let_go())
    monkeypatch.setattr("lilya.websockets._reader.ready_of", ready_of)


def ready_of(send: Any) -> Callable[[], bool] | None:
    server = getattr(send, "__self__", None)
    return (lambda: server.is_ready) if isinstance(server, Server) else None


@pytest.fixture(params=["reader", "lent", "direct"])
def server_announces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks as they are on most servers, with a reader; on a server whose `receive` is lent to the app; and
    where the server tells the end.
    """
    monkeypatch.setattr(Server, "announces", request.param == "direct")
    if request.param == "lent":
        lend(monkeypatch)


def _is_possible(item: pytest.Item) -> bool:
    parameters = (
        item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    )
    if parameters.get("server_announces") == "direct" and item.get_closest_marker("reader"):
        return False
    if parameters.get("server_announces") == "lent":  # on asyncio only
        backend = parameters.get("anyio_backend")
        if "trio" in (backend, *(backend if isinstance(backend, tuple) else ())):
            return False
    # The client of Redis is asyncio's; that it says so on trio has a test of its own.
    return (parameters.get("make_channels"), parameters.get("anyio_backend")) != ("redis", "trio")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = filter(_is_possible, items)
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            marker = item.get_closest_marker("limit")
            item.obj = _limited(item.obj, marker.args[0] if marker else LIMIT)


BEGAN = pytest.StashKey[None]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    item.stash[BEGAN] = None


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


@pytest.fixture(autouse=True)
def no_quiet_end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No block swallows what cuts its body short, and with it what the body has yet to assert."""
    ends: list[str] = []
    for block in (Conversation, Membership):
        monkeypatch.setattr(block, "__aexit__", _noting(block.__aexit__, ends))
    yield
    marker = request.node.get_closest_marker("quiet")
    if marker is not None:
        # What it needs may not be installed. Then it was skipped before it began.
        assert ends or marker.args or BEGAN not in request.node.stash, "no block was cut short"
    else:
        assert ends == [], "a block was cut short, in silence: the marker `quiet` says that it is to be"


def _noting(leave: Callable[..., Awaitable[bool]], ends: list[str]) -> Callable[..., Awaitable[bool]]:
    async def leaving(*arguments: Any) -> bool:
        swallowed = await leave(*arguments)
        if swallowed:
            ends.append(repr(arguments[2]))  # the exception itself would keep alive what a test wants gone
        return swallowed

    return leaving
