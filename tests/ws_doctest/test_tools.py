"""What runs the gate for others: the action for GitHub, the hook for pre-commit, and `watch`."""

from __future__ import annotations

import contextlib
import ensurepip
import importlib.util
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ws_doctest.conftest import LIMIT, PAGE, ROOT, make_environment

ACTION = ROOT / ".github" / "actions" / "ws-doctest"
FAULTY = PAGE.replace("< text HELLO", "< text Hello")
SAID = "README.md:18: the session differs from its transcript"


def variables(programs: Path, **more: str) -> dict[str, str]:
    """The variables of a process in an environment."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "PYTHON", "GIT_"))
    }
    return {
        **kept,
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "ws_doctest.plugin",
        "PYTHONUNBUFFERED": "1",
        **more,
    }


@pytest.fixture
def programs(tmp_path: Path, wheel: Path) -> Path:
    """An environment with the wheel, and nothing else of ours."""
    return make_environment(tmp_path / "environment", wheel)


# The action

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="the action's commands are for bash")


def inputs_of(action: dict[str, Any], given: dict[str, str]) -> dict[str, str]:
    """The inputs as GitHub hands them on."""
    assert set(given) <= set(action["inputs"]), "the action has no such input"
    return {name: given.get(name, declared.get("default", "")) for name, declared in action["inputs"].items()}


def run_action(
    action: dict[str, Any], project: Path, environment: dict[str, str], **given: str
) -> subprocess.CompletedProcess[str]:
    """Run the steps of the action, until one fails."""
    values = inputs_of(action, given)
    done = subprocess.CompletedProcess[str]([], 0)
    assert action["runs"]["using"] == "composite"
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash"
        # Nothing of the inputs is in the command itself, where it would be code.
        assert "${{" not in step["run"]
        named = {
            key: values[value.removeprefix("${{ inputs.").removesuffix(" }}")]
            for key, value in step.get("env", {}).items()
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=project,
            env={**environment, **named, "GITHUB_ACTION_PATH": str(ACTION)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
        )
        if done.returncode:
            break
    return done


@needs_bash
def test_the_action(tmp_path: Path, project: Path) -> None:
    action = yaml.safe_load((ACTION / "action.yml").read_text(encoding="utf-8"))
    bundled = sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))
    if not bundled:
        pytest.skip("this Python has no pip to install with")
    programs = make_environment(tmp_path / "environment")
    environment = variables(
        programs,
        # pip asks nobody: what the package needs is there, and is built with what is there
        PYTHONPATH=str(bundled[-1]),
        PIP_NO_INDEX="1",
        PIP_NO_DEPS="1",
        PIP_NO_BUILD_ISOLATION="0",
        PIP_DISABLE_PIP_VERSION_CHECK="1",
    )
    del environment["PYTEST_PLUGINS"]
    (project / "pytest.ini").write_text(
        "[pytest]\nws_doctest_pages = README.md\nws_doctest_backends = asyncio\nws_doctest_servers =\n"
        "addopts = -p ws_doctest.plugin\n",
        encoding="utf-8",
    )
    done = run_action(action, project, environment, pages="README.md", report="report.xml")
    assert done.returncode == 0, done.stdout
    assert "transcript" in (project / "report.xml").read_text(encoding="utf-8")
    # It is the package of the action's own commit that was installed and has run.
    where = "import ws_doctest; print(ws_doctest.__file__)"
    found = subprocess.run(
        [programs / "python", "-c", where], env=environment, capture_output=True, text=True, timeout=LIMIT
    )
    assert found.stdout.startswith(str(tmp_path / "environment"))

    (project / "README.md").write_text(FAULTY, encoding="utf-8")
    done = run_action(action, project, environment, pages="README.md", report="report.xml")
    assert done.returncode == 1
    assert SAID in done.stdout
    assert SAID in (project / "report.xml").read_text(encoding="utf-8")

    # Planted faults
    broken = {
        **action,
        "runs": {**action["runs"], "steps": [{"shell": "bash", "run": "pytest ${{ inputs.pages }}"}]},
    }
    with pytest.raises(AssertionError):
        run_action(broken, project, environment)
    with pytest.raises(AssertionError, match="no such input"):
        run_action(action, project, environment, page="README.md")


# The hook

needs_pre_commit = pytest.mark.skipif(
    shutil.which("git") is None or importlib.util.find_spec("pre_commit") is None,
    reason="git or pre-commit is not installed: the hook cannot be run as users run it",
)


def git(folder: Path, *arguments: str) -> str:
    """Run git as somebody who has configured nothing."""
    done = subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments],
        cwd=folder,
        env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
        check=True,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    return done.stdout.strip()


def commit(folder: Path) -> str:
    """Commit all of a folder; return the commit."""
    if not (folder / ".git").is_dir():
        git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "x", "--no-gpg-sign")
    return git(folder, "rev-parse", "HEAD")


@needs_pre_commit
def test_the_hook(tmp_path: Path, project: Path, programs: Path) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks)
    (project / ".pre-commit-config.yaml").write_text(
        f"repos:\n  - repo: {hooks}\n    rev: {commit(hooks)}\n    hooks:\n      - id: ws-doctest\n",
        encoding="utf-8",
    )
    (project / "code.py").write_text("x = 1\n", encoding="utf-8")
    (project / "logo.svg").write_text("<svg/>\n", encoding="utf-8")
    commit(project)
    environment = variables(
        programs,
        PRE_COMMIT_HOME=str(tmp_path / "cache"),
        GIT_CONFIG_GLOBAL=os.devnull,
        GIT_CONFIG_NOSYSTEM="1",
    )

    def pre_commit(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [programs / "python", "-m", "pre_commit", "run", *arguments],
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
        )

    done = pre_commit("--all-files")
    assert done.returncode == 0, done.stdout
    assert "Passed" in done.stdout
    (project / "README.md").write_text(FAULTY, encoding="utf-8")
    git(project, "add", "-A")
    # A page may show any code: with a change of it, all pages are checked.
    for changed in (("README.md",), ("code.py",)):
        done = pre_commit("--files", *changed)
        assert done.returncode == 1
        assert SAID in done.stdout
    done = pre_commit("--files", "logo.svg")
    assert done.returncode == 0
    assert "Skipped" in done.stdout


# Watching


class Watching:
    """`python -m ws_doctest watch`, and the lines that it says."""

    def __init__(self, project: Path, programs: Path, *pages: str) -> None:
        self.process = subprocess.Popen(
            [programs / "python", "-m", "ws_doctest", "watch", *pages],
            cwd=project,
            env=variables(programs),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Who runs the tests in the background may have had it ignored, which is inherited.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self.lines.put(line)

    def said(self) -> str:
        """What it says until it waits for the next change."""
        text = ""
        while "waits for changes" not in text:
            text += self.lines.get(timeout=LIMIT)
        return text

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(LIMIT)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join(LIMIT)


@contextlib.contextmanager
def watching(project: Path, programs: Path, *pages: str) -> Iterator[Watching]:
    watch = Watching(project, programs, *pages)
    try:
        yield watch
    finally:
        watch.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
@pytest.mark.parametrize("pages", [("README.md",), ()])
def test_watching(project: Path, programs: Path, pages: tuple[str, ...]) -> None:
    readme = project / "README.md"
    with watching(project, programs, *pages) as watch:
        assert "1 failed" not in watch.said()
        readme.write_text(FAULTY, encoding="utf-8")
        said = watch.said()
        assert SAID in said
        assert "failed" in said
        (project / "notes.txt").write_text("not a page\n", encoding="utf-8")
        readme.write_text(PAGE, encoding="utf-8")
        said = watch.said()
        assert "failed" not in said
        assert "passed" in said
        # It says nothing unless something has changed.
        (project / "code.py").write_text("x = 1\n", encoding="utf-8")
        assert "passed" in watch.said()
        assert watch.lines.empty()
        assert watch.interrupt() == 0


def test_without_configured_pages_it_says_so(project: Path, programs: Path) -> None:
    (project / "pyproject.toml").write_text("[tool.pytest.ini_options]\n", encoding="utf-8")
    done = subprocess.run(
        [programs / "python", "-m", "ws_doctest", "check"],
        cwd=project,
        env=variables(programs),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ws_doctest_pages names no pages" in done.stdout
