"""Consoles: shell sessions that a page shows, run as a reader would run them.

In a fence of type `console`, a line that starts with `$ ` is a command, and the lines below it are what the
command prints. Each fence runs in a folder of its own, with the files that the page has shown above it under
a title: ``toml title="pyproject.toml"``. Only Python and pytest are run. A fence with any other program says
why it is skipped.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ws_doctest._pages import CONSOLES, Fence, Page
from ws_doctest._tests import normalized

LIMIT = 60.0  # seconds for one command

_FILE = re.compile(r"[\w-][\w./-]*\.\w+")
_ANY_LINES = ("...", "…")


@dataclass
class Command:
    """A command, and what the page says that it prints."""

    line: int
    text: str
    output: list[str] = field(default_factory=list)


def consoles_of(page: Page) -> list[Fence]:
    """Return the fences that show a shell session and are not skipped."""
    return [fence for fence in page.fences if fence.language in CONSOLES and fence.skip is None]


def run(fence: Fence, page: Page, root: Path) -> str | None:
    """Run a fence of type `console`; return the failure, or ``None``.

    Args:
        fence: the fence.
        page: its page, whose titled fences above it are files of the folder.
        root: the project's root, from which modules can be imported.
    """
    commands = list(_commands(fence))
    if not commands:
        return f"{page.name}:{fence.line}: a fence of type {fence.language} shows no command after `$ `"
    for command in commands:
        if _program(command.text) is None:
            return (
                f"{page.name}:{command.line}: `{command.text}` is not run: only python and pytest are. "
                "Say why above the fence: `<!-- ws-doctest: skip REASON -->`"
            )
    with tempfile.TemporaryDirectory(prefix="ws-doctest-") as name:
        folder = Path(name).resolve()
        for shown in page.fences[: page.fences.index(fence)]:
            if _FILE.fullmatch(shown.title) and ".." not in shown.title:
                file = folder / shown.title
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(shown.expanded(), encoding="utf-8")
        for command in commands:
            problem = _run(command, folder, root)
            if problem:
                return f"{page.name}:{command.line}: {problem}"
    return None


def _commands(fence: Fence) -> Iterator[Command]:
    command: Command | None = None
    for number, line in enumerate(fence.expanded().split("\n")[:-1], fence.line + 1):
        if command is not None and command.text.endswith("\\"):
            command.text = f"{command.text[:-1].rstrip()} {line.removeprefix('> ').strip()}"
        elif line.startswith("$ "):
            if command is not None:
                yield command
            command = Command(number, line[2:].strip())
        elif command is not None:
            command.output.append(line.rstrip())
    if command is not None:
        yield command


def _program(command: str) -> list[str] | None:
    """Return how a command is run here, or ``None`` if it is not."""
    try:
        program, *arguments = shlex.split(command, comments=True)
    except ValueError:  # no words, or no shell reads them: the check of commands says so
        return None
    if re.fullmatch(r"python3?|py", program) and arguments:
        return [sys.executable, *arguments]
    return [sys.executable, "-m", "pytest", *arguments] if program == "pytest" else None


def _run(command: Command, folder: Path, root: Path) -> str | None:
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("CI", "BUILD_NUMBER", "FORCE_COLOR", "PYTEST_ADDOPTS", "PYTEST_PLUGINS")
        and not key.startswith("PYTEST_XDIST")
    }
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            _program(command.text) or [],
            cwd=folder,
            env={**environment, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return f"`{command.text}` timed out after {LIMIT:g} s"
    seen = _lines(done.stdout, folder)
    if not command.output:
        if done.returncode:
            return f"`{command.text}` ended with status {done.returncode}:\n" + "\n".join(seen)
        return None
    wanted = _lines("\n".join(command.output), folder)
    if re.fullmatch(_pattern(wanted), "".join(line + "\n" for line in seen)):
        return None
    diff = difflib.unified_diff(
        wanted, seen, f"{command.text} (as written)", f"{command.text} (as seen)", lineterm=""
    )
    return "the output differs\n" + "\n".join(diff)


def _lines(text: str, folder: Path) -> list[str]:
    return [line.rstrip() for line in normalized(text, folder).rstrip("\n").split("\n")]


def _pattern(lines: list[str]) -> str:
    """Return the pattern of an output: a line of `...` is any lines, `…` within a line any text."""
    return "".join(
        r"(?:.*\n)*?" if line.strip() in _ANY_LINES else ".*?".join(map(re.escape, line.split("…"))) + r"\n"
        for line in lines
    )
