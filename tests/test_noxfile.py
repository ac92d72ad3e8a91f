"""What the two commands say when they cannot start, and what sessions make of their arguments."""

import ast
import configparser
import os
import runpy
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

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


# The sessions, with a nox that notes what it is asked for


class Ended(Exception):
    """A session ended, how, and with which line."""


def end(how: str, line: str) -> None:
    raise Ended(how, line)


@pytest.fixture
def noxfile(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the noxfile, sessions among them."""
    nox = MagicMock()
    nox.session = lambda function=None, **options: function or (lambda later: later)
    nox.parametrize = lambda *arguments: lambda function: function
    monkeypatch.setitem(sys.modules, "nox", nox)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # of which it changes some
    return runpy.run_path(str(NOXFILE), run_name="noxfile")


def asked(noxfile: dict[str, Any], name: str, *arguments: str) -> list[list[str]]:
    """The commands that a session runs; what it installs is the command `install`."""
    commands: list[list[str]] = []
    session = MagicMock(posargs=list(arguments))
    session.run = lambda *command, **options: commands.append(list(command))
    session.install = lambda *packages, **options: commands.append(["install"])
    session.error = lambda line: end("error", line)
    session.skip = lambda line: end("skip", line)
    try:
        noxfile[name](session)
    except Ended as ended:
        commands.append(list(ended.args))
    return commands


def test_a_busy_port_is_said_before_anything_is_made(noxfile: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        assert asked(noxfile, "serve", "--port", port) == [
            ["error", f"cannot serve on 127.0.0.1:{port}: the port is in use"]
        ]
    # It is not kept by what is left of connections, nor by the look at it.
    for _ in range(2):
        commands = asked(noxfile, "serve", "--port", port)
        assert commands[0] == ["install"]
        assert commands[-1][-2:] == ["--port", port]


def test_a_port_that_connections_have_left_is_free(noxfile: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            connection = listener.accept()[0]
            connection.close()  # the first to close: the end that waits
            assert client.recv(1) == b""
    assert noxfile["refusal"]([f"--port={port}"]) == ""


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_a_port_that_is_none(noxfile: dict[str, Any], port: str) -> None:
    said = f"cannot serve on 127.0.0.1:{port}: a port is a number from 0 to 65535"
    assert asked(noxfile, "serve", f"--port={port}") == [["error", said]]


def test_a_host_that_is_none(noxfile: dict[str, Any]) -> None:
    # for documentation: no machine has it
    ((_, said),) = asked(noxfile, "serve", "--host", "192.0.2.1", "--port", "0")
    assert said.startswith("cannot serve on 192.0.2.1:0: ")
    assert "\n" not in said


def test_a_python_that_is_not_installed_is_not_in_the_matrix(noxfile: dict[str, Any]) -> None:
    found = noxfile["found_pythons"]()
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in found
    assert list(noxfile["PYTHONS"]) == list(found)
    assert noxfile["NEWEST"] == (3, 14)


@pytest.mark.parametrize(
    ("versions", "here", "edges"),
    [
        (["3.10", "3.11", "3.13"], "3.11", [("3.10", "6"), ("3.13", "7")]),
        (["3.10", "3.11", "3.13"], "3.13", [("3.10", "6")]),  # the session `tests` runs the other one
        (["3.10", "3.11"], "3.10", [("3.10", "6"), ("3.11", "7")]),
        (["3.12"], "3.12", [("3.12", "6")]),
    ],
)
def test_the_edges_of_the_matrix(versions: list[str], here: str, edges: list[tuple[str, str]]) -> None:
    source = NOXFILE.read_text(encoding="utf-8")
    line = source[source.index("    EDGES = [") : source.index("    nox.options.sessions")]
    names: dict[str, Any] = {"PYTHONS": dict.fromkeys(versions), "MULTIDICTS": ("6", "7"), "HERE": here}
    exec(textwrap.dedent(line), names)
    assert names["EDGES"] == edges


@pytest.mark.parametrize("python", ["3.10", "3.13"])
def test_the_matrix_leaves_out_files_that_are_there(noxfile: dict[str, Any], python: str) -> None:
    """A file that was renamed would be run on every Python without a word."""
    commands: list[tuple[str, ...]] = []
    session = MagicMock(posargs=[], python=python)
    session.run = lambda *command, **options: commands.append(command)
    noxfile["PYTHONS"].clear()
    noxfile["PYTHONS"].update({"3.10": None, "3.13": None})
    noxfile["matrix"](session, multidict="7")
    patterns = [each.partition("=*/")[2] for each in commands[-1] if each.startswith("--ignore-glob=")]
    folder = NOXFILE.parent / "tests" / "lilya_websockets"
    left_out = {pattern: [file.name for file in folder.glob(pattern)] for pattern in patterns}
    assert all(left_out.values()), left_out
    assert ("test_channels_redis.py" in left_out.get("test_channels*.py", ())) is (python != "3.10")


def test_the_tests_are_run_once_each(noxfile: dict[str, Any]) -> None:
    """Those of the core with their coverage, those of the benchmarks elsewhere, and all others without."""
    commands = [command for command in asked(noxfile, "tests") if "pytest" in command]
    (rest,) = (command for command in commands if command[0] == "pytest")
    (measured,) = (command for command in commands if command[0] == "coverage")
    (benchmarks,) = (command for command in asked(noxfile, "benchmarks") if command[0] == "pytest")
    ignored = [each.removeprefix("--ignore=") for each in rest if each.startswith("--ignore")]
    assert [*measured[-len(noxfile["MEASURED"]) :], benchmarks[-1]] == ignored
    assert all((NOXFILE.parent / folder).is_dir() for folder in ignored)
    assert [each for each in rest[1:] if not each.startswith("--ignore")] == list(noxfile["PARALLEL"])
    assert asked(noxfile, "tests", "docs")[-1] == ["pytest", "docs"]


def test_pyodide_runs_the_newest_python(noxfile: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/somewhere/{name}")
    monkeypatch.setattr(shutil, "copy", lambda file, folder: f"{folder}/{Path(file).name}")
    monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
    commands = asked(noxfile, "pyodide", "-x")
    assert [command[0] for command in commands] == ["npm", "install", "python", "node"]
    assert commands[0][-1] == "pyodide@314"
    assert "--python-version=3.14" in commands[2]
    assert commands[-1][-1] == "-x"


def test_without_npm_there_is_no_pyodide(noxfile: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert asked(noxfile, "pyodide") == [["skip", "npm is not installed: it brings Pyodide"]]


def test_the_tools_of_asyncapi_come_from_npm(
    noxfile: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    commands = asked(noxfile, "asyncapi", "-x")
    assert [command[0] for command in commands] == ["install", "npm", "pytest"]
    assert set(noxfile["NODE"]) < set(commands[1])
    assert commands[-1][-1] == "-x"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert asked(noxfile, "asyncapi") == [["skip", "npm is not installed: it brings the parser of AsyncAPI"]]


@pytest.mark.parametrize("session", ["dropin", "servers", "frameworks"])
def test_options_keep_the_paths_of_a_session(noxfile: dict[str, Any], session: str) -> None:
    """An option is added to what runs without it; only a path takes the place of the paths."""
    (alone,) = (command for command in asked(noxfile, session) if command[0] == "pytest")
    (with_option,) = (command for command in asked(noxfile, session, "-x") if command[0] == "pytest")
    assert with_option == [*alone, "-x"]


@pytest.mark.parametrize("session", ["asyncapi", "dropin", "hosted", "servers"])
def test_the_paths_of_a_session_are_there(noxfile: dict[str, Any], session: str) -> None:
    """Without any in its configuration pytest would take the whole folder."""
    (command,) = (command for command in asked(noxfile, session) if command[0] == "pytest")
    parser = configparser.ConfigParser()
    parser.read(NOXFILE.parent / command[command.index("-c") + 1], encoding="utf-8")
    paths = parser["pytest"]["testpaths"].split()
    assert paths
    assert [path for path in paths if not (NOXFILE.parent / path).exists()] == []
