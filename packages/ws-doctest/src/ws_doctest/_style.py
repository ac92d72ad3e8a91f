"""Style: every snippet and example file is linted and format-checked, and its ``#>`` comments are
true.

pytest-examples lints and checks the comments; its own formatter is black, so the format is checked
with ruff here. Both take the project's own ruff configuration, from the current directory.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_examples import CodeExample
from pytest_examples.config import ExamplesConfig
from pytest_examples.lint import FormatError, ruff_check
from pytest_examples.run_code import InsertPrintStatements
from ruff.__main__ import find_ruff_bin  # type: ignore[import-untyped]  # ruff ships no types

# Rules that would make documentation silly, and why.
_IGNORED = [
    "T201",  # print is how an example shows a value
    "INP001",  # an example is one file to copy, not a package
]
_IGNORED_INLINE = [
    *_IGNORED,
    "B018",  # a bare expression is how a snippet shows a value; the value is compared
    "F704",  # `await` at the top level is allowed here
    "PLE1142",  # the same
    "F821",  # scope, receive and send are given; running finds every other undefined name
    "I001",  # a snippet's imports stand where the reader needs them
]


def example(source: str, path: Path, start_line: int = 0) -> CodeExample:
    """Return what pytest-examples works on; ``start_line`` is the line above the first one."""
    code: CodeExample = CodeExample.create(source, path=path, start_line=start_line, prefix="python")
    return code


def lint(code: CodeExample, root: Path, line_length: int | None) -> str | None:
    """Return what ruff finds, with the lines of the page."""
    config = ExamplesConfig(
        target_version="py310",
        ruff_line_length=line_length,
        ruff_ignore=_IGNORED if code.in_py_file() else _IGNORED_INLINE,
    )
    try:
        ruff_check(code, config)
    except FormatError as exc:
        # pytest-examples translates lines of ruff's concise output only.
        name = code.path.relative_to(root).as_posix()
        return re.sub(
            r"--> -:(\d+)",
            lambda found: f"--> {name}:{int(found[1]) + code.start_line}",
            str(exc).replace(f"{root}/", ""),
        )
    return None


def check_format(code: CodeExample, root: Path, line_length: int | None) -> str | None:
    """Return how ruff would write it, as a diff with the lines of the page."""
    # ruff would put a blank into `#>`, which is not a comment but an output.
    source = re.sub(r"^( *#)> ", r"\1 > ", code.source, flags=re.MULTILINE)
    command = [find_ruff_bin(), "format", "-"]
    if line_length:
        command.append(f"--line-length={line_length}")
    if not code.in_py_file():
        # Inline snippets stand in somebody's prose, which names the same things with the quotes of
        # its choice.
        command.append("--config=format.quote-style='preserve'")
    result = subprocess.run(command, input=source, capture_output=True, encoding="utf-8", timeout=60)
    name = code.path.relative_to(root).as_posix()
    if result.returncode:
        return f"{name}:{code.start_line + 1}: ruff cannot format this: {result.stderr.strip()}"
    if result.stdout == source:
        return None
    diff = difflib.unified_diff(
        source.splitlines(keepends=True),
        result.stdout.splitlines(keepends=True),
        f"{name} (from line {code.start_line + 1})",
        "as ruff formats it",
    )
    return f"{name}:{code.start_line + 1}: not formatted\n" + "".join(diff)


@dataclass
class Printed:
    """What became of the ``#>`` comments."""

    problem: str | None = None


@contextlib.contextmanager
def prints(code: CodeExample, root: Path) -> Iterator[Printed]:
    """Compare what is printed while the code runs with its ``#>`` comments.

    Code without ``print`` is left alone, and keeps the real one.
    """
    printed = Printed()
    if "print(" not in code.source and "#>" not in code.source:
        yield printed
        return
    checker = InsertPrintStatements(code.path, ExamplesConfig(line_length=99), True, None, None)
    with checker:
        yield printed
    for statement in checker.print_statements():
        statement.line_no -= code.start_line  # the code runs with the lines of its page
    after = checker.updated_print_statements(code)
    name = code.path.relative_to(root).as_posix()
    stale = code.source.count("#> ") and not checker.print_statements()
    if after is not None or stale:
        diff = difflib.unified_diff(
            code.source.splitlines(keepends=True),
            (after or "").splitlines(keepends=True),
            f"{name} (from line {code.start_line + 1})",
            "as printed",
        )
        printed.problem = (
            f"{name}:{code.start_line + 1}: the `#>` comments are not what is printed\n" + "".join(diff)
        )
