"""axe looks at every page, wide and narrow, light and dark, and has no serious or critical finding."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.browser import Browser, Tab
from tests.docs.test_accessible import without
from tests.hosted.test_hosted import PLACES

FILE = os.environ.get("AXE")
LOOKS = [(width, scheme) for width in (1280, 400) for scheme in ("light", "dark")]

pytestmark = pytest.mark.skipif(FILE is None, reason="npm is not installed: it brings axe")


class Page(Tab):
    """A page, and axe in it."""

    def start(self) -> None:
        """Load axe."""
        assert FILE is not None
        self.run(f"{Path(FILE).read_text(encoding='utf-8')}; undefined")

    def findings(self, width: int, scheme: str) -> list[str]:
        """What axe finds that is serious or critical: the rule, where, and why."""
        self.resize(width, 900, scheme)
        self.run(
            "axe.run(document, {preload: false, resultTypes: ['violations']})"
            ".then((results) => { window.axeFound = JSON.stringify(results.violations); }); undefined"
        )
        self.wait("window.axeFound")
        rules = json.loads(self.run("window.axeFound"))
        self.run("delete window.axeFound")
        return [
            f"{rule['id']} at {width} pixels, {scheme}: {node['target']}: {node['failureSummary']}"
            for rule in rules
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]


@pytest.fixture
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    page = Page(browser, address + getattr(request, "param", ""))
    page.start()
    yield page
    page.close()


@pytest.mark.parametrize("page", [*PLACES, "404.html"], indirect=True)
def test_axe_finds_nothing_serious(page: Page) -> None:
    for width, scheme in LOOKS:
        assert page.findings(width, scheme) == []


def test_axe_finds_nothing_serious_in_a_search(page: Page) -> None:
    page.run("document.querySelector('[data-md-toggle=search]').click()")
    page.run("document.querySelector('.md-search__input').focus()")
    page.call("Input.insertText", text="close")
    page.wait("document.querySelectorAll('.md-search-result__link').length > 0")
    for width, scheme in LOOKS:
        assert page.findings(width, scheme) == []


@pytest.mark.parametrize(
    ("file", "scheme", "rule"),
    [
        ("extra.css", "light", "color-contrast"),
        ("extra.css", "dark", "link-in-text-block"),
        ("scrolling.js", "light", "scrollable-region-focusable"),
    ],
)
def test_axe_finds_what_the_theme_leaves(file: str, scheme: str, rule: str, page: Page) -> None:
    without(page, file)
    page.start()
    assert {finding.partition(" ")[0] for finding in page.findings(400, scheme)} >= {rule}


def test_axe_finds_a_dialog_without_a_name(page: Page) -> None:
    page.run("document.querySelector('[role=dialog]').removeAttribute('aria-label')")
    (finding,) = page.findings(1280, "light")
    assert finding.startswith("aria-dialog-name at 1280 pixels, light: ")
