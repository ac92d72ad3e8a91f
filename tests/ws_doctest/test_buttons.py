"""Run buttons: what the command makes of a built site, and the Python side of what runs in a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import os
import shutil
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Callable
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import anyio
import pytest

from ws_doctest import _in_browser, buttons
from ws_doctest.__main__ import main
from ws_doctest._in_browser import LONGEST, Example
from ws_doctest._project import Project
from ws_doctest.buttons import ButtonsError, _packages, find_buttons
from ws_doctest.buttons._packages import Wheel, Wheels

LIMIT = 30.0  # seconds

APP = """\
async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"].upper()})
"""
SCRIPT = "> connect /\n< accept\n> text hello\n< text HELLO\n> close\n"
PAGE = f"""\
# A page

```python
{{!> ../docs_src/loud.py !}}
```

```ws
{{!> ../docs_src/loud.ws !}}
```

```python
{APP}```

```ws
{SCRIPT}```

<!-- ws-doctest: no button: it needs a server & more. -->
```python
{{!> ../docs_src/loud.py !}}
```
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with one page, and its site as a generator has built it."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs_src").mkdir()
    (tmp_path / "site" / "page").mkdir(parents=True)
    (tmp_path / "docs" / "page.md").write_text(PAGE)
    (tmp_path / "docs_src" / "loud.py").write_text(APP)
    (tmp_path / "docs_src" / "loud.ws").write_text(SCRIPT)
    code = APP.replace('"', "&quot;")
    block = f'<div class="highlight"><pre><span></span><code>{code}</code></pre></div>'
    sphinx = (
        f'<div class="highlight-python notranslate"><div class="highlight"><pre>{code}</pre></div>\n</div>'
    )
    body = f"{block}<p>1</p>{sphinx}<p>2</p>{block}<p>3</p>"
    html = f"<html><head><title>x</title></head><body>{body}</body></html>"
    (tmp_path / "site" / "page" / "index.html").write_text(html)
    return tmp_path


def project(root: Path) -> Project:
    return Project(root, [root / "docs"], [root / "docs_src"])


def wheel(folder: Path, name: str, files: list[str], requires: tuple[str, ...] = ()) -> Path:
    """Make a wheel."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", *(f"Requires-Dist: {each}" for each in requires)]
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.writestr(file, "")
        archive.writestr(f"{name}-1.0.dist-info/METADATA", "\n".join([*lines, "", "Requires-Dist: no"]))
    return path


@pytest.fixture
def bring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bring nothing from npm, and wheels of the names alone."""
    monkeypatch.setattr(buttons, "bring_pyodide", lambda folder: folder.mkdir(parents=True))

    def wheels(packages: list[str], pure: list[str], folder: Path) -> list[Wheel]:
        folder.mkdir(parents=True)
        names = ["anyio", "multidict", "lilya_websockets", *packages, *pure]
        return [Wheel(wheel(folder, name, [f"{name}/__init__.py"])) for name in names]

    monkeypatch.setattr(buttons, "bring_wheels", wheels)


def add(root: Path, *packages: str) -> list[buttons.Button]:
    return buttons.add_buttons(root / "site", root / "docs", root / "docs_src", packages)


# The site


def test_the_apps_of_a_page(root: Path) -> None:
    found = find_buttons(project(root))
    assert [(each.file, each.reason) for each in found] == [
        ("docs_src/loud.py", ""),
        ("docs/page_md/line_11.py", ""),
        ("docs_src/loud.py", "it needs a server & more"),
    ]


@pytest.mark.usefixtures("bring")
def test_buttons_stand_below_their_apps(root: Path) -> None:
    add(root)
    html = (root / "site/page/index.html").read_text()
    places = html.split("<p>")
    assert 'data-example="docs_src/loud.py"' in places[0]
    assert places[0].index("</pre></div>") < places[0].index("ws-run")
    assert 'data-example="docs/page_md/line_11.py"' in places[1]
    assert places[1].index("</div>\n</div>") < places[1].index("ws-run")
    assert "it needs a server &amp; more." in html
    assert html.index("../ws-doctest/page.js") < html.index("</head>")
    # Once more, and nothing is there twice.
    add(root)
    assert (root / "site/page/index.html").read_text() == html


