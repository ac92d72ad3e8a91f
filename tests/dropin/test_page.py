"""The page *With Lilya*: its command does what it shows, and a fault in an example is noticed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lilya.websockets.testing import TestClient
from ws_doctest import serve

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "lilya.md"


def test_the_command_that_shows_it() -> None:
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(r'```console\n\$ python -c "(.*)"\n…(.*)\n```', page)
    assert found is not None
    done = subprocess.run([sys.executable, "-c", found[1]], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).as_posix().endswith(found[2])


def test_every_example_can_be_live_here(tmp_path: Path) -> None:
    """`nox -s serve` serves from an environment like this one."""
    site = serve.Site(tmp_path, serve.find_examples(ROOT / "docs_src"), ROOT)
    assert len(site.examples) > 20
    for address in site.examples:
        assert callable(site.load(address))


@pytest.mark.parametrize("path", ["", "/"])
def test_an_example_of_lilya_is_live(path: str, tmp_path: Path) -> None:
    site = serve.Site(tmp_path, serve.find_examples(ROOT / "docs_src"), ROOT)
    with TestClient(site).websocket_connect(f"/live/guides/lilya/pool{path}") as session:
        assert session.receive_text() == "working with a session, 0 left"


def check(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The gate, over a copy of what `nox -s dropin` looks at."""
    command = ["-m", "pytest", "-c", "tests/dropin/pytest.ini", "--rootdir=.", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, *command, "docs/guides/lilya.md", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("docs/guides/lilya.md", "tests/dropin/pytest.ini", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(
        ROOT / "docs_src/guides/lilya",
        tmp_path / "docs_src/guides/lilya",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    # The root's configuration, which the test of an example runs with, names other folders, too.
    for name in re.findall(r'"(docs_src/[^:"]+): ', (ROOT / "pyproject.toml").read_text(encoding="utf-8")):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    return tmp_path


def test_the_copy_is_green(project: Path) -> None:
    done = check(project, "-k", "memory-asyncio or test_pool or complete")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("room.ws", "< text blue: hello", "< text red: hello", "+< text blue: hello"),
        ("pool.py", "free.append(taken)", "pass", "test_the_session_comes_back"),
    ],
)
def test_a_planted_fault(file: str, old: str, new: str, said: str, project: Path) -> None:
    path = project / "docs_src" / "guides" / "lilya" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    done = check(project, "-k", "memory-asyncio or test_pool")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert said in done.stdout
