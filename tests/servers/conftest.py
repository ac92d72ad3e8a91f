"""Which servers are tried, and what is written down of them.

With this folder's `pytest.ini`, which `nox -s servers` uses, all of them, and everything; else those that the
environment has, and what is quick.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .endings import ENDINGS, GIVE_UP, GROUPS, STOPS, Ending, difference
from .running import KINDS, REQUIRED, Kind, Server, running

FILE = Path(__file__).parents[2] / "docs" / "concepts" / "servers.json"

found: dict[str, Any] = {}
"""What was seen: by table, row and server."""


def is_whole(config: pytest.Config) -> bool:
    return config.inipath is not None and config.inipath.parent == Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "whole: only in the whole matrix, because it takes long")
    config.addinivalue_line("markers", "contract(*rows): the rows of the contract that the test checks")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if is_whole(config):
        return
    here = Path(__file__).parent
    left_out = [item for item in items if here in item.path.parents and item.get_closest_marker("whole")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        whole = is_whole(metafunc.config)
        kinds = [kind for kind in KINDS.values() if kind.is_there or (whole and kind.name in REQUIRED)]
        metafunc.parametrize("kind", kinds, ids=lambda kind: kind.name.replace(" ", "-"), scope="session")


@pytest.fixture(scope="session")
def server(kind: Kind) -> Iterator[Server]:
    """A running server, for all tests of it."""
    with running(kind) as server:
        yield server


def as_written(found: dict[str, Any]) -> dict[str, Any]:
    """What was seen, in the form of the file: rows as the page shows them."""
    kinds = [kind for kind in KINDS.values() if kind.is_there]
    groups = {title: [row(found, names) for names in merged(group)] for title, group in GROUPS.items()} | {
        "The server receives SIGTERM": [row(found, [name]) for name in STOPS]
    }
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "servers": {kind.name: kind.versions for kind in kinds},
        "groups": groups,
        "by hand": by_hand(found["hand"]),
        "figures": found["figures"],
        "stop": found["stop"],
        "give up": GIVE_UP,
    }


HOW = {"reads": ", handler receives", "feeds": ", handler only sends"}


def by_hand(seen: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The same rows without a block, as far as they were looked at."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for title, group in GROUPS.items():
        for ending in group:
            if ending.name in seen:
                how = HOW.get(ending.path, "") if "leaves" in title else ""
                groups.setdefault(title, []).append({"title": ending.title + how, "seen": seen[ending.name]})
    stops = [{"title": stop.title, "seen": seen[name]} for name, stop in STOPS.items() if name in seen]
    return {**groups, "The server receives SIGTERM": stops}


def merged(group: tuple[Ending, ...]) -> list[list[str]]:
    """Endings that have one title are one row: a client that leaves, from handlers of every kind."""
    titles: dict[str, list[str]] = {}
    for ending in group:
        titles.setdefault(ending.title, []).append(ending.name)
    return list(titles.values())


def row(found: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """A row of the page; the first of the endings is shown, and they agree in what is different."""
    ending = ENDINGS.get(names[0]) or STOPS[names[0]]
    why = {}
    for kind in KINDS.values():
        differences = {difference(kind.name, name) for name in names}
        if kind.name in found["block"][names[0]] and differences != {None}:
            texts = {entry.why if entry else "" for entry in differences}
            (why[kind.name],) = texts
    return {
        "title": ending.title,
        "same": list(ending.same),
        "seen": found["block"][names[0]],
        "why": why,
    }


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write down what was seen, if `nox -s servers -- --write` asks for it and all was as it must be."""
    if os.environ.get("LILYA_SERVERS_WRITE") and exitstatus == 0:
        results = as_written(found)
        FILE.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
