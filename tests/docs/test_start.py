"""The first page and the tutorial, done as a reader does them: each file saved, each command run."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.docs.browser import wait_for
from tests.docs.pages import DOCS, ROOT
from tests.docs.test_commands import LIMIT, Command, run, serve
from tests.lilya_websockets.redis_server import NO_SERVER, RedisServer, free_port, redis_binary
from ws_doctest._pages import read_page

__all__ = ["run"]

FIRST = DOCS / "index.md"
TUTORIAL = DOCS / "start" / "tutorial.md"
TABS = ("FastAPI", "Plain ASGI")

Run = Callable[[str, Path], Command]

needs_redis = pytest.mark.skipif(redis_binary() is None, reason=NO_SERVER)


def shown(page: Path, tab: str, heading: str, language: str) -> list[str]:
    """What the fences of a section hold, as one reads it who has chosen a tab."""
    lines = page.read_text(encoding="utf-8").split("\n")
    found = []
    for fence in read_page(page, ROOT).fences:
        if fence.heading.endswith(heading) and fence.language == language:
            above = (line for line in reversed(lines[: fence.line]) if line.startswith("=== "))
            if not fence.prefix or next(above) == f'=== "{tab}"':
                found.append(fence.expanded())
    assert found, f"{page.name}: {heading} shows no {language}"
    return found


def commands(page: Path, tab: str, heading: str) -> list[str]:
    return [line for block in shown(page, tab, heading, "shell") for line in block.splitlines()]


# The default install


def required(*names: str) -> set[str]:
    """These distributions, and what they need by default."""
    found: set[str] = set()
    waiting = [*names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(re.sub(r"[-_.]+", "-", requirement.name).lower())
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = f"from hatchling.build import build_wheel; build_wheel({str(folder)!r})"
    subprocess.run(
        [sys.executable, "-c", build],
        cwd=ROOT / "packages" / "lilya-websockets",
        check=True,
        timeout=LIMIT,
    )
    return next(folder.glob("*.whl"))


def environment(folder: Path, wheel: Path, *names: str, without: str = "") -> Path:
    """A new environment with the wheel, these packages, and what all of them need; its Python.

    What is installed comes from this environment, so that nothing is fetched.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=LIMIT)
    site = next(folder.rglob("site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        metadata = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        stated = importlib.metadata.PathDistribution(site / Path(metadata).parent).requires or []
    default = [Requirement(text) for text in stated]
    needed = [each.name for each in default if each.marker is None or each.marker.evaluate({"extra": ""})]
    for name in required(*names, *needed) - {without}:
        distribution = importlib.metadata.distribution(name)
        for top in {Path(str(file)).parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(str(distribution.locate_file(top)))
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


@pytest.mark.parametrize(
    ("tab", "without"), [("Plain ASGI", ""), ("FastAPI", ""), ("Plain ASGI", "anyio")], ids=str
)
@pytest.mark.page("docs/index.md", "pip install ./packages/lilya-websockets")
def test_the_default_install_runs_the_first_example(
    tmp_path: Path, wheel: Path, tab: str, without: str
) -> None:
    installed, serving, talking = commands(FIRST, tab, "Install")
    assert re.fullmatch(r"pip install \./packages/lilya-websockets( [a-z]+)+", installed)
    packages = [*installed.split()[3:], *(["fastapi"] if tab == "FastAPI" else [])]
    python = environment(tmp_path / "new", wheel, *packages, without=without)
    (code,) = shown(FIRST, tab, "lilya-websockets", "python")
    (tmp_path / "echo.py").write_text(code, encoding="utf-8")
    server = Command(f"python -m {serving} --port 0", tmp_path, python)
    try:
        address = server.wait_for(r"running on http://(127\.0\.0\.1:\d+)")[1]
        client = Command(talking.replace("127.0.0.1:8000", address), tmp_path, python)
        try:
            if without:  # the planted fault: what the example needs is not there
                client.wait_for("HTTP 500")
                server.wait_for(f"No module named '{without}'")
            else:
                client.wait_for("Connected to")
                client.type("Hello!")
                client.wait_for("< You said: Hello!")
        finally:
            client.end()
    finally:
        server.end()


# The tutorial


def save(folder: Path, tab: str, heading: str) -> None:
    """Save the app of a step as `chat.py`."""
    (code,) = shown(TUTORIAL, tab, heading, "python")
    (folder / "chat.py").write_text(code, encoding="utf-8")


def talk(run: Run, folder: Path, line: str, address: str) -> Command:
    client = run(line.replace("127.0.0.1:8000", address), folder)
    client.wait_for("Connected to")
    return client


@pytest.mark.parametrize("tab", TABS)
@pytest.mark.page("docs/start/tutorial.md", "## 1. Echo")
def test_the_first_steps(run: Run, tmp_path: Path, tab: str) -> None:
    save(tmp_path, tab, "Echo")
    serving, talking = commands(TUTORIAL, tab, "Echo")
    server = run(f"{serving} --port 0", tmp_path)
    client = talk(run, tmp_path, talking, server.wait_for(r"running on http://(127\.0\.0\.1:\d+)")[1])
    client.type("Hello!")
    client.wait_for("< You said: Hello!")
    server.end()

    save(tmp_path, tab, "A room")
    address = serve(run, serving, tmp_path)
    ann, bob = (talk(run, tmp_path, line, address) for line in commands(TUTORIAL, tab, "A room"))
    ann.type("Hello, Bob")
    bob.wait_for("< ann: Hello, Bob")
    bob.type("Hello, Ann")
    ann.wait_for("< bob: Hello, Ann")


@pytest.mark.parametrize("tab", TABS)
@pytest.mark.page("docs/start/tutorial.md", "## 3. A test")
def test_the_test(tmp_path: Path, tab: str) -> None:
    save(tmp_path, tab, "A room")
    (code,) = shown(TUTORIAL, tab, "A test", "python")
    code, imports = re.subn(r"from docs_src\.start\.tutorial\.\w+ import app", "from chat import app", code)
    assert imports == 1
    (command,) = commands(TUTORIAL, tab, "A test")

    def test(code: str) -> str:
        (tmp_path / "test_chat.py").write_text(code, encoding="utf-8")
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        done = subprocess.run(
            [sys.executable, *command.split()[1:], "-p", "no:cacheprovider"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        return done.stdout.splitlines()[-1]

    assert "2 passed" in test(code)
    assert "1 failed, 1 passed" in test(code.replace("ann: Hello, Bob", "ann: Hello, Eve", 1))


@pytest.fixture
def redis() -> Iterator[str]:
    with RedisServer() as server:
        yield server.url


def listens(port: int) -> bool:
    """Whether a server has this port. A worker starts its app, and says so, before it listens."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), LIMIT):
        return True
    return False


def connections(port: int, number: int, stack: ExitStack) -> list[ClientConnection]:
    wait_for(lambda: listens(port))
    return [
        stack.enter_context(connect(f"ws://127.0.0.1:{port}/chat?name=c{each}", proxy=None))
        for each in range(number)
    ]


@needs_redis
@pytest.mark.parametrize("heading", ["Two workers", "Deploy"])
@pytest.mark.parametrize("tab", TABS)
@pytest.mark.page("docs/start/tutorial.md", "## 4. Two workers")
def test_two_workers(
    run: Run, tmp_path: Path, redis: str, monkeypatch: pytest.MonkeyPatch, tab: str, heading: str
) -> None:
    save(tmp_path, tab, heading)
    line = next(line for line in commands(TUTORIAL, tab, heading) if " uvicorn " in line)
    variable, _, command = line.partition(" ")
    assert variable == "CHANNELS_URL=redis://127.0.0.1:6379"
    assert "--workers 2" in command
    monkeypatch.setenv("CHANNELS_URL", redis)
    port = free_port()
    server = run(f"{command} --port {port}", tmp_path)
    server.wait_for("(?s)startup complete.*startup complete")
    with ExitStack() as stack:
        clients = connections(port, 8, stack)
        clients[0].send("Is everybody here?")
        assert {client.recv(LIMIT) for client in clients} == {"c0: Is everybody here?"}
        if heading == "Deploy":
            os.killpg(server.process.pid, signal.SIGINT)  # as Ctrl+C in a terminal does
            assert {code_of(client) for client in clients} == {1012}
            server.process.wait(LIMIT)


def code_of(client: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(LIMIT)
    return caught.value.rcvd.code if caught.value.rcvd else None
