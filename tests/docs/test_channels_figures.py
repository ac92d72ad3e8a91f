"""The page *Performance of channels*: every figure of its tables is one of the committed figures."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the benchmarks read /proc", allow_module_level=True)

from benchmarks import _channels_report, _report, channels, redis, scale
from benchmarks._report import Results, number
from tests.docs.pages import changes

pytestmark = pytest.mark.page("docs/project/channels-performance.md", "<!-- figures ")


@pytest.fixture
def figures() -> dict[str, Results]:
    return _channels_report.figures()


@pytest.fixture
def page() -> str:
    return _channels_report.PAGE.read_text(encoding="utf-8")


def test_the_page_is_made_from_the_figures(page: str, figures: dict[str, Results]) -> None:
    assert changes(_channels_report.PAGE, _report.with_blocks(page, _channels_report.blocks(figures))) == []


def test_the_figures_are_of_what_is_measured_now(figures: dict[str, Results]) -> None:
    found = figures["channels"]
    assert list(found["fan-out"]) == [channels.NOTHING, *channels.SERVERS]
    assert all(list(rows) == list(channels.PEERS) for rows in found["fan-out"].values())
    assert list(found["growth"]["sockets"]) == list(map(str, channels.RECEIVERS))
    assert list(found["growth"]["channels"]) == list(map(str, channels.CHANNELS))
    stalled = found["stalled"]
    assert (stalled["sockets"], stalled["rate"]) == (channels.STALLED_AMONG, channels.STALLED_RATE)
    assert list(stalled["memory"]) == list(map(str, channels.HELD_SIZES))
    assert all(list(counted) == list(map(str, channels.HELD_AFTER)) for counted in stalled["memory"].values())
    load = figures["redis"]["load"]
    assert list(load) == list(map(str, redis.PROCESSES))
    assert all(list(kinds) == list(redis.KINDS) for kinds in load.values())
    assert all(tuple(row) == redis.FIGURES for kinds in load.values() for row in kinds.values())
    assert len(figures["redis"]["restarts"]["processes"]) == redis.PAIR
    if "scale" in figures:
        at_scale = figures["scale"]
        assert list(at_scale["many"]) == list(scale.LISTENING)
        assert all(list(rows) == list(map(str, scale.MANY)) for rows in at_scale["many"].values())
        assert tuple(at_scale["storm"][key] for key in ("sockets", "missed", "size", "window")) == scale.STORM
        assert {what: row["rate"] for what, row in at_scale["slow"].items()} == scale.SLOW
        assert all((row["expected"], row["size"]) == scale.LARGE for row in at_scale["slow"].values())
        assert list(at_scale["outage"]["peers"]) == list(scale.PEERS)


def test_what_the_page_promises_was_so(figures: dict[str, Results]) -> None:
    assert redis.faults(figures["redis"]) == ""
    assert scale.faults(figures.get("scale", {})) == []
    stalled = figures["channels"]["stalled"]
    assert stalled["received"] == stalled["expected"]
    for size, counted in stalled["memory"].items():
        for held in counted.values():
            # One more is with the server.
            assert held["messages"] - 1 <= 256
            assert (held["messages"] - 1) * int(size) <= 1_048_576


@pytest.mark.page("docs/project/channels-performance.md", ".json")
def test_the_files_can_be_read_by_readers(site: Path) -> None:
    for name in _channels_report.figures():
        assert (site / "project" / "performance" / f"{name}.json").is_file()


# Planted faults


def changed(figures: dict[str, Results], *path: str | int) -> dict[str, Results]:
    """The figures with another value at a place."""
    faulty = copy.deepcopy(figures)
    place: Any = faulty
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = 54321
    return faulty


@pytest.mark.parametrize(
    ("path", "block"),
    [
        (("channels", "fan-out", "uvicorn", "channels", "value"), "fan-out"),
        (("channels", "fan-out", "uvicorn", "broadcaster", "ratio"), "fan-out"),
        (("channels", "growth", "sockets", "10", "value"), "growth"),
        (("channels", "growth", "channels", "1000", "value"), "growth"),
        (("channels", "stalled", "received"), "stalled"),
        (("channels", "stalled", "p99", "with", "value"), "stalled"),
        (("channels", "stalled", "noise", "most"), "stalled"),
        (("channels", "stalled", "memory", "200", "1000", "bytes"), "stalled"),
        (("channels", "minutes"), "channels-run"),
        (("redis", "restarts", "processes", 0, "lost"), "restarts"),
        (("redis", "load", "4", "litestar", "low p99", "value"), "load"),
        (("redis", "load", "1", "ours", "full delivered", "least"), "load"),
        (("redis", "load", "4", "ours", "full broker", "value"), "on-paper"),
        (("redis", "event"), "on-paper"),
        (("redis", "rounds"), "redis-run"),
    ],
    ids=lambda value: "/".join(map(str, value)) if isinstance(value, tuple) else value,
)
def test_planted_figure_in_the_file(
    path: tuple[str | int, ...], block: str, page: str, figures: dict[str, Results]
) -> None:
    blocks = _channels_report.blocks(changed(figures, *path))
    assert blocks[block] != _channels_report.blocks(figures)[block]
    assert _report.with_blocks(page, blocks) != page


def test_planted_figure_on_the_page(page: str, figures: dict[str, Results]) -> None:
    value = number(figures["redis"]["event"])
    faulty = page.replace(f"takes {value} bytes of memory", "takes 1 bytes of memory")
    assert faulty != page
    assert _report.with_blocks(faulty, _channels_report.blocks(figures)) != faulty


def test_planted_mark_of_a_busy_machine(page: str, figures: dict[str, Results]) -> None:
    for found in figures.values():
        found["disturbed"] = not found["disturbed"]
        assert _report.with_blocks(page, _channels_report.blocks(figures)) != page
        found["disturbed"] = not found["disturbed"]


def test_planted_difference_above_the_noise(figures: dict[str, Results]) -> None:
    stalled = figures["channels"]["stalled"]
    for value, said in (
        (10.0, "no more than runs of the same kind"),
        (-30.0, "**more than runs of the same kind**"),
    ):
        stalled["difference"]["value"], stalled["noise"]["most"] = value, 20.0
        assert said in _channels_report.blocks(figures)["stalled"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lost", "something was lost, doubled or out of order"),
        ("gaps", "something was lost, doubled or out of order"),
        ("outages logged", "an outage was not logged once"),
    ],
)
def test_planted_fault_in_the_restarts(name: str, said: str, figures: dict[str, Results]) -> None:
    assert redis.faults(changed(figures, "redis", "restarts", "processes", 1, name)["redis"]) == said


# How the estimate is made


@pytest.mark.page("docs/project/channels-performance.md", "figures on-paper")
def test_what_one_redis_carries() -> None:
    load = {
        processes: {"ours": {"full broker": {"value": value}}}
        for processes, value in (("1", 14.0), ("2", 100.0), ("4", 20.0))
    }
    assert _channels_report.carried(load, 4) == (20.0, 50_000.0)
    assert _channels_report.carried(load, 54)[0] == 120.0
    load["4"]["ours"]["full broker"]["value"] = 10.0
    assert _channels_report.carried(load, 54) == (10.0, 100_000.0)  # never less than was measured


def test_every_block_is_for_readers(figures: dict[str, Results]) -> None:
    for name, block in _channels_report.blocks(figures).items():
        assert not re.search(r"\bnan\b|\binf\b|[{}]|e[+-]\d", block), name