@pytest.mark.usefixtures("bring")
def test_what_the_browser_loads(root: Path) -> None:
    (root / "docs_src/loud.py").write_text(f"import json\nimport used\n{APP}")
    page = root / "site/page/index.html"
    page.write_text(page.read_text().replace("async def", "import json\nimport used\nasync def", 1))
    text = page.read_text()
    before, _, after = text.rpartition("async def")
    page.write_text(f"{before}import json\nimport used\nasync def{after}")
    add(root, "used", "unused")
    folder = root / "site/ws-doctest"
    config = json.loads((folder / "config.json").read_text())
    assert config["examples"] == {
        "docs_src/loud.py": ["used-1.0-py3-none-any.whl"],
        "docs/page_md/line_11.py": [],
    }
    names = {path.name for path in (folder / "packages").iterdir()}
    assert names == {*config["base"], "used-1.0-py3-none-any.whl"}
    assert {"page.js", "worker.js", "style.css"} <= {path.name for path in folder.iterdir()}
    with zipfile.ZipFile(folder / "examples.zip") as archive:
        assert archive.read("docs/page_md/line_11.py").decode() == APP
        assert archive.read("docs/page_md/line_11.ws").decode() == SCRIPT
        assert archive.read("docs_src/loud.ws").decode() == SCRIPT
    ours = next(folder.glob("packages/ws_doctest-*.whl"))
    assert "ws_doctest._in_browser" in Wheel(ours).modules


@pytest.mark.usefixtures("bring")
def test_an_import_that_nobody_brings(root: Path) -> None:
    (root / "docs_src/loud.py").write_text(f"import nowhere\n{APP}")
    with pytest.raises(ButtonsError, match=r"docs_src/loud\.py imports nowhere, which no package has"):
        add(root)


@pytest.mark.usefixtures("bring")
def test_an_app_that_the_site_does_not_show(root: Path) -> None:
    page = root / "site/page/index.html"
    page.write_text(page.read_text().replace("upper", "lower", 1))
    with pytest.raises(ButtonsError, match=r"page\.md:\d+: the site does not show this app as code"):
        add(root)


@pytest.mark.usefixtures("bring")
def test_a_page_that_the_site_does_not_have(root: Path) -> None:
    shutil.rmtree(root / "site/page")
    with pytest.raises(ButtonsError, match=r"has no page of page\.md"):
        add(root)


@pytest.mark.parametrize(
    ("comment", "problem"),
    [
        ("<!-- ws-doctest: no button -->\n```python\n", "expected the reason: "),
        ("<!-- ws-doctest: no button: why -->\n\ntext\n\n```python\n", "directly below comes no app"),
        (
            "<!-- ws-doctest: no button: a -->\n<!-- ws-doctest: no button: b -->\n```python\n",
            "directly below",
        ),
    ],
)
def test_a_comment_that_is_wrong(root: Path, comment: str, problem: str) -> None:
    page = root / "docs/page.md"
    page.write_text(f"{comment}{APP}```\n\n```ws\n{SCRIPT}```\n")
    problems = project(root).page(page).problems
    assert len(problems) == 1
    assert problem in problems[0].message


def test_a_comment_above_what_has_no_button(root: Path) -> None:
    (root / "docs/page.md").write_text("<!-- ws-doctest: no button: why -->\n```python\nprint()\n```\n")
    with pytest.raises(ButtonsError, match=r"docs/page\.md:2: only an app with a transcript has a button"):
        find_buttons(project(root))


def test_both_comments_above_one_app(root: Path) -> None:
    page = root / "docs/page.md"
    page.write_text(
        "<!-- ws-doctest: no button: why -->\n<!-- ws-doctest: unreached 1: never -->\n"
        f"```python\n{APP}```\n\n```ws\n{SCRIPT}```\n"
    )
    assert project(root).page(page).problems == []
    assert [each.reason for each in find_buttons(project(root))] == ["why"]


def test_without_npm(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(root))
    before = (root / "site/page/index.html").read_text()
    arguments = ["--site", root / "site", "--pages", root / "docs", "--examples", root / "docs_src"]
    assert main(["buttons", *map(str, arguments)]) == 0
    assert capsys.readouterr().out == (
        "The site has no Run buttons: npm is not installed, which brings Pyodide.\n"
    )
    assert (root / "site/page/index.html").read_text() == before


