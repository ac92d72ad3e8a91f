"""The include directive, as an extension of Python-Markdown.

    markdown_extensions:
      - ws_doctest.markdown

It expands ``{!> ../docs_src/page/example.py !}`` before fences are parsed, and writes under each
included app how to run it and how to talk to it. Whatever is wrong with a directive ends the build
with one line that names page and line. It is no MkDocs plugin: any generator that uses
Python-Markdown can load it.
"""

from __future__ import annotations

import html
import sys
from pathlib import Path
from typing import Any

from markdown import Markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor

from ws_doctest import _apps, _pages, transcript
from ws_doctest._pages import Include, PageError

__all__ = ["IncludeExtension", "IncludePreprocessor", "makeExtension", "run_note"]


# After `normalize_whitespace` (30), which would expand the tabs of included code, and before
# fences (25).
PRIORITY = 29


class IncludeExtension(Extension):
    """Expands include directives."""

    def __init__(self, **kwargs: Any) -> None:
        self.config = {
            "docs_dir": ["docs", "the folder of the pages, where no generator says which page this is"],
            "root": [
                "",
                "the folder that no include may leave; default: that of mkdocs.yml, else the current one",
            ],
            "run_notes": [True, "write under each included app how to run it"],
            "server": ["127.0.0.1:8000", "the address that those notes name"],
            "live": [
                "/live",
                "where `ws_doctest serve` has the examples; empty: the notes do not mention it",
            ],
        }
        super().__init__(**kwargs)

    def extendMarkdown(self, md: Markdown) -> None:
        """Register the preprocessor."""
        md.preprocessors.register(IncludePreprocessor(md, self.getConfigs()), "ws_doctest_include", PRIORITY)


class IncludePreprocessor(Preprocessor):
    """Replaces directives by what they include."""

    def __init__(self, md: Markdown, config: dict[str, Any]) -> None:
        super().__init__(md)
        self.config = config

    def run(self, lines: list[str]) -> list[str]:
        """Return the lines with every directive expanded."""
        if not any("!" in line and ("{" in line or "}" in line) for line in lines):
            return lines
        place = _Place(self.md, self.config)
        page = _pages.scan(lines, name=place.name, folder=place.folder, root=place.root)
        for problem in page.problems:
            if problem.include:
                offset = place.lines_before(lines)
                raise _error(_pages.Problem(problem.line + offset, problem.message).at(place.name))
        includes = {include.line: include for include in page.includes if not include.foreign}
        notes = {
            include.fence.end: include
            for include in page.includes
            if include.fence is not None and include.fence.end
        }
        output: list[str] = []
        for number, line in enumerate(lines, 1):
            if number in includes:
                output += self.expand(includes[number])
            else:
                output.append(_pages.unescape(line))
            if number in notes and self.config["run_notes"]:
                output += self.note(notes[number], place.root)
        return output

    def expand(self, include: Include) -> list[str]:
        """Return the included lines, indented as the directive is."""
        lines = _pages.read_included(include.path).rstrip("\n").split("\n")
        return [include.prefix + line if line else include.prefix.rstrip() for line in lines]

    def note(self, include: Include, root: Path) -> list[str]:
        """Return the note under an app, as lines at the fence's indentation."""
        text = run_note(include.path, root, server=self.config["server"], live=self.config["live"])
        if text is None or include.fence is None:
            return []
        prefix = include.fence.prefix
        # The stash keeps it as it is at any indentation, which raw HTML in the page would not
        # survive.
        return ["", prefix + self.md.htmlStash.store(text), ""]


def run_note(example: Path, root: Path, *, server: str, live: str) -> str | None:
    """Return the HTML that says how to run an app and talk to it, if it has a transcript."""
    if example.suffix != ".py" or not _apps.has_app(example):
        return None
    scripts = _apps.transcripts_of(example)
    if not scripts:
        return None
    try:
        paths = transcript.parse(
            scripts[0].read_text(encoding="utf-8"), scripts[0].relative_to(root).as_posix()
        ).paths
    except transcript.TranscriptError as exc:
        raise _error(str(exc)) from exc
    rows = [
        ("Run it", f"uvicorn {_apps.module_name(root, example)}:app"),
        *(
            ("and" if number else "Talk to it", _apps.client_command(f"ws://{server}{path}"))
            for number, path in enumerate(paths)
        ),
    ]
    if live:
        relative = "/".join(example.relative_to(root).with_suffix("").parts[1:])
        path = "" if paths[0] == "/" else paths[0]
        rows.append(("Live", f"ws://{server}{live.rstrip('/')}/{relative}{path}"))
    cells = "<br>".join(
        f'<span class="ws-doctest-run-label">{label}:</span> <code>{html.escape(code)}</code>'
        for label, code in rows
    )
    return f'<p class="ws-doctest-run">{cells}</p>'


class _Place:
    """Where this page is: asked of MkDocs or Zensical, if one of them runs us."""

    def __init__(self, md: Markdown, config: dict[str, Any]) -> None:
        # Each of them registers a processor that knows the page; there is no hook needed to find it.
        relpath: Any = _registered(md.treeprocessors, "relpath")  # MkDocs
        context: Any = _registered(md.preprocessors, "rendering_context")  # Zensical
        mkdocs_file = getattr(getattr(relpath, "config", None), "config_file_path", None)
        root = Path(config["root"] or (Path(mkdocs_file).parent if mkdocs_file else Path.cwd()))
        self.root = root.resolve()
        source = getattr(getattr(relpath, "file", None), "abs_src_path", None)
        path = getattr(getattr(context, "page", None), "path", None)
        if path and not source:
            source = self.root / config["docs_dir"] / path
        self.path = Path(source).resolve() if source else None
        if self.path:
            self.folder = self.path.parent
            inside = self.path.is_relative_to(self.root)
            self.name = self.path.relative_to(self.root).as_posix() if inside else str(self.path)
        else:
            self.folder = self.root / config["docs_dir"]
            self.name = f"{config['docs_dir']}/(a page that the generator does not name)"

    def lines_before(self, lines: list[str]) -> int:
        """Return how many lines of the file come before the Markdown, which are its front matter."""
        if self.path is None:
            return 0
        source = self.path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
        body = "\n".join(lines).rstrip("\n").split("\n")
        return max(len(source) - len(body), 0)


def _registered(registry: Any, name: str) -> Any:
    """Return a processor, if there is one of that name: a registry of Python-Markdown has no `get`."""
    return registry[name] if name in registry else None  # noqa: SIM401


def _error(message: str) -> Exception:
    """Return the error that ends a build: MkDocs' own, if it runs us, prints no traceback."""
    mkdocs = sys.modules.get("mkdocs.exceptions")
    if mkdocs is not None:
        error: Exception = mkdocs.BuildError(message)
        return error
    return PageError(message)


def makeExtension(**kwargs: Any) -> IncludeExtension:
    """Return the extension, as Python-Markdown asks for it."""
    return IncludeExtension(**kwargs)
