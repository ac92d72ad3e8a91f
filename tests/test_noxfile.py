"""What the two commands say when they cannot start, before nox has a part in it."""

import ast
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

NOXFILE = Path(__file__).parent.parent / "noxfile.py"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], str]:
    """The noxfile run as a script that finds no nox, in a folder of its own; what it exits with."""
    script = tmp_path / "noxfile.py"
    script.write_text(NOXFILE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setitem(sys.modules, "nox", None)
    monkeypatch.setattr(sys, "argv", [str(script)])

    def exits_with() -> str:
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(script), run_name="__main__")
        return str(caught.value.code)

    return exits_with


def answer(monkeypatch: pytest.MonkeyPatch, *, run: int, call: int) -> list[list[str]]:
    """Have every command end with these statuses; the commands that were called."""
    called: list[list[str]] = []

    def fake_run(command: list[str], **options: object) -> SimpleNamespace:
        called.append(command)
        return SimpleNamespace(returncode=run)

    def fake_call(command: list[str]) -> int:
        called.append(command)
        return call

    monkeypatch.setattr(subprocess, "run", fake_run)
    monkeypatch.setattr(subprocess, "call", fake_call)
    return called


def test_a_python_that_is_too_old(run: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    said = run()
    assert said.startswith("noxfile.py needs Python 3.10 or newer, and this is 3.9 (")
    assert "\n" not in said


def test_a_python_that_is_too_old_can_read_it() -> None:
    ast.parse(NOXFILE.read_text(encoding="utf-8"), feature_version=(3, 7))


def test_a_python_without_venv(run: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, run=1, call=0)
    said = run()
    assert "no working venv module" in said
    assert "`uvx nox` needs none" in said
    assert "\n" not in said


def test_an_index_that_does_not_answer(run: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, run=0, call=1)
    said = run()
    assert said.startswith("nox could not be installed: ")
    assert "\n" not in said


def test_the_arguments_reach_nox(
    run: Callable[[], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called = answer(monkeypatch, run=0, call=0)
    monkeypatch.setattr(sys, "argv", ["noxfile.py", "-s", "serve"])
    python = tmp_path / ".nox/bootstrap" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    python.parent.mkdir(parents=True)
    python.touch()
    assert run() == "0"
    assert called[-1] == [str(python), "-m", "nox", "-f", str(tmp_path / "noxfile.py"), "-s", "serve"]