@pytest.mark.usefixtures("bring")
def test_the_command(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name)
    arguments = ["--site", root / "site", "--pages", root / "docs", "--examples", root / "docs_src"]
    assert main(["buttons", *map(str, arguments)]) == 0
    assert capsys.readouterr().out == (
        "The site has 2 Run buttons.\nNo button: docs_src/loud.py: it needs a server & more\n"
    )
    (root / "docs_src/loud.py").write_text(f"import nowhere\n{APP}")
    assert main(["buttons", *map(str, arguments)]) == 1
    assert "imports nowhere" in capsys.readouterr().err


# Pyodide and wheels


def fake_npm(content: bytes) -> Callable[[list[str]], None]:
    def run(command: list[str]) -> None:
        folder = Path(command[command.index("--pack-destination") + 1])
        (folder / "pyodide.tgz").write_bytes(content)

    return run


def package_of(*names: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"package/{name}"))
    return content.getvalue()


def test_pyodide_of_another_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(_packages, "_run", fake_npm(b"something else"))
    with pytest.raises(ButtonsError, match="of another checksum: sha512-"):
        _packages.bring_pyodide(tmp_path / "pyodide")
    assert not (tmp_path / "pyodide").exists()


def test_the_files_of_pyodide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = package_of(*_packages._FILES, "console.html")
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(_packages, "_run", fake_npm(content))
    monkeypatch.setattr(_packages, "INTEGRITY", f"sha512-{digest}")
    _packages.bring_pyodide(tmp_path)
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {*_packages._FILES} - {"pyodide.asm.wasm"} | {"pyodide.asm.wasm.gz"}


def test_a_command_that_fails() -> None:
    script = "print('\\n'.join(map(str, range(100)))); raise SystemExit(3)"
    with pytest.raises(ButtonsError, match=r"failed:\n88\n") as caught:
        _packages._run([sys.executable, "-c", script])
    assert "\n99" in str(caught.value)


def test_the_wheels_that_an_example_needs(tmp_path: Path) -> None:
    made = [
        wheel(tmp_path, "Big_One", ["big/__init__.py", "big/part.py"], ("base", "extra ; extra == 'more'")),
        wheel(tmp_path, "base", ["base.py"], ("typed[more]>=1", "never; sys_platform == 'linux'")),
        wheel(tmp_path, "typed", ["typed.cpython-314-wasm32-emscripten.so"], ("late; extra == 'more'",)),
        wheel(tmp_path, "late", ["late.py"]),
        wheel(tmp_path, "extra", ["extra.py"]),
        wheel(tmp_path, "space_one", ["space/one/__init__.py"]),
        wheel(tmp_path, "space_two", ["space/two/__init__.py"]),
    ]
    known = Wheels([Wheel(path) for path in made], tmp_path)

    def needed(source: str) -> set[str]:
        example = tmp_path / "example.py"
        example.write_text(source)
        return {name.partition("-")[0] for name in known.of_example(example)}

    assert needed("import json\nfrom pathlib import Path") == set()
    assert needed("from late import anything") == {"late"}
    assert needed("from big.part import anything") == {"Big_One", "base", "typed", "late"}
    assert needed("import typed") == {"typed"}
    assert needed("from space.one import x") == {"space_one"}
    assert needed("from space import two") == {"space_two"}
    # By way of another file of the project.
    (tmp_path / "docs_src").mkdir()
    (tmp_path / "docs_src" / "other.py").write_text("import extra")
    assert needed("from docs_src.other import app") == {"extra"}
    assert needed("import docs_src.other") == {"extra"}
    with pytest.raises(ButtonsError, match="a package requires missing, of which there is no wheel"):
        Wheels([Wheel(wheel(tmp_path, "needy", [], ("missing",)))], tmp_path).needed(["needy"])


def test_a_wheel_without_what_is_compiled(tmp_path: Path) -> None:
    made = wheel(tmp_path, "half", ["half/__init__.py", "half/_fast.so", "half/_fast.pyd"])
    _packages._without_compiled(made, tmp_path / "pure.whl")
    with zipfile.ZipFile(tmp_path / "pure.whl") as archive:
        assert archive.namelist() == ["half/__init__.py", "half-1.0.dist-info/METADATA"]


