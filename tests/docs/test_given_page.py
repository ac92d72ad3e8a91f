"""The page *WebSocket* is the one that was given as the specification, but for what *Differences* lists."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, Part, parts, table_of

pytestmark = pytest.mark.page("docs/project/differences.md", "Word for word")

GIVEN = Path(__file__).parent / "given" / "websockets.md"
OURS = DOCS / "websockets.md"
DIFFERENCES = DOCS / "project" / "differences.md"


def departures() -> list[tuple[str, str]]:
    """What is said otherwise, as *Differences* has it."""
    return [
        (part.cells[0].strip("`"), part.cells[1].strip("`"))
        for part in table_of(DIFFERENCES, "given", "here", "why")
    ]


def added_sections() -> list[str]:
    """The sections that are listed as added."""
    text = DIFFERENCES.read_text(encoding="utf-8").partition("Sections that the given page does not have:")[2]
    return re.findall(r"^\* (.+)$", text, re.MULTILINE)


def problems(ours: str) -> list[str]:
    """What our page has lost or changed of the given one."""
    found = []
    given = GIVEN.read_text(encoding="utf-8")
    for old, new in departures():
        if old not in given:
            found.append(f"docs/project/differences.md:1: the given page does not say {old!r}")
        given = given.replace(old, new)
    shown = parts(OURS, ours)
    position = 0
    for part in parts(GIVEN, given):
        at = next((i for i in range(position, len(shown)) if contains(shown[i], part)), None)
        if at is None:
            near = difflib.get_close_matches(part.normal, [each.normal for each in shown], 1, 0.4)
            here = next((each for each in shown if near and each.normal == near[0]), None)
            here = here or shown[min(position, len(shown) - 1)]
            found.append(f"{here.place}: the given page says here: {part.normal}")
        else:
            position = at
    known = headings(given) + added_sections()
    for part in shown:
        found += [
            f"{part.place}: the section {title!r} is not listed on Differences as added"
            for title in (headings(part.text) if part.kind == "text" else ())
            if title not in known
        ]
    return found


def contains(ours: Part, given: Part) -> bool:
    """Whether a block of ours says what a block of the given page says, and perhaps more behind it."""
    if given.kind == "fence" or given.text.startswith("#"):
        return ours.kind == given.kind and ours.normal == given.normal
    return given.normal in ours.normal


def headings(text: str) -> list[str]:
    return re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )


@pytest.mark.page("docs/websockets.md", "# ")
def test_our_page_says_what_the_given_one_says() -> None:
    assert problems(OURS.read_text(encoding="utf-8")) == []


def test_each_departure_is_needed() -> None:
    given = GIVEN.read_text(encoding="utf-8")
    assert [old for old, _ in departures() if old not in given] == []
    assert set(added_sections()) == set(headings(OURS.read_text(encoding="utf-8"))) - set(headings(given))


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("This approach ensures proper upkeep of the WebSocket's internal state.\n", "", "In cases where"),
        ("dispatch an HTTP 403 error", "dispatch an HTTP 401 error", "Should `websocket.close()`"),
        ("a subclass of `str`", "a subclass of `bytes`", "Accessing the WebSocket URL"),
        ("* `await websocket.send_bytes(data, timeout=None)`\n", "", "`await websocket"),
        ("#### Iterating data", "#### Looping", "Iterating data"),
        ("result in a `RuntimeError` being", "result in a `ValueError` being", "This functionality relies"),
        ("For instance: `websocket['path']` will return the ASGI path.\n", "", "For instance"),
        ("#### State\n", "#### State and more\n", "State and more"),
    ],
)
@pytest.mark.page("docs/websockets.md", "# ")
def test_planted_fault(old: str, new: str, line: str) -> None:
    text = OURS.read_text(encoding="utf-8")
    assert old in text
    found = problems(text.replace(old, new, 1))
    assert found
    assert all(re.match(r"docs/websockets\.md:\d+: ", each) for each in found)
    assert any(line in each for each in found)


@pytest.mark.page("docs/websockets.md", "#### Path Params")
def test_a_section_that_is_deleted() -> None:
    text = OURS.read_text(encoding="utf-8")
    start, end = text.index("#### Path Params"), text.index("#### Cookies")
    assert len(problems(text[:start] + text[end:])) >= 2
