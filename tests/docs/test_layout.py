"""The built pages in Chromium, on a wide and on a narrow window: nothing is cut off or too small to read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.browser import Browser, Tab, needs_chromium
from tests.docs.pages import address_of, at

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md"))
WIDTHS = (1300, 400)

pytestmark = [needs_chromium, pytest.mark.page("mkdocs.yml", "extra_css")]

# What reaches beyond the window although nothing around it scrolls, the letters of a drawing that are smaller
# than so many pixels, and its labels that reach beyond it. What is folded has no size.
LOOK = """(() => {
    const scrolls = (element) => element && !element.matches('.md-content') && (
        ['auto', 'scroll'].includes(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
    const told = (element) => `${element.tagName} ${element.textContent.trim().slice(0, 40)}`;
    const width = document.documentElement.clientWidth;
    const content = [...document.querySelectorAll('.md-content *')];
    const cut = (element) => {
        const place = element.getBoundingClientRect();
        const drawing = element.closest('svg').getBoundingClientRect();
        return place.left < drawing.left - 1 || place.right > drawing.right + 1
            || place.top < drawing.top - 1 || place.bottom > drawing.bottom + 1;
    };
    const labels = content.filter((element) => element.matches('svg[role=img] text'));
    return {
        wide: content.filter((element) => {
            const place = element.getBoundingClientRect();
            return place.width && place.right > width + 1 && !scrolls(element.parentElement);
        }).map(told),
        small: labels.filter((element) => (
            parseFloat(getComputedStyle(element).fontSize) * element.getScreenCTM().a < 9)).map(told),
        long: labels.filter(cut).map(told),
    };
})()"""


@pytest.fixture
def tab(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """The page that the test names."""
    tab = Tab(browser, address + address_of(request.param))
    yield tab
    tab.close()


def misfits(page: Path, look: dict[str, list[str]], width: int) -> list[str]:
    """What does not fit, with its line of the page as far as its text is on it."""
    return [
        f"{at(page, told.partition(' ')[2][:15])}: too {what} at {width} pixels: {told}"
        for what, elements in look.items()
        for told in elements
    ]


@pytest.mark.parametrize("tab", PAGES, indirect=True)
def test_a_page_fits_its_window(tab: Tab, request: pytest.FixtureRequest) -> None:
    page = DOCS / f"{request.node.callspec.params['tab']}.md"
    for width in WIDTHS:
        tab.resize(width, 900, "light")
        assert misfits(page, tab.run(LOOK), width) == []
    assert tab.complaints() == []


@pytest.mark.parametrize(
    ("tab", "planted", "found"),
    [
        (
            "index",
            "document.querySelector('.md-content p').innerHTML = '<b style=\"white-space: pre\">'"
            " + 'too long '.repeat(40) + '</b>'",
            "wide",
        ),
        ("project/performance", "document.querySelector('svg.figures').style.width = '8rem'", "small"),
        (
            "project/performance",
            "document.querySelector('svg.figures text').textContent = 'a'.repeat(90)",
            "long",
        ),
    ],
    indirect=["tab"],
)
def test_planted_layout(tab: Tab, planted: str, found: str) -> None:
    tab.resize(WIDTHS[-1], 900, "light")
    tab.run(f"void ({planted})")
    problems = misfits(DOCS / "index.md", tab.run(LOOK), WIDTHS[-1])
    assert any(re.match(rf"docs/index\.md:\d+: too {found} ", problem) for problem in problems)