# What runs in the browser


class Browser:
    """A page that has an example open."""

    def __init__(self, root: Path, file: str = "docs_src/loud.py") -> None:
        self.told: list[dict[str, Any]] = []
        self.example = Example(str(root), file, lambda kind, text: self.told.append(json.loads(text)))
        self.path = root / file

    def run(self, source: str | None = None) -> dict[str, Any]:
        """Replay; return the result."""
        self.told.clear()
        result: dict[str, Any] = json.loads(self.example.run(source or self.path.read_text()))
        return result

    async def say(self, lines: str, source: str = "") -> str:
        """Say something, with the code as it is or with other code; return what is wrong."""
        said = await self.example.say(source or self.path.read_text(), lines)
        problem: str = json.loads(said)["problem"]
        return problem

    def shown(self, kind: str) -> list[str]:
        """Return what was shown of a kind."""
        return [line for each in self.told if each["type"] == kind for line in each["lines"]]

    async def until(self, *lines: str) -> None:
        """Wait until these are the last lines that are shown, in any order."""
        await until(lambda: sorted(self.shown("line")[-len(lines) :]) == sorted(lines))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    with anyio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110 - what is shown is shown by a function, and not by an event
            await anyio.sleep(0.001)


@pytest.fixture
def anyio_backend() -> str:
    """A browser has an event loop of asyncio."""
    return "asyncio"


def test_what_an_example_says(root: Path) -> None:
    opened = json.loads(Browser(root).example.opened())
    assert opened == {"source": APP, "said": ["> connect /", "> text hello", "> close"]}


def test_a_replay_is_told_step_by_step(root: Path) -> None:
    browser = Browser(root)
    assert browser.run() == {"problems": [], "lines": 5}
    assert [each["type"] for each in browser.told] == ["script", *["step"] * 5, "verdict"]
    assert browser.shown("step") == SCRIPT.splitlines()
    assert all(each["same"] for each in browser.told if each["type"] == "step")


def test_a_difference_is_told_in_its_place(root: Path) -> None:
    browser = Browser(root)
    result = browser.run(APP.replace("upper", "title"))
    assert [each["same"] for each in browser.told if each["type"] == "step"] == [
        True,
        True,
        True,
        False,
        True,
    ]
    assert "-< text HELLO\n+< text Hello\n" in result["problems"][0]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("upper()", "nothing()", "AttributeError"),
        ("while (", "while ((", "SyntaxError"),
        ("await", "", "never"),
    ],
)
def test_a_mistake_names_its_line(root: Path, old: str, new: str, error: str) -> None:
    browser = Browser(root)
    if error == "never":
        source, line = "raise ValueError('never')\n" + APP, 1
    else:
        source = APP.replace(old, new)
        line = 5 if error == "AttributeError" else 4
    problem = browser.run(source)["problems"][0]
    assert f'File "docs_src/loud.py", line {line}' in problem
    assert error in problem


def test_what_is_said_about_a_problem_has_a_limit(root: Path) -> None:
    """The page shows it in one piece, and a browser would stand still for megabytes."""
    source = APP.replace("upper()", "join('ab' * 1_000_000)")
    (problem,) = Browser(root).run(source)["problems"]
    assert len(problem) == LONGEST + len("\n…\n")
    assert "-< text HELLO" in problem
    assert problem.endswith("\n > close\n")


@pytest.mark.anyio
async def test_what_is_said_about_an_app_that_cannot_be_loaded_has_a_limit(root: Path) -> None:
    browser = Browser(root)
    (root / "docs_src/loud.py").write_text("raise ValueError('x' * 1_000_000)")
    assert len(await browser.say("connect /", "raise ValueError('x' * 1_000_000)")) == LONGEST + 3


def test_time_is_skipped(root: Path) -> None:
    (root / "docs_src/loud.ws").write_text("> connect /\n< accept\n> wait 10h\n< close 1000\n")
    app = """\
    import asyncio

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.sleep(36000)
        await send({"type": "websocket.close"})
    """
    assert Browser(root).run(textwrap.dedent(app)) == {"problems": [], "lines": 4}


