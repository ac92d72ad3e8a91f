"""Test files among the examples: run with pytest, and what pytest prints is compared where a page shows it.

`test_room.py` must pass. Beside `test_silent.py`, which fails to show how, lies `test_silent.out` with what
pytest prints of it, without what differs from run to run.
"""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from ws_doctest import _preload, _watch

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
    status, output = _pytest(["-q", "--no-header", "--color=no"], [path], root)
    if status is None:
        return f"{name}: timed out after {LIMIT:g} s"
    seen = normalized(output, root)
    kept = output_of(path)
    if not kept.is_file():
        return f"{name} fails, and no {kept.name} says so:\n{seen}" if status else None
    if status not in (0, 1):  # nothing collected, or an error of pytest's own
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
            "--continue-on-collection-errors",
            f"--junitxml={report}",
            "-o",
            "junit_family=xunit1",
        ]
        try:
            _pytest(options, files, root)
            cases = list(ElementTree.parse(report).iter("testcase"))
        except (OSError, ElementTree.ParseError):
            return set()
    failed = {case.get("file") for case in cases if len(case)}
    passed = {case.get("file") for case in cases} - failed
    return {file for file, name in zip(files, names, strict=True) if name in passed}


def _pytest(options: list[str], files: list[Path], root: Path) -> tuple[int | None, str]:
    """Run pytest in a process of its own.

    Returns:
        Its exit status, or `None` if it takes too long; and what it printed.
    """
    names = [file.relative_to(root).as_posix() for file in files]
    options = [*options, "-p", "no:cacheprovider"]
    if not any("hypothesis" in file.read_text(encoding="utf-8") for file in files):
        options += ["-p", "no:hypothesispytest"]  # it is a second, for nothing
    # With one of these set, pytest does not cut its summary to the width: a reader's terminal has neither.
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "BUILD_NUMBER")}
    environment |= {"COLUMNS": "80", "PYTEST_ADDOPTS": ""}
    with tempfile.TemporaryDirectory(prefix="ws-doctest-") as folder:
        output = Path(folder) / "output"
        _preload.preload()
        process = _preload.PROCESSES.Process(
            target=_preload.run_pytest, args=([*names, *options], str(root), str(output), environment)
        )
        with _watch.OPENING:
            process.start()
        process.join(LIMIT)
        if process.exitcode is None:
            process.kill()
            process.join()
            return None, ""
        return process.exitcode, output.read_text(encoding="utf-8")


def normalized(output: str, root: Path) -> str:
    """Return what pytest printed without what differs from run to run and from Python to Python."""
    output = output.replace(f"{root}{os.sep}", "")
    output = re.sub(r" in \d+\.\d+s\b", " in 0.01s", output)
    # Python 3.10 has no such marks below a line.
    output = re.sub(r"(?m)^ +[~^]+\n", "", output)
    return output.strip("\n") + "\n"
