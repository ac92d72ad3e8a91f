"""The colours of the theme can be read, and nothing needs a mouse or an eye for colour. No npm is needed.

`nox -s hosted` has axe look at every page. These are the checks for what it once found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.docs.browser import Browser, Tab, needs_chromium
from tests.docs.pages import address_of

pytestmark = [needs_chromium, pytest.mark.page("docs/stylesheets/extra.css", "The theme's colours")]

ENOUGH = 4.5  # the contrast that WCAG 2.2 asks for (1.4.3)

# The theme's colours of text, and what is behind it.
PAGE = ["default-bg-color"]
CODE = ["code-bg-color", "code-hl-color--light on code-bg-color"]
HEADER = ["primary-fg-color"]
KINDS = ("number", "special", "function", "constant", "keyword", "string", "name", "operator", "punctuation")
COLOURS: dict[str, list[str]] = {
    "default-fg-color": PAGE,
    "default-fg-color--light": PAGE,
    "typeset-a-color": [*PAGE, *CODE],
    "accent-fg-color": [*PAGE, *CODE],
    "code-fg-color": CODE,
    **{f"code-hl-{kind}-color": CODE for kind in (*KINDS, "comment", "generic", "variable")},
    "primary-bg-color": HEADER,
    "accent-bg-color": ["accent-fg-color"],
}

# What the page makes of the theme's colours.
VALUES = """((names) => {
    const probe = document.body.appendChild(document.createElement('i'));
    return Object.fromEntries(names.map((name) => {
        probe.style.color = `var(--md-${name})`;
        return [name, getComputedStyle(probe).color];
    }));
})"""

# What somebody who sees no colours, no page, or has no mouse does not get to know.
HIDDEN = """(() => {
    const told = (element) => `${element.tagName} ${element.textContent.trim().slice(0, 40)}`;
    const all = (selector) => [...document.querySelectorAll(selector)].filter((it) => it.checkVisibility());
    const plain = (element) => !getComputedStyle(element).textDecorationLine.includes('underline');
    const reached = (element) => element.tabIndex >= 0 || element.querySelector('a[href], button, input');
    return {
        links: all('.md-typeset p a:not(.headerlink, .md-button)').filter(plain).map(told),
        scrolls: all('.md-content *').filter((element) => element.scrollWidth > element.clientWidth
            && ['auto', 'scroll'].includes(getComputedStyle(element).overflowX)
            && !reached(element)).map(told),
        dialogs: [...document.querySelectorAll('[role=dialog]:not([aria-label])')].map(told),
    };
})()"""

Colour = tuple[float, ...]


def parsed(text: str) -> Colour:
    """Red, green, blue and how much of them there is."""
    found = re.fullmatch(r"rgba?\((\d+), (\d+), (\d+)(?:, ([\d.]+))?\)", text)
    assert found, text
    return (*(float(part) for part in found.groups()[:3]), float(found[4] or 1))


def over(above: Colour, below: Colour) -> Colour:
    """A colour that shows what is behind it."""
    share = above[3]
    return (*(share * a + (1 - share) * b for a, b in zip(above[:3], below[:3], strict=True)), 1)


def light(colour: Colour) -> float:
    """The relative luminance, as WCAG defines it."""
    parts = [part / 255 for part in colour[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(text: Colour, ground: Colour) -> float:
    """How much a text differs from what is behind it, from 1 to 21."""
    low, high = sorted([light(over(text, ground)), light(ground)])
    return (high + 0.05) / (low + 0.05)


def faint(tab: Tab) -> list[str]:
    """The colours of text that differ too little from what is behind."""
    grounds = {part for behind in COLOURS.values() for ground in behind for part in ground.split(" on ")}
    values = tab.run(f"{VALUES}({sorted({*COLOURS, *grounds})})")
    colours = {name: parsed(value) for name, value in values.items()}
    problems = []
    for name, behind in COLOURS.items():
        for ground in behind:
            upper, *lower = (colours[part] for part in ground.split(" on "))
            found = contrast(colours[name], over(upper, lower[0]) if lower else upper)
            if found < ENOUGH:
                problems.append(f"{name} on {ground}: {found:.2f}")
    return problems


@pytest.fixture
def tab(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A page with text, code and tables."""
    tab = Tab(browser, address + address_of(getattr(request, "param", "websockets")))
    yield tab
    tab.close()


def without(tab: Tab, *files: str) -> None:
    """Load the page again without some files."""
    tab.call("Network.setBlockedURLs", urls=[f"*{file}*" for file in files])
    tab.run("window.before = true")
    tab.call("Page.reload", ignoreCache=True)
    tab.wait("!window.before && document.readyState === 'complete'")


def hidden(tab: Tab, width: int) -> dict[str, Any]:
    tab.resize(width, 900, "light")
    found: dict[str, Any] = tab.run(HIDDEN)
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_of_text_can_be_read(scheme: str, tab: Tab) -> None:
    tab.resize(1280, 900, scheme)
    assert faint(tab) == []


@pytest.mark.parametrize(
    ("scheme", "found"),
    [
        ("light", "typeset-a-color on default-bg-color: 3."),
        ("dark", "code-hl-constant-color on code-bg-color: 4."),
    ],
)
def test_the_colours_of_the_theme_cannot_be_read(scheme: str, found: str, tab: Tab) -> None:
    without(tab, "extra.css")
    tab.resize(1280, 900, scheme)
    assert any(problem.startswith(found) for problem in faint(tab))


@pytest.mark.parametrize("tab", ["index", "websockets", "reference/websockets"], indirect=True)
def test_nothing_needs_a_mouse_or_an_eye_for_colour(tab: Tab) -> None:
    for width in (1280, 400):
        assert hidden(tab, width) == {"links": [], "scrolls": [], "dialogs": []}


def test_planted_faults(tab: Tab) -> None:
    without(tab, "extra.css", "scrolling.js")
    tab.run("document.querySelector('[role=dialog]').removeAttribute('aria-label')")
    found = hidden(tab, 400)
    assert found["links"]
    assert found["scrolls"]
    # What it says changes when the search is ready.
    assert [text.partition(" ")[0] for text in found["dialogs"]] == ["DIV"]
