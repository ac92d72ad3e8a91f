"""The built site, once for all tests of this folder, and a browser for those that open pages."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.docs.browser import FOUND, Browser
from tests.docs.pages import ROOT, at
from tests.docs.places import pytest_configure, pytest_runtest_makereport

__all__ = ["pytest_configure", "pytest_runtest_makereport"]

LIMIT = 120.0  # seconds for a build of the site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of the built site, built once for all workers; a warning of the build is an error."""
    # pytest-xdist gives its workers folders beside one another.
    base = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    folder = base / "site"
    try:
        (base / "site-begun").mkdir()
    except FileExistsError:  # another worker builds it, or has done so
        return _built(folder, base / "site-done")
    try:
        said = build(folder)
    except BaseException as error:
        said = f"the build failed: {error!r}"
        raise
    finally:
        (base / "site-said").write_text(said, encoding="utf-8")
        (base / "site-said").rename(base / "site-done")
    return _built(folder, base / "site-done")


def _built(folder: Path, done: Path) -> Path:
    deadline = time.monotonic() + 2 * LIMIT
    while not done.exists():
        assert time.monotonic() < deadline, "another worker has not built the site in time"
        time.sleep(0.1)
    said = done.read_text(encoding="utf-8")
    assert said == "", said
    return folder


def build(folder: Path) -> str:
    """Build the site; what is wrong, or an empty text."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    # Silenced, mkdocs would not see its own warnings.
    warnings = [line for line in done.stdout.splitlines() if line.startswith(("WARNING", "ERROR"))]
    return "\n".join([*places_of_links(warnings), done.stdout]) if done.returncode or warnings else ""


def places_of_links(warnings: Iterable[str]) -> list[str]:
    """Where the links are that mkdocs warns of: it names the page alone."""
    found = [re.search(r"Doc file '([^']+)' contains a link '([^']+)'", warning) for warning in warnings]
    return [
        f"{at(ROOT / 'docs' / link[1], f']({link[2]}')}: {link[2]} leads nowhere" for link in found if link
    ]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the built site is served."""
    handler = functools.partial(Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert FOUND is not None  # whoever asks for it is marked with `needs_chromium`
    browser = Browser(FOUND)
    yield browser
    browser.close()
