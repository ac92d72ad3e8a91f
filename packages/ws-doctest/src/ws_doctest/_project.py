"""Completeness, both ways: nothing shown that is not run, nothing run that is not shown."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ws_doctest import _apps
from ws_doctest._pages import PYTHON, PYTHON_CONSOLE, SUFFIXES, UNREAD, Fence, Page, read_page
from ws_doctest._snippets import SIDECAR, sidecar_path


def is_python(fence: Fence) -> bool:
    """Tell whether a fence without a language is Python beyond doubt: it imports or defines something."""
    try:
        tree = ast.parse(fence.expanded())
    except (SyntaxError, ValueError):
        return False
    telling = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(node, telling) for node in ast.walk(tree))


@dataclass
class Project:
    """The pages and the examples of a repository.

    Args:
        root: the folder that everything lies in.
        pages: folders of pages, and single pages.
        examples: folders of examples.
        unread: files among the pages that cannot be read, and why they are there.
    """

    root: Path
    pages: list[Path]
    examples: list[Path]
    unread: dict[Path, str] = field(default_factory=dict)
    _scanned: dict[Path, Page] = field(default_factory=dict)

    @cached_property
    def page_files(self) -> list[Path]:
        """Every page, in order."""
        found: list[Path] = []
        for path in self.pages:
            if path.is_dir():
                found += sorted(page for page in path.rglob("*") if page.suffix in SUFFIXES)
            else:
                found += [path] * path.is_file()
        return list(dict.fromkeys(found))

    def page(self, path: Path) -> Page:
        """Return what a page shows."""
        if path not in self._scanned:
            self._scanned[path] = read_page(path, self.root)
        return self._scanned[path]

    def name(self, path: Path) -> str:
        """Return how a path is called in messages."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    @cached_property
    def shown(self) -> dict[Path, list[str]]:
        """Every included file, and the places that include it."""
        places: dict[Path, list[str]] = {}
        for path in self.page_files:
            for include in self.page(path).includes:
                places.setdefault(include.path, []).append(f"{self.page(path).name}:{include.line}")
        return places

    @cached_property
    def example_files(self) -> list[Path]:
        """Every file among the examples, without what Python and editors leave there."""
        return [
            path
            for folder in self.examples
            for path in sorted(folder.rglob("*"))
            if path.is_file()
            and not any(
                part == "__pycache__" or part.startswith(".") for part in path.relative_to(folder).parts
            )
        ]

    def sidecar(self, page: Path) -> Path | None:
        """Return where the expectations of a page are, if there is a folder for them."""
        for folder in self.pages:
            if folder.is_dir() and page.is_relative_to(folder) and self.examples:
                return sidecar_path(page, folder, self.examples[0])
        return sidecar_path(page, page.parent, self.examples[0]) if self.examples else None

    def problems(self) -> Iterator[str]:
        """Yield what is incomplete in the repository as a whole."""
        if not self.page_files:
            places = ", ".join(self.name(path) for path in self.pages)
            yield f"no pages found in {places}: there is nothing to check"
        for path in self.pages:
            for page in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if page.suffix in UNREAD and page not in self.unread:
                    yield (
                        f"{self.name(page)}:1: pages of this form are not read, and not checked: "
                        "name it in ws_doctest_unread, with a reason"
                    )
        for folder in self.examples:
            if not folder.is_dir():
                yield f"{self.name(folder)}: the folder of the examples does not exist"
        sidecars = {self.sidecar(page) for page in self.page_files}
        for path in self.example_files:
            name = self.name(path)
            if path.name == SIDECAR:
                if path not in sidecars:
                    yield f"{name}: expectations for a page that does not exist"
            elif path.suffix == ".ws":
                example = _apps.example_of(path)
                if not example.is_file() or not _apps.has_app(example):
                    yield f"{name}: a transcript without an app: {self.name(example)} does not define `app`"
                if path not in self.shown:
                    yield f"{name}: no page shows this transcript"
            else:
                if path.suffix == ".out" and not path.with_suffix(".py").is_file():
                    yield f"{name}: the output of a test file that does not exist"
                # An empty __init__.py is no example; it makes a folder a package.
                if path not in self.shown and not (
                    path.name == "__init__.py" and not path.read_text("utf-8").strip()
                ):
                    yield f"{name}: no page includes this file"
                if path.suffix == ".py" and _apps.has_app(path) and not _apps.transcripts_of(path):
                    yield f"{name}: an app without a transcript {path.with_suffix('.ws').name}"

    def misplaced(self, page: Page) -> Iterator[str]:
        """Yield the transcripts that do not stand below their app, and the apps in the page without one."""
        app: Path | Fence | None = None
        lonely: Fence | None = None  # an app in the page that no transcript has followed yet
        for fence in page.fences:
            if fence.skip is not None:
                continue
            included = fence.includes[0].path if fence.includes else None
            if fence.language in PYTHON:
                if included is not None and _apps.has_app(included):
                    app = included
                elif included is None and _apps.defines_app(fence.source):
                    if lonely is not None:
                        yield f"{page.name}:{lonely.line}: an app without a transcript below it"
                    app = lonely = fence
            elif fence.language == "ws" and included is not None:
                example = _apps.example_of(included)
                if example != app:
                    above = (
                        "no app is shown above it"
                        if app is None
                        else f"the app above it is {self.name(app)}"
                        if isinstance(app, Path)
                        else f"the app above it is that of line {app.line}"
                    )
                    yield (
                        f"{page.name}:{fence.line}: the transcript {self.name(included)} belongs below "
                        f"its app {self.name(example)}; {above}"
                    )
            elif fence.language == "ws":
                if app is None:
                    yield f"{page.name}:{fence.line}: a transcript without an app above it"
                lonely = None if app is lonely else lonely
        if lonely is not None:
            yield f"{page.name}:{lonely.line}: an app without a transcript below it"

    def sessions(self, page: Page) -> Iterator[tuple[int, Fence, Path | Fence]]:
        """Yield the transcripts in the page itself: their place among the fences, and the app above each."""
        app: Path | Fence | None = None
        for index, fence in enumerate(page.fences):
            if fence.skip is not None:
                continue
            included = fence.includes[0].path if fence.includes else None
            if fence.language in PYTHON:
                if included is not None and _apps.has_app(included):
                    app = included
                elif included is None and _apps.defines_app(fence.source):
                    app = fence
            elif fence.language == "ws" and included is None and app is not None:
                yield index, fence, app

    def page_problems(self, path: Path) -> Iterator[str]:
        """Yield what is wrong or incomplete on one page."""
        page = self.page(path)
        for problem in page.problems:
            yield problem.at(page.name)
        for fence in page.fences:
            if fence.skip is not None:
                continue
            place = f"{page.name}:{fence.line}"
            if fence.language in ("", "none", "plain", "text", "txt") and is_python(fence):
                yield f"{place}: this is Python: say so after the fence, so that it is run"
            for include in fence.includes:
                runs = {".py": PYTHON, ".ws": {"ws"}}.get(include.path.suffix)
                if fence.language in PYTHON | PYTHON_CONSOLE | {"ws"} and (
                    runs is None or fence.language not in runs
                ):
                    yield f"{place}: a fence of type {fence.language!r} includes {include.target}"
        yield from self.misplaced(page)
        for include in page.includes:
            place = f"{page.name}:{include.line}"
            inside = any(include.path.is_relative_to(folder) for folder in self.examples)
            if include.path.suffix in (".py", ".ws") and not inside:
                folders = ", ".join(self.name(folder) for folder in self.examples)
                yield f"{place}: {include.target} is not among the examples ({folders}), so nothing runs it"
