"""The page *With Lilya*: what it shows is run by `nox -s dropin`, and that it is, is held here."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

import pytest

from tests.docs.pages import at
from ws_doctest._pages import read_page

pytestmark = pytest.mark.page("docs/guides/lilya.md", "## What changes")

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "lilya.md"
SUITE = ROOT / "tests" / "dropin"


def names_of_tests(suite: Path) -> set[str]:
    """The tests of a folder."""
    return {
        node.name
        for path in suite.glob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def unheld(page: str) -> list[str]:
    """The lines of both tables, from *What changes* on, without a test, and the tests that do not exist."""
    rows = re.findall(r"^\| .*\|$", page.partition("## What changes")[2], re.MULTILINE)
    rows = [row for row in rows if not re.fullmatch(r"[| -]+|.*\| test \|", row)]
    problems = [f"{at(PAGE, row, page)}: no test is named" for row in rows if "`test_" not in row]
    if len(rows) < 20:
        problems.append(f"{at(PAGE, '## What changes', page)}: only {len(rows)} lines")
    named = set(re.findall(r"`(?:tests/dropin/\w+\.py::)?(test_\w+)`", page))
    problems += [
        f"{at(PAGE, name, page)}: there is no test {name}" for name in sorted(named - names_of_tests(SUITE))
    ]
    problems += [
        f"{at(PAGE, file, page)}: there is no {file}"
        for file in re.findall(r"`(tests/\w+/\w+\.py)", page)
        if not (ROOT / file).is_file()
    ]
    return problems


def unrun(elsewhere: list[str], ini: str, default_sessions: list[str]) -> list[str]:
    """The examples that are left out here, and that no session runs."""
    settings = configparser.ConfigParser()
    settings.read_string(ini)
    pages = settings["pytest"].get("ws_doctest_pages", "").split()
    folders = settings["pytest"].get("ws_doctest_examples", "").split()
    problems = (
        [] if "ws_doctest_elsewhere" not in settings["pytest"] else ["nothing may be left out there, too"]
    )
    for line in elsewhere:
        folder, _, reason = line.partition(": ")
        session = re.search(r"nox -s (\w+)", reason)
        if folder not in folders or session is None or session[1] not in default_sessions:
            problems.append(f"nobody runs {folder}")
        for page in sorted((ROOT / "docs").rglob("*.md")):
            shown = [include.path.relative_to(ROOT).as_posix() for include in read_page(page, ROOT).includes]
            if (
                any(path.startswith(f"{folder}/") for path in shown)
                and page.relative_to(ROOT).as_posix() not in pages
            ):
                problems.append(f"nobody runs what {page.name} shows of {folder}")
    return problems


def left_out(request: pytest.FixtureRequest) -> list[str]:
    found: list[str] = request.config.getini("ws_doctest_elsewhere")
    return found


INI = (SUITE / "pytest.ini").read_text(encoding="utf-8")


def test_each_line_names_its_test() -> None:
    assert unheld(PAGE.read_text(encoding="utf-8")) == []


def test_each_change_is_on_the_page() -> None:
    tests = names_of_tests(SUITE)
    assert "test_the_wrong_kind" in tests
    source = (SUITE / "test_changes.py").read_text(encoding="utf-8")
    named = set(re.findall(r"test_\w+", PAGE.read_text(encoding="utf-8")))
    assert set(re.findall(r"^def (test_\w+)", source, re.MULTILINE)) - named == {
        "test_each_scenario_is_looked_at"
    }


@pytest.mark.page("pyproject.toml", "ws_doctest_elsewhere")
def test_what_is_left_out_here_is_run_there(request: pytest.FixtureRequest) -> None:
    elsewhere = left_out(request)
    assert elsewhere
    session = re.search(
        r"nox\.options\.sessions = \[(.*?)\]", (ROOT / "noxfile.py").read_text("utf-8"), re.DOTALL
    )
    assert session is not None
    assert unrun(elsewhere, INI, re.findall(r'"(\w+)"', session[1])) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("`test_a_lost_client`", ""),
        ("`test_a_lost_client`", "`test_a_found_client`"),
        ("`tests/dropin/test_installing.py`", "`tests/dropin/test_uninstalling.py`"),
    ],
)
def test_planted_line_without_a_test(old: str, new: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert old in page
    found = unheld(page.replace(old, new))
    assert found
    assert all(re.match(r"docs/guides/lilya\.md:\d+: ", each) for each in found)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("docs/guides/lilya.md", "docs/index.md"),
        ("docs_src/guides/lilya", "docs_src/index"),
        ("ws_doctest_examples", "ws_doctest_elsewhere = docs_src/guides/lilya: nowhere\nws_doctest_examples"),
    ],
)
@pytest.mark.page("pyproject.toml", "ws_doctest_elsewhere")
def test_planted_example_that_nobody_runs(old: str, new: str, request: pytest.FixtureRequest) -> None:
    assert old in INI
    assert unrun(left_out(request), INI.replace(old, new), ["dropin"])
    assert unrun(left_out(request), INI, ["tests"])
