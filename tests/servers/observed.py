"""What observers are told on every server, and the table of it on the page *Logs, metrics and traces*."""

from __future__ import annotations

from typing import NamedTuple

from .endings import LEGACY


class Row(NamedTuple):
    """Endings of which observers are told the same."""

    title: str
    endings: tuple[str, ...]
    """By name; with `hand ` before it, without a block."""
    told: str
    """As `told_to_observers` has it."""
    otherwise: dict[str, str]
    """By server, what is told there instead."""


ROWS = (
    Row("The handler returns, in a block", ("returns",), "ended app 1000", {}),
    Row("It returns without closing", ("hand returns",), "ended server", {}),
    Row("It raises, in a block", ("raises",), "ended app 1011 failed", {"daphne": "ended server failed"}),
    Row("It raises without a block", ("hand raises",), "ended server failed", {}),
    Row("It is cancelled, in a block", ("cancelled",), "ended app 1011", {"daphne": "ended app 1000"}),
    Row("It closes with 4000", ("app-closes",), "ended app 4000", {}),
    Row("The block closes with 1001: idle", ("idle",), "ended app 1001", {"daphne": "ended app 1000"}),
    Row(
        "The client closes with 4001",
        ("closes-4001-reads", "closes-4001-feeds", "hand closes-4001-reads"),
        "ended client 4001",
        {"hypercorn": "ended network 1006"},
    ),
    Row(
        "It closes without a code",
        ("closes-reads",),
        "ended client 1005",
        {"hypercorn": "ended network 1006"},
    ),
    Row(
        "The connection is lost",
        ("resets-reads", "resets-feeds", "resets-sleeps", "vanishes-reads", "vanishes-feeds"),
        "ended network 1006",
        {"granian": "ended client 1005"},
    ),
    Row(
        "It is lost, and the handler only sends, without a block",
        ("hand resets-feeds",),
        "ended network 1006",
        dict.fromkeys(("hypercorn", "granian", "daphne"), "ended server"),
    ),
    Row(
        "The client sends text that is not UTF-8",
        ("bad-utf8",),
        "ended client 1007",
        {
            **dict.fromkeys((LEGACY, "hypercorn", "daphne"), "ended network 1006"),
            "granian": "ended client 1005",
        },
    ),
    Row("The handler denies with 401", ("denies",), "refused app 401", {"daphne": "refused app 403"}),
    Row("It closes before accepting", ("refuses",), "refused app 403", {}),
    Row("It raises before accepting", ("raises-before",), "refused error failed", {}),
)
EXPECTED = {name: row for row in ROWS for name in row.endings}


def expected(server: str, name: str) -> str:
    return EXPECTED[name].otherwise.get(server, EXPECTED[name].told)


def as_cell(told: str) -> str:
    """What is told, as the page has it."""
    event, by, *rest = told.split()
    code = [each for each in rest if each != "failed"] or ["no code" if event == "ended" else "no status"]
    failed = ["failed"] if "failed" in rest else []
    return ", ".join([f"`{event}` by `{by}`", *code, *failed])


def as_row(row: Row) -> str:
    """A row of the page's table."""
    by_told: dict[str, list[str]] = {}
    for server, told in row.otherwise.items():
        by_told.setdefault(told, []).append(server)
    others = [f"{', '.join(servers)}: {as_cell(told)}" for told, servers in by_told.items()]
    return f"| {row.title} | {as_cell(row.told)} | {'; '.join(others)} |"
