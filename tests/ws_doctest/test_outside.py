"""A project of somebody else: it has the wheel of ws-doctest and nothing else of ours."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.ws_doctest.conftest import LIMIT, PAGE

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
