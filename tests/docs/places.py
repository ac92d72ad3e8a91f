"""Every failure of this folder names the page and the line that it is about.

A test says what it holds by a marker, `@pytest.mark.page("docs/concepts/errors.md", "a text of that page")`,
on itself or on its module. What a test is given counts as well: a page, and a text that is on it. A test
that a page names, as `tests/docs/test_x.py::test_y` or `test_y`, holds that line. `test_places.py` fails for
a test without a place.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import DOCS, PAGES, ROOT, line_of, name_of

# A place, and not one of this folder's own files.
PLACE = re.compile(
    r"(?<![\w/.-])(?!tests/)[\w-][\w/.-]*\.(?:md|markdown|mdx|rst|toml|py|yml|json|svg|html|ws|css|js):\d+"
)


NAMES = {path.relative_to(DOCS).as_posix(): path for path in PAGES}
NAMES |= {name.removesuffix(".md"): path for name, path in NAMES.items()}


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def places(item: Any) -> list[str]:
    """Where a test's pages say what it holds, the closest first."""
    return list(dict.fromkeys(_places(item)))


def _places(item: Any) -> Iterator[str]:
    marks = [_marked(mark) for mark in item.iter_markers("page")]
    given = list(item.callspec.params.values()) if hasattr(item, "callspec") else []
    pages = [page for value in given for page in _pages(value)]
    for page in [*pages, *(page for page, _ in marks)]:
        for value in given:
            if isinstance(value, str) and not _pages(value) and line_of(page, value, text_of(page)):
                yield f"{name_of(page)}:{line_of(page, value, text_of(page))}"
    name = re.compile(rf"`(?:tests/[\w/]+\.py::)?{re.escape(item.originalname or item.name)}`")
    for page in PAGES:
        found = name.search(text_of(page))
        if found:
            yield f"{name_of(page)}:{line_of(page, found[0], text_of(page))}"
    for page, text in marks:
        yield f"{name_of(page)}:{line_of(page, text, text_of(page)) or 1}"
    for page in pages:
        yield f"{name_of(page)}:1"


def _marked(mark: pytest.Mark) -> tuple[Path, str]:
    name, *text = mark.args
    return ROOT / name, text[0] if text else ""


def _pages(value: object) -> list[Path]:
    """The page that a parameter names: a path, `errors.md`, or `errors` as in the built site."""
    if isinstance(value, Path):
        return [value] if value.is_file() else []
    return [NAMES[value]] if isinstance(value, str) and value in NAMES else []


def faults(items: Iterable[Any]) -> list[str]:
    """The tests that have no place, and the markers whose text is on no page."""
    found = []
    for item in items:
        for mark in item.iter_markers("page"):
            page, text = _marked(mark)
            if not page.is_file():
                found.append(f"{item.nodeid}: there is no {mark.args[0]}")
            elif not text or not line_of(page, text, text_of(page)):
                found.append(f"{name_of(page)}:1: {item.nodeid} is about {text!r}, which is not on the page")
        if not any(True for _ in _places(item)):
            found.append(
                f"{item.nodeid} says of no page what it holds: give it `pytest.mark.page(PAGE, TEXT)`"
            )
    return list(dict.fromkeys(found))


# The hooks, which conftest.py takes over


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "page(name, text): the page that a test holds, and a text of it")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    shown: Any = report.longrepr
    crash = getattr(shown, "reprcrash", None)
    said = crash.message if crash is not None else str(shown)
    if report.failed and not PLACE.search(said):
        where = places(item) or [f"{name_of(item.path)}:1"]
        if crash is not None:
            crash.message = f"{where[0]}: {said}"  # the line of the summary
        if hasattr(shown, "addsection"):
            shown.addsection("on the page", "\n".join(where), "-")
        else:
            report.longrepr = f"{where[0]}: {said}"
    return report
