"""The built site: each rendered code block equals the source that was executed.

The gate checks the pages' sources; between those and the reader stands a generator with its
extensions. This compares, page by page, every block of the HTML with the fence that it was made
from.
"""

from __future__ import annotations

import difflib
from html.parser import HTMLParser
from pathlib import Path

from ws_doctest._pages import Page, read_page

__all__ = ["check_site", "code_blocks"]


# Elements that have no end tag, so that they do not count in the nesting.
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


def check_site(site: Path, pages: Path, root: Path | None = None) -> list[str]:
    """Compare every page of a built site with its source.

    Args:
        site: the folder of the built site.
        pages: the folder of the pages' sources.
        root: the repository's root; default: the folder above ``pages``.

    Returns:
        The differences, each naming its page; an empty list if there is none.
    """
    root = (root or pages.parent).resolve()
    sources = sorted(pages.resolve().rglob("*.md"))
    if not sources:
        return [f"{pages}: no pages found, there is nothing to compare"]
    problems: list[str] = []
    for source in sources:
        page = read_page(source, root)
        rendered = rendered_path(source.relative_to(pages.resolve()), site)
        if rendered is None:
            problems.append(f"{page.name}: the site {site} has no such page")
            continue
        problems += [problem.at(page.name) for problem in page.problems]
        problems += _compare(page, rendered)
    return problems


def rendered_path(relative: Path, site: Path) -> Path | None:
    folder = relative.with_suffix("")
    if folder.name in ("index", "README"):
        candidates = [site / folder.parent / "index.html", site / relative.with_suffix(".html")]
    else:
        candidates = [site / folder / "index.html", site / relative.with_suffix(".html")]
    return next((path for path in candidates if path.is_file()), None)


def _compare(page: Page, rendered: Path) -> list[str]:
    shown = code_blocks(rendered.read_text(encoding="utf-8"))
    written = [comparable(fence.expanded()) for fence in page.fences]
    problems: list[str] = []
    matcher = difflib.SequenceMatcher(None, written, shown, autojunk=False)
    for tag, start, end, shown_start, shown_end in matcher.get_opcodes():
        if tag == "equal":
            continue
        pairs = min(end - start, shown_end - shown_start)
        for offset in range(pairs):
            fence = page.fences[start + offset]
            diff = difflib.unified_diff(
                written[start + offset].splitlines(),
                shown[shown_start + offset].splitlines(),
                f"{page.name}:{fence.line} (executed)",
                f"{rendered.name} (rendered)",
                lineterm="",
            )
            problems.append(
                f"{page.name}:{fence.line}: the rendered block differs from its source\n" + "\n".join(diff)
            )
        problems += [
            f"{page.name}:{fence.line}: the site does not show this block as code"
            for fence in page.fences[start + pairs : end]
        ]
        problems += [
            f"{page.name}: the site shows a block of code that is no fence of the page:\n{block}"
            for block in shown[shown_start + pairs : shown_end]
        ]
    return problems


def code_blocks(html: str) -> list[str]:
    """Return the text of each code block of a page, but for those that mkdocstrings made."""
    parser = Blocks()
    parser.feed(html)
    parser.close()
    return parser.blocks


def comparable(text: str) -> str:
    """Return the text without what highlighting drops: blanks at the ends of lines and text."""
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").expandtabs(4).split("\n")]
    return "\n".join(lines).strip("\n")


class Blocks(HTMLParser):
    """Collects the text of ``<pre>`` elements."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[str] = []
        self.text: list[str] | None = None
        self.stack: list[tuple[str, bool]] = []  # the open elements, and whether what is within is not ours

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _VOID:
            if tag == "br" and self.text is not None:
                self.text.append("\n")
            return
        classes = set((dict(attrs).get("class") or "").split())
        # Line numbers in a table beside the code; signatures, sources and examples from
        # docstrings.
        foreign = bool(
            classes & {"linenos", "doc-signature", "doc-contents", "doc-object", "mkdocstrings-source"}
        )
        self.stack.append((tag, foreign or (bool(self.stack) and self.stack[-1][1])))
        if tag == "pre" and not self.stack[-1][1]:
            self.text = []

    def handle_endtag(self, tag: str) -> None:
        # An end tag also closes what was left open within, such as a paragraph.
        if not any(name == tag for name, _ in self.stack):
            return
        while self.stack.pop()[0] != tag:
            pass
        if tag == "pre" and self.text is not None:
            self.blocks.append(comparable("".join(self.text)))
            self.text = None

    def handle_data(self, data: str) -> None:
        if self.text is not None:
            self.text.append(data)
