"""The hosted build: addresses, what is beside its pages, and how it looks and works below a path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest
from bs4 import BeautifulSoup
from PIL import Image

from docs import hosted as making
from tests.docs.browser import Browser, Tab, wait_for
from tests.docs.test_search import SEARCHES
from tests.docs.test_site import Page, copy_of, foreign
from tests.hosted.conftest import BASE, OWNER, PREFIX, Host
from ws_doctest.site import check_site, code_blocks

DOCS = Path(__file__).parents[2] / "docs"
SOURCES = sorted(path.relative_to(DOCS) for path in DOCS.rglob("*.md"))


def place(source: Path) -> str:
    """Where a page is below the site's address."""
    return re.sub(r"(index)?\.md$|(?<=.)\.md$", "", source.as_posix()) + (
        "" if source.stem == "index" else "/"
    )


PLACES = [place(source) for source in SOURCES]


@cache
def soup_of(html: str) -> BeautifulSoup:
    """A page. All but one are looked at again for each planted fault, as they were."""
    return BeautifulSoup(html, "html.parser")


def page_at(site: Path, below: str) -> BeautifulSoup:
    return soup_of((site / below / "index.html").read_text(encoding="utf-8"))


def misplaced(site: Path) -> list[str]:
    """Pages that tell another address than theirs, or that the sitemap does not have."""
    problems = []
    for below in PLACES:
        soup = page_at(site, below)
        link = soup.select_one("link[rel=canonical]")
        if link is None or link["href"] != BASE + below:
            problems.append(f"{below}: its canonical address is {link and link['href']}")
        if soup.select_one(f'a[href="{OWNER["urls"]["Source"]}"]') is None:
            problems.append(f"{below}: has no link to the repository")
    tree = ElementTree.parse(site / "sitemap.xml")
    listed = [str(element.text) for element in tree.iter() if element.tag.endswith("}loc")]
    wanted = {BASE + below for below in PLACES}
    return [
        *problems,
        *(f"the sitemap: {address}" for address in sorted(wanted.symmetric_difference(listed))),
    ]


def only_here(site: Path) -> list[str]:
    """What is true only where the examples are live."""
    return [
        f"{path.relative_to(site)}: {found}"
        for path in sorted(site.rglob("*"))
        if path.suffix in (".html", ".md", ".txt", ".json")
        for found in re.findall(
            r"ws://127\.0\.0\.1:\d+/live/\S*?(?=<|\\|\s)", path.read_text(encoding="utf-8")
        )
    ]


def unlike_markdown(site: Path) -> list[str]:
    """Pages whose Markdown is missing, or shows other code, headings or words."""
    problems = []
    for below in PLACES:
        html = (site / below / "index.html").read_text(encoding="utf-8")
        file = site / below / "index.md"
        if not file.is_file():
            problems.append(f"{below}: no Markdown beside it")
            continue
        text = file.read_text(encoding="utf-8")
        article = soup_of(html).select_one("article")
        assert article is not None
        blocks = [block for _, _, block in fences(text)]
        problems += [
            f"{below}: Markdown without a block of code:\n{block}"
            for block in code_blocks(html)
            if block and block not in blocks
        ]
        without = "\n".join(line for line in lines_outside(text))
        headings = re.findall(r"^#{1,6} (.+)$", without, re.MULTILINE)
        shown = [heading.get_text().rstrip("¶").strip() for heading in article.select("h1,h2,h3,h4,h5,h6")]
        if [plain(heading) for heading in headings] != [plain(heading) for heading in shown]:
            problems.append(f"{below}: other headings than the page: {headings}")
    return problems


def plain(text: str) -> str:
    """The letters and digits of a text."""
    return re.sub(r"[\W_]+", "", text)


def fences(text: str) -> Iterator[tuple[str, str, str]]:
    """The fences of Markdown: mark, language, content."""
    for found in re.finditer(r"^ *(`{3,})(\S*)\n(.*?)\n *\1$", text, re.MULTILINE | re.DOTALL):
        lines = found[3].split("\n")
        yield found[1], found[2], "\n".join(line.rstrip() for line in lines).strip("\n")


def lines_outside(text: str) -> list[str]:
    """The lines that are in no fence."""
    return re.sub(r"^ *(`{3,})\S*\n.*?\n *\1$", "", text, flags=re.MULTILINE | re.DOTALL).split("\n")


def unlisted(site: Path) -> list[str]:
    """Pages that `llms.txt` does not name, and what it names that is not there."""
    text = (site / "llms.txt").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[.+\]\((.+)\): \S", text, re.MULTILINE)
    wanted = {f"{BASE}{below}index.md" for below in PLACES}
    problems = [] if text.startswith("# lilya-websockets\n\n> ") else ["llms.txt: begins otherwise"]
    return problems + [f"llms.txt: {address}" for address in sorted(wanted.symmetric_difference(listed))]


