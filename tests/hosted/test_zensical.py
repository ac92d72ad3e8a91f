"""Zensical, the successor of MkDocs and its theme, builds the same site from the same files.

Pages are compared by what they show: words, code, headings, and where links lead. What differs, and why that
is no loss:

- Zensical shows the tags of a page at its end. Material needs another plugin for that, and without it takes
  them for the search only. Tags are left out here.
- Zensical writes a link to a heading of the same page as `./#heading`, and a link to a file beside the page's
  source by another way. So links are compared by where they lead.
- The index of the search is another file in another form, for Zensical's own search. It is not compared.
- Zensical does not load the styles of mkdocstrings. They change the look of the reference only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from itertools import zip_longest
from pathlib import Path
from urllib.parse import urljoin

import pytest
from bs4 import BeautifulSoup, Tag

from tests.docs.test_site import copy_of
from tests.hosted.conftest import BASE
from tests.hosted.test_hosted import DOCS, PLACES, misplaced, only_here, unstyled
from ws_doctest.site import check_site


@pytest.fixture(scope="session")
def zensical() -> Path:
    """The hosted site, as Zensical builds it."""
    return Path(os.environ["ZENSICAL_SITE"])


def pages_of(site: Path) -> set[str]:
    """The pages, those that lead elsewhere among them."""
    return {path.relative_to(site).as_posix() for path in site.rglob("*.html")}


def shown(site: Path, page: str) -> dict[str, list[str]]:
    """What a page shows, or where it leads."""
    soup = BeautifulSoup((site / page).read_text(encoding="utf-8"), "html.parser")
    refresh = soup.select_one("meta[http-equiv=refresh]")
    if refresh:
        return {"leads": [str(refresh["content"])]}
    article = soup.select_one("article")
    assert article is not None, page
    for each in article.select("script, style, button, nav.md-tags"):
        each.decompose()
    here = urljoin(BASE, page.removesuffix("index.html"))
    return {
        "title": texts(soup, "title"),
        "words": article.get_text(" ").split(),
        "headings": texts(article, "h1, h2, h3, h4, h5, h6"),
        "code": [code.get_text() for code in article.select("pre")],
        "links": [urljoin(here, str(link["href"])) for link in article.select("a[href]")],
    }


def texts(within: Tag, selector: str) -> list[str]:
    return [" ".join(element.get_text().split()) for element in within.select(selector)]


def differences(one: Path, other: Path, pages: Iterable[str]) -> list[str]:
    """What two sites show differently on some pages."""
    problems = []
    for page in pages:
        ours, theirs = shown(one, page), shown(other, page)
        for part in {**ours, **theirs}:
            pairs = zip_longest(ours.get(part, []), theirs.get(part, []))
            first = next((pair for pair in pairs if pair[0] != pair[1]), None)
            if first is not None:
                problems.append(f"{page}: other {part}: {first[0]!r} and {first[1]!r}")
    return problems


def test_both_show_the_same(hosted: Path, zensical: Path) -> None:
    pages = pages_of(hosted)
    assert len(pages) > len(PLACES)
    assert pages == pages_of(zensical)
    assert differences(hosted, zensical, sorted(pages)) == []


def test_it_shows_what_was_executed(zensical: Path) -> None:
    assert check_site(zensical, DOCS) == []


@pytest.mark.parametrize("check", [misplaced, only_here, unstyled])
def test_its_addresses(check: Callable[[Path], list[str]], zensical: Path) -> None:
    assert check(zensical) == []


def head(site: Path, below: str) -> set[str]:
    """What a page tells others who show a link to it."""
    soup = BeautifulSoup((site / below / "index.html").read_text(encoding="utf-8"), "html.parser")
    return {f"{tag['property']}: {tag['content']}" for tag in soup.select("meta[property]")}


def test_both_have_our_part_of_the_theme(hosted: Path, zensical: Path) -> None:
    for site in (hosted, zensical):
        html = (site / "websockets" / "index.html").read_text(encoding="utf-8")
        assert re.findall(r'role="dialog"[^>]*>', html) == ['role="dialog" aria-label="Search">']
        assert 'data-md-component="source"' not in html
    for below in PLACES:
        assert head(hosted, below) == head(zensical, below)


# A part, a text of the page Errors, and what is there instead of it
PLANTED = {
    "title": ("<title>Errors", "<title>Terrors"),
    "words": ("exception", "objection"),
    "headings": ("</h2>", "!</h2>"),
    "code": ("await", "wait"),
    "links": ('href="../servers/#', 'href="../server/#'),
}


@pytest.mark.parametrize("part", PLANTED)
def test_planted_differences(part: str, hosted: Path, tmp_path: Path) -> None:
    page = "concepts/errors/index.html"
    copy = copy_of(hosted, tmp_path, Path(page))
    text = (copy / page).read_text(encoding="utf-8")
    old, new = PLANTED[part]
    assert old in text
    (copy / page).write_text(text.replace(old, new), encoding="utf-8")
    assert any(problem.startswith(f"{page}: other {part}: ") for problem in differences(hosted, copy, [page]))


def test_a_redirect_to_another_page_is_noticed(hosted: Path, tmp_path: Path) -> None:
    page = "errors/index.html"
    copy = copy_of(hosted, tmp_path, Path(page))
    (copy / page).write_text('<meta http-equiv="refresh" content="0; url=../x/">', encoding="utf-8")
    assert differences(hosted, copy, [page]) == [
        f"{page}: other leads: '0; url=../concepts/errors/' and '0; url=../x/'"
    ]
