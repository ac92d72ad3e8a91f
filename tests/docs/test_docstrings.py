"""Docstrings are pages, too: the names in them exist, their examples compile and import what is there.

And each public method of the class has its signature on a page.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import lilya.websockets
from lilya.websockets import WebSocket
from tests.docs.pages import PAGES, ROOT
from tests.docs.test_scope import configuration
from ws_doctest._names import Names
from ws_doctest._pages import read_page

SOURCE = ROOT / "packages" / "lilya-websockets" / "src" / "lilya" / "websockets"
# Modules of which users read the docstrings, in an editor and on the page *Reference*.
FILES = sorted(path for path in SOURCE.rglob("*.py"))
# Shown in words and examples, and not as an item of a list.
ELSEWHERE = {"open", "is_secure", "path_for", "url_path_for", "set_session", "clear_session", "wrap"}
# On the page of typed messages, in examples.
ELSEWHERE |= {"call", "iter_messages", "receive_message", "send_message"}


def names() -> Names:
    options = configuration()
    return Names(
        list(options["ws_doctest_names"]), {"websocket": WebSocket}, set(options["ws_doctest_words"])
    )


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """The docstrings of a file, each with its first line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield first.lineno, first.value.value


def problems(file: Path, source: str) -> list[str]:
    """What is wrong in the docstrings of a file."""
    known = names()
    # Names of the file itself are no slips.
    own = {
        getattr(node, "id", None)
        or getattr(node, "attr", None)
        or getattr(node, "name", None)
        or getattr(node, "arg", "")
        for node in ast.walk(ast.parse(source))
    }
    found = []
    for start, text in docstrings(source):
        for number, line in enumerate(text.split("\n"), start):
            for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", line):
                if span in own:
                    continue
                problem = known.problem(span)
                if problem:
                    found.append(f"{file.relative_to(ROOT).as_posix()}:{number}: {problem}")
        for number, example in examples(text, start):
            try:
                tree = ast.parse(example)
            except SyntaxError as error:
                found.append(f"{file.relative_to(ROOT).as_posix()}:{number}: {error.msg} in {example!r}")
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lilya.websockets"):
                    module = importlib.import_module(node.module or "")
                    found += [
                        f"{file.relative_to(ROOT).as_posix()}:{number}: {node.module} has no {alias.name}"
                        for alias in node.names
                        if not hasattr(module, alias.name)
                    ]
    return found


def examples(text: str, start: int) -> Iterator[tuple[int, str]]:
    """The blocks of a docstring that are code: indented below an empty line, with an import in them."""
    lines = inspect.cleandoc(text).split("\n")
    block: list[str] = []
    first = 0
    for number, line in enumerate([*lines, "end"], start):
        if line.startswith("    ") or (block and not line.strip()):
            first = first if block else number
            block.append(line)
            continue
        code = textwrap.dedent("\n".join(block))
        if re.search(r"^(?:from [\w.]+ import|import \w)", code, re.MULTILINE):
            yield first, code
        block = []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_docstrings(file: Path) -> None:
    assert problems(file, file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("_websocket.py", "`close_reason`", "`close_raeson`"),
        ("testing/__init__.py", "import connect\n", "import conect\n"),
        ("testing/__init__.py", "async with connect(", "async wth connect("),
    ],
)
def test_planted_docstring(name: str, old: str, new: str) -> None:
    text = (SOURCE / name).read_text(encoding="utf-8")
    assert old in text
    found = problems(SOURCE / name, text.replace(old, new, 1))
    assert found
    assert re.match(r"packages/lilya-websockets/src/lilya/websockets/[\w/]+\.py:\d+: ", found[0])


def shown() -> set[str]:
    """The methods whose signatures stand in lists."""
    return {
        bullet.method
        for path in PAGES
        for bullet in read_page(path, ROOT).bullets
        if bullet.receiver == "websocket"
    }


def test_each_method_has_its_signature_on_a_page() -> None:
    public = {
        name
        for cls in WebSocket.__mro__
        if cls.__module__.startswith("lilya.websockets")
        for name, member in vars(cls).items()
        if name[0] != "_"
        and inspect.isfunction(inspect.unwrap(getattr(WebSocket, name)))
        and inspect.isfunction(member)
    }
    assert public - shown() - ELSEWHERE == set(), "docs/websockets.md:1: no list shows their signatures"
    assert public - shown() == public & ELSEWHERE, "what a list shows is not elsewhere"


def test_every_public_name_is_known() -> None:
    assert set(lilya.websockets.__all__) <= names().known
