"""A project of somebody else: it has the wheel of ws-doctest and nothing else of ours."""

from __future__ import annotations

import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

import ws_doctest.buttons
import ws_doctest.markdown
import ws_doctest.plugin
import ws_doctest.serve
import ws_doctest.site
import ws_doctest.transcript
from tests.ws_doctest.conftest import CONFIGURATION, LIMIT, PAGE, ROOT

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


def test_the_settings_of_the_gate_are_no_mistake_without_it(tmp_path: Path) -> None:
    """The core's tests also run where the gate is not installed, with pytest's --strict-config."""
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "test_one.py").write_text("def test_one():\n    pass\n", encoding="utf-8")
    command = ("-m", "pytest", "-p", "no:cacheprovider", "test_one.py")
    done = run(tmp_path, tmp_path, *command)
    assert done.returncode == 0, done.stdout
    settings = (tmp_path / "pyproject.toml").read_text(encoding="utf-8")
    settings = settings.replace("ws_doctest_pages = [", "ws_doctest_more = []\nws_doctest_pages = [")
    (tmp_path / "pyproject.toml").write_text(settings, encoding="utf-8")
    assert "Unknown config option: ws_doctest_more" in run(tmp_path, tmp_path, *command).stdout


PUBLIC = [
    ws_doctest,
    ws_doctest.buttons,
    ws_doctest.markdown,
    ws_doctest.plugin,
    ws_doctest.serve,
    ws_doctest.site,
    ws_doctest.transcript,
]


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_what_is_public(module: ModuleType) -> None:
    assert module.__all__
    for name in module.__all__:
        found = getattr(module, name)
        assert not callable(found) or inspect.getdoc(found), name
    assert ws_doctest.__doc__ is not None
    assert module is ws_doctest or f"`{module.__name__}`" in ws_doctest.__doc__


def test_no_module_is_public_by_mistake() -> None:
    modules = {module.name for module in pkgutil.iter_modules(ws_doctest.__path__) if module.name[0] != "_"}
    assert modules == {module.__name__.rpartition(".")[2] for module in PUBLIC[1:]}


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


CHAT = """
# Chat

The app is for asyncio alone, and ends by an exception of its own.

```python
import asyncio
from uuid import uuid4


class ClientDisconnected(Exception):
    pass


async def app(scope, receive, send):
    if scope["type"] == "http":
        headers = [(b"set-cookie", f"sid={uuid4()}; Path=/".encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})
    elif scope["type"] == "websocket":
        await receive()
        cookie = dict(scope["headers"])[b"cookie"]
        await send({"type": "websocket.accept", "headers": [(b"x-session", cookie[4:])]})
        await send({"type": "websocket.send", "text": f"You are {cookie.decode()}."})
        await asyncio.sleep(3600)
        await send({"type": "websocket.send", "text": "An hour later"})
        if (await receive())["type"] == "websocket.disconnect":
            raise ClientDisconnected
        reason = f"bye {cookie.decode()[4:12]}"
        await send({"type": "websocket.close", "code": 4000, "reason": reason})
```

```ws
ann > GET /login
ann < 200
ann < header set-cookie: sid=${sid:uuid}; Path=/
ann < body hello
ann > connect /
ann < accept
ann < header x-session: $sid
ann < text You are sid=$sid.
ann > wait 1h
ann < text An hour later
ann > text bye
ann < close 4000 bye ${short:hex}
```

```ws
> connect /
> header cookie: sid=1
< accept
< header x-session: 1
< text You are sid=1.
> wait 1h
< text An hour later
> close
```
"""

ECHO = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
"""

FORMS = {
    "myst": "```{literalinclude} ../docs_src/echo.py\n```\n\n```{literalinclude} ../docs_src/echo.ws\n```\n",
    "fastapi": "{* ../docs_src/echo.py hl[1] *}\n\n```ws\n{!> ../docs_src/echo.ws !}\n```\n",
    "snippets": '```python\n--8<-- "docs_src/echo.py"\n```\n\n```ws\n--8<-- "docs_src/echo.ws"\n```\n',
}


NORMAL = CONFIGURATION.replace("[tool.ruff]", 'ws_doctest_disconnect = "normal"\n[tool.ruff]')


def write(project: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text.lstrip("\n"), encoding="utf-8")


def docs(project: Path, wheel: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ("-m", "pytest", "-p", "ws_doctest.plugin", "-p", "no:cacheprovider", "docs", "-v")
    return run(project, wheel, *command, *arguments)


def test_what_a_page_may_show(project: Path, wheel: Path) -> None:
    """Requests and cookies, names with a form, hours that pass; on asyncio, and left by the disconnect."""
    configuration = NORMAL.replace('"README.md"', '"docs"')
    write(
        project,
        {
            "pyproject.toml": configuration,
            "docs/chat.md": CHAT,
            "docs_src/echo.py": ECHO,
            "docs_src/echo.ws": "> connect /\n< accept\n> close\n",
            **{f"docs/{name}.md": f"# {name}\n\n{text}" for name, text in FORMS.items()},
        },
    )
    done = docs(project, wheel, f"--junitxml={project / 'report.xml'}")
    assert done.returncode == 0, done.stdout
    for page, sessions in {"chat": 2, **dict.fromkeys(FORMS, 1)}.items():
        for server in ("memory-asyncio", "uvicorn-wsproto"):
            assert len(re.findall(rf"docs/{page}\.md.*\[{server}\] PASSED", done.stdout)) == sessions
    assert re.search(r"checked: .*10 replays.*; skipped: 0", done.stdout)
    cases = ElementTree.parse(project / "report.xml").getroot().iter("testcase")
    assert any("chat.md" in (case.get("classname") or "") + (case.get("name") or "") for case in cases)
    one = docs(project, wheel, "-k", "chat")
    assert one.returncode == 0, one.stdout
    assert "myst.md" not in one.stdout


def test_what_is_not_read_is_said(project: Path, wheel: Path) -> None:
    write(
        project,
        {"pyproject.toml": CONFIGURATION.replace('"README.md"', '"docs"'), "docs/chat.md": "# Chat\n"},
    )
    write(project, {"docs/more.rst": "More\n====\n"})
    done = docs(project, wheel)
    assert done.returncode == 1
    assert "docs/more.rst:1: pages of this form are not read" in done.stdout
    unread = 'ws_doctest_unread = ["docs/more.rst: it has no code"]\n[tool.ruff]'
    write(
        project,
        {"pyproject.toml": CONFIGURATION.replace('"README.md"', '"docs"').replace("[tool.ruff]", unread)},
    )
    assert docs(project, wheel).returncode == 0


def test_the_command_line(project: Path, wheel: Path) -> None:
    done = run(project, wheel, "-m", "ws_doctest", "--help")
    assert done.returncode == 0
    for command in ("serve", "site", "check", "update"):
        assert command in done.stdout
