"""The pictures of the pages on concepts: they show what the code does, to everybody."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import anyio
import pytest

from lilya.websockets.channels import Channels, Event, Gap
from tests.docs.pages import DOCS, changes

pytestmark = pytest.mark.page("docs/concepts/delivery.md", "pictures/channels.svg")

FOLDER = DOCS / "concepts" / "pictures"
SVG = "{http://www.w3.org/2000/svg}"
# Each picture, the page that shows it, and what a description of it has to say.
SHOWN = {
    "channels": ("concepts/delivery", ("publish", "broker", "process", "outbox", "writer", "1,000", "256")),
    "gap": ("concepts/delivery", ("since=5", "6, 7, 8", "since=2", "Gap, 5, 6, 7, 8")),
    "block": ("concepts/backpressure", ("reader", "inbox", "64", "1 MiB", "handler")),
    "chat": ("guides/chat", ("ann", "bob", "'Connected.'", "'Connection lost.'", "waiting to be sent")),
    "drain": ("guides/draining", ("SIGTERM", "503", "100", "0.1 s", "1012", "9 s", "10 s")),
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that draws them."""
    spec = importlib.util.spec_from_file_location("pictures", FOLDER.with_suffix(".py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_committed_pictures_are_what_the_script_draws(script: ModuleType) -> None:
    drawn = script.pictures()
    assert {path.stem for path in FOLDER.glob("*.svg")} == {path.stem for path in drawn} == set(SHOWN)
    assert [change for path, svg in drawn.items() for change in changes(path, svg)] == []


def problems(svg: str, wanted: tuple[str, ...]) -> list[str]:
    """Why somebody could not read a picture."""
    root = ElementTree.fromstring(svg)
    title, said = root.findtext(f"{SVG}title"), root.findtext(f"{SVG}desc") or ""
    found = [f"{each!r} is not in the description" for each in wanted if each not in said]
    if root.get("role") != "img" or not title or root.get("aria-label") != title:
        found.append("it has no name")
    colours = set(re.findall(r'\b(?:fill|stroke)="([^"]*)"', svg))
    found += [f"{colour} is not a colour of the page" for colour in colours - {"currentColor", "none"}]
    if root.get("viewBox", "").split()[2:3] != ["360"]:
        found.append("on a phone its letters are small")
    return found


@pytest.mark.parametrize("name", SHOWN)
def test_everybody_can_read_a_picture(name: str) -> None:
    assert problems((FOLDER / f"{name}.svg").read_text(encoding="utf-8"), SHOWN[name][1]) == []


@pytest.mark.parametrize("name", SHOWN)
def test_a_picture_is_on_its_page(name: str, site: Path) -> None:
    html = (site / SHOWN[name][0] / "index.html").read_text(encoding="utf-8")
    assert (FOLDER / f"{name}.svg").read_text(encoding="utf-8").strip() in html


async def got(seen: int, kept: int, published: int) -> list[str]:
    """What a subscriber gets that comes back after so many events."""
    async with Channels(history=kept) as channels:
        ids = [await channels.publish("room", str(number + 1)) for number in range(published)]
        async with channels.subscribe("room", since=ids[seen - 1]) as subscription:
            await channels.publish("room", "the end")
            items: list[str] = []
            with anyio.fail_after(20):
                async for item in subscription:
                    if isinstance(item, Event) and item.data == "the end":
                        break
                    items.append("Gap" if isinstance(item, Gap) else str(getattr(item, "data", item)))
    return items


@pytest.mark.anyio
@pytest.mark.page("docs/concepts/delivery.md", "pictures/gap.svg")
async def test_the_gap_is_where_channels_have_it(script: ModuleType) -> None:
    for seen in range(1, script.PUBLISHED):
        assert script.received(seen) == await got(seen, script.KEPT, script.PUBLISHED)
    assert script.received(2) != await got(2, script.KEPT + 1, script.PUBLISHED)


# Planted faults


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('aria-label="', 'aria-label="Not '),
        ('stroke="currentColor"', 'stroke="#333"'),
        ('viewBox="0 0 360', 'viewBox="0 0 720'),
        (" broker,", " server,"),
    ],
)
def test_planted_fault(old: str, new: str) -> None:
    svg = (FOLDER / "channels.svg").read_text(encoding="utf-8")
    assert len(problems(svg.replace(old, new), SHOWN["channels"][1])) == 1


def test_planted_change_of_the_code(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def drain(
        app: Any, within: float = 20.0, batch: int = 50, interval: float = 1.0, code: int = 1001
    ) -> None:
        pass

    before = script.pictures()
    monkeypatch.setattr(script, "drain", drain)
    changed = [path.stem for path, svg in script.pictures().items() if svg != before[path]]
    assert changed == ["drain"]
