"""Figures as text, as tables and plots of the page *Performance*, and as the files that it is made from.

    python -m benchmarks._report

writes the page's tables and plots again, from the committed figures. A test compares them.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

__all__ = [
    "about",
    "as_text",
    "blocks",
    "fairness",
    "machine",
    "merged",
    "number",
    "plots",
    "quiet",
    "read",
    "rounded",
    "save",
    "spread",
    "table",
    "with_blocks",
    "write",
]

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "project" / "performance.md"
FOLDER = ROOT / "docs" / "project" / "performance"  # the figures (JSON) and the plots (SVG)

Results = dict[str, Any]
Row = dict[str, Any]

OURS = "lilya.websockets"
NOTHING = "\N{EN DASH}"  # in a table


def rounded(value: float) -> float:
    """Three digits: no measurement here is worth more."""
    return float(f"{value:.3g}")


def spread(values: Sequence[float]) -> Row:
    """The median of what was measured several times, and how far it was scattered."""
    return {
        "value": rounded(statistics.median(values)),
        "least": rounded(min(values)),
        "most": rounded(max(values)),
    }


def machine(packages: Iterable[str], node: Path | None = None) -> Results:
    """Where and with what something was measured."""
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    if node is not None and (node / "ws" / "package.json").exists():
        for made in sorted(node.glob("*/package.json"), reverse=True):
            if made.parent.name in ("ws", "bufferutil"):
                versions[made.parent.name] = json.loads(made.read_text(encoding="utf-8"))["version"]
        said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True, timeout=20)
        versions["Node.js"] = said.stdout.strip().removeprefix("v")
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "machine": f"{len(os.sched_getaffinity(0))} cores of {models[0] if models else platform.machine()}, "
        f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": versions,
    }


def number(value: float) -> str:
    """As a reader wants it: three digits, no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 10 else f"{value:.1f}"


APART = 0.05  # how far apart the rounds of a row may be before it is marked


def marks(row: Row) -> str:
    """What to know of a figure, in signs.

    `~` for turns that other load disturbed, `*` for a client that was busy nearly all the time, `!` for
    rounds that disagree.
    """
    half = row["samples"] / 2
    return (
        ("~" if row["disturbed"] >= half else "")
        + ("*" if row["bounded"] >= half else "")
        + ("!" if (row.get("apart") or 0) > APART else "")
    )


def as_text(results: Results) -> str:
    """For the terminal."""
    (run,) = results["runs"]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    lines = [f"{run['machine']}; {run['python']}", versions]
    for name, case in results["cases"].items():
        lines += [
            "",
            f"{name}: {case['title']}",
            f"  {'':44}{case['unit']:>8}  ratio  apart  of its core: server, client",
        ]
        for label, row in case["rows"].items():
            if "missing" in row:
                lines.append(f"  {label:44}{'':>8}  {row['missing']}")
                continue
            shares = f"{row['server']:8.0%} {row['client']:6.0%}" if row["server"] else ""
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
            apart = "" if row["apart"] is None else f"{row['apart']:.1%}"
            figures = f"{number(row['value']):>8}  {ratio:>5}  {apart:>5}{shares}"
            lines.append(f"  {label:44}{figures}  {marks(row)}".rstrip())
    lines += [
        "",
        f"{_rounds(run)} in {run['minutes']:g} minutes; {run['disturbed_samples']} of {run['samples']} turns "
        f"were disturbed by other load (~); ! the rounds are more than {APART:.0%} apart; * the client was "
        "busy nearly always",
    ]
    return "\n".join(lines)


def merged(old: Results, new: Results) -> Results:
    """The cases of a run in place of those that runs before it have measured, whose other cases stay."""
    kept = [
        {**run, "cases": [name for name in run["cases"] if name not in new["cases"]]} for run in old["runs"]
    ]
    return {
        "runs": [*(run for run in kept if run["cases"]), *new["runs"]],
        "cases": {**old["cases"], **new["cases"]},
    }


