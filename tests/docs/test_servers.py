"""The page *Servers*: every table of it is made from the committed run."""

from __future__ import annotations

import copy
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.docs.pages import changes

pytestmark = pytest.mark.page("docs/concepts/servers.md", "<!-- servers ")

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "servers.md"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("servers_tables", PAGE.parent / "servers_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def results(script: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = script.read()
    return found


@pytest.fixture
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_tables_are_the_run(script: ModuleType, results: dict[str, Any], page: str) -> None:
    assert changes(PAGE, script.with_blocks(page, script.blocks(results))) == []


def test_a_cell_is_the_same_or_has_a_reason(results: dict[str, Any]) -> None:
    """The file says nothing that was not seen."""
    for rows in results["groups"].values():
        for row in rows:
            assert set(row["why"]) <= set(row["seen"]) <= set(results["servers"])
            for server, seen in row["seen"].items():
                assert (seen != row["same"]) == (server in row["why"]), (row["title"], server)


def test_the_run_was_of_every_server(results: dict[str, Any]) -> None:
    required = {"uvicorn", "uvicorn wsproto", "uvicorn websockets", "hypercorn", "granian", "daphne"}
    assert required <= set(results["servers"])


def test_every_reason_can_be_found(script: ModuleType, results: dict[str, Any], site: Path) -> None:
    built = (site / "concepts" / "servers" / "index.html").read_text(encoding="utf-8")
    links = set(re.findall(r'href="#(why-\d+)"', built))
    assert links == set(re.findall(r'id="(why-\d+)"', built))
    assert len(links) == len(script.numbered(results))


@pytest.mark.page("docs/concepts/servers.md", ".json")
def test_the_file_can_be_read_by_readers(site: Path) -> None:
    assert (site / "concepts" / "servers.json").is_file()


# Planted faults


@pytest.mark.parametrize("name", ["same", "matrix", "reasons", "by-hand", "figures", "run"])
def test_planted_change_in_a_table(name: str, script: ModuleType, results: dict[str, Any], page: str) -> None:
    block = script.blocks(results)[name]
    assert block in page
    faulty = page.replace(block, block.replace("e", "E", 1))
    assert script.with_blocks(faulty, script.blocks(results)) != faulty


def test_planted_outcome(script: ModuleType, results: dict[str, Any], page: str) -> None:
    for change in ("why", "same", "hand", "stop", "figure", "version"):
        faulty = copy.deepcopy(results)
        row = next(iter(faulty["groups"].values()))[0]
        if change == "why":
            row["why"]["uvicorn"] = "It is broken."
        elif change == "same":
            row["same"][0] = "close 1006"
        elif change == "hand":
            next(iter(faulty["by hand"].values()))[0]["seen"]["uvicorn"][0] = "close 1000 by hand"
        elif change == "stop":
            faulty["stop"]["block"]["uvicorn"] = 99.5
        elif change == "figure":
            faulty["figures"]["MiB taken, block"]["uvicorn"] = 31.5
        else:
            faulty["servers"]["uvicorn"]["uvicorn"] = "0.1"
        assert script.with_blocks(page, script.blocks(faulty)) != page, change


def test_planted_block_that_is_missing_or_unknown(
    script: ModuleType, results: dict[str, Any], page: str
) -> None:
    blocks = script.blocks(results)
    with pytest.raises(ValueError, match="the page has the blocks"):
        script.with_blocks(page.replace("<!-- servers same -->", ""), blocks)
    with pytest.raises(ValueError, match="the page has the blocks"):
        script.with_blocks(page, {**blocks, "more": ""})
