"""The commands that a reader copies: they do what the pages and READMEs say."""

from __future__ import annotations

import html
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, at, name_of

pytestmark = pytest.mark.page("README.md", "uvicorn echo:app")

ROOT = Path(__file__).parents[2]
LIMIT = 60.0  # seconds to wait for a process to say something

FIRST_EXAMPLE = ROOT / "docs_src" / "index" / "echo.py"
OF_FASTAPI = ROOT / "docs_src" / "guides" / "fastapi" / "echo.py"
READMES = [ROOT / "README.md", ROOT / "packages" / "lilya-websockets" / "README.md"]


class Command:
    """A running command, and what it has said so far.

    Args:
        line: what a reader types.
        folder: where.
        python: the Python of the environment that is activated; default: this one.
    """

    def __init__(self, line: str, folder: Path, python: Path | None = None) -> None:
        program, *arguments = shlex.split(line)
        # As in an activated environment: its own `python`, and its programs beside it.
        python = python or Path(sys.executable)
        executable = str(python if program == "python" else python.parent / program)
        self.line = line
        self.process = subprocess.Popen(
            [executable, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, as in a terminal
        )
        self.said = ""
        self.over = False
        self.news = threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        assert self.process.stdout is not None
        while data := os.read(self.process.stdout.fileno(), 65536):
            with self.news:
                self.said += data.decode(errors="replace")
                self.news.notify_all()
        with self.news:
            self.over = True
            self.news.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the command has said something."""
        deadline = time.monotonic() + LIMIT
        with self.news:
            while (found := re.search(pattern, self.said)) is None:
                left = deadline - time.monotonic()
                if left <= 0 or self.over:
                    pytest.fail(f"`{self.line}` did not say {pattern!r}, but:\n{self.said}")
                self.news.wait(left)
        return found

    def type(self, line: str) -> None:
        """Write a line, as a reader does."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def end(self, *, politely: bool = False) -> None:
        """End the command, and wait for it; `politely` by closing its input."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        if not politely:
            self.process.terminate()
        try:
            self.process.wait(LIMIT)
        finally:
            self.process.kill()
            self.process.wait()
            self.reader.join(LIMIT)
            self.process.stdout.close()


@pytest.fixture
def run() -> Iterator[Callable[[str, Path], Command]]:
    """Starts commands, and ends them after the test."""
    running: list[Command] = []

    def start(line: str, folder: Path) -> Command:
        running.append(Command(line, folder))
        return running[-1]

    yield start
    for command in reversed(running):
        command.end()


def commands(page: str, example: str) -> list[str]:
    """The commands that a built page shows under an example: run it, and talk to it."""
    notes = re.findall(r'<p class="ws-doctest-run">(.*?)</p>', page, re.DOTALL)
    note = next(note for note in notes if f"docs_src.{example}:app" in note)
    return [html.unescape(code) for code in re.findall(r"<code>(.*?)</code>", note)][:2]


def codes_of_notes(page: Path) -> list[str]:
    notes = re.findall(r'<p class="ws-doctest-run">(.*?)</p>', page.read_text(encoding="utf-8"), re.DOTALL)
    return [code for note in notes for code in re.findall(r"<code>(.*?)</code>", note)]


def words_of(command: str) -> list[str]:
    """What a POSIX shell makes of a command line."""
    asked = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, timeout=LIMIT
    )
    return asked.stdout.splitlines()


def serve(run: Callable[[str, Path], Command], line: str, folder: Path) -> str:
    """Run an app on a free port; return the address."""
    server = run(f"{line} --port 0", folder)
    return server.wait_for(r"running on http://(127\.0\.0\.1:\d+)")[1]


@pytest.mark.page("docs/websockets.md", "docs_src/websockets/example.py")
def test_the_iterating_example(site: Path, run: Callable[[str, Path], Command]) -> None:
    page = (site / "websockets" / "index.html").read_text(encoding="utf-8")
    serving, talking = commands(page, "websockets.example")
    address = serve(run, serving, ROOT)
    client = run(talking.replace("127.0.0.1:8000", address), ROOT)
    client.wait_for("Connected to")
    client.type('{"hello": "world"}')
    client.wait_for(re.escape("< Message text was: {'hello': 'world'}"))
    client.end(politely=True)
    client.wait_for(r"Connection closed: 1000")


@pytest.mark.page("docs/websockets.md", "docs_src/websockets/websocket.py")
def test_the_hello_example(site: Path, run: Callable[[str, Path], Command]) -> None:
    page = (site / "websockets" / "index.html").read_text(encoding="utf-8")
    serving, talking = commands(page, "websockets.websocket")
    address = serve(run, serving, ROOT)
    client = run(talking.replace("127.0.0.1:8000", address), ROOT)
    client.wait_for(r"< \(binary\) " + b'{"message":"Hello, world!"}'.hex())
    client.wait_for(r"Connection closed: 1000")


@pytest.mark.page("docs/websockets.md", "docs_src/websockets/example.py")
def test_a_shell_takes_every_command_in_one_piece(site: Path) -> None:
    shown = [html.unescape(code) for page in site.rglob("index.html") for code in codes_of_notes(page)]
    talking = [code for code in shown if code.startswith("python -m websockets ")]
    assert any("&" in code for code in talking)
    for code in talking:
        assert len(words_of(code)) == 4
        assert shlex.quote(words_of(code)[3]) == code.split()[3]


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_readme_shows_the_first_examples_of_the_docs(readme: Path) -> None:
    shown = [path.read_text(encoding="utf-8") for path in (FIRST_EXAMPLE, OF_FASTAPI)]
    assert shown_code(readme.read_text(encoding="utf-8")) == shown


def test_the_readmes_example_runs(tmp_path: Path, run: Callable[[str, Path], Command]) -> None:
    readme = READMES[0].read_text(encoding="utf-8")
    code = shown_code(readme)[0]
    (tmp_path / "echo.py").write_text(code, encoding="utf-8")
    serving = re.search(r"^uvicorn .*$", readme, re.MULTILINE)
    talking = re.search(r"`(python -m websockets \S+)`", readme)
    assert serving is not None
    assert talking is not None
    address = serve(run, serving[0], tmp_path)
    client = run(talking[1].replace("127.0.0.1:8000", address), tmp_path)
    client.wait_for("Connected to")
    client.type("Hello!")
    client.wait_for("< You said: Hello!")


@pytest.mark.page("README.md", "## Documentation")
def test_the_links_of_the_readme() -> None:
    assert broken_links(READMES[0].read_text(encoding="utf-8")) == []


@pytest.mark.page("README.md", "## Documentation")
def test_the_readme_lists_every_page() -> None:
    markdown = READMES[0].read_text(encoding="utf-8")
    assert unlisted(markdown) == []
    # Planted faults.
    for page in ("lifecycle", "security"):
        (found,) = unlisted(re.sub(rf"\n\* \[[^\]]+\]\([\w/]*{page}\.md\)[^\n]*", "", markdown))
        assert re.fullmatch(rf"README\.md:\d+: the list leaves out docs/[\w/]*{page}\.md", found)


# The first page has the same list, and this one shows CONTRIBUTING.md.
NOT_LISTED = {"docs/index.md", "docs/project/contributing.md"}


def unlisted(markdown: str) -> list[str]:
    """The pages that the README leads to neither by itself nor by the first page of their folder."""
    return [
        f"{at(READMES[0], '## Documentation', markdown)}: the list leaves out {name_of(page)}"
        for page in PAGES
        if name_of(page) not in NOT_LISTED
        and not any(f"]({name_of(each)}" in markdown for each in (page, page.parent / "index.md"))
    ]


def shown_code(markdown: str) -> list[str]:
    """The Python that a README shows."""
    return re.findall(r"^```python\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)


def broken_links(markdown: str) -> list[str]:
    """The links to files that do not exist."""
    links = re.findall(r"\]\(([^)#]+)", markdown)
    return [
        f"{at(READMES[0], f']({link}', markdown)}: there is no {link}"
        for link in links
        if "://" not in link and not (ROOT / link).is_file()
    ]


def test_planted_faults(tmp_path: Path, run: Callable[[str, Path], Command]) -> None:
    code = FIRST_EXAMPLE.read_text(encoding="utf-8")
    assert shown_code(f"```python\n{code}```\n") == [code]
    assert shown_code(f"```python\n{code.replace('You said', 'They said')}```\n") != [code]
    assert broken_links("[Nothing](docs/nothing.md)") == ["README.md:1: there is no docs/nothing.md"]
    (tmp_path / "echo.py").write_text("raise RuntimeError('this app cannot be loaded')\n")
    assert words_of("python -m websockets ws://127.0.0.1:8000/?a=1&b=2")[3].endswith("/?a=1")
    with pytest.raises(pytest.fail.Exception, match="this app cannot be loaded"):
        serve(run, "uvicorn echo:app", tmp_path)
