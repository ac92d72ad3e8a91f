"""Run buttons: each example of a built site runs in the reader's browser.

    python -m ws_doctest buttons --site site --pages docs --examples docs_src --package starlette

It reads the pages, puts a button under each app that has a transcript, and adds to the site, once for all
pages, what the browser loads at the first click: Pyodide, which `npm` brings, wheels of the packages that the
examples import, which `pip` brings, and the examples. It works on HTML, whichever generator made it.

A page says above an app why it has no button, and readers see it, too:
``<!-- ws-doctest: no button: it starts processes -->``.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ws_doctest import _apps
from ws_doctest._pages import PYTHON, Fence
from ws_doctest._project import Project
from ws_doctest.buttons._packages import (
    PACKAGES,
    REPLAY,
    ButtonsError,
    Wheels,
    bring_pyodide,
    bring_wheels,
    pack_ourselves,
)
from ws_doctest.site import Blocks, comparable, rendered_path

__all__ = ["Button", "ButtonsError", "add_buttons", "find_buttons"]

FOLDER = "ws-doctest"  # in the site
_HERE = Path(__file__).parent
_BEGIN, _END = "<!--ws-doctest-->", "<!--/ws-doctest-->"


@dataclass(frozen=True)
class Button:
    """An app with a transcript, where a page shows it."""

    page: Path
    fence: Fence
    example: Path | _apps.Code
    file: str  # its path from the root; an app in the page itself has a name of its own
    reason: str  # why there is no button; empty if there is one


def find_buttons(project: Project) -> list[Button]:
    """Return the apps of all pages, in order, with and without a button.

    Raises:
        ButtonsError: a comment says why something has no button that could have none.
    """
    found: list[Button] = []
    for path in project.page_files:
        page = project.page(path)
        inline = {id(app): app for _, _, app in project.sessions(page) if isinstance(app, Fence)}
        for fence in page.fences:
            example: Path | _apps.Code | None = None
            file = ""
            if fence.language in PYTHON and fence.skip is None:
                included = fence.includes[0].path if fence.includes else None
                if included is not None and _apps.has_app(included) and _apps.transcripts_of(included):
                    example, file = included, project.name(included)
                elif id(fence) in inline:
                    example = _apps.Code(path, fence.source, fence.line)
                    file = f"{project.name(path).replace('.', '_')}/line_{fence.line}.py"
            if example is not None:
                found.append(Button(path, fence, example, file, fence.no_button or ""))
            elif fence.no_button is not None:
                raise ButtonsError(f"{page.name}:{fence.line}: only an app with a transcript has a button")
    return found


def add_buttons(
    site: Path,
    pages: Path,
    examples: Path,
    packages: Sequence[str],
    *,
    pure: Sequence[str] = (),
    disconnect: str = "framework",
) -> list[Button]:
    """Add the buttons to a built site.

    Args:
        site: the folder of the built site.
        pages: the folder of the pages' sources.
        examples: the folder of the examples; the folder above it is where they are imported from.
        packages: what the examples import: requirements, and folders of packages.
        pure: what they require that has no wheel for the browser, and works without what is compiled.
        disconnect: the setting ``ws_doctest_disconnect`` of the project.

    Returns:
        The apps, with and without a button.

    Raises:
        ButtonsError: something cannot be made.
    """
    root = examples.resolve().parent
    project = Project(root, [pages.resolve()], [examples.resolve()])
    buttons = find_buttons(project)
    target = site / FOLDER
    shutil.rmtree(target, ignore_errors=True)
    bring_pyodide(target / "pyodide")
    wheels = bring_wheels(packages, pure, target / "packages")
    wheels = [wheel for wheel in wheels if wheel.name != "ws-doctest"]
    wheels.append(pack_ourselves(target / "packages"))
    known = Wheels(wheels, root)
    # What is installed editable has no server in memory of its own.
    server = () if (_HERE.parent / "_in_memory").is_dir() else ("lilya-websockets",)
    base = [*known.needed([*REPLAY, *server]), wheels[-1].path.name]
    needed = {}
    for button in buttons:
        if not button.reason and isinstance(button.example, Path):
            needed[button.file] = [name for name in known.of_example(button.example) if name not in base]
        elif not button.reason:
            needed[button.file] = []
    used = {*base, *(name for names in needed.values() for name in names)}
    for path in (target / "packages").iterdir():
        if path.name not in used:
            path.unlink()
    config = {"into": PACKAGES, "base": base, "examples": needed, "disconnect": disconnect}
    (target / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    _pack_examples(target / "examples.zip", project, buttons)
    for name in ("page.js", "worker.js", "style.css"):
        shutil.copyfile(_HERE / name, target / name)
    for page in dict.fromkeys(button.page for button in buttons):
        _add_to_page(site, pages.resolve(), page, [button for button in buttons if button.page == page])
    return buttons


def _pack_examples(path: Path, project: Project, buttons: list[Button]) -> None:
    """Pack everything that the examples may read, and the apps that stand in pages."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in project.example_files:
            archive.write(file, project.name(file))
        for button in buttons:
            if isinstance(button.example, _apps.Code) and not button.reason:
                archive.writestr(button.file, button.fence.source)
                page = project.page(button.page)
                scripts = [fence for _, fence, app in project.sessions(page) if app is button.fence]
                for number, fence in enumerate(scripts):
                    name = button.file.removesuffix(".py") + (f".{number}" if number else "") + ".ws"
                    archive.writestr(name, fence.source)


