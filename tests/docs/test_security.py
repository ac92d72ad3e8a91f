"""The page *Security*: the tests that it names exist, and its figures are the code's."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels, serve
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
        if line.startswith("| ") and not line.endswith((" tests |", "--- |", " here |"))
    ]


def test_the_named_tests_exist() -> None:
    assert len(named(PAGE)) > 30
    assert missing(PAGE) == []


@pytest.mark.parametrize(
    "heading", ["The class, on every server", "The protocol for uvicorn", "Clients that use channels"]
)
def test_every_promise_names_a_test(heading: str) -> None:
    assert len(rows(heading)) >= 8
    assert [f"{at(FILE, row)}: no test is named" for row in rows(heading) if not named(row)] == []


# An id of one of the databases, of 2023 or later where it has the year in it.
ADVISORY = re.compile(r"CVE-202[3-9]-\d{4,}|PYSEC-202[3-9]-\d+|GHSA(?:-[23456789cfghjmpqrvwx]{4}){3}")
SOMEBODY = ("Your app's job", "Your framework's job", "Your server's job", "The client's job", "daphne's job")


def wrong(rows: list[str]) -> list[str]:
    """What is wrong with rows of advisories: each has an id, a sentence, and a test or whose job it is."""
    found = []
    ids = [row.strip("| ").partition(" | ")[0] for row in rows]
    for row, name in zip(rows, ids, strict=True):
        cells = row.strip("| ").split(" | ")
        if len(cells) != 3 or not ADVISORY.fullmatch(name):
            found.append(f"{name}: it is no row of an advisory")
        elif ids.count(name) > 1:
            found.append(f"{name}: it has more than one row")
        elif not cells[1].endswith("."):
            found.append(f"{name}: what happened is no sentence")
        elif not named(cells[2]) and not cells[2].startswith(SOMEBODY):
            found.append(f"{name}: neither a test nor whose job it is")
    return found


def test_every_advisory_has_a_test_or_is_somebodys_job() -> None:
    listed = rows("Published advisories")
    assert len(listed) > 100
    assert wrong(listed) == []
    # Most of them are about what this package does.
    assert sum(bool(named(row)) for row in listed) > 85


def test_planted_advisories() -> None:
    test = "`tests/docs/test_security.py::test_planted_advisories`"
    right = f"| CVE-2026-12345 | It crashed. | {test} |"
    assert wrong([right, "| GHSA-c4j6-fc7j-m34r | It crashed. | Your app's job. |"]) == []
    for row, why in {
        f"| CVE-2022-12345 | It crashed. | {test} |": "it is no row of an advisory",
        f"| CVE-2026-12345 | {test} |": "it is no row of an advisory",
        f"| CVE-2026-12345 | It crashed | {test} |": "what happened is no sentence",
        "| CVE-2026-12345 | It crashed. | It does not here. |": "neither a test nor whose job it is",
    }.items():
        (found,) = wrong([row])
        assert found.endswith(why)
    assert wrong([right, right]) == ["CVE-2026-12345: it has more than one row"] * 2


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
        *(
            (f"| `{name}`, ", [f"`{name}`, {default(serve, name)}"])
            for name in ("max_channels", "max_message_size", "max_history", "max_members")
        ),
        *(
            (f"and `{more}`, ", [f"`{name}`, {default(serve, name)}", f"`{more}`, {default(serve, more)}"])
            for name, more in (("max_waiting", "max_waiting_bytes"), ("max_messages", "max_bytes"))
        ),
        ("Answers that it does not read", [f"`max_waiting`, {default(serve, 'max_waiting')}"]),
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
