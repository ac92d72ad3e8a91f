"""Style: every snippet and example is linted and format-checked, and its ``#>`` comments are true.

ruff does the first two, with the project's own configuration. It is run once for everything that a run of
pytest checks: to start it takes longer than to check a file.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
LIMIT = 120.0  # seconds for ruff


@dataclass(frozen=True)
class Source:
    """Code that is shown.

    Args:
        text: the code.
        path: the file, an example or a page.
        above: the lines of a page before it; 0 for an example.
        inline: whether it stands in a page.
    """

    text: str
    path: Path
    above: int = 0
    inline: bool = False


class Style:
    """What ruff says of all that is shown.

    Args:
        root: the project's root, with its configuration of ruff.
        line_length: the length of lines; default: what ruff is configured to.
    """

    def __init__(self, root: Path, line_length: int | None) -> None:
        self.root = root
        self.line_length = line_length
        self.sources: list[Source] = []
        self._results: dict[tuple[str, Source], str | None] | None = None
        self._lock = threading.Lock()

    def name(self, source: Source) -> str:
        """Return how a source is called in messages."""
        path = source.path
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def add(self, source: Source) -> None:
        """Have a source checked in the run to come."""
        self.sources.append(source)

    def lint(self, source: Source) -> str | None:
        """Return what ruff finds, with the lines of the page."""
        return self._result("lint", source)

    def check_format(self, source: Source) -> str | None:
        """Return how ruff would write it, as a diff with the lines of the page."""
        return self._result("format", source)

    def _result(self, kind: str, source: Source) -> str | None:
        with self._lock:
            if self._results is None or (kind, source) not in self._results:
                self._results = self._results or {}
                wanted = dict.fromkeys([*self.sources, source])
                self._run([each for each in wanted if ("lint", each) not in self._results])
            return self._results[kind, source]

    def _run(self, sources: list[Source]) -> None:
        assert self._results is not None
        with tempfile.TemporaryDirectory(prefix="ws-doctest-") as name:
            folder = Path(name).resolve()
            copies = {folder / f"{number}.py": source for number, source in enumerate(sources)}
            for copy, source in copies.items():
                copy.write_text(source.text, encoding="utf-8")
            inline = {copy: source for copy, source in copies.items() if source.inline}
            files = {source.path: source for source in sources if not source.inline}
            found = {source: [] for source in sources}  # type: dict[Source, list[str]]
            self._check(files, _IGNORED, found)
            self._check(inline, _IGNORED_INLINE, found, copies=True)
            for source in sources:
                self._results["lint", source] = "\n".join(found[source]) or None
            self._format(copies)

    def _ruff(self, *arguments: str, config: bool) -> subprocess.CompletedProcess[str]:
        # The program beside this Python, if it is there: `python -m ruff` starts a second one for it.
        program = shutil.which("ruff", path=str(Path(sys.executable).parent))
        command = [program] if program else [sys.executable, "-m", "ruff"]
        command += [*arguments, "--no-cache"]
        if self.line_length:
            command.append(f"--config=line-length={self.line_length}")
        if config:
            command += [f"--config={file}" for file in self._configuration()]
        return subprocess.run(
            command,
            cwd=self.root,
            capture_output=True,
            encoding="utf-8",
            timeout=LIMIT,
            stdin=subprocess.DEVNULL,
        )

    def _configuration(self) -> list[Path]:
        """Return the file that configures ruff, for copies that lie elsewhere."""
        for name in (".ruff.toml", "ruff.toml"):
            if (self.root / name).is_file():
                return [self.root / name]
        project = self.root / "pyproject.toml"
        if project.is_file() and "[tool.ruff" in project.read_text(encoding="utf-8"):
            return [project]
        return []

    def _check(
        self,
        files: dict[Path, Source],
        ignored: Iterable[str],
        found: dict[Source, list[str]],
        copies: bool = False,
    ) -> None:
        if not files:
            return
        done = self._ruff(
            "check",
            "--output-format=json",
            "--no-fix",
            "--no-respect-gitignore",
            f"--extend-ignore={','.join(ignored)}",
            *map(str, files),
            config=copies,
        )
        if done.returncode not in (0, 1):
            for source in files.values():
                found[source].append(
                    f"{self.name(source)}:{source.above + 1}: ruff cannot check this: {done.stderr}"
                )
            return
        problems: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        for problem in problems:
            file = files.get(Path(problem["filename"]))
            if file is None:
                continue
            row, column = problem["location"]["row"], problem["location"]["column"]
            line = file.text.split("\n")[row - 1] if 0 < row <= file.text.count("\n") + 1 else ""
            code = problem["code"] or "syntax error"
            if code == "E501" and line.lstrip().startswith("#>"):
                continue  # what is printed is as long as it is
            found[file].append(
                f"{self.name(file)}:{row + file.above}:{column}: {code} {problem['message']}\n{line}"
            )

    def _format(self, copies: dict[Path, Source]) -> None:
        assert self._results is not None
        written = {}
        for copy, source in copies.items():
            # ruff would put a blank into `#>`, which is not a comment but an output.
            written[copy] = re.sub(r"^( *#)> ", r"\1 > ", source.text, flags=re.MULTILINE)
            copy.write_text(written[copy], encoding="utf-8")
        # Inline snippets stand in somebody's prose, which names the same things with quotes of its choice.
        inline = [str(copy) for copy, source in copies.items() if source.inline]
        files = [str(copy) for copy, source in copies.items() if not source.inline]
        errors = ""
        if files:
            errors += self._ruff("format", "--quiet", *files, config=True).stderr
        if inline:
            quotes = "--config=format.quote-style='preserve'"
            errors += self._ruff("format", "--quiet", quotes, *inline, config=True).stderr
        for copy, source in copies.items():
            name, first = self.name(source), source.above + 1
            after = copy.read_text(encoding="utf-8")
            result = None
            if str(copy) in errors or copy.name in errors:
                own = [line for line in errors.splitlines() if copy.name in line]
                result = f"{name}:{first}: ruff cannot format this: " + " ".join(own).replace(str(copy), name)
            elif after != written[copy]:
                diff = difflib.unified_diff(
                    written[copy].splitlines(keepends=True),
                    after.splitlines(keepends=True),
                    f"{name} (from line {first})",
                    "as ruff formats it",
                )
                result = f"{name}:{first}: not formatted\n" + "".join(diff)
            self._results["format", source] = result


# Printed


@dataclass
class Printed:
    """What became of the ``#>`` comments."""

    lines: list[str] = field(default_factory=list)
    problem: str | None = None


