"""The scanner: fences of every form, directives, skips and signatures."""

from __future__ import annotations

from pathlib import Path

import pytest

from ws_doctest._pages import PYTHON, PYTHON_CONSOLE, Page, read_page, scan


def scanned(text: str, tmp_path: Path) -> Page:
    return scan(text.split("\n"), name="docs/page.md", folder=tmp_path, root=tmp_path)


def messages(page: Page) -> list[str]:
    return [problem.at(page.name) for problem in page.problems]


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx\n```",
        "~~~python\nx\n~~~",
        "````python\nx\n````",
        "~~~~~ python\nx\n~~~~~",
        "```py\nx\n```",
        "```Python3\nx\n```",
        "```python title='x' hl_lines=\"1\"\nx\n```",
        "``` { .py }\nx\n```",
        '``` {.python title="x"}\nx\n```',
        "```{.py3 #id .annotate}\nx\n```",
        "```{python}\nx\n```",
        "``` .python\nx\n```",
        "    ```python\n    x\n    ```",
        "> ```python\n> x\n> ```",
        "- ```python\n  x\n  ```",
        "1. item\n\n    ~~~py\n    x\n    ~~~",
        "```pycon\nx\n```",
    ],
)
def test_python_is_found_in_every_form_of_fence(text: str, tmp_path: Path) -> None:
    page = scanned(text, tmp_path)
    assert [fence.source for fence in page.fences] == ["x\n"]
    assert page.fences[0].language in PYTHON | PYTHON_CONSOLE
    assert messages(page) == []


def test_a_fence_within_a_longer_fence_is_text(tmp_path: Path) -> None:
    page = scanned("````markdown\n```python\nx\n```\n````\n", tmp_path)
    assert [(fence.language, fence.source) for fence in page.fences] == [("markdown", "```python\nx\n```\n")]


def test_headings_and_lines_are_kept(tmp_path: Path) -> None:
    page = scanned("# One\n\n## `Two` {#id}\n\n```python\na\n\n    b\n```\n# not in\n", tmp_path)
    fence = page.fences[0]
    assert (fence.heading, fence.line, fence.end, fence.lines) == ("Two", 5, 9, ["a", "", "    b"])


def test_an_inline_code_span_of_three_backticks_is_no_fence(tmp_path: Path) -> None:
    assert scanned("```not a fence```\n\ntext\n", tmp_path).fences == []


def test_nothing_is_found_in_a_comment(tmp_path: Path) -> None:
    page = scanned("<!-- draft\n```python\nx\n```\n-->\n", tmp_path)
    assert (page.fences, page.problems) == ([], [])


