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

from .running import KINDS, REQUIRED, Kind, Server, running

FILE = Path(__file__).parents[2] / "docs" / "servers.json"

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


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write down what was seen, if `nox -s servers -- --write` asks for it and all was as it must be."""
    if os.environ.get("LILYA_SERVERS_WRITE") and exitstatus == 0:
        kinds = [kind for kind in KINDS.values() if kind.is_there]
        results = {
            "python": ".".join(map(str, sys.version_info[:3])),
            "servers": {kind.name: kind.versions for kind in kinds},
            **found,
        }
        FILE.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