_COMMENT = re.compile(r"[ \t]*#>(?: (?P<text>.*))?$")


@contextlib.contextmanager
def prints(source: Source, root: Path) -> Iterator[Printed]:
    """Compare what is printed while the code runs with its ``#>`` comments, line by line and in order.

    Code without them may print what it likes.
    """
    expected = [
        (number, found["text"] or "")
        for number, line in enumerate(source.text.split("\n"), source.above + 1)
        if (found := _COMMENT.match(line))
    ]
    printed = Printed()
    if not expected and not (source.inline and "print(" in source.text):
        yield printed
        return
    output = _Output()
    with contextlib.redirect_stdout(output):
        yield printed
    printed.lines = output.lines()
    name = source.path.relative_to(root).as_posix() if source.path.is_relative_to(root) else str(source.path)
    for index in range(max(len(expected), len(printed.lines))):
        came = printed.lines[index] if index < len(printed.lines) else None
        number, wanted = expected[index] if index < len(expected) else (None, None)
        if came == wanted:
            continue
        if number is None:
            number = expected[-1][0] if expected else source.above + 1
            problem = f"`{came}` is printed as well, and no `#>` comment shows it"
        elif came is None:
            problem = f"`#> {wanted}` is shown, and nothing is printed there"
        else:
            problem = f"the `#>` comments are not what is printed: `{wanted}` is shown, `{came}` is printed"
        printed.problem = f"{name}:{number}: {problem}"
        return


class _Output:
    """A standard output that keeps what comes, from whatever thread."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        """Keep a text."""
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""

    def lines(self) -> list[str]:
        """Return the lines that came."""
        return (
            [line.rstrip() for line in self.text.split("\n")[: None if not self.text.endswith("\n") else -1]]
            if self.text
            else []
        )
