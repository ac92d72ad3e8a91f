"""The plugin over a suite that is built as uvicorn's is: what it adds, and that its list cannot rot."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from .plugin import OTHERWISE

CONFTEST = """
import pytest
from uvicorn.importer import import_from_string

@pytest.fixture(params=["uvicorn.protocols.websockets.wsproto_impl:WSProtocol"])
def ws_protocol_cls(request):
    return import_from_string(request.param)
"""


def run(folder: Path, tests: str, *arguments: str) -> str:
    """What pytest says of the tests, over our class only."""
    (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (folder / "test_suite.py").write_text(tests, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "uvicorn_suite.plugin", "-p", "no:cacheprovider", "-rA"]
    ended = subprocess.run(
        [*command, "-c", os.devnull, f"--rootdir={folder}", *arguments, "test_suite.py"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # which takes most of the time
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ended.stdout + ended.stderr


def suite(body: str, *names: str) -> str:
    return "\n".join(f"def {name}(ws_protocol_cls):\n    {body}" for name in names)


def test_our_class_is_added_and_the_listed_tests_must_fail(tmp_path: Path) -> None:
    said = run(tmp_path, suite("assert False", *OTHERWISE) + "\n" + suite("pass", "test_other"))
    others = 2 * len(OTHERWISE)  # over uvicorn's two classes, which the list does not concern
    assert re.search(rf"{others} failed, 3 passed, {len(OTHERWISE)} xfailed", said), said
    for name in ("wsproto", "websockets-sansio", "lilya"):
        assert f"PASSED test_suite.py::test_other[{name}]" in said


def test_a_listed_test_that_passes_is_a_failure(tmp_path: Path) -> None:
    said = run(tmp_path, suite("pass", *OTHERWISE), "--ws-class=lilya")
    assert f"{len(OTHERWISE)} failed" in said
    assert "XPASS(strict)" in said


def test_a_listed_test_that_is_gone_is_an_error(tmp_path: Path) -> None:
    gone = min(OTHERWISE)
    said = run(tmp_path, suite("assert False", *(set(OTHERWISE) - {gone})), "--ws-class=lilya")
    assert f"OTHERWISE lists tests that uvicorn does not have: ['{gone}']" in said
