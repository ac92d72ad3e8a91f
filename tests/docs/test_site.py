"""The built site: it asks no other host for anything, its links lead somewhere, it shows what was run."""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import lilya.websockets
from tests.docs.conftest import places_of_links
from tests.docs.pages import address_of, at, line_of
from tests.docs.places import PLACE
from ws_doctest.site import check_site

pytestmark = pytest.mark.page("mkdocs.yml", "docs_dir")

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md"))


# What a page loads and where it leads

# Elements and the attributes with which they load something, without being asked by the reader.
_LOADING = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src", "srcdoc"),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "track": ("src",),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}

# Addresses in the theme's own script, which it fetches only under a condition. The value is a pattern that no
# page may contain.
_CONDITIONAL = {
    "unpkg.com/mermaid": r'class="[^"]*\bmermaid\b',
    "unpkg.com/resize-observer-polyfill": r"(?!)",  # only in browsers older than 2020, which have none
    "api.github.com/": r'data-md-component="source"',
    "gitlab": r'data-md-component="source"',
}
_FETCHED = re.compile(r"[\"'`](?:https?:)?//(?P<address>[\w.-]+\.[a-z]{2,}[^\"'`]*)[\"'`]")


class Page(HTMLParser):
    """What the tests want to know of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.anchors = {"", "__top"}
        self.links: list[str] = []
        self.loads: list[str] = []
        self.styles: list[str] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.inside = tag
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag in ("a", "area") and "href" in values:
            self.links.append(values["href"])
        if "style" in values:
            self.styles.append(values["style"])
        self.scripts += [value for name, value in values.items() if name.startswith("on")]
        rel = values.get("rel", "").split()
        if tag == "link" and set(rel) & {"canonical", "next", "prev", "alternate", "edit"}:
            self.links.append(values.get("href", ""))
            return
        self.loads += [values[name] for name in _LOADING.get(tag, ()) if name in values]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.inside = ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "style":
            self.styles.append(data)
        elif self.inside == "script":
            self.scripts.append(data)


# The same files are looked at for each planted fault, all but one as they were.
page_of = cache(Page)


def is_foreign(address: str) -> bool:
    """Whether an address names a host."""
    return bool(re.match(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", address, re.IGNORECASE))


@cache
def foreign_in_css(css: str) -> list[str]:
    """What a style sheet loads from elsewhere."""
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    addresses = re.findall(r"url\(\s*[\"']?([^\"')]*)", css) + re.findall(r"@import\s+[\"']([^\"']*)", css)
    return list(filter(is_foreign, addresses))


@cache
def fetched(script: str) -> list[tuple[str, str]]:
    """The addresses in a script, each as it stands there and without its scheme."""
    return [(found[0], found["address"]) for found in _FETCHED.finditer(script)]


def foreign_in_script(script: str, pages: str) -> Iterator[str]:
    """The addresses in a script that it may fetch; `pages` is the HTML of all pages together."""
    for shown, address in fetched(script):
        conditions = [condition for prefix, condition in _CONDITIONAL.items() if address.startswith(prefix)]
        if not conditions or any(re.search(condition, pages) for condition in conditions):
            yield shown


def source(site: Path, built: Path, text: str) -> str:
    """Where a text of a built file comes from: a line of its page, or the configuration of the site."""
    relative = built.relative_to(site)
    address = f"{relative.parent.as_posix()}/" if relative.parts[1:] else ""
    page = DOCS / f"{next((name for name in PAGES if address_of(name) == address), address)}.md"
    if built.suffix != ".html" or not page.is_file():
        file = DOCS / relative
        return at(file, text) if file.is_file() else f"{at(ROOT / 'mkdocs.yml', 'theme:')}: {relative}"
    ends = [text, *re.findall(r"[\w.-]+", text)[::-1]]  # a link is rewritten: its end is the same
    return at(page, next((end for end in ends if line_of(page, end)), ""))


def foreign(site: Path) -> list[str]:
    """Everything that the site loads from another host."""
    html = {path: path.read_text(encoding="utf-8") for path in sorted(site.rglob("*.html"))}
    everything = "\n".join(html.values())
    problems = []
    for path, text in html.items():
        page = page_of(text)
        found = [address for address in page.loads if is_foreign(address)]
        found += [address for style in page.styles for address in foreign_in_css(style)]
        found += [address for script in page.scripts for address in foreign_in_script(script, everything)]
        problems += [f"{source(site, path, address)}: {address}" for address in found]
    for path in sorted(site.rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        problems += [f"{source(site, path, address)}: {address}" for address in foreign_in_css(text)]
    for path in sorted(site.rglob("*.js")):
        text = path.read_text(encoding="utf-8")
        problems += [
            f"{source(site, path, address)}: {address}" for address in foreign_in_script(text, everything)
        ]
    return problems


def broken_links(site: Path) -> list[str]:
    """The links within the site that lead nowhere, files and anchors."""
    pages = {
        path.relative_to(site).as_posix(): page_of(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
    }
    problems = []
    for name, page in pages.items():
        if name == "404.html":  # its links are absolute, for a site at the root of its host
            continue
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = name
            if parts.path:
                target = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(parts.path)))
                if parts.path.endswith("/") or parts.path in (".", "..") or (site / target).is_dir():
                    target = posixpath.normpath(posixpath.join(target, "index.html"))
            if not (site / target).is_file():
                problems.append(f"{source(site, site / name, link)}: {link}: there is no {target}")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                problems.append(f"{source(site, site / name, link)}: {link}: {target} has no such anchor")
    return problems


def missing_names(reference: str) -> set[str]:
    """The public names that are not on the Reference page."""
    anchors = Page(reference).anchors
    return {name for name in lilya.websockets.__all__ if f"lilya.websockets.{name}" not in anchors}


def exceptions() -> set[str]:
    """The public exceptions."""
    public = {name: getattr(lilya.websockets, name) for name in lilya.websockets.__all__}
    return {
        name for name, value in public.items() if isinstance(value, type) and issubclass(value, Exception)
    }


def missing_exceptions(errors: str) -> set[str]:
    """The exceptions that the Errors page does not name."""
    return {name for name in exceptions() if f"`{name}`" not in errors}


def unsearchable(index: str) -> set[str]:
    """The pages of which the search knows no text."""
    entries = json.loads(index)["docs"]
    found = {entry["location"].partition("#")[0] for entry in entries if entry["text"]}
    return {name for name in PAGES if address_of(name) not in found}


def unneeded(site: Path) -> list[Path]:
    """The files of the site that are made for writers only."""
    kinds = {".py", ".ws", ".toml", ".md"}
    return [path for path in site.rglob("*") if path.suffix in kinds] + list(site.rglob("*.svg"))


def missing_comforts(html: str) -> list[str]:
    """What a page lacks of copy buttons and of light and dark colours that follow the system."""
    medias = ("(prefers-color-scheme)", "(prefers-color-scheme: light)", "(prefers-color-scheme: dark)")
    wanted = ['"content.code.copy"', *(f'data-md-color-media="{media}"' for media in medias)]
    return [text for text in wanted if text not in html]


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    assert foreign(site) == []


def test_links_and_anchors(site: Path) -> None:
    assert broken_links(site) == []


def test_the_site_shows_what_was_executed(site: Path) -> None:
    assert check_site(site, DOCS) == []


@pytest.mark.page("docs/reference/websockets.md", "::: lilya.websockets")
def test_every_public_name_is_on_the_reference_page(site: Path) -> None:
    assert (
        missing_names((site / "reference" / "websockets" / "index.html").read_text(encoding="utf-8")) == set()
    )


@pytest.mark.page("docs/concepts/errors.md", "`WebSocketDisconnect")
def test_every_exception_is_on_the_errors_page() -> None:
    assert len(exceptions()) >= 4
    assert missing_exceptions((DOCS / "concepts" / "errors.md").read_text(encoding="utf-8")) == set()


@pytest.mark.page("mkdocs.yml", "- search")
def test_search_knows_every_page(site: Path) -> None:
    assert unsearchable((site / "search" / "search_index.json").read_text(encoding="utf-8")) == set()


@pytest.mark.page("mkdocs.yml", "exclude_docs")
def test_only_what_a_reader_needs_is_copied(site: Path) -> None:
    assert unneeded(site) == []


@pytest.mark.page("mkdocs.yml", "content.code.copy")
def test_copy_buttons_and_colours(site: Path) -> None:
    assert missing_comforts((site / "index.html").read_text(encoding="utf-8")) == []


# Planted faults: each check must catch each of its own

LIFECYCLE = Path("concepts") / "lifecycle" / "index.html"

FOREIGN = {
    "a script": (LIFECYCLE, '<script src="https://cdn.example/x.js"></script>'),
    "a style sheet": (LIFECYCLE, '<link rel="stylesheet" href="//fonts.example/css?family=X">'),
    "a connection made early": (LIFECYCLE, '<link rel="preconnect" href="https://fonts.example">'),
    "an image": (LIFECYCLE, '<img alt="" src="HTTPS://img.example/x.png">'),
    "images by width": (LIFECYCLE, '<img alt="" srcset="https://img.example/x.png 2x">'),
    "a frame": (LIFECYCLE, '<iframe src="https://video.example/"></iframe>'),
    "an inline style": (LIFECYCLE, '<p style="background: url(https://img.example/x.png)"></p>'),
    "a style element": (LIFECYCLE, "<style>@import 'https://fonts.example/x.css';</style>"),
    "a fetch": (LIFECYCLE, "<script>fetch('https://api.example/x')</script>"),
    "a handler": (LIFECYCLE, """<img alt="" src="x.png" onerror="fetch('https://api.example/x')">"""),
    "an icon in a drawing": (LIFECYCLE, '<svg><use href="https://img.example/x.svg#a"/></svg>'),
    "a diagram drawn in the browser": (LIFECYCLE, '<pre class="mermaid">graph TD</pre>'),
    "a repository's numbers": (LIFECYCLE, '<a data-md-component="source" href="https://code.example">x</a>'),
    "a font": (
        Path("stylesheets") / "extra.css",
        '@font-face { font-family: x; src: url("//fonts.example/x.woff2") }',
    ),
    "a request in a script file": (
        Path("search") / "extra.js",
        "new WebSocket(`wss://x.example`); import('https://cdn.example/x.js')",
    ),
}

BROKEN = {
    "a page": '<a href="../../websocket/">WebSocket</a>',
    "a file": '<a href="missing.png">image</a>',
    "an anchor on the page": '<a href="#nowhere">x</a>',
    "an anchor on another page": '<a href="../errors/#nowhere">x</a>',
    "an image": '<img alt="" src="../missing.svg">',
}


def copy_of(site: Path, folder: Path, changed: Path) -> Path:
    """A copy of the site: links to its files, but for the one that will be changed."""
    copy = folder / "site"
    shutil.copytree(site, copy, copy_function=os.link)
    if (copy / changed).is_file():
        (copy / changed).unlink()
        shutil.copy2(site / changed, copy / changed)
    return copy


@pytest.fixture
def tampered(site: Path, tmp_path: Path) -> Callable[[Path, str], Path]:
    """Copies the site, with something added to one of its files."""

    def tamper(file: Path, addition: str) -> Path:
        copy = copy_of(site, tmp_path, file)
        text = (copy / file).read_text(encoding="utf-8") if (copy / file).is_file() else ""
        before, body_end, after = text.rpartition("</body>")
        (copy / file).write_text(f"{before}{addition}{body_end}{after}" if body_end else text + addition)
        return copy

    return tamper


@pytest.mark.parametrize("fault", FOREIGN)
@pytest.mark.page("docs/concepts/lifecycle.md", "# ")
def test_planted_request(fault: str, tampered: Callable[[Path, str], Path]) -> None:
    problems = foreign(tampered(*FOREIGN[fault]))
    assert problems, fault
    assert all(PLACE.match(problem) for problem in problems)


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.page("docs/concepts/lifecycle.md", "# ")
def test_planted_link(fault: str, tampered: Callable[[Path, str], Path]) -> None:
    problems = broken_links(tampered(LIFECYCLE, BROKEN[fault]))
    assert len(problems) == 1, fault
    assert re.match(r"docs/concepts/lifecycle\.md:\d+: ", problems[0])


@pytest.mark.page("docs/websockets.md", "docs_src/websockets/websocket.py")
def test_planted_block(site: Path, tmp_path: Path) -> None:
    copy = copy_of(site, tmp_path, Path("websockets") / "index.html")
    page = copy / "websockets" / "index.html"
    html = page.read_text(encoding="utf-8")
    assert html.count("Hello, world!") > 1
    page.write_text(html.replace("Hello, world!", "Hello, World!", 1), encoding="utf-8")
    assert any("docs/websockets.md" in problem for problem in check_site(copy, DOCS))


@pytest.mark.page("docs/reference/websockets.md", "::: lilya.websockets")
def test_planted_missing_name(site: Path) -> None:
    reference = (site / "reference" / "websockets" / "index.html").read_text(encoding="utf-8")
    assert missing_names(reference.replace('id="lilya.websockets.URL"', "")) == {"URL"}


@pytest.mark.page("docs/concepts/errors.md", "`WebSocketClosed`")
def test_planted_missing_exception() -> None:
    errors = (DOCS / "concepts" / "errors.md").read_text(encoding="utf-8")
    assert missing_exceptions(errors.replace("`WebSocketClosed`", "this")) == {"WebSocketClosed"}


@pytest.mark.page("mkdocs.yml", "- search")
def test_planted_page_without_search(site: Path) -> None:
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert unsearchable(index.replace('"concepts/errors/', '"elsewhere/')) == {"concepts/errors"}


@pytest.mark.parametrize("file", ["lifecycle_diagram.py", "lifecycle.svg", "live/echo.ws", "x/snippets.toml"])
@pytest.mark.page("mkdocs.yml", "exclude_docs")
def test_planted_file(file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    assert unneeded(tmp_path) == [tmp_path / file]


@pytest.mark.page("mkdocs.yml", "content.code.copy")
def test_planted_missing_comfort(site: Path) -> None:
    html = (site / "index.html").read_text(encoding="utf-8")
    assert missing_comforts(html.replace("content.code.copy", "")) == ['"content.code.copy"']
    assert len(missing_comforts(html.replace("data-md-color-media", ""))) == 3


def test_planted_warning_names_the_line() -> None:
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    link = re.findall(r"\]\(([\w/.-]+\.md)\)", text)[-1]
    warnings = [f"WARNING -  Doc file 'index.md' contains a link '{link}', but …", "WARNING -  other"]
    (found,) = places_of_links(warnings)
    assert found == f"{at(DOCS / 'index.md', f']({link}')}: {link} leads nowhere"
    assert not found.startswith("docs/index.md:1:")