def test_an_app_that_waits_for_nothing_is_told(root: Path) -> None:
    problem = Browser(root).run(APP.replace("await receive()\n", "await __import__('asyncio').Future()\n", 1))
    assert "timed out after 5 s, waiting for the app to start up" in problem["problems"][0]


@pytest.mark.anyio
async def test_a_session_of_the_readers_own(root: Path) -> None:
    browser = Browser(root)
    assert await browser.say("connect /") == ""
    await browser.until("> connect /", "< accept")
    assert await browser.say("> text hi") == ""
    await browser.until("> text hi", "< text HI")
    assert "after `>` comes one of" in await browser.say("hi")
    assert "lines with `>` are yours" in await browser.say("< text hi")
    assert await browser.say("text one\ntext two") == ""
    assert browser.shown("line")[-4:] == ["> text one", "< text ONE", "> text two", "< text TWO"]
    assert await browser.say("close 1000") == ""
    await browser.until("< text TWO", "> close 1000")
    await until(lambda: browser.example.talk is not None and not browser.example.talk.clients)
    assert "a transcript starts with" in await browser.say("text hi")
    # Other code is loaded at the next line.
    browser.path.write_text(APP.replace("upper", "title"))
    other = APP.replace("upper", "lower")
    assert await browser.say("connect /", other) == ""
    await browser.until("> connect /", "< accept")
    assert await browser.say("text HI", other) == ""
    await browser.until("> text HI", "< text hi")
    await browser.example.end()


@pytest.mark.anyio
async def test_what_goes_wrong_in_it(root: Path) -> None:
    browser = Browser(root)
    assert "No module named 'nowhere'" in await browser.say("connect /", "import nowhere")
    await browser.example.end()
    assert await browser.say("connect /\ntext a", APP.replace("upper", "no")) == ""
    await until(lambda: any(each["type"] == "problem" for each in browser.told))
    (problem,) = [each["text"] for each in browser.told if each["type"] == "problem"]
    assert 'File "docs_src/loud.py", line 5' in problem
    await browser.example.end()


@pytest.mark.anyio
async def test_code_of_the_same_size_in_the_same_second(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its bytecode is not that of the code before it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path_factory.mktemp("bytecode")))
    browser = Browser(root)
    assert await browser.say("connect /\ntext Hi") == ""
    await browser.until("> text Hi", "< text HI")
    write = Path.write_text

    def at_once(path: Path, *arguments: Any, **options: Any) -> int:
        before = path.stat()
        written = write(path, *arguments, **options)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return written

    monkeypatch.setattr(Path, "write_text", at_once)
    assert await browser.say("connect /\ntext Hi", APP.replace("upper", "lower")) == ""
    await browser.until("> text Hi", "< text hi")
    await browser.example.end()


def test_logs_write_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for cls, name in ((QueueHandler, "enqueue"), (QueueListener, "start"), (QueueListener, "stop")):
        monkeypatch.setattr(cls, name, getattr(cls, name))
    _in_browser.log_without_threads()
    written = logging.Handler()
    records: list[str] = []
    monkeypatch.setattr(written, "emit", lambda record: records.append(record.getMessage()))
    queue: SimpleQueue[Any] = SimpleQueue()
    handler = QueueHandler(queue)
    handler.listener = QueueListener(queue, written)  # type: ignore[attr-defined,unused-ignore]  # from 3.12 on
    handler.listener.start()  # type: ignore[attr-defined,union-attr,unused-ignore]
    handler.handle(logging.makeLogRecord({"msg": "now"}))
    assert records == ["now"]
    assert queue.empty()


def test_a_namespace_that_has_become_a_package(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root))
    for name in ("spaced", "still"):
        (root / name).mkdir()
        monkeypatch.setitem(sys.modules, name, __import__(name))
    (root / "spaced" / "__init__.py").write_text("found = True")
    Browser(root)
    assert "still" in sys.modules
    assert __import__("spaced").found


def test_the_loop_says_when_nothing_can_happen() -> None:
    loop = _in_browser.Loop()
    try:
        with pytest.raises(RuntimeError, match="every task waits"):
            loop.run_until_complete(loop.create_future())
    finally:
        loop.close()
        loop.close()