def _add_to_page(site: Path, pages: Path, page: Path, buttons: list[Button]) -> None:
    rendered = rendered_path(page.relative_to(pages), site)
    if rendered is None:
        raise ButtonsError(f"the site {site} has no page of {page.relative_to(pages).as_posix()}")
    text = rendered.read_text(encoding="utf-8")
    text = re.sub(f"{_BEGIN}.*?{_END}", "", text, flags=re.DOTALL)  # of a run before this one
    found = _Ends(text)
    to_root = os.path.relpath(site, rendered.parent).replace(os.sep, "/")
    insertions = [(_head_end(text, rendered), _links(f"{to_root}/{FOLDER}"))]
    position = 0
    for button in buttons:
        wanted = comparable(button.fence.expanded())
        try:
            position = found.blocks.index(wanted, position)
        except ValueError:
            name = f"{page.relative_to(pages).as_posix()}:{button.fence.line}"
            raise ButtonsError(f"{name}: the site does not show this app as code") from None
        insertions.append((found.ends[position], _element(button)))
        position += 1
    for place, addition in sorted(insertions, reverse=True):
        text = f"{text[:place]}{_BEGIN}{addition}{_END}{text[place:]}"
    rendered.write_text(text, encoding="utf-8", newline="\n")


def _head_end(text: str, rendered: Path) -> int:
    place = text.find("</head>")
    if place < 0:
        raise ButtonsError(f"{rendered} has no </head>")
    return place


def _links(folder: str) -> str:
    return (
        f'<link rel="stylesheet" href="{folder}/style.css">'
        f'<script type="module" src="{folder}/page.js"></script>'
    )


def _element(button: Button) -> str:
    if button.reason:
        return f'<p class="ws-run-none">This example has no Run button: {html.escape(button.reason)}.</p>'
    return f'<div class="ws-run" data-example="{html.escape(button.file)}"></div>'


class _Ends(Blocks):
    """Finds where the code blocks of a page end, each with what its generator has put around it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.lines = [0]  # where each begins
        for line in text.split("\n"):
            self.lines.append(self.lines[-1] + len(line) + 1)
        self.frames: list[int] = []  # how deep the open elements are that surround a block
        self.ends: list[int] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that surrounds a block, such as Pygments' `div` of class `highlight`."""
        super().handle_starttag(tag, attrs)
        if tag == "figure" or (tag == "div" and "highlight" in (dict(attrs).get("class") or "")):
            self.frames.append(len(self.stack))

    def handle_endtag(self, tag: str) -> None:
        """Note where a block ends."""
        super().handle_endtag(tag)
        while self.frames and self.frames[-1] > len(self.stack):
            self.frames.pop()
        if not self.frames and len(self.ends) < len(self.blocks):
            line, column = self.getpos()
            end = self.source.index(">", self.lines[line - 1] + column) + 1
            self.ends += [end] * (len(self.blocks) - len(self.ends))
