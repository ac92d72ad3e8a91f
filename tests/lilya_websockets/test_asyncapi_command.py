"""`python -m lilya.websockets asyncapi`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lilya.websockets.__main__ import COMMANDS, main
from lilya.websockets.asyncapi import AsyncAPI
from tests.lilya_websockets import asyncapi_app

ROOT = Path(__file__).parents[2]
APP = "tests.lilya_websockets.asyncapi_app"


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The exit status, and what is written."""
    status = main(["asyncapi", *arguments])
    return status, *capfd.readouterr()


def test_it_writes_the_document(capfd: pytest.CaptureFixture[str]) -> None:
    expected = AsyncAPI(asyncapi_app.app)
    for name in ("app", "holder.app"):
        assert run(capfd, f"{APP}:{name}") == (0, expected.to_json(), "")
        assert run(capfd, f"{APP}:{name}", "--format=yaml") == (0, expected.to_yaml(), "")
    assert run(capfd, f"{APP}:documents") == (0, asyncapi_app.documents.to_json(), "")
    assert run(capfd, f"{APP}:handlers") == (0, AsyncAPI(asyncapi_app.handlers).to_json(), "")


def test_it_compares_a_file(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    expected = AsyncAPI(asyncapi_app.app)
    for name, text, options in (
        ("a.json", expected.to_json(), ()),
        ("a.yaml", expected.to_yaml(), ()),
        ("a.yml", expected.to_yaml(), ()),
        ("a.txt", expected.to_json(), ()),
        ("b.yaml", expected.to_json(), ("--format=json",)),
        ("b.txt", expected.to_yaml(), ("--format=yaml",)),
    ):
        file = tmp_path / name
        file.write_bytes(text.encode())
        assert run(capfd, f"{APP}:app", "--check", str(file), *options) == (0, "", "")
        file.write_bytes(text.replace("Says <b>", "Said <b>").encode())
        status, out, err = run(capfd, f"{APP}:app", "--check", str(file), *options)
        assert (status, err) == (1, "")
        lines = out.splitlines()
        assert lines[:2] == [f"--- {file.as_posix()}", f"+++ {APP}:app, as it is now"]
        changed = [line for line in lines[2:] if line[0] in "+-"]
        assert len(changed) == 4  # in the schema, and in the summary of the message
        assert "Said <b>" in changed[0]
        assert "ünusual" in changed[1]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("asyncapi_app", "name the app as MODULE:NAME, such as main:app; got 'asyncapi_app'\n"),
        (":app", "name the app as MODULE:NAME, such as main:app; got ':app'\n"),
        ("nowhere:app", "No module named 'nowhere'\n"),
        (f"{APP}:nothing", f"module '{APP}' has no attribute 'nothing'\n"),
        (f"{APP}:plain", "cannot read the routes of <function plain"),
    ],
)
def test_what_is_no_app(capfd: pytest.CaptureFixture[str], target: str, said: str) -> None:
    status, out, err = run(capfd, target)
    assert (status, out) == (2, "")
    assert err.startswith(said)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("app = None + 1", "line 1, in <module>"),
        ("import os; os.environ['NOT_SET_ANYWHERE']", "KeyError: 'NOT_SET_ANYWHERE'"),
        ("import not_installed_anywhere", "ModuleNotFoundError: No module named 'not_installed_anywhere'"),
    ],
)
def test_an_app_that_cannot_be_imported(
    source: str, said: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback says where; 1 would mean that the file is another document."""
    (tmp_path / "fails_on_import.py").write_text(source + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("fails_on_import", None)
    status, out, err = run(capfd, "fails_on_import:app")
    assert (status, out) == (2, "")
    assert err.startswith("fails_on_import:app cannot be imported:\n")
    assert "fails_on_import.py" in err
    assert said in err


def test_what_an_app_prints_is_no_part_of_the_document(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prints_on_import.py").write_text("print('starting')\napp = {}\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("prints_on_import", None)
    status, out, err = run(capfd, "prints_on_import:app")
    assert (status, err) == (0, "starting\n")
    assert json.loads(out)["asyncapi"] == "3.0.0"


def test_a_file_that_is_not_there(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, err = run(capfd, f"{APP}:app", "--check", str(tmp_path / "nothing.json"))
    assert (status, out) == (2, "")
    assert "nothing.json" in err


def test_the_command_line(tmp_path: Path) -> None:
    """From the folder of the app, as a person runs it."""
    (tmp_path / "main.py").write_text("app = {}\n")
    command = [sys.executable, "-m", "lilya.websockets"]

    def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    done = ran("asyncapi", "main:app")
    assert (done.returncode, json.loads(done.stdout)["asyncapi"], done.stderr) == (0, "3.0.0", "")
    shown = ran("--help")
    assert shown.returncode == 0
    for name, (_, text) in COMMANDS.items():
        assert f"{name} " in shown.stdout
        assert text in shown.stdout
    assert "usage: python -m lilya.websockets asyncapi" in ran("asyncapi", "--help").stdout
    for arguments in ((), ("nothing",), ("asyncapi",)):
        done = ran(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("usage: python -m lilya.websockets")


def test_arguments_are_those_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["__main__.py", "asyncapi", f"{APP}:handlers"])
    assert main() == 0
    assert capfd.readouterr().out == AsyncAPI(asyncapi_app.handlers).to_json()
