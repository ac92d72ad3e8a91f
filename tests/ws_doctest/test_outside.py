"""A project of somebody else: it has the wheel of ws-doctest and nothing else of ours."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "packages" / "ws-doctest"
LIMIT = 120.0

PAGE = """
# Echo

```python
async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"].upper()})
```

```ws
> connect /
< accept
> text hello
< text HELLO
> close
```
"""

STARLETTE = """
```python
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    while True:
        text = await websocket.receive_text()
        await websocket.send_text(f"Message text was: {text}")


app = Starlette(routes=[WebSocketRoute("/ws", echo)])
```

```ws
> connect /ws
< accept
> text foo
< text Message text was: foo
> close
```
"""


def build(folder: Path, kind: str, target: Path) -> Path:
    """Build a distribution; return its file."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=LIMIT,
    )
    (found,) = [path for path in target.iterdir() if path.suffix == {"sdist": ".gz", "wheel": ".whl"}[kind]]
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made of the source distribution as it would be published, unpacked."""
    folder = tmp_path_factory.mktemp("dist")
    with tarfile.open(build(PACKAGE, "sdist", folder / "sdist")) as archive:
        archive.extractall(folder / "source", filter="data") if sys.version_info >= (3, 12) else (
            archive.extractall(folder / "source")
        )
    (source,) = (folder / "source").iterdir()
    with zipfile.ZipFile(build(source, "wheel", folder / "wheel")) as archive_of_wheel:
        archive_of_wheel.extractall(folder / "installed")
    return folder / "installed"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "docs_src").mkdir()
    (tmp_path / "README.md").write_text(PAGE, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\nws_doctest_pages = ["README.md"]\nws_doctest_backends = ["asyncio"]\n'
        'ws_doctest_servers = ["wsproto"]\n[tool.ruff]\nline-length = 100\n',
        encoding="utf-8",
    )
    return tmp_path


def run(project: Path, wheel: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Without `site`, nothing that is installed editable is found: neither package of ours.
    path = os.pathsep.join([str(wheel), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "",
    }
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )


def gate(project: Path, wheel: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ("-m", "pytest", "-p", "ws_doctest.plugin", "-p", "no:cacheprovider", "README.md")
    return run(project, wheel, *command, *arguments)


def test_nothing_else_of_ours_is_there(project: Path, wheel: Path) -> None:
    done = run(project, wheel, "-c", "import ws_doctest.plugin, ws_doctest._memory; import lilya.websockets")
    assert "ModuleNotFoundError: No module named 'lilya" in done.stdout


def test_a_readme_is_checked(project: Path, wheel: Path) -> None:
    done = gate(project, wheel, "-v")
    assert done.returncode == 0, done.stdout
    for check in (
        "transcript:14[memory-asyncio] PASSED",
        "transcript:14[uvicorn-wsproto] PASSED",
        "[reached] PASSED",
    ):
        assert check in done.stdout


def test_a_fault_in_it_is_found_and_can_be_rewritten(project: Path, wheel: Path) -> None:
    readme = project / "README.md"
    readme.write_text(PAGE.replace("< text HELLO", "< text Hello"), encoding="utf-8")
    done = gate(project, wheel)
    assert done.returncode == 1
    assert "README.md:18: the session differs from its transcript" in done.stdout
    assert "--ws-update" in done.stdout
    assert gate(project, wheel, "--ws-update").returncode == 0
    assert readme.read_text(encoding="utf-8") == PAGE


def test_a_handler_of_starlette_ends_by_the_disconnect(project: Path, wheel: Path) -> None:
    (project / "README.md").write_text(STARLETTE, encoding="utf-8")
    done = gate(project, wheel)
    assert done.returncode == 0, done.stdout


def test_the_command_line(project: Path, wheel: Path) -> None:
    done = run(project, wheel, "-m", "ws_doctest", "--help")
    assert done.returncode == 0
    for command in ("serve", "site", "check", "update"):
        assert command in done.stdout
