"""The built site, once for all tests of this folder, and a browser for those that open pages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.browser import FOUND, Browser
from tests.docs.pages import ROOT
from tests.docs.places import pytest_configure, pytest_runtest_makereport

__all__ = ["pytest_configure", "pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site; a warning of the build is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    # Silenced, mkdocs would not see its own warnings.
    warnings = [line for line in done.stdout.splitlines() if line.startswith(("WARNING", "ERROR"))]
    assert (done.returncode, warnings) == (0, []), done.stdout
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert FOUND is not None  # whoever asks for it is marked with `needs_chromium`
    browser = Browser(FOUND)
    yield browser
    browser.close()
