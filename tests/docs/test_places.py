"""Each failure of this folder names a page and a line: whatever a test is about, and however it fails."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.docs.pages import DOCS, at, changes
from tests.docs.places import PLACE, faults, places

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.page("CONTRIBUTING.md", "`tests/docs/places.py`")

HERE = Path(__file__).parent


def item(name: str = "test_it", *marks: tuple[str, ...], **params: object) -> Any:
    """What pytest has collected, as far as it matters here."""
    return SimpleNamespace(
        nodeid=f"tests/docs/test_x.py::{name}",
        name=name,
        originalname=name,
        callspec=SimpleNamespace(params=params),
        iter_markers=lambda _: [SimpleNamespace(args=mark) for mark in marks],
    )


def test_each_test_has_a_place(request: pytest.FixtureRequest) -> None:
    collected = [each for each in request.session.items if each.path.is_relative_to(HERE)]
    assert collected
    assert faults(collected) == []


def test_where_a_test_finds_its_place() -> None:
    errors = DOCS / "concepts" / "errors.md"
    assert places(item("test_it", ("docs/concepts/errors.md", "| what was tried |"))) == [
        at(errors, "| what was tried |")
    ]
    assert places(item(page="concepts/errors.md", old="| argument | raises |"))[0] == at(
        errors, "| argument | raises |"
    )
    assert places(item(page=errors)) == ["docs/concepts/errors.md:1"]
    named = places(item("test_the_order_of_pairs"))
    assert len(named) == 1
    assert named[0] == at(DOCS / "project" / "differences.md", "test_the_order_of_pairs")


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        (item(), "says of no page what it holds"),
        (
            item("test_it", ("docs/concepts/errors.md", "what nobody says")),
            "docs/concepts/errors.md:1: .*which is not on the page",
        ),
        (
            item("test_it", ("docs/concepts/errors.md",)),
            "docs/concepts/errors.md:1: .*which is not on the page",
        ),
    ],
)
def test_planted_test_without_a_place(planted: Any, said: str) -> None:
    (found,) = faults([planted])
    assert re.search(said, found)


FAILING = """
import pytest

pytestmark = pytest.mark.page("docs/concepts/errors.md", "| what was tried |")

def test_asserts():
    assert 1 == 2

def test_raises():
    raise KeyError("code")

def test_fails():
    pytest.fail("nothing came")

def test_names_its_own():
    assert ["docs/guides/open.md:7: expected 1000"] == []

@pytest.fixture
def broken():
    raise OSError("no site")

def test_is_not_set_up(broken):
    pass
"""


def test_each_failure_has_a_place(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")  # its summary is not cut
    pytester.makepyfile(FAILING)
    result = pytester.runpytest_inprocess("-p", "tests.docs.places", "-p", "no:cacheprovider", "-rfE")
    result.assert_outcomes(failed=4, errors=1)
    said = [line for line in result.outlines if line.startswith(("FAILED", "ERROR "))]
    assert len(said) == 5
    page = at(DOCS / "concepts" / "errors.md", "| what was tried |")
    for line in said:
        assert PLACE.search(line.partition(" - ")[2]) or "test_names_its_own" in line, line
    result.stdout.fnmatch_lines(["*on the page*", page])


def test_a_place_is_not_one_of_these_files() -> None:
    assert PLACE.search("docs/guides/fastapi.md:12: it is not so")
    assert PLACE.search("AssertionError: README.md:3")
    assert PLACE.search("packages/lilya-websockets/src/lilya/websockets/_state.py:3: no such name")
    assert not PLACE.search("tests/docs/test_x.py:12: AssertionError")
    assert not PLACE.search("at 127.0.0.1:8000")


def test_how_a_page_differs() -> None:
    text = "one\ntwo\nthree\n"
    assert changes(DOCS / "x.md", text, text) == []
    assert changes(DOCS / "x.md", "one\n2\nthree\n", text) == [
        "docs/x.md:2: the page says 'two', expected '2'"
    ]
