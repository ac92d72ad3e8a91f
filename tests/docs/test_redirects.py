"""No address of a page is ever lost: where a page was once, the site leads to where it is now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.browser import Browser, Tab, needs_chromium
from tests.docs.pages import DOCS, ROOT, address_of, at

pytestmark = pytest.mark.page("mkdocs.yml", "redirect_maps:")

# The addresses that pages had before. If you move a page, write down here where it was.
OLD = [
    *("channels", "chat", "contributing", "deploying", "design", "differences", "draining", "errors"),
    *("lifecycle", "lilya", "open", "performance", "servers", "testing", "transcripts", "uvicorn"),
    "ws-doctest",
]
NEW = {address_of(path.relative_to(DOCS).with_suffix("").as_posix()) for path in DOCS.rglob("*.md")}


def lost(site: Path, old: str) -> list[str]:
    """What is wrong with an old address."""
    page = site / old / "index.html"
    if not page.is_file():
        return [f"{at(ROOT / 'mkdocs.yml', 'redirect_maps:')}: nothing leads from {old}/ to its page"]
    found = re.search(r'<meta http-equiv="refresh" content="0; url=([^"]*)">', page.read_text("utf-8"))
    target = (page.parent / (found[1] if found else ".")).resolve().relative_to(site.resolve())
    name = f"{target.as_posix()}/"
    if name in NEW - {f"{old}/"} and target.name == Path(old).name:
        return []
    return [f"{at(ROOT / 'mkdocs.yml', f'{old}.md:')}: {old}/ leads to {name}, which is not its page"]


@pytest.mark.parametrize("old", OLD)
def test_an_old_address_leads_to_the_page(old: str, site: Path) -> None:
    assert lost(site, old) == []


@needs_chromium
def test_a_section_of_an_old_address_is_kept(browser: Browser, address: str) -> None:
    tab = Tab(browser, f"{address}errors/#calls-after-the-end")
    tab.wait("location.pathname === '/concepts/errors/' && location.hash === '#calls-after-the-end'")
    tab.close()


@pytest.mark.parametrize(
    "planted",
    [
        None,
        "<p>Errors</p>",
        '<meta http-equiv="refresh" content="0; url=../concepts/error/">',
        '<meta http-equiv="refresh" content="0; url=../concepts/lifecycle/">',
    ],
)
def test_planted_fault(planted: str | None, tmp_path: Path) -> None:
    if planted is not None:
        (tmp_path / "errors").mkdir()
        (tmp_path / "errors" / "index.html").write_text(planted)
    (found,) = lost(tmp_path, "errors")
    assert re.match(r"mkdocs\.yml:\d+: ", found)
