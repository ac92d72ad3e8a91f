"""The page *Security*: the tests that it names exist, and its figures are the code's."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels
from lilya.websockets.uvicorn import HTTPProtocol, WebSocketProtocol
from tests.docs.pages import at

pytestmark = pytest.mark.page("docs/concepts/security.md", "# Security")

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "concepts" / "security.md"
PAGE = FILE.read_text(encoding="utf-8")
POLICY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def named(text: str) -> list[tuple[str, str]]:
    """The tests that a text names, by file and function."""
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)


def missing(text: str) -> list[str]:
    """Those of them that are not there."""
    found: dict[str, set[str]] = {}
    for file in {file for file, _ in named(text)}:
        path = ROOT / file
        body = ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else []
        functions = [node for node in body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        found[file] = {function.name for function in functions}
    return [
        f"{at(FILE, f'{file}::{name}', text)}: there is no {file}::{name}"
        for file, name in named(text)
        if name not in found[file]
    ]


def rows(heading: str) -> list[str]:
    """The rows of the tables below a heading, without their heads."""
    part = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [
        line
        for line in part.splitlines()
        if line.startswith("| ") and not line.endswith((" tests |", "--- |"))
    ]


def test_the_named_tests_exist() -> None:
    assert len(named(PAGE)) > 30
    assert missing(PAGE) == []


@pytest.mark.parametrize("heading", ["The class, on every server", "The protocol for uvicorn"])
def test_every_promise_names_a_test(heading: str) -> None:
    assert len(rows(heading)) >= 8
    assert [f"{at(FILE, row)}: no test is named" for row in rows(heading) if not named(row)] == []


def default(function: Any, name: str) -> str:
    return f"{inspect.signature(function).parameters[name].default:,}"


@pytest.mark.parametrize(
    ("line", "figures"),
    [
        (
            "In a block with a reader",
            [default(WebSocket.open, "buffer_messages"), default(WebSocket.open, "buffer_bytes")],
        ),
        (
            "In [channels]",
            [default(Channels.subscribe, "max_messages"), default(Channels.subscribe, "max_bytes")],
        ),
        ("`close_timeout`", [f"{WebSocketProtocol.close_timeout:g} seconds"]),
        ("`head_timeout`", [f"{HTTPProtocol.head_timeout:g} seconds"]),
    ],
)
def test_figures(line: str, figures: list[str]) -> None:
    (row,) = [row for row in PAGE.splitlines() if line in row]
    assert [f"{at(FILE, row)}: expected {figure}" for figure in figures if figure not in row] == []


@pytest.mark.page("SECURITY.md", "## Report a vulnerability")
def test_the_policy_says_how_to_report_and_what_counts() -> None:
    for heading in ("## Report a vulnerability", "## Threat model"):
        assert heading in POLICY
    assert "docs/concepts/security.md" in POLICY


def test_planted_faults() -> None:
    assert missing("`tests/docs/test_security.py::test_planted_faults`") == []
    assert missing("`tests/docs/test_security.py::test_gone`") == [
        "docs/concepts/security.md:1: there is no tests/docs/test_security.py::test_gone"
    ]
    assert missing("x\n`tests/docs/test_gone.py::test_gone`") == [
        "docs/concepts/security.md:2: there is no tests/docs/test_gone.py::test_gone"
    ]
