"""The README of ws-doctest: its settings are the plugin's, its lines of the grammar are the parser's."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

from tests.docs.pages import ROOT, Part, table_of
from tests.docs.test_transcripts import problem
from ws_doctest import plugin

pytestmark = pytest.mark.page("packages/ws-doctest/README.md", "| setting | default")

README = ROOT / "packages" / "ws-doctest" / "README.md"
EXAMPLES = {"PATH": "/chat", "NAME: VALUE": "a: b", "NAME": "chat", "STATUS": "401", "TEXT": "hi",
            "JSON": "{}", "HEX": "00 ff", "CODE": "4000", "REASON": "bye"}  # fmt: skip


def rows(*head: str, text: str | None = None) -> list[Part]:
    return table_of(README, *head, text=text)


def wrong_settings(text: str | None = None) -> list[str]:
    """The settings that the README has wrong, or leaves out."""
    found = {row.cells[0].strip("`"): row for row in rows("setting", "default", "meaning", text=text)}
    problems = [
        f"{row.place}: there is no setting {name}"
        for name, row in found.items()
        if name not in plugin.SETTINGS
    ]
    missing = set(plugin.SETTINGS) - set(found)
    if missing:
        problems.append(f"{README.relative_to(ROOT)}:1: the table of settings leaves out {sorted(missing)}")
    for name, default in defaults().items():
        shown = found[name].cells[1].strip("`") if name in found else default
        if shown != default:
            problems.append(f"{found[name].place}: the default of {name} is {default}")
    return problems


def defaults() -> dict[str, str]:
    """The default of each setting, as the README spells it."""
    found = {}
    for node in ast.walk(ast.parse(inspect.getsource(plugin.pytest_addoption))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "addini":
            name = ast.literal_eval(node.args[0])
            value = next(keyword.value for keyword in node.keywords if keyword.arg == "default")
            default = eval(ast.unparse(value), vars(plugin))
            found[name] = " ".join(default) if isinstance(default, list) else default
            found[name] = found[name] or ("ruff's" if "line_length" in name else "none")
    return found


def wrong_lines(text: str | None = None) -> list[str]:
    """The lines of the grammar that the parser does not take."""
    problems = []
    for row in rows("line", "meaning", text=text):
        for span in re.findall(r"`([^`]+)`", row.cells[0]):
            filled = span
            for word, example in EXAMPLES.items():
                filled = re.sub(rf"\b{word}\b", example, filled)
            lines = [filled] if filled[0] in "<>" else [f"> {filled}", f"< {filled}"]
            for line in lines:
                said = problem(line)
                if said and not line.startswith("> connect"):
                    problems.append(f"{row.place}: `{span}`: {said}")
    return problems


def test_the_settings() -> None:
    assert wrong_settings() == []


@pytest.mark.page("packages/ws-doctest/README.md", "| line | meaning |")
def test_the_grammar() -> None:
    assert wrong_lines() == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("`ws_doctest_time_limit` | 5 |", "`ws_doctest_limit` | 5 |"),
        ("`ws_doctest_time_limit` | 5 |", "`ws_doctest_time_limit` | 50 |"),
        ("`asyncio trio`", "`trio`"),
        ("| `json-binary JSON` |", "| `jsonbinary JSON` |"),
        ("or `> wait 2s`", "or `> wait 2 seconds`"),
    ],
)
def test_planted_fault(old: str, new: str) -> None:
    text = README.read_text(encoding="utf-8")
    assert old in text
    text = text.replace(old, new, 1)
    found = [*wrong_settings(text), *wrong_lines(text)]
    assert found
    assert all(re.match(r"packages/ws-doctest/README\.md:\d+: ", each) for each in found)
