"""Adds to the built site what only a hosted one has: each page as Markdown, llms.txt, and cards for links.

    python docs/hosted.py SITE

It reads the built pages and the navigation of `mkdocs.yml`, and knows nothing else of what built them.
`llms.txt` lists the pages for programs that read Markdown. A card is the picture that a chat or a social
network shows for a link.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import yaml
from bs4 import BeautifulSoup, Tag
from markdownify import MarkdownConverter
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parent.parent

# The card: its size, as networks ask for it, its margin and its colours.
SIZE = (1200, 630)
MARGIN = 90
INK, PAPER, ACCENT = "#ffffff", "#00574b", "#9fe3d8"


@dataclass(frozen=True)
class Page:
    """A page of the navigation."""

    section: str
    title: str
    folder: Path
    address: str
    article: Tag

    @property
    def summary(self) -> str:
        """The first sentence of the page's first paragraph."""
        first = self.article.find("p")
        text = " ".join(first.get_text().split()) if first else ""
        found = re.match(r"(.+?[.!?])(?= [A-Z]|$)", text)
        return found[1] if found else text


def pages(site: Path, config: dict[str, Any], address: str) -> Iterator[Page]:
    """The pages in the order of the navigation."""
    for section, title, source in entries(config["nav"]):
        place = re.sub(r"(index)?\.md$", "", source)
        soup = BeautifulSoup((site / place / "index.html").read_text(encoding="utf-8"), "html.parser")
        article = soup.select_one("article.md-content__inner")
        assert article is not None, source
        url = urljoin(address, f"{place}/" if place and not place.endswith("/") else place)
        yield Page(section, title, site / place, url, cleaned(article))


def entries(nav: list[Any], section: str = "Pages") -> Iterator[tuple[str, str, str]]:
    """Each page of a navigation: its section, its title and its source."""
    for entry in nav:
        for title, value in entry.items():
            if isinstance(value, list):
                yield from entries(value, title)
            else:
                yield section, title, value


def cleaned(article: Tag) -> Tag:
    """The article without what is only for eyes and mice, or hidden from everybody."""
    hidden = ".tabbed-set .ws-doctest-run"
    for each in article.select(f"a.headerlink, button, input, nav, style, script, {hidden}"):
        each.decompose()
    for drawing in article.select("svg"):
        names = [drawing.get("aria-label"), *(each.get_text() for each in drawing.select("title, desc"))]
        text = " ".join(" ".join(str(name).split()) for name in names if name)
        drawing.replace_with(f"[{text}]" if text else "")
    return article


class Converter(MarkdownConverter):
    """HTML of this site as Markdown."""

    def convert_pre(self, element: Tag, text: str, parent_tags: set[str]) -> str:
        """A fence, longer than any within it, with the language that Pygments was told."""
        code = element.get_text().strip("\n")
        around = [each for each in element.parents if "highlight" in (each.get("class") or ())]
        names = [name for each in around for name in each.get("class") or () if name.startswith("language-")]
        language = names[0].removeprefix("language-") if names and names[0] != "language-text" else ""
        fence = "`" * max(3, 1 + max((len(mark) for mark in re.findall(r"`{3,}", code)), default=0))
        return f"\n\n{fence}{language}\n{code}\n{fence}\n\n"


def markdown(page: Page) -> str:
    """A page as Markdown."""
    converter = Converter(heading_style="atx", bullets="*", escape_asterisks=False, escape_underscores=False)
    return str(converter.convert_soup(page.article)).strip() + "\n"


def overview(config: dict[str, Any], found: list[Page]) -> str:
    """The text of `llms.txt`."""
    lines = [f"# {config['site_name']}", "", f"> {config['site_description']}"]
    for section in dict.fromkeys(page.section for page in found):
        lines += ["", f"## {section}", ""]
        lines += [
            f"- [{page.title}]({page.address}index.md): {page.summary}"
            for page in found
            if page.section == section
        ]
    return "\n".join(lines) + "\n"


def card(title: str, site_name: str, about: str) -> Image.Image:
    """The picture for a link to a page, in the font that Pillow brings along."""
    image = Image.new("RGB", SIZE, PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, MARGIN), site_name, fill=ACCENT, font=ImageFont.load_default(44))
    font = ImageFont.load_default(size_of(title))
    draw.multiline_text((MARGIN, 190), "\n".join(wrapped(draw, title, font)), fill=INK, font=font, spacing=24)
    small = ImageFont.load_default(36)
    draw.multiline_text((MARGIN, 480), "\n".join(wrapped(draw, about, small)), fill=ACCENT, font=small)
    return image


def size_of(title: str) -> int:
    """The size of the letters in which a title has room on two lines of a card."""
    draw = ImageDraw.Draw(Image.new("RGB", SIZE))
    for size in range(92, 40, -4):
        font = ImageFont.load_default(size)
        lines = wrapped(draw, title, font)
        if len(lines) <= 2 and all(draw.textlength(line, font) <= SIZE[0] - 2 * MARGIN for line in lines):
            return size
    raise ValueError(f"this title of a page has no room on its card: {title}")


def wrapped(draw: ImageDraw.ImageDraw, text: str, font: Any) -> list[str]:
    """The lines of a text that fit between the margins."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font) <= SIZE[0] - 2 * MARGIN or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def settings() -> dict[str, Any]:
    """The settings of the site. Every value is taken as a text, those with a tag of MkDocs as well."""
    config: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), yaml.BaseLoader)
    return config


def main(site: Path) -> None:
    """Add all of it to a site."""
    config = settings()
    home = BeautifulSoup((site / "index.html").read_text(encoding="utf-8"), "html.parser")
    canonical = home.select_one("link[rel=canonical]")
    if canonical is None:
        sys.exit(f"{site} was built without an address: `nox -s docs -- hosted` builds it with one")
    found = list(pages(site, config, str(canonical["href"])))
    for page in found:
        (page.folder / "index.md").write_text(markdown(page), encoding="utf-8")
        heading = page.title if page.folder != site else config["site_name"]
        about = config["site_description"]
        card(heading, config["site_name"], about).quantize(32).save(page.folder / "card.png")
    (site / "llms.txt").write_text(overview(config, found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
