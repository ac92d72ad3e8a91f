"""The pytest plugin."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from lilya.websockets.testing import TestClient

from .apps import echo

pytest_plugins = ["pytester"]

TESTS = """
started = []


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        started.append("up")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        started.append("down")
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "hello"})
    await receive()


def test_the_fixture(websocket_client):
    client = websocket_client(app, timeout=1)
    assert started == ["up"]
    with client.websocket_connect("/") as session:
        assert session.receive_text() == "hello"


def test_it_was_shut_down():
    assert started == ["up", "down"]


def test_silence(websocket_client):
    with websocket_client(app, timeout=0.05).websocket_connect("/") as session:
        session.receive_text()
        session.receive_text()
"""


def test_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            ">           session.receive_text()",
            "E           lilya.websockets.testing._errors.WebSocketTimeout: timed out after 0.05 s, *",
            "E           the app was waiting in test_the_fixture.py:*, `await receive()`",
        ]
    )
    # The test's own line is the last: nothing of the client's inside is shown.
    assert "_session.py" not in result.stdout.str()
    assert "_loop.py" not in result.stdout.str()


def test_it_imports_nothing_but_pytest() -> None:
    code = (
        "import sys, pytest, collections.abc, contextlib, typing\n"
        "before = set(sys.modules)\n"
        "from importlib.metadata import entry_points\n"
        "ours = [each for each in entry_points(group='pytest11') if each.name == 'lilya-websockets']\n"
        "between = set(sys.modules)\n"
        "ours[0].load()\n"
        "print(len(ours), sorted(set(sys.modules) - between))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1 ['lilya_websockets_pytest']\n", "")


def test_clients_of_the_fixture_live_together(websocket_client: Callable[..., TestClient]) -> None:
    one, another = websocket_client(echo), websocket_client(echo, backend="trio")
    for client in (one, another):
        with client.websocket_connect("/") as session:
            session.send_text("a")
            assert session.receive_text() == "a"
