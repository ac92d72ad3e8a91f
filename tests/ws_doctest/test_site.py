"""The built site against the pages: every difference is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from ws_doctest.__main__ import main
from ws_doctest.site import check_site, code_blocks

PAGE = "# Page\n\n```python\n{!> ../example.py !}\n```\n\n```text\na < b\n```\n"
HTML = """
<article>
<div class="highlight"><span class="filename">example.py</span><pre id="c"><span></span><code><a id="c-1"></a>
<span class="k">if</span> x:
    y = <span class="mi">1</span>
</code></pre></div>
<p>inline <code>code</code><br></p>
<div class="highlight"><pre><code>a &lt; b
</code></pre></div>
<div class="doc doc-object doc-class"><div class="highlight"><pre><code>signature()</code></pre></div></div>
</article>
"""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "site/page").mkdir(parents=True)
    (tmp_path / "example.py").write_text("if x:\n    y = 1\n")
    (tmp_path / "docs/page.md").write_text(PAGE)
    (tmp_path / "site/page/index.html").write_text(HTML)
    return tmp_path


def problems(built: Path, old: str = "", new: str = "") -> list[str]:
    html = built / "site/page/index.html"
    assert old in html.read_text()
    html.write_text(html.read_text().replace(old, new, 1))
    return check_site(built / "site", built / "docs")


def test_a_true_site_has_no_problems(built: Path) -> None:
    assert problems(built) == []


def test_a_block_that_differs_is_a_diff(built: Path) -> None:
    found = problems(built, '<span class="mi">1</span>', '<span class="mi">2</span>')
    assert len(found) == 1
    assert found[0].startswith(
        "docs/page.md:3: the rendered block differs from its source\n--- docs/page.md:3"
    )
    assert found[0].endswith("-    y = 1\n+    y = 2")


def test_a_missing_block_is_named(built: Path) -> None:
    block = '<div class="highlight"><pre><code>a &lt; b\n</code></pre></div>\n'
    assert problems(built, block, "") == ["docs/page.md:7: the site does not show this block as code"]


def test_an_extra_block_is_named(built: Path) -> None:
    found = problems(built, "<p>inline", "<pre><code>x = 1</code></pre><p>inline")
    assert found == ["docs/page.md: the site shows a block of code that is no fence of the page:\nx = 1"]


def test_blocks_in_another_order_are_a_problem(built: Path) -> None:
    page = built / "docs/page.md"
    page.write_text("```text\na < b\n```\n\n```python\n{!> ../example.py !}\n```\n")
    assert check_site(built / "site", built / "docs")


def test_a_missing_page_and_no_pages_are_problems(built: Path) -> None:
    (built / "docs/more.md").write_text("# More\n")
    assert problems(built) == [f"docs/more.md: the site {built / 'site'} has no such page"]
    (built / "empty").mkdir()
    assert check_site(built / "site", built / "empty") == [
        f"{built / 'empty'}: no pages found, there is nothing to compare"
    ]


def test_an_unrendered_directive_is_a_difference(built: Path) -> None:
    found = problems(built, '<span class="k">if</span> x:', "{!&gt; ../example.py !}")
    assert "+{!> ../example.py !}" in found[0]


def test_line_numbers_are_no_code() -> None:
    table = (
        '<div class="highlight"><table class="highlighttable"><tr><td class="linenos"><div><pre>'
        '<span class="normal">1</span></pre></div></td><td class="code"><pre><code>x = 1\n</code></pre>'
        "</td></tr></table></div>"
    )
    assert code_blocks(table) == ["x = 1"]


def test_the_command_says_what_differs(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["site", "--site", str(built / "site"), "--pages", str(built / "docs")]
    assert main(arguments) == 0
    (built / "example.py").write_text("other\n")
    assert main(arguments) == 1
    assert "docs/page.md:3: the rendered block differs from its source" in capsys.readouterr().err
