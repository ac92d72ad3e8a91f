"""The server of Redis for the tests ends with the process that has started it, however that ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .redis_server import LIMIT, NO_SERVER, RedisServer, redis_binary

pytestmark = [
    pytest.mark.skipif(redis_binary() is None, reason=NO_SERVER),
    pytest.mark.skipif(sys.platform == "win32", reason="there is no server of Redis for Windows"),
]

ROOT = Path(__file__).parents[2]
PARENT = """
import sys
from tests.lilya_websockets.redis_server import RedisServer

with RedisServer() as server:
    if "again" in sys.argv:
        server.kill()
        server.start()
    if "paused" in sys.argv:
        server.pause()
    print(server.port, server.folder, flush=True)
    sys.stdin.read()
"""


def is_there(port: int) -> bool:
    """Whether somebody listens, be it one that stands still."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=LIMIT).close()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:
        pass  # it was killed with this connection in its queue: the next look will tell
    return True


@pytest.mark.parametrize("how", ["started", "again", "paused"])
def test_it_ends_with_a_parent_that_is_killed(how: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, how],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with parent:
        assert parent.stdout is not None
        port, folder = parent.stdout.readline().split()
        assert is_there(int(port))
        os.killpg(parent.pid, signal.SIGKILL) if how == "again" else parent.kill()
    until = time.monotonic() + LIMIT
    while is_there(int(port)) or Path(folder).exists():
        assert time.monotonic() < until, "it is still there"
        time.sleep(0.01)


def test_it_leaves_nothing_behind() -> None:
    with RedisServer() as server:
        assert server.ask("PING") == b"+PONG\r\n"
        assert Path(server.folder).exists()
        watcher = server._watcher
    assert not is_there(server.port)
    assert not Path(server.folder).exists()
    assert watcher.returncode == 0
