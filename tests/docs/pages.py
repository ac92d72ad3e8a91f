"""What the tests of this folder read of pages, each part with its place, so that a failure names it."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md"))


@dataclass(frozen=True)
class Part:
    """A block of a page: a paragraph, a list item, a row of a table, a fence."""

    file: str
    line: int
    text: str
    kind: str = "text"
    info: str = ""

    @property
    def place(self) -> str:
        """The page and the line, as an editor takes it."""
        return f"{self.file}:{self.line}"

    @property
    def normal(self) -> str:
        """The text, however it is broken into lines."""
        return " ".join(self.text.split())

    @property
    def cells(self) -> list[str]:
        """The cells of a row."""
        return [cell.strip() for cell in re.split(r"(?<!\\)\|", self.text.strip().strip("|"))]

    @property
    def spans(self) -> list[str]:
        """The code spans."""
        return [found[2].strip() for found in _SPAN.finditer(self.text)]


_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_FENCE = re.compile(r"(?P<prefix>[ >]*)(?P<mark>`{3,}|~{3,})(?P<info>.*)$")


def line_of(path: Path, text: str, within: str | None = None) -> int:
    """The line of a page in which a text begins; 0 if it is not there."""
    within = path.read_text(encoding="utf-8") if within is None else within
    place = within.find(text)
    return 0 if place < 0 or not text else within.count("\n", 0, place) + 1


def at(path: Path, text: str, within: str | None = None) -> str:
    """The page and the line in which a text begins; the first line if it is not there."""
    return f"{name_of(path)}:{line_of(path, text, within) or 1}"


def changes(path: Path, wanted: str, within: str | None = None) -> list[str]:
    """How a page differs from what it should be, each with the line of the page."""
    within = path.read_text(encoding="utf-8") if within is None else within
    old, new = within.split("\n"), wanted.split("\n")
    found = []
    for tag, start, end, wanted_start, wanted_end in difflib.SequenceMatcher(
        None, old, new, autojunk=False
    ).get_opcodes():
        if tag != "equal":
            said, expected = "\n".join(old[start:end]), "\n".join(new[wanted_start:wanted_end])
            found.append(f"{name_of(path)}:{start + 1}: the page says {said!r}, expected {expected!r}")
    return found


def address_of(name: str) -> str:
    """Where the built site has a page: `guides/open` at `guides/open/`, `reference/index` at `reference/`."""
    folder, _, last = name.rpartition("/")
    return f"{folder if last == 'index' else name}/".lstrip("/")


def name_of(path: Path) -> str:
    """How a file is called in messages."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def parts(path: Path, text: str | None = None) -> list[Part]:
    """The blocks of a page, in order."""
    return list(_parts(name_of(path), path.read_text(encoding="utf-8") if text is None else text))


def _parts(file: str, text: str) -> Iterator[Part]:
    block: list[str] = []
    start, fence = 1, None
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if fence is not None:
            block.append(line)
            if line.strip().startswith(fence["mark"]) and not line.strip().strip(fence["mark"][0]):
                yield Part(file, start, "\n".join(block), "fence", fence["info"].strip())
                block, fence = [], None
            continue
        opening = _FENCE.match(line)
        item = re.match(r"\s*(?:[*-]|\d+\.) ", line)
        row = line.lstrip().startswith("|")
        if block and (not line.strip() or opening or item or row):
            yield Part(file, start, "\n".join(block))
            block = []
        if opening:
            block, start, fence = [line], number, opening
        elif row:
            if not set(line.strip()) <= set("|-: "):
                yield Part(file, number, line, "row")
        elif line.strip():
            if not block:
                start = number
            block.append(line)


def tables(path: Path, text: str | None = None) -> Iterator[list[Part]]:
    """The tables of a page, each with its head first."""
    table: list[Part] = []
    for part in parts(path, text):
        # Between the head and the first row there is the line that rules them off.
        if part.kind == "row" and (not table or part.line - table[-1].line <= (2 if len(table) == 1 else 1)):
            table.append(part)
        else:
            if table:
                yield table
            table = [part] if part.kind == "row" else []
    if table:
        yield table


def named_docstrings(source: str) -> Iterator[tuple[str, int, str]]:
    """The docstrings of a module: whose each is, such as `Channels.join`, its first line, and its text."""
    left: list[tuple[str, ast.AST]] = [("", ast.parse(source))]
    while left:
        name, node = left.pop(0)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield name, first.lineno, first.value.value
        left += [
            (".".join(filter(None, [name, getattr(child, "name", "")])), child)
            for child in ast.iter_child_nodes(node)
        ]


def table_of(path: Path, *head: str, text: str | None = None) -> list[Part]:
    """The rows of the table whose head begins so."""
    for table in tables(path, text):
        if table[0].cells[: len(head)] == list(head):
            return table[1:]
    raise AssertionError(f"{name_of(path)}:1: there is no table with the head {' | '.join(head)}")
