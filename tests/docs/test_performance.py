"""The page *Performance*: every figure on it is one of the committed figures."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

if sys.platform != "linux":
    pytest.skip("the benchmarks read /proc", allow_module_level=True)

from benchmarks import _report, fairness, wire
from benchmarks._peers import OURS
from benchmarks._report import Results
from tests.docs.pages import changes

pytestmark = pytest.mark.page("docs/project/performance.md", "<!-- figures ")

PAGE = Path(__file__).parents[2] / "docs" / "project" / "performance.md"
FOLDER = PAGE.with_suffix("")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def figures() -> dict[str, Results]:
    return {name: _report.read(name) for name in _report.FILES}


@pytest.fixture
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_tables_are_the_figures(page: str, figures: dict[str, Results]) -> None:
    assert changes(PAGE, _report.with_blocks(page, _report.blocks(figures))) == []


CORE_GOALS = [
    (case, "lilya-websockets", "raw ASGI", limit)
    for case, limit in {
        "echo text": 2.0,
        "echo bytes": 2.0,
        "echo json": 0.9,
        "accept and close": 2.0,
    }.items()
]


def rows_of(figures: dict[str, Results]) -> dict[str, Any]:
    """The rows of every case, by its name."""
    loopback = {case: found["rows"] for case, found in figures["wire"]["cases"].items()}
    return {**figures["core"]["cases"], **loopback}


def missed(rows: dict[str, Any]) -> list[str]:
    """What this project has set itself, and has not reached."""
    return [
        f"{case}: {label} / {other}"
        for case, label, other, limit in (*CORE_GOALS, *wire.GOALS)
        if rows[case][label]["ratio"] / rows[case][other]["ratio"] > limit
    ]


def test_the_figures_reach_what_was_set(figures: dict[str, Results]) -> None:
    rows = rows_of(figures)
    assert missed(rows) == []
    for case, label in (("echo text", "lilya-websockets"), ("deflate", "lilya.websockets.uvicorn")):
        worse = copy.deepcopy(rows)
        worse[case][label]["ratio"] *= 2
        assert [goal for goal in missed(worse) if goal.startswith(f"{case}: {label} /")]


def test_the_plots_are_the_figures(figures: dict[str, Results]) -> None:
    drawn = _report.plots(figures)
    assert {path: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.svg")} == drawn


def test_the_figures_are_of_what_is_measured_now(figures: dict[str, Results]) -> None:
    measured = figures["wire"]["cases"].keys()
    assert wire.CASES.keys() - measured <= wire.AWAITED
    for name, case in wire.CASES.items():
        if name not in measured:
            continue
        committed = figures["wire"]["cases"][name]
        assert (committed["title"], committed["unit"]) == (case.title, case.unit)
        assert list(committed["rows"]) == list(case.rows)
    assert list(figures["fairness"]["cases"]) == list(fairness.KINDS)
    for case in figures["fairness"]["cases"].values():
        assert list(case["rows"]) == list(fairness.PEERS)


def test_every_case_has_its_run(page: str, figures: dict[str, Results]) -> None:
    wire_figures = figures["wire"]
    ran = [name for run in wire_figures["runs"] for name in run["cases"]]
    assert sorted(ran) == sorted(wire_figures["cases"])
    assert wire.CASES.keys() - set(ran) <= wire.AWAITED
    with_two = {"runs": [{**run, "rounds": 77} for run in wire_figures["runs"] * 2], "cases": {}}
    assert _report.blocks({**figures, "wire": {**with_two, "cases": wire_figures["cases"]}})[
        "wire-run"
    ].count("77 rounds") == len(with_two["runs"])


def test_everything_committed_is_shown(page: str, figures: dict[str, Results]) -> None:
    shown = dict(_report.blocks(figures))
    for run in figures.values():
        for case in run["cases"].values():
            for label, row in case["rows"].items() if "rows" in case else case.items():
                if "missing" not in row:
                    assert any(_report.number(row["value"]) in block for block in shown.values()), label
    assert all(block in page for block in shown.values())


def plotted(path: Path) -> dict[str, list[float]]:
    """The rows of a plot; what is drawn must be as long, or as high, as it says."""
    root = ElementTree.parse(path).getroot()
    assert root.get("role") == "img"
    assert root.get("aria-label") == root.findtext(f"{SVG}title")
    said = root.findtext(f"{SVG}desc") or ""
    found, scales = {}, []
    for group in root.iter(f"{SVG}g"):
        label = group.attrib["data-label"]
        values = [float(value) for value in (group.get("data-value") or group.attrib["data-values"]).split()]
        found[label] = values
        assert f"{label}: " in said
        rect, line = group.find(f"{SVG}rect"), group.find(f"{SVG}polyline")
        if rect is not None:
            scales.append(float(rect.attrib["width"]) / values[0])
        else:
            assert line is not None
            heights = [260 - float(point.partition(",")[2]) for point in line.attrib["points"].split()]
            scales += [height / value for height, value in zip(heights, values, strict=True)]
    assert scales == pytest.approx([max(scales)] * len(scales), rel=0.05)
    return found


@pytest.mark.parametrize("name", ["echo", "frameworks", "idle"])
def test_bars(name: str, figures: dict[str, Results]) -> None:
    rows = figures["wire"]["cases"][name]["rows"]
    expected = {label: [row["value"]] for label, row in rows.items() if "missing" not in row}
    assert plotted(FOLDER / f"{name}.svg") == expected


def test_lines(figures: dict[str, Results]) -> None:
    cases = [case for name, case in figures["wire"]["cases"].items() if name.startswith("growth-")]
    for label, values in plotted(FOLDER / "growth.svg").items():
        assert values == [case["rows"][label]["value"] for case in cases]


def parts_of(svg: str) -> dict[str, list[float]]:
    """The shares of each bar; every part is as long as its share."""
    root = ElementTree.fromstring(svg)
    found, scales = {}, []
    for group in root.iter(f"{SVG}g"):
        values = [float(value) for value in group.attrib["data-values"].split()]
        bars = group.findall(f"{SVG}rect")
        assert [bar.get("class") for bar in bars] == ["kernel", "server", "wrapper"]
        scales += [float(bar.attrib["width"]) / value for bar, value in zip(bars, values, strict=True)]
        found[group.attrib["data-label"]] = values
    assert scales == pytest.approx([max(scales)] * len(scales), rel=0.01)
    return found


def test_parts(figures: dict[str, Results]) -> None:
    svg = (FOLDER / "parts.svg").read_text(encoding="utf-8")
    cases = figures["wire"]["cases"]
    rows = {
        name: row["ratio"] for case in ("echo", "frameworks") for name, row in cases[case]["rows"].items()
    }
    drawn = parts_of(svg)
    assert len(drawn) == 4
    for label, values in drawn.items():
        what, _, server = label.partition(", ")
        wrapper = "FastAPI" if "FastAPI" in what else f"{_report.OURS} (async with)"
        on_top = rows[f"{wrapper} on {server}"] - cases["frameworks"]["rows"][server]["ratio"]
        assert sum(values) == pytest.approx(cases["echo"]["rows"][server]["ratio"] + on_top, abs=0.01)
        assert values[0] == pytest.approx(rows["picows"], abs=0.001)
    with pytest.raises(AssertionError):  # the planted fault
        parts_of(
            re.sub(
                r'width="[\d.]+"( height="12" fill="currentColor" class="server")',
                r'width="9"\1',
                svg,
                count=1,
            )
        )


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.svg")), ids=lambda path: path.stem)
def test_the_plots_have_the_colours_of_the_page_and_are_on_it(path: Path, site: Path) -> None:
    svg = path.read_text(encoding="utf-8")
    assert set(re.findall(r'\b(?:fill|stroke)="([^"]*)"', svg)) <= {"currentColor", "none"}
    assert svg.strip() in (site / "project" / "performance" / "index.html").read_text(encoding="utf-8")


@pytest.mark.page("docs/project/performance.md", ".json")
def test_the_files_can_be_read_by_readers(site: Path) -> None:
    for name in _report.FILES:
        assert (site / "project" / "performance" / f"{name}.json").is_file()


# Planted faults


def test_planted_figure_on_the_page(page: str, figures: dict[str, Results]) -> None:
    value = _report.number(figures["wire"]["cases"]["echo"]["rows"]["uvicorn"]["value"])
    assert f"| uvicorn | {value} (1.00)" in page
    faulty = page.replace(f"| uvicorn | {value} (1.00)", "| uvicorn | 1.23 (1.00)")
    assert _report.with_blocks(faulty, _report.blocks(figures)) != faulty


@pytest.mark.parametrize(
    "name", ["echo", "frameworks", "idle", "growth-1", "stalled", "round-trip", "fan-out"]
)
def test_planted_figure_in_the_file(name: str, page: str, figures: dict[str, Results]) -> None:
    faulty = copy.deepcopy(figures)
    label = next(iter(plotted(FOLDER / "growth.svg"))) if name == "growth-1" else "uvicorn"
    faulty["wire"]["cases"][name]["rows"][label]["value"] = 12345.0
    assert _report.with_blocks(page, _report.blocks(faulty)) != page
    if name in ("echo", "frameworks", "idle", "growth-1"):
        assert _report.plots(faulty) != _report.plots(figures)


def test_planted_figure_of_a_flood(page: str, figures: dict[str, Results]) -> None:
    figures["fairness"]["cases"]["pings"]["rows"][f"{OURS}, uvloop"]["most"] = 12345.0
    assert _report.with_blocks(page, _report.blocks(figures)) != page


def test_planted_figure_of_the_core(page: str, figures: dict[str, Results]) -> None:
    figures["core"]["cases"]["echo text"]["lilya-websockets"]["ratio"] = 0.01
    assert _report.with_blocks(page, _report.blocks(figures)) != page


def test_planted_mark(page: str, figures: dict[str, Results]) -> None:
    runs = figures["wire"]["runs"]
    disturbed = any(run["disturbed"] for run in runs)
    for run in runs:
        run["disturbed"] = not disturbed
    assert _report.with_blocks(page, _report.blocks(figures)) != page


def test_planted_block_that_is_missing_or_unknown(page: str, figures: dict[str, Results]) -> None:
    blocks = _report.blocks(figures)
    with pytest.raises(ValueError, match="the page has the blocks"):
        _report.with_blocks(page.replace("<!-- figures load -->", ""), blocks)
    with pytest.raises(ValueError, match="the page has the blocks"):
        _report.with_blocks(page, {**blocks, "more": ""})


def test_planted_bar(tmp_path: Path) -> None:
    svg = (FOLDER / "echo.svg").read_text(encoding="utf-8")
    (width,) = re.findall(r'data-label="uvicorn" .*?width="([\d.]+)"', svg)
    path = tmp_path / "echo.svg"
    path.write_text(svg.replace(f'width="{width}"', f'width="{float(width) / 2:.1f}"', 1), encoding="utf-8")
    with pytest.raises(AssertionError):
        plotted(path)


# How figures are written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"),
        (0.0117, "0.0117"),
        (1.0, "1"),
        (9.46, "9.46"),
        (13.4, "13.4"),
        (364.0, "364"),
        (1234.0, "1,234"),
    ],
)
def test_numbers(value: float, written: str) -> None:
    assert _report.number(_report.rounded(value)) == written.replace("1,234", "1,230")


@pytest.mark.parametrize(
    ("row", "marks"),
    [
        ({"samples": 5, "disturbed": 2, "bounded": 2}, ""),
        ({"samples": 5, "disturbed": 3, "bounded": 0}, "~"),
        ({"samples": 4, "disturbed": 2, "bounded": 4}, "~*"),
        ({"samples": 4, "disturbed": 2, "bounded": 4, "apart": 0.05}, "~*"),
        ({"samples": 4, "disturbed": 0, "bounded": 0, "apart": 0.051}, "!"),
        ({"samples": 4, "disturbed": 0, "bounded": 0, "apart": None}, ""),
    ],
)
def test_marks(row: dict[str, Any], marks: str) -> None:
    assert _report.marks(row) == marks