def save(results: Results, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(name: str) -> Results:
    """The committed figures of a run: one of `FILES`, `channels` or `redis`."""
    results: Results = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return results


FILES = ("core", "wire", "fairness")


def write(**results: Results) -> None:
    """Commit figures, by the name of the run, and make the page from all there are."""
    for name, found in results.items():
        save(found, FOLDER / f"{name}.json")
    figures = {name: read(name) for name in FILES}
    for path, drawn in plots(figures).items():
        path.write_text(drawn, encoding="utf-8")
    PAGE.write_text(with_blocks(PAGE.read_text(encoding="utf-8"), blocks(figures)), encoding="utf-8")


# The page: what is between `<!-- figures NAME -->` and `<!-- end of NAME -->` is made from the figures

_BLOCK = re.compile(r"(<!-- figures (?P<name>[a-z-]+) -->\n).*?(<!-- end of (?P=name) -->)", re.DOTALL)


def with_blocks(page: str, blocks: dict[str, str]) -> str:
    """The page with what is made from figures made anew.

    Raises:
        ValueError: The page lacks a block, or has one that nobody makes.
    """
    there = {found["name"] for found in _BLOCK.finditer(page)}
    if there != blocks.keys():
        raise ValueError(f"the page has the blocks {sorted(there)}, and {sorted(blocks)} are made")
    return _BLOCK.sub(lambda found: f"{found[1]}\n{blocks[found['name']]}\n\n{found[3]}", page)


def blocks(figures: dict[str, Results]) -> dict[str, str]:
    """Everything on the page that is made from figures, by name."""
    wire, core, fair = figures["wire"], figures["core"], figures["fairness"]
    cases = wire["cases"]
    return {
        "quiet": quiet(figures),
        "wire-run": _runs(wire),
        "load": _servers(
            cases,
            {
                "echo": "32 bytes, 32 connections",
                "echo-256": "32 bytes, 256 connections",
                "echo-64k": "64 KiB, 32 connections",
                "deflate": "1 KiB, compressed",
            },
        ),
        "other": _servers(
            cases,
            {
                "fan-out": "200 bytes to 1,000, each",
                "round-trip": "round trip, unloaded",
            },
        ),
        "opening": _servers(
            cases, {"handshake": "no extension", "handshake-deflate": "compression offered"}, ways=True
        ),
        "fairness": fairness(fair),
        "memory": _servers(
            cases,
            {
                "idle": "idle",
                "idle-deflate": "idle, with compression",
                "used-deflate": "and after a compressed message",
            },
        ),
        "stalled": _servers(cases, {"stalled": "MiB"}, ratios=False),
        "levels": _ways(cases["deflate"]["rows"], "µs per message", "level 3", base="level 6"),
        "ways": _ways(cases["fan-out"]["rows"], "µs per receiver", "one after the other"),
        "growth": _growth(cases),
        "frameworks": _frameworks(cases["frameworks"]["rows"]),
        "blocks": _in_blocks(
            {"32 connections": cases["frameworks"]["rows"], "256 connections": cases["block-256"]["rows"]}
        ),
        "adapters": _adapters(
            {"a message": cases["adapters"]["rows"], "a connection": cases["adapters-handshake"]["rows"]}
        ),
        "typed": _typed(cases.get("typed")),
        "fairness-run": about(fair, f"{fair['minutes']:g} minutes"),
        "missing": _missing({**cases, **fair["cases"]}),
        "core-run": about(core, _rounds(core)),
        "core": _core(core["cases"], ("echo text", "echo bytes", "echo json", "accept and close")),
        "core-first": _core(
            core["cases"], ("first header", "first query parameter", "first str(url)", "first cookie")
        ),
    }


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines)


def fairness(results: Results) -> str:
    """The longest waits under floods, as a table."""
    cases = results["cases"]
    return table(
        ["", *cases],
        [
            [
                name_of(label),
                *(
                    NOTHING
                    if "missing" in row
                    else f"{number(row['value'])} ({number(row['least'])} to {number(row['most'])})"
                    for row in (case["rows"][label] for case in cases.values())
                ),
            ]
            for label in next(iter(cases.values()))["rows"]
        ],
    )


def name_of(label: str) -> str:
    """A server as the page names it: ours in code."""
    name, comma, how = label.partition(",")
    return f"**`{name}`**{comma}{how}" if name.startswith(OURS) else label


