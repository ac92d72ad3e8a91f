"""The page *Lifecycle*: its tables and diagrams are the tables of the code."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from lilya.websockets import WebSocketState
from lilya.websockets._state import RECEIVE, SEND, after_send
from tests.docs.pages import changes

pytestmark = pytest.mark.page("docs/concepts/lifecycle.md", "| `client_state` |")

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "lifecycle.md"
SVG = "{http://www.w3.org/2000/svg}"

Table = dict[WebSocketState, dict[str, WebSocketState]]
TABLES: dict[str, Table] = {"client_state": RECEIVE, "application_state": SEND}
DIAGRAMS: dict[str, Table] = {"lifecycle-receive.svg": RECEIVE, "lifecycle-send.svg": SEND}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that draws the diagrams."""
    spec = importlib.util.spec_from_file_location("lifecycle_diagram", PAGE.parent / "lifecycle_diagram.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a NamedTuple looks its module up
    spec.loader.exec_module(module)
    return module


def steps(table: Table) -> set[tuple[str, str, str]]:
    """Every legal step as (state, message, state after it)."""
    found = set()
    for before, messages in table.items():
        for message, after in messages.items():
            found.add((before.name, message, after.name))
            if table is SEND:  # the last part of a body leads elsewhere
                found.add((before.name, message, after_send(before, message, more_body=False).name))
    return found


def drawn(svg: str) -> set[tuple[str, str, str]]:
    """The steps that a diagram shows; each arrow must carry its own label."""
    found = set()
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        if "data-message" not in group.attrib:
            continue
        message = group.attrib["data-message"]
        text = group.find(f"{SVG}text")
        assert text is not None
        assert text.text == message.removeprefix("websocket.")
        assert group.find(f"{SVG}path") is not None
        found.add((group.attrib["data-before"], message, group.attrib["data-after"]))
    return found


def shown(page: str, name: str) -> set[tuple[str, str, str]]:
    """The steps that the page's table of a state shows."""
    found = re.search(rf"^\| `{name}` \|.*\n(?:\|.*\n)+", page, re.MULTILINE)
    assert found is not None
    rows = [
        [re.findall(r"`([\w.]+)`", cell) for cell in line.strip("|").split("|")]
        for line in found[0].splitlines()
    ]
    header, _, *body = rows
    assert [row[0] for row in body] == [[state.name] for state in WebSocketState]
    return {
        (row[0][0], message[0], after)
        for row in body
        for message, cell in zip(header[1:], row[1:], strict=True)
        for after in cell
    }


@pytest.mark.page("docs/concepts/lifecycle.md", "lifecycle-receive.svg")
def test_the_committed_diagrams_are_what_the_script_draws(script: ModuleType) -> None:
    drawn = script.diagrams()
    assert {path.name for path in PAGE.parent.glob("*.svg")} == {path.name for path in drawn}
    assert [change for path, svg in drawn.items() for change in changes(path, svg)] == []


@pytest.mark.parametrize("name", DIAGRAMS)
@pytest.mark.page("docs/concepts/lifecycle.md", "lifecycle-receive.svg")
def test_a_diagram_shows_every_step_and_no_other(name: str) -> None:
    assert drawn((PAGE.parent / name).read_text(encoding="utf-8")) == steps(DIAGRAMS[name])


@pytest.mark.parametrize("name", DIAGRAMS)
@pytest.mark.page("docs/concepts/lifecycle.md", "lifecycle-receive.svg")
def test_a_diagram_can_be_read_aloud(name: str) -> None:
    root = ElementTree.parse(PAGE.parent / name).getroot()
    assert root.get("role") == "img"
    assert root.get("aria-label") == root.findtext(f"{SVG}title")
    description = root.findtext(f"{SVG}desc") or ""
    for before, message, after in steps(DIAGRAMS[name]):
        assert re.search(rf"{before}: {re.escape(message)}(?: \([a-z ]+\))? leads to {after}\.", description)


@pytest.mark.parametrize("name", DIAGRAMS)
@pytest.mark.page("docs/concepts/lifecycle.md", "lifecycle-receive.svg")
def test_a_diagram_has_the_colours_of_the_page(name: str) -> None:
    svg = (PAGE.parent / name).read_text(encoding="utf-8")
    assert set(re.findall(r'\b(?:fill|stroke)="([^"]*)"', svg)) == {"currentColor"}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_page_is_that_of_the_code(name: str) -> None:
    assert shown(PAGE.read_text(encoding="utf-8"), name) == steps(TABLES[name])


@pytest.mark.page("docs/concepts/lifecycle.md", "lifecycle-receive.svg")
def test_the_diagrams_are_on_the_page(site: Path) -> None:
    html = (site / "concepts" / "lifecycle" / "index.html").read_text(encoding="utf-8")
    for name in DIAGRAMS:
        assert (PAGE.parent / name).read_text(encoding="utf-8").strip() in html


# Planted faults


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('data-after="RESPONSE"', 'data-after="CONNECTED"'),
        (' data-message="websocket.accept"', ""),
    ],
)
@pytest.mark.page("docs/concepts/lifecycle.md", "lifecycle-send.svg")
def test_planted_arrow(old: str, new: str) -> None:
    svg = (PAGE.parent / "lifecycle-send.svg").read_text(encoding="utf-8")
    assert drawn(svg.replace(old, new, 1)) != steps(SEND)


@pytest.mark.page("docs/concepts/lifecycle.md", "lifecycle-send.svg")
def test_planted_label() -> None:
    svg = (PAGE.parent / "lifecycle-send.svg").read_text(encoding="utf-8")
    with pytest.raises(AssertionError):
        drawn(svg.replace(">accept<", ">accepted<", 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("`CONNECTED` | | `CONNECTED` |", "`CONNECTED` | `CONNECTED` | |"),
        ("`RESPONSE`, then `DISCONNECTED`", "`RESPONSE`"),
    ],
)
def test_planted_cell(old: str, new: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert old in page
    changed = page.replace(old, new)
    assert any(shown(changed, name) != steps(table) for name, table in TABLES.items())


def test_planted_change_of_the_code(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        SEND[WebSocketState.CONNECTED], "websocket.http.response.start", WebSocketState.RESPONSE
    )
    written = {path: path.read_text(encoding="utf-8") for path in PAGE.parent.glob("*.svg")}
    assert written != script.diagrams()
    assert drawn((PAGE.parent / "lifecycle-send.svg").read_text(encoding="utf-8")) != steps(SEND)