def test_front_matter_counts_in_the_lines(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("---\ntitle: '{! x'\n---\n\n```python\nx\n```\n")
    page = read_page(path, tmp_path)
    assert ([fence.line for fence in page.fences], page.problems) == ([5], [])


def test_a_fence_that_is_never_closed_is_a_problem(tmp_path: Path) -> None:
    assert messages(scanned("text\n\n```python\nx\n", tmp_path)) == [
        "docs/page.md:3: the fence ```python is never closed"
    ]


def test_a_comment_that_is_never_closed_is_a_problem(tmp_path: Path) -> None:
    assert messages(scanned("<!-- draft\n```python\nx\n```\n", tmp_path)) == [
        "docs/page.md:1: the comment <!-- is never closed"
    ]


# Directives


def test_includes_are_resolved_from_the_page_and_expanded(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n\ny = 2\n\n\n")
    page = scanned("!!! note\n\n    ```python\n    {!> a.py !}\n    ```\n\n{!>a.py!}\n", tmp_path)
    assert messages(page) == []
    assert [(include.line, include.prefix) for include in page.includes] == [(4, "    "), (7, "")]
    assert page.fences[0].expanded() == "x = 1\n\ny = 2\n"


@pytest.mark.parametrize(
    "line",
    [
        "{! a.py !}",
        "{! > a.py !}",
        "{ !> a.py !}",
        "{!> a.py }",
        "{!> a.py",
        "{!> a.py ! }",
        "{> a.py !}",
        "(!> a.py !}",
        "{{!> a.py }}",
        "{!> !}",
        "    {!a.py!}",
    ],
)
@pytest.mark.parametrize("fenced", [True, False])
def test_a_misspelt_directive_is_a_problem(line: str, fenced: bool, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    text = f"```python\n{line}\n```\n" if fenced else f"\n{line}\n"
    found = messages(scanned(text, tmp_path))
    assert len(found) == 1
    assert found[0].startswith(
        "docs/page.md:2: expected an include directive `{!> FILE !}` on a line of its own; "
        f"came {line.strip()!r}"
    )


def test_a_directive_within_a_sentence_is_a_problem(tmp_path: Path) -> None:
    assert "on a line of its own" in messages(scanned("See {!> a.py !} there.", tmp_path))[0]


@pytest.mark.parametrize(
    "text",
    [
        "The directive `{!> FILE !}` includes a file.",
        "```text\n\\{!> FILE !}\n```",
        "\\{!> FILE !}",
        '```python\nprint("{!r}".format(1))\n```',
        "```jinja\n{% if x %}{{ x }}{% endif %}\n```",
        "Surprise! (really!) {braces}",
    ],
)
def test_what_only_talks_about_directives_is_none(text: str, tmp_path: Path) -> None:
    page = scanned(text, tmp_path)
    assert (page.includes, page.problems) == ([], [])


def test_an_escaped_directive_is_shown_without_its_backslash(tmp_path: Path) -> None:
    page = scanned("```text\n\\{!> FILE !}\n```", tmp_path)
    assert page.fences[0].expanded() == "{!> FILE !}\n"


def test_a_missing_file_and_a_path_outside_are_problems(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.py").write_text("x = 1\n")
    page = scan(["{!> no.py !}", "{!> ../secret.py !}"], name="docs/page.md", folder=root, root=root)
    assert messages(page) == [
        "docs/page.md:1: the included file no.py does not exist (looked for no.py)",
        "docs/page.md:2: the included file ../secret.py lies outside the repository",
    ]
    assert page.includes == []


def test_included_text_may_not_hide_fences(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("```python\nx\n```\n")
    assert messages(scanned("{!> a.md !}", tmp_path)) == [
        "docs/page.md:1: the included file a.md has fences, which nobody would check"
    ]
    assert "would close the fence" in messages(scanned("```text\n{!> a.md !}\n```", tmp_path))[0]
    assert messages(scanned("````text\n{!> a.md !}\n````", tmp_path)) == []


def test_a_fence_of_code_holds_one_include_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    assert (
        "one include directive and nothing else"
        in messages(scanned("```python\n{!> a.py !}\ny = 2\n```", tmp_path))[0]
    )


# Skips


def test_a_skip_has_a_reason_and_something_to_skip(tmp_path: Path) -> None:
    page = scanned("<!-- ws-doctest: skip a sketch -->\n\n```python\nx\n```\n", tmp_path)
    assert ([fence.skip for fence in page.fences], page.problems) == (["a sketch"], [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<!-- ws-doctest: skip -->\n```python\nx\n```", "a skip says why"),
        ("<!-- ws-doctest: skpi it -->\n```python\nx\n```", "expected `<!-- ws-doctest: skip REASON -->`"),
        ("<!-- ws_doctest skip it -->\n```python\nx\n```", "expected `<!-- ws-doctest: skip REASON -->`"),
        ("<!-- ws-doctest: skip it -->\ntext\n```python\nx\n```", "nothing to skip"),
        ("<!-- ws-doctest: skip it -->\n", "nothing to skip"),
        ("<!-- ws-doctest: skip it -->\n```text\nx\n```", "neither Python, a transcript"),
    ],
)
def test_a_skip_that_does_not_work_is_a_problem(text: str, problem: str, tmp_path: Path) -> None:
    assert problem in "\n".join(messages(scanned(text, tmp_path)))


# Signatures


def test_bullets_that_show_a_call_are_found(tmp_path: Path) -> None:
    page = scanned(
        "* `await websocket.accept(subprotocol=None, headers=None)`\n"
        "    - `websocket.iter_text()`: an iterator\n"
        "* `websocket.url` is no call\n"
        "* call `websocket.close()` first\n"
        "\n"
        "<!-- ws-doctest: skip not ours -->\n"
        "* `asyncio.run(main())`\n",
        tmp_path,
    )
    assert [(b.line, b.awaited, b.receiver, b.method, b.parameters, b.skip) for b in page.bullets] == [
        (1, True, "websocket", "accept", "subprotocol=None, headers=None", None),
        (2, False, "websocket", "iter_text", "", None),
        (7, False, "asyncio", "run", "main()", "not ours"),
    ]
