"""The include directive in a real build, and in Python-Markdown alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import markdown
import pytest
from markdown.preprocessors import Preprocessor

from ws_doctest._pages import PageError
from ws_doctest.markdown import IncludeExtension, run_note

APP = "async def app(scope, receive, send):\n    await receive()\n\n    # <&>\n"
MKDOCS = """
site_name: test
theme: {name: material, font: false}
plugins: []
markdown_extensions:
  - admonition
  - pymdownx.highlight
  - pymdownx.superfences
  - pymdownx.tabbed:
      alternate_style: true
  - ws_doctest.markdown
"""
PAGE = """\
---
title: Talk
---

# Talk

```python
{!> ../docs_src/talk/echo.py !}
```

!!! note

    ``` { .py title="again" }
    {!> ../docs_src/talk/echo.py !}
    ```

=== "Tab"

    ~~~ws
    {!> ../docs_src/talk/echo.ws !}
    ~~~

{!> ../docs_src/talk/drawing.svg !}

The directive `{!> FILE !}` includes a file:

````text
\\{!> FILE !}
````
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in {
        "mkdocs.yml": MKDOCS,
        "docs/index.md": PAGE,
        "docs_src/talk/echo.py": APP,
        "docs_src/talk/echo.ws": "> connect /chat?a=1&b=2\n< accept\n> close\n",
        "docs_src/talk/drawing.svg": '<svg xmlns="http://www.w3.org/2000/svg"><title>drawn</title></svg>\n',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def build(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )


def test_a_build_expands_every_include_and_equals_what_is_executed(project: Path) -> None:
    from ws_doctest.site import check_site

    result = build(project)
    assert result.returncode == 0, result.stderr
    assert check_site(project / "site", project / "docs") == []
    html = (project / "site/index.html").read_text()
    assert "<title>drawn</title></svg>" in html
    assert html.count("{!&gt; FILE !}") == 2
    assert "docs_src/talk" not in html.replace("docs_src.talk", "")
    note = (
        '<p class="ws-doctest-run"><span class="ws-doctest-run-label">Run it:</span> '
        "<code>uvicorn docs_src.talk.echo:app</code><br>"
        '<span class="ws-doctest-run-label">Talk to it:</span> '
        "<code>python -m websockets &#x27;ws://127.0.0.1:8000/chat?a=1&amp;b=2&#x27;</code><br>"
        '<span class="ws-doctest-run-label">Live:</span> '
        "<code>ws://127.0.0.1:8000/live/talk/echo/chat?a=1&amp;b=2</code></p>"
    )
    assert html.count(note) == 2


def test_the_note_names_where_each_client_connects(tmp_path: Path) -> None:
    example = tmp_path / "docs_src" / "room.py"
    example.parent.mkdir()
    example.write_text("app = None\n")
    example.with_suffix(".ws").write_text("ann > connect /?ann\nbob > connect /?bob\nann > connect /?ann\n")
    note = run_note(example, tmp_path, server="localhost", live="/live") or ""
    talk = [f"python -m websockets 'ws://localhost/?{name}'" for name in ("ann", "bob")]
    assert re.findall("<code>(.*?)</code>", unescape(note)) == [
        "uvicorn docs_src.room:app",
        *talk,
        "ws://localhost/live/room/?ann",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{!> ../docs_src/talk/echo.ws !}",
            "{!> ../docs_src/talk/eco.ws !}",
            "docs/index.md:20: the included file ../docs_src/talk/eco.ws does not exist "
            "(looked for docs_src/talk/eco.ws)",
        ),
        (
            "{!> ../docs_src/talk/drawing.svg !}",
            "{!> ../../../../etc/hostname !}",
            "docs/index.md:23: the included file ../../../../etc/hostname lies outside the repository",
        ),
        (
            "{!> ../docs_src/talk/drawing.svg !}",
            "{! ../docs_src/talk/drawing.svg !}",
            "docs/index.md:23: expected an include directive `{!> FILE !}` on a line of its own; "
            "came '{! ../docs_src/talk/drawing.svg !}'",
        ),
    ],
)
def test_a_wrong_directive_ends_the_build_with_page_and_line(
    project: Path, old: str, new: str, message: str
) -> None:
    page = project / "docs/index.md"
    assert page.read_text().count(old) == 1
    page.write_text(page.read_text().replace(old, new))
    result = build(project)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


# Without MkDocs


def convert(project: Path, text: str, **options: object) -> str:
    return markdown.markdown(
        text,
        extensions=["fenced_code", "ws_doctest.markdown"],
        extension_configs={"ws_doctest.markdown": {"root": str(project), **options}},
    )


INCLUDE = "```python\n{!> ../docs_src/talk/echo.py !}\n```\n"


def test_the_notes_can_be_turned_off_and_changed(project: Path) -> None:
    assert "ws-doctest-run" not in convert(project, INCLUDE, run_notes=False)
    html = convert(project, INCLUDE, server="localhost:1", live="")
    assert "ws://localhost:1/chat" in html
    assert "Live" not in html


def test_only_an_app_with_a_transcript_has_a_note(project: Path) -> None:
    (project / "docs_src/talk/echo.ws").unlink()
    assert "ws-doctest-run" not in convert(project, INCLUDE)


def test_the_note_takes_the_path_of_the_main_transcript(project: Path) -> None:
    (project / "docs_src/talk/echo.another.ws").write_text("> connect /elsewhere\n< accept\n> close 1000\n")
    html = convert(project, INCLUDE)
    assert "/chat" in html
    assert "/elsewhere" not in html


def test_tabs_and_blank_lines_of_the_included_file_are_kept(project: Path) -> None:
    (project / "docs_src/talk/echo.py").write_text("if x:\n\ty = 1\n\n\n\tz = 2\n")
    assert '<code class="language-python">if x:\n\ty = 1\n\n\n\tz = 2\n</code>' in convert(project, INCLUDE)


def test_a_wrong_directive_raises_without_mkdocs_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mkdocs.exceptions", raising=False)
    with pytest.raises(PageError, match=r"docs/\(a page .*\):2: the included file no.py does not exist"):
        convert(project, "\n{!> no.py !}\n")


class Context(Preprocessor):
    """What Zensical registers to name the page, by its path below docs/."""

    page = SimpleNamespace(path="guides/page.md")

    def run(self, lines: list[str]) -> list[str]:
        return lines


def test_zensical_names_the_page(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mkdocs.exceptions", raising=False)
    (project / "docs/guides").mkdir()
    md = markdown.Markdown(extensions=["fenced_code", IncludeExtension(root=str(project))])
    md.preprocessors.register(Context(md), "rendering_context", 0)
    (project / "docs/guides/page.md").write_text("---\ntitle: A\n---\n\n{!> ../no.py !}\n")
    with pytest.raises(PageError, match=r"docs/guides/page\.md:5: the included file .+ does not exist"):
        md.convert("\n{!> ../no.py !}\n")
    assert "await receive()" in md.convert("{!> ../../docs_src/talk/echo.py !}")


def test_a_broken_transcript_is_named_by_the_build(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mkdocs.exceptions", raising=False)
    (project / "docs_src/talk/echo.ws").write_text("> conect /\n")
    with pytest.raises(PageError, match=r"docs_src/talk/echo\.ws:1: "):
        convert(project, INCLUDE)