def without_card(site: Path) -> list[str]:
    """Pages whose card is missing or has another size than networks ask for."""
    problems = []
    for below in PLACES:
        soup = page_at(site, below)
        tags = {str(tag["property"]): str(tag["content"]) for tag in soup.select("meta[property]")}
        card = site / unquote(tags.get("og:image", "").removeprefix(BASE))
        if not tags.get("og:image", "").startswith(BASE) or not card.is_file():
            problems.append(f"{below}: has no card")
        else:
            with Image.open(card) as image:
                if image.size != (int(tags["og:image:width"]), int(tags["og:image:height"])):
                    problems.append(f"{below}: its card is {image.size}")
        if not all(tags.get(f"og:{name}") for name in ("title", "description", "url")):
            problems.append(f"{below}: its card has no text")
    return problems


def unstyled(site: Path) -> list[str]:
    """What the page 404, which is shown at any address, loads and links that is not there."""
    page = Page((site / "404.html").read_text(encoding="utf-8"))
    problems = []
    for link in [*page.loads, *page.links]:
        parts = urlsplit(link)
        if parts.netloc or parts.scheme or not parts.path:
            continue
        if not parts.path.startswith(PREFIX):
            problems.append(f"404.html: {link} is not below {PREFIX}")
        else:
            target = site / unquote(parts.path.removeprefix(PREFIX))
            if not (target.is_file() or (target / "index.html").is_file()):
                problems.append(f"404.html: there is no {link}")
    return problems


CHECKS: list[Callable[[Path], list[str]]] = [
    foreign,
    misplaced,
    only_here,
    unlike_markdown,
    unlisted,
    unstyled,
    without_card,
]


@pytest.mark.parametrize("check", CHECKS)
def test_the_hosted_site(check: Callable[[Path], list[str]], hosted: Path) -> None:
    assert check(hosted) == []


def test_both_sites_show_what_was_executed(hosted: Path, served: Path) -> None:
    assert check_site(hosted, DOCS) == []
    assert check_site(served, DOCS) == []


def test_the_served_site_has_what_is_true_there_only(served: Path) -> None:
    assert only_here(served)
    assert not (served / "llms.txt").exists()
    assert not list(served.rglob("card.png"))
    assert b'rel="canonical"' not in (served / "index.html").read_bytes()


# The faults: a file, what is replaced in it, by what, and what is said