def about(results: Results, length: str) -> str:
    """Where, with what and how long a run was."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    said = f"{results['machine']}; {results['python']}; {length}. {versions}."
    if results.get("samples"):
        said += f" Other load disturbed {results['disturbed_samples']:,} of {results['samples']:,} samples."
    return said


def _runs(results: Results) -> str:
    runs = results["runs"]
    said = [about(run, f"{_rounds(run)} in {run['minutes']:g} minutes") for run in runs]
    if len(runs) == 1:
        return said[0]
    return "\n".join(
        f"* {', '.join(f'`{name}`' for name in run['cases'])}: {about}"
        for run, about in zip(runs, said, strict=True)
    )


def _rounds(results: Results) -> str:
    return f"{results['rounds']} round{'s'[: results['rounds'] > 1]}"


def quiet(figures: dict[str, Results]) -> str:
    """Whether to believe the figures."""
    disturbed = [
        f"`{name}.json`"
        for name, results in figures.items()
        if any(run["disturbed"] for run in results.get("runs", [results]))
    ]
    if not disturbed:
        return "No other programs ran during the measurement."
    return (
        f'!!! warning "From a busy machine"\n\n    Other programs ran while {" and ".join(disturbed)} '
        f"{'were' if len(disturbed) > 1 else 'was'} measured. Use the ratios with caution, and ignore "
        "the times."
    )


def _cell(row: Row, *, ratio: bool = True) -> str:
    if "missing" in row:
        return NOTHING
    said = number(row["value"])
    if ratio and row["ratio"] is not None:
        said += f" ({row['ratio']:.2f})"
    return said + (f" {sign}" if (sign := marks(row).replace("*", "\\*")) else "")


def _servers(cases: Results, columns: dict[str, str], *, ratios: bool = True, ways: bool = False) -> str:
    first = cases[next(iter(columns))]["rows"]
    names = [name for name in first if ways or ", " not in name]
    rows = []
    for name in names:
        of_row = [cases[case]["rows"].get(name, {"missing": ""}) for case in columns]
        if any("missing" not in row for row in of_row):
            rows.append([name_of(name), *(_cell(row, ratio=ratios) for row in of_row)])
    return table(["", *columns.values()], rows)


def _ways(rows: dict[str, Row], unit: str, usual: str, base: str | None = None) -> str:
    how = {"uvicorn": base or usual}
    chosen = {
        name: row for name, row in rows.items() if name.partition(",")[0] in ("uvicorn", f"{OURS}.uvicorn")
    }
    return table(
        ["", unit],
        [
            [name_of(name) if ", " in name else f"{name_of(name)}, {how.get(name, usual)}", _cell(row)]
            for name, row in chosen.items()
            if "missing" not in row
        ],
    )


def _growth(cases: Results) -> str:
    columns = {name: case for name, case in cases.items() if name.startswith("growth-")}
    return _servers(cases, {name: f"{int(name.partition('-')[2]):,}" for name in columns}, ratios=False)


def _frameworks(rows: dict[str, Row]) -> str:
    servers = [name for name in rows if " on " not in name]
    apps = dict.fromkeys(name.partition(" on ")[0] for name in rows if " on " in name)
    cells = [["raw ASGI", *(_cell(rows[server]) for server in servers)]]
    cells += [
        [name_of(app), *(_cell(rows[f"{app} on {server}"]) for server in servers)]
        for app in apps
        if any("missing" not in rows[f"{app} on {server}"] for server in servers)
    ]
    return table(["", *(f"on {name_of(server).replace('**', '')}" for server in servers)], cells)


def _adapters(columns: dict[str, dict[str, Row]]) -> str:
    """A framework with its own class and with ours."""
    names = [name.split(" on ", 1) for name in next(iter(columns.values())) if " with " not in name]
    servers = list(dict.fromkeys(server for _, server in names))
    return table(
        ["", *(f"{what}, on {name_of(server).replace('**', '')}" for what in columns for server in servers)],
        [
            [
                framework,
                *(
                    _pair(rows[f"{framework} on {server}"], rows[f"{framework} with {OURS} on {server}"])
                    for rows in columns.values()
                    for server in servers
                ),
            ]
            for framework in dict.fromkeys(framework for framework, _ in names)
        ],
    )


def _in_blocks(columns: dict[str, dict[str, Row]]) -> str:
    """Our class by hand and in a block, on each server."""
    servers = [name.partition(" on ")[2] for name in columns["256 connections"] if "async" not in name]
    return table(
        ["", *columns],
        [
            [
                f"on {name_of(server).replace('**', '')}",
                *(
                    _pair(rows[f"{OURS} on {server}"], rows[f"{OURS} (async with) on {server}"])
                    for rows in columns.values()
                ),
            ]
            for server in servers
        ],
    )


def _pair(base: Row, other: Row) -> str:
    """Two figures, and in brackets their ratio."""
    if "missing" in base or "missing" in other:
        return NOTHING
    return f"{number(base['value'])}, {number(other['value'])} ({other['ratio'] / base['ratio']:.2f})"


def _typed(case: Results | None) -> str:
    if case is None:
        return "Not measured yet: `python3 noxfile.py -s bench -- wire typed --write` does it."
    rows = case["rows"]
    return table(
        ["", "µs per message"],
        [[f"**{name}**" if "ours" in name else name, _cell(row)] for name, row in rows.items()],
    )


def _missing(cases: Results) -> str:
    found: dict[str, list[str]] = {}
    for name, case in cases.items():
        for label, row in case["rows"].items():
            if "missing" in row:
                found.setdefault(f"{label}: {row['missing']}", []).append(name)
    if not found:
        return "Everything was measured."
    return "Not measured:\n\n" + "\n".join(
        f"* {escape(reason, quote=False)} ({', '.join(names)})" for reason, names in found.items()
    )


def _core(cases: Results, chosen: Iterable[str]) -> str:
    columns = {name: cases[name] for name in chosen}
    names = list(dict.fromkeys(name for rows in columns.values() for name in rows))
    return table(
        ["", *columns],
        [
            [
                f"**`{OURS}`**" if name == "lilya-websockets" else name,
                *(
                    f"{number(rows[name]['value'])} ({rows[name]['ratio']:.2f})" if name in rows else NOTHING
                    for rows in columns.values()
                ),
            ]
            for name in names
        ],
    )


# Plots, in the colours of the page. They are inlined in it, and can be read aloud.

WIDTH = 360  # what a phone shows without making letters smaller
LINE = 36  # the height of a bar and its label


def plots(figures: dict[str, Results]) -> dict[Path, str]:
    """Every plot, by its file."""
    cases = figures["wire"]["cases"]
    return {
        FOLDER / "echo.svg": bars(
            "Processor time per message: echo of 32 bytes, 32 connections", cases["echo"]
        ),
        FOLDER / "frameworks.svg": bars(
            "Processor time per message, through frameworks: echo of 32 bytes, 32 connections",
            cases["frameworks"],
        ),
        FOLDER / "idle.svg": bars("Memory per idle connection", cases["idle"]),
        FOLDER / "growth.svg": lines("Processor time per message, by the number of connections", cases),
        FOLDER / "parts.svg": parts("Where one message spends its time: echo of 32 bytes", cases),
    }


def _svg(title: str, said: str, height: float, shapes: Iterable[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
            f'aria-label="{escape(title)}" class="figures" style="max-width: 23rem">',
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(said)}</desc>",
            *shapes,
            "</svg>\n",
        ]
    )


def bars(title: str, case: Results) -> str:
    """One bar for each row, the least first; what it is stands above it."""
    rows = sorted(
        ((label, row["value"]) for label, row in case["rows"].items() if "missing" not in row),
        key=lambda row: row[1],
    )
    scale = WIDTH / max(value for _, value in rows)
    shapes, said = [], []
    for position, (label, value) in enumerate(rows):
        y = position * LINE
        text = f"{number(value)} {case['unit']}"
        said.append(f"{label}: {text}.")
        shapes.append(
            f'<g data-label="{escape(label)}" data-value="{value:g}"{_class(label)}>'
            f'<text x="0" y="{y + 14}">{escape(label)}</text>'
            f'<text x="{WIDTH}" y="{y + 14}" text-anchor="end">{text}</text>'
            f'<rect x="0" y="{y + 19}" width="{value * scale:.1f}" height="{LINE - 24}" '
            'fill="currentColor"/></g>'
        )
    return _svg(title, " ".join(said), len(rows) * LINE, shapes)


def _class(label: str) -> str:
    return ' class="ours"' if label.startswith(OURS) or label.endswith(f"{OURS}.uvicorn") else ""


def lines(title: str, cases: Results) -> str:
    """One line for each server over the number of connections; each step of these is ten times the last."""
    columns = {
        int(name.partition("-")[2]): case for name, case in cases.items() if name.startswith("growth-")
    }
    labels = [
        label
        for label in next(iter(columns.values()))["rows"]
        if all("missing" not in case["rows"][label] for case in columns.values())
    ]
    top, bottom, left, right = 16, 260, 34, WIDTH - 24
    step = (right - left) / (len(columns) - 1)
    most = max(case["rows"][label]["value"] for case in columns.values() for label in labels)
    scale = (bottom - top) / most
    unit = next(iter(columns.values()))["unit"]
    shapes = [f'<path d="M{left} {top} V{bottom} H{right}" fill="none" stroke="currentColor"/>']
    for position, count in enumerate(columns):
        shapes.append(
            f'<text x="{left + position * step:g}" y="{bottom + 20}" text-anchor="middle">{count:,}</text>'
        )
    for part in (0.5, 1.0):
        y = bottom - most * part * scale
        shapes.append(f'<text x="{left - 6}" y="{y + 5:.1f}" text-anchor="end">{number(most * part)}</text>')
    said, ends = [], []
    for label in labels:
        values = [case["rows"][label]["value"] for case in columns.values()]
        points = " ".join(
            f"{left + position * step:.1f},{bottom - value * scale:.1f}"
            for position, value in enumerate(values)
        )
        # A letter stands at the end of each line, apart from the others. What it means is below the plot.
        ends.append((bottom - values[-1] * scale, label, points, values))
    before = float("-inf")
    for position, (y, label, points, values) in enumerate(sorted(ends)):
        before = y = max(y, before + 16)
        letter = "ABCDEFGH"[position]
        listed = ", ".join(
            f"{number(value)} at {count:,}" for value, count in zip(values, columns, strict=True)
        )
        said.append(f"{label}: {listed} ({unit}).")
        shapes.append(
            f'<g data-label="{escape(label)}" data-values="{" ".join(f"{value:g}" for value in values)}"'
            f'{_class(label)}><polyline points="{points}" fill="none" stroke="currentColor"/>'
            f'<text x="{right + 8}" y="{y + 5:.1f}">{letter}</text>'
            f'<text x="{left}" y="{bottom + 46 + 18 * position}">{letter}: {escape(label)}</text></g>'
        )
    return _svg(title, " ".join(said), bottom + 46 + 18 * len(labels), shapes)


# The kernel, the event loop and the cutting of frames, without messages or ASGI: what picows takes in all.
LEAST = "picows"


def shares(cases: Results) -> dict[str, dict[str, float]]:
    """What an echo costs, by its parts; 1 is a raw ASGI app on uvicorn."""
    servers = {name: cases["echo"]["rows"][name]["ratio"] for name in ("uvicorn", f"{OURS}.uvicorn")}
    least = cases["echo"]["rows"][LEAST]["ratio"]
    rows = cases["frameworks"]["rows"]
    found = {}
    for server, whole in servers.items():
        for wrapper, name in ((f"{OURS} (async with)", "a block"), ("FastAPI", "FastAPI")):
            found[f"{name}, {server}"] = {
                "kernel": least,
                "server": whole - least,
                "wrapper": rows[f"{wrapper} on {server}"]["ratio"] - rows[server]["ratio"],
            }
    return {
        label: {part: rounded(value) for part, value in of_label.items()} for label, of_label in found.items()
    }


def parts(title: str, cases: Results) -> str:
    """Where a message spends its time: a bar of three parts for each way."""
    found = shares(cases)
    scale = WIDTH / max(sum(of_label.values()) for of_label in found.values())
    shapes, said = [], []
    for position, (label, of_label) in enumerate(found.items()):
        y, x = position * LINE, 0.0
        listed = ", ".join(f"{part} {value:.2f}" for part, value in of_label.items())
        whole = sum(of_label.values())
        said.append(f"{label}: {whole:.2f}, of which {listed}.")
        shapes.append(
            f'<g data-label="{escape(label)}" data-values="{" ".join(f"{v:g}" for v in of_label.values())}">'
            f'<text x="0" y="{y + 14}">{escape(label)}</text>'
            f'<text x="{WIDTH}" y="{y + 14}" text-anchor="end">{whole:.2f}</text>'
        )
        for part, value in of_label.items():
            shapes.append(
                f'<rect x="{x:.1f}" y="{y + 19}" width="{value * scale:.1f}" height="{LINE - 24}" '
                f'fill="currentColor" class="{part}"/>'
            )
            x += value * scale
        shapes.append("</g>")
    y = len(found) * LINE
    for part, what in (
        ("kernel", "the kernel, and frames: all that picows takes"),
        ("server", "the rest of the server: messages, ASGI"),
        ("wrapper", "the wrapper: a block, or FastAPI"),
    ):
        y += 20
        shapes.append(
            f'<rect x="0" y="{y - 10}" width="12" height="12" fill="currentColor" class="{part}"/>'
            f'<text x="20" y="{y}">{escape(what)}</text>'
        )
    return _svg(title, " ".join(said), y + 8, shapes)


if __name__ == "__main__":
    write()
