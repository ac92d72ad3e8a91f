"""Test files among the examples: run with pytest, and what pytest prints is compared where a page shows it.

`test_room.py` must pass. Beside `test_silent.py`, which fails to show how, lies `test_silent.out` with what
pytest prints of it, without what differs from run to run.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from pathlib import Path

LIMIT = 60.0  # seconds for one file


def is_test(path: Path) -> bool:
    """Tell whether pytest collects an example by its name."""
    return path.suffix == ".py" and path.name.startswith("test_")


def output_of(example: Path) -> Path:
    """Return where the output of a test file is kept, whether it exists or not."""
    return example.with_suffix(".out")


def run(path: Path, root: Path, *, update: bool = False) -> str | None:
    """Run a test file; return the failure, or ``None``.

    Args:
        path: the file.
        root: the project's root, from where pytest runs, as a reader would.
        update: rewrite the kept output to what is seen.
    """
    name = path.relative_to(root).as_posix()
    options = ["-q", "--no-header", "--color=no", "-p", "no:cacheprovider"]
    if "hypothesis" not in path.read_text(encoding="utf-8"):
        options += ["-p", "no:hypothesispytest"]  # it is a second for each file, for nothing
    # With one of these set, pytest does not cut its summary to the width: a reader's terminal has neither.
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "BUILD_NUMBER")}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", name, *options],
            cwd=root,
            env={**environment, "COLUMNS": "80", "PYTEST_ADDOPTS": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return f"{name}: timed out after {LIMIT:g} s"
    seen = normalized(done.stdout, root)
    kept = output_of(path)
    if not kept.is_file():
        return f"{name} fails, and no {kept.name} says so:\n{seen}" if done.returncode else None
    if done.returncode not in (0, 1):  # nothing collected, or an error of pytest's own
        return f"{name}: pytest could not run it:\n{seen}"
    if update:
        kept.write_text(seen, encoding="utf-8", newline="\n")
    written = kept.read_text(encoding="utf-8")
    shown = kept.relative_to(root).as_posix()
    lines = difflib.unified_diff(
        written.splitlines(keepends=True),
        seen.splitlines(keepends=True),
        f"{shown} (as written)",
        f"{shown} (as seen)",
    )
    return "".join(lines) or None


def normalized(output: str, root: Path) -> str:
    """Return what pytest printed without what differs from run to run and from Python to Python."""
    output = output.replace(f"{root}{os.sep}", "")
    output = re.sub(r" in \d+\.\d+s\b", " in 0.01s", output)
    # Python 3.10 has no such marks below a line.
    output = re.sub(r"(?m)^ +[~^]+\n", "", output)
    return output.strip("\n") + "\n"