FAULTS: dict[str, tuple[Callable[[Path], list[str]], str, str, str]] = {
    "another canonical address": (
        misplaced,
        "index.html",
        f'canonical" href="{BASE}"',
        'canonical" href="/"',
    ),
    "no link to the repository": (misplaced, "index.html", OWNER["urls"]["Source"], "https://x.example/"),
    "a page that is not in the sitemap": (
        *(misplaced, "sitemap.xml", f"<loc>{BASE}websockets/</loc>", f"<loc>{BASE}</loc>"),
    ),
    "numbers of the repository": (
        *(foreign, "index.html", 'class="md-source"', 'class="md-source" data-md-component="source"'),
    ),
    "a live example": (only_here, "errors.html", "", "ws://127.0.0.1:8000/live/x\n"),
    "a block that is not in the Markdown": (
        *(unlike_markdown, "websockets/index.md", "websocket.accept()", "websocket.open()"),
    ),
    "a heading that is not in the Markdown": (unlike_markdown, "websockets/index.md", "\n### ", "\n"),
    "a page that is not in llms.txt": (unlisted, "llms.txt", f"({BASE}websockets/index.md)", f"({BASE}x.md)"),
    "styles that are not below the path": (unstyled, "404.html", f'href="{PREFIX}assets/', 'href="/assets/'),
    "a link that leads nowhere": (unstyled, "404.html", f'href="{PREFIX}websockets/', f'href="{PREFIX}sock/'),
    "a card elsewhere": (without_card, "index.html", f'"{BASE}card.png"', '"https://cdn.example/card.png"'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults(fault: str, hosted: Path, tmp_path: Path) -> None:
    check, name, old, new = FAULTS[fault]
    copy = copy_of(hosted, tmp_path, Path(name))
    text = (copy / name).read_text(encoding="utf-8") if (copy / name).is_file() else ""
    assert old in text
    (copy / name).write_text(text.replace(old, new), encoding="utf-8")
    assert check(copy)


def test_planted_missing_files(hosted: Path, tmp_path: Path) -> None:
    copy = copy_of(hosted, tmp_path, Path("llms.txt"))
    (copy / "websockets" / "index.md").unlink()
    assert unlike_markdown(copy) == ["websockets/: no Markdown beside it"]
    (copy / "websockets" / "card.png").unlink()
    assert without_card(copy) == ["websockets/: has no card"]
    Image.new("RGB", (10, 10)).save(copy / "websockets" / "card.png")
    assert without_card(copy) == ["websockets/: its card is (10, 10)"]


def test_a_card_has_room_for_every_title() -> None:
    titles = [title for _, title, _ in making.entries(making.settings()["nav"])]
    assert all(making.size_of(title) >= 44 for title in titles)
    assert making.size_of("lilya.websockets.channels.backends") < making.size_of("Channels")
    with pytest.raises(ValueError, match="no room on its card"):
        making.size_of("lilya.websockets." * 5)


# In a browser


@pytest.fixture
def tab(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A page below the path."""
    tab = Tab(browser, address + getattr(request, "param", ""))
    yield tab
    tab.close()


def host_of(address: str) -> str:
    return urlsplit(address).netloc


def missing(tab: Tab) -> list[str]:
    """What the page has asked for and not got."""
    return [
        str(event["params"]["response"]["url"])
        for event in tab.browser.events
        if event["method"] == "Network.responseReceived"
        and event.get("sessionId") == tab.session
        and event["params"]["response"]["status"] >= 400
    ]


HAS_STYLES = "getComputedStyle(document.querySelector('.md-header')).position === 'sticky'"


@pytest.mark.parametrize("tab", ["", "websockets/"], indirect=True)
def test_a_page_below_a_path(tab: Tab, address: str) -> None:
    assert tab.run(HAS_STYLES)
    assert missing(tab) == []
    assert tab.complaints() == []
    assert tab.hosts() == {host_of(address)}


@pytest.mark.parametrize("tab", ["no/such/page/at/all"], indirect=True)
def test_the_page_404_at_any_depth(tab: Tab, address: str) -> None:
    assert "404" in tab.run("document.querySelector('h1').textContent")
    assert tab.run(HAS_STYLES)
    assert missing(tab) == [address + "no/such/page/at/all"]
    home = tab.run("document.querySelector('a.md-logo').href")
    assert urlsplit(home).path == PREFIX


def test_a_page_404_without_styles_is_noticed(tab: Tab) -> None:
    assert tab.run(HAS_STYLES)
    tab.run("document.querySelectorAll('link[rel=stylesheet]').forEach((link) => link.remove())")
    assert not tab.run(HAS_STYLES)


def results(tab: Tab, words: str) -> list[str]:
    """The pages that the search finds, in its order."""
    tab.run("document.querySelector('[data-md-toggle=search]').click()")
    tab.run("document.querySelector('.md-search__input').focus()")
    tab.call("Input.insertText", text=words)
    script = "[...document.querySelectorAll('.md-search-result__link')].map((link) => link.pathname)"
    found = wait_for(lambda: tab.run(script))
    return [str(path).removeprefix(PREFIX) for path in found]


@pytest.mark.parametrize("words", SEARCHES)
def test_a_search_finds_the_guide_first(words: str, tab: Tab) -> None:
    assert results(tab, words)[0] == f"{SEARCHES[words]}/"


def test_a_search_that_has_another_page_first(tab: Tab) -> None:
    assert results(tab, "handshake")[0].rstrip("/") not in SEARCHES.values()


# How much a page weighs

ENOUGH = 250_000  # bytes of the first page that somebody opens, compressed
INDEX = f"{PREFIX}search/search_index.json"  # is loaded after the page, and not counted


def weight(tab: Tab) -> int:
    """How many bytes were sent for a page, by the time that it has all."""
    wait_for(lambda: INDEX in Host.sent)
    return sum(size for path, size in Host.sent.items() if path != INDEX)


@pytest.fixture
def first(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A page that somebody opens who has not seen another."""
    Host.sent.clear()
    tab = Tab(browser, address + getattr(request, "param", ""))
    yield tab
    tab.close()


@pytest.mark.parametrize("first", PLACES, indirect=True)
def test_a_page_is_light(first: Tab) -> None:
    assert weight(first) <= ENOUGH


def test_a_heavy_page_is_noticed(first: Tab, hosted: Path) -> None:
    light = weight(first)
    (file,) = hosted.glob("assets/javascripts/lunr/wordcut.js")
    for number in range(2):
        path = f"{PREFIX}{file.relative_to(hosted)}?{number}"
        first.run(f"document.head.append(Object.assign(document.createElement('script'), {{src: '{path}'}}))")
        wait_for(lambda path=path: path in Host.sent)
    assert weight(first) > ENOUGH > light
