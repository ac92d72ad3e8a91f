"""Which examples of the pages have a Run button. `nox -s buttons` clicks them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, at
from ws_doctest import _apps
from ws_doctest._project import Project
from ws_doctest.buttons import Button, find_buttons

pytestmark = pytest.mark.page("docs/project/ws-doctest.md", "## Run buttons")

# The examples without a button, and a word of the reason.
WITHOUT = {
    "docs_src/guides/django/access.py": "threads",
    "docs_src/guides/limits/shared.py": "Redis",
    "docs_src/guides/quart/access.py": "multiprocessing",
    "docs_src/guides/quart/echo.py": "multiprocessing",
    "docs_src/guides/quart/room.py": "multiprocessing",
}


def found(pages: Path = DOCS) -> list[Button]:
    """The apps of the pages, with and without a button."""
    return find_buttons(Project(ROOT, [pages], [ROOT / "docs_src"]))


def left_out(buttons: list[Button]) -> list[str]:
    """The examples with a transcript that have neither a button nor a reason."""
    apps = [path for path in (ROOT / "docs_src").rglob("*.py") if _apps.has_app(path)]
    known = {button.file for button in buttons}
    return sorted({path.relative_to(ROOT).as_posix() for path in apps} - known)


def differing(buttons: list[Button]) -> list[str]:
    """The places of an example that have a button on one page and a reason on another, or no such reason."""
    return [
        f"{at(button.page, button.fence.info)}: {button.file}: {button.reason or 'no reason'}"
        for button in buttons
        if bool(button.reason) != (button.file in WITHOUT)
        or WITHOUT.get(button.file, "") not in button.reason
    ]


def test_every_example_has_a_button_or_says_why_not() -> None:
    buttons = found()
    assert left_out(buttons) == []
    assert differing(buttons) == []
    assert set(WITHOUT) <= {button.file for button in buttons}


def test_planted_example_without_a_reason() -> None:
    buttons = found()
    assert left_out([each for each in buttons if each.file != "docs_src/index/echo.py"]) == [
        "docs_src/index/echo.py"
    ]
    planted = [Button(each.page, each.fence, each.example, each.file, "") for each in buttons]
    assert len(differing(planted)) == sum(bool(each.reason) for each in buttons)
