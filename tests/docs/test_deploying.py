"""The page *Deploying*: what it says of workers, machines and a load balancer is so."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from tests.docs.browser import LIMIT, wait_for
from tests.lilya_websockets.redis_server import NO_SERVER, RedisServer, free_port, redis_binary

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")

needs_redis = pytest.mark.skipif(redis_binary() is None, reason=NO_SERVER)
needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx on PATH")

Run = Callable[..., "Server"]


class Server:
    """A server, and everything that it has started."""

    def __init__(self, arguments: list[str], port: int, **variables: str) -> None:
        self.port = port
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *arguments, "--port", str(port), "--log-level", "critical"],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a group of its own, with its workers
        )

    def stop(self) -> None:
        """Tell it to stop, as whoever deploys it does."""
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> None:
        """Wait until it has ended, with its workers."""
        self.process.wait(LIMIT)
        wait_for(lambda: not group_lives(self.process.pid))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def group_lives(group: int) -> bool:
    """Whether a process of a group runs; one that has ended and was not collected does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                return True
    return False


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts servers, and ends them after the test."""
    running: list[Server] = []

    def start(*arguments: str, **variables: str) -> Server:
        running.append(Server([*arguments], free_port(), **variables))
        return running[-1]

    yield start
    for server in running:
        server.kill()


@pytest.fixture
def redis() -> Iterator[str]:
    with RedisServer() as server:
        yield server.url


@contextlib.contextmanager
def at(port: int, path: str = "/") -> Iterator[ClientConnection]:
    """A connection to a server that may not be there yet."""
    with contextlib.ExitStack() as stack:

        def found() -> ClientConnection | None:
            with contextlib.suppress(OSError, WebSocketException):
                return stack.enter_context(
                    connect(f"ws://127.0.0.1:{port}{path}", proxy=None, ping_interval=None)
                )
            return None

        yield wait_for(found)


@contextlib.contextmanager
def at_both_workers(port: int) -> Iterator[dict[int, ClientConnection]]:
    """A connection to each of two workers behind one port, by the worker."""
    with contextlib.ExitStack() as stack:
        found: dict[int, ClientConnection] = {}

        def both() -> bool:
            with contextlib.ExitStack() as mine:
                connection = mine.enter_context(at(port))
                worker = json.loads(connection.recv(LIMIT))["worker"]
                if worker not in found:
                    found[worker] = connection
                    stack.push(mine.pop_all())
            return len(found) == 2

        wait_for(both)
        yield found


def end_of(connection: ClientConnection) -> int | None:
    """The code by which a connection ends; `None` for none."""
    try:
        while True:
            connection.recv(LIMIT)
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd else None


def shown_command() -> tuple[list[str], list[str]]:
    """The arguments of uvicorn, and the names of the variables, in the command on the page."""
    found = re.search(r"^((?:\w+=\S+ )+)uvicorn (.*--workers.*)$", PAGE, re.MULTILINE)
    assert found
    return found[2].split(), re.findall(r"(\w+)=", found[1])


@needs_redis
def test_workers_hear_each_other_and_stop_in_an_orderly_way(run: Run, redis: str) -> None:
    arguments, variables = shown_command()
    assert variables == ["CHANNELS_URL"]
    server = run(*arguments, CHANNELS_URL=redis)
    with at_both_workers(server.port) as workers:
        (crashing, one), (running, _) = workers.items()
        os.kill(crashing, signal.SIGKILL)
        assert end_of(one) is None
    with at_both_workers(server.port) as workers:
        assert running in workers
        assert crashing not in workers
        one, other = workers.values()
        for speaker, text in ((one, "Can you hear me?"), (other, "I can.")):
            speaker.send(text)
            assert [one.recv(LIMIT), other.recv(LIMIT)] == [text, text]
        server.stop()
        assert [end_of(one), end_of(other)] == [1012, 1012]
    server.ended()


def test_without_redis_each_worker_has_a_room_of_its_own(run: Run) -> None:
    arguments, _ = shown_command()
    server = run(arguments[0], WEB_CONCURRENCY="2")
    with at_both_workers(server.port) as workers:
        one, other = workers.values()
        one.send("Can you hear me?")
        assert one.recv(LIMIT) == "Can you hear me?"
        other.send("Is anybody here?")
        assert other.recv(LIMIT) == "Is anybody here?"


def heard(connection: ClientConnection, count: int) -> list[str]:
    """What the next messages of the chat room say."""
    texts: list[str] = []
    while len(texts) < count:
        message = json.loads(connection.recv(LIMIT))
        assert message["type"] != "gap"
        if message["type"] == "message":
            texts.append(message["text"])
    return texts


def say(connection: ClientConnection, text: str) -> None:
    connection.send(json.dumps({"key": text, "text": text}))


@needs_redis
def test_who_comes_back_at_another_machine_misses_nothing(run: Run, redis: str) -> None:
    one, other = (run("docs_src.chat.chat:app", CHANNELS_URL=redis) for _ in range(2))
    with at(one.port, "/room?name=ann") as ann:
        with at(one.port, "/room?name=bob") as bob:
            say(ann, "first")
            message: Any = None
            while message is None or message["type"] != "message":
                message = json.loads(bob.recv(LIMIT))
        for number in range(5):
            say(ann, f"meanwhile {number}")
        assert heard(ann, 6)[-1] == "meanwhile 4"
        with at(other.port, f"/room?name=bob&since={message['id']}") as bob:
            say(bob, "back")
            assert heard(bob, 6) == [*(f"meanwhile {number}" for number in range(5)), "back"]
            assert heard(ann, 1) == ["back"]
            bob.send(json.dumps({"ask": "members"}))
            while (message := json.loads(bob.recv(LIMIT)))["type"] != "here":
                pass
            assert sorted(message["members"].values()) == ["ann", "bob"]


@contextlib.contextmanager
def nginx(folder: Path, ports: list[int]) -> Iterator[int]:
    """The load balancer of the page, in front of these ports, and with a time-out of a second."""
    found = re.search(r"^```nginx\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    text, port = found[1], free_port()
    replaced = {
        "listen 8000": f"listen 127.0.0.1:{port}",
        "127.0.0.1:8001": f"127.0.0.1:{ports[0]}",
        "127.0.0.1:8002": f"127.0.0.1:{ports[1]}",
        "proxy_read_timeout 60s": "proxy_read_timeout 1s",
    }
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log {folder}/log;\n"
        f"events {{ worker_connections 64; }}\nhttp {{ access_log off;\n{paths}{text}}}\n"
    )
    process = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "log")])
    try:
        yield port
    finally:
        process.terminate()
        process.wait(LIMIT)


@needs_redis
@needs_nginx
@pytest.mark.parametrize(("interval", "ends"), [("0.3", False), ("60", True)])
def test_a_load_balancer(run: Run, redis: str, tmp_path: Path, interval: str, ends: bool) -> None:
    """It spreads the connections, and drops those that are silent; pings are no silence."""
    arguments, _ = shown_command()
    servers = [run(arguments[0], "--ws-ping-interval", interval, CHANNELS_URL=redis) for _ in range(2)]
    for server in servers:
        with at(server.port):
            pass
    with (
        nginx(tmp_path, [server.port for server in servers]) as port,
        at_both_workers(port) as workers,
    ):
        one, other = workers.values()
        one.send("Can you hear me?")
        assert [one.recv(LIMIT), other.recv(LIMIT)] == ["Can you hear me?"] * 2
        if ends:
            assert end_of(other) is None
        else:
            with pytest.raises(TimeoutError):
                other.recv(3)  # three times the time-out
            one.send("Still there?")
            assert other.recv(LIMIT) == "Still there?"


def test_planted_faults() -> None:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        assert group_lives(process.pid)
    finally:
        process.kill()
        process.wait()
    assert not group_lives(process.pid)
