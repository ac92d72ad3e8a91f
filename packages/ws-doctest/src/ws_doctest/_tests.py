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
import tempfile
from pathlib import Path
from xml.etree import ElementTree

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


def passing(files: list[Path], root: Path) -> set[Path]:
    """Return the test files that pass when all of them are run in one process, without those that shall fail.

    What is not returned is run alone: then its output says why.
    """
    files = [file for file in files if not output_of(file).is_file()]
    with tempfile.TemporaryDirectory(prefix="ws-doctest-") as folder:
        report = Path(folder) / "report.xml"
        names = [file.relative_to(root).as_posix() for file in files]
        options = [
            "-q",
            "-p",
            "no:cacheprovider",
            "--continue-on-collection-errors",
            f"--junitxml={report}",
            "-o",
            "junit_family=xunit1",
        ]
        try:
            subprocess.run(
                [sys.executable, "-m", "pytest", *names, *options],
                cwd=root,
                env={**os.environ, "PYTEST_ADDOPTS": ""},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=LIMIT,
            )
            cases = list(ElementTree.parse(report).iter("testcase"))
        except (subprocess.TimeoutExpired, OSError, ElementTree.ParseError):
            return set()
    failed = {case.get("file") for case in cases if len(case)}
    passed = {case.get("file") for case in cases} - failed
    return {file for file, name in zip(files, names, strict=True) if name in passed}


def normalized(output: str, root: Path) -> str:
    """Return what pytest printed without what differs from run to run and from Python to Python."""
    output = output.replace(f"{root}{os.sep}", "")
    output = re.sub(r" in \d+\.\d+s\b", " in 0.01s", output)
    # Python 3.10 has no such marks below a line.
    output = re.sub(r"(?m)^ +[~^]+\n", "", output)
    return output.strip("\n") + "\n"
