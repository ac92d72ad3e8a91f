"""Figures in words, in tables by hand and in docstrings: none changes by a slip.

What code or a file of results can hold is held elsewhere. The rest (what was measured once, limits of other
programs, how long a command takes) is recorded in `figures.toml`, by page and section. Whoever changes a
figure records it anew, and the change shows both:

    pytest tests/docs/test_figures.py --ws-update
"""

# ruff: noqa: RUF001 - pages have the signs of multiplication and minus

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomlkit

from tests.docs.pages import PAGES, ROOT, at, name_of, named_docstrings, parts

pytestmark = pytest.mark.page("CONTRIBUTING.md", "`tests/docs/figures.toml`")

RECORD = Path(__file__).parent / "figures.toml"
READMES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *ROOT.glob("packages/*/README.md"),
]
# Of modules, the pages *Reference* show the docstrings of these.
SHOWN = {
    name
    for page in PAGES
    for name in re.findall(r"^::: [\w.]+\.(\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
}
MODULES = sorted((ROOT / "packages/lilya-websockets/src").rglob("*.py"))
SOURCES = [*READMES, *PAGES, *MODULES]

UNITS = (
    r"µs|ms|ns|s|min|h|%|×|[kKMG]i?B|bytes?|(?:micro|milli|nano)?seconds?|minutes?|hours?|days?|messages?|frames?"
    r"|connections?|clients?|cases?|tests?|instructions?|rounds?|cores?|workers?|events?|members?|headers?|years?"
)
WORDS = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|sixty|hundred|thousand"
    "|million|half|halves|thirds?|quarters?|fifths?|tenths?|twice"
)
FIGURE = re.compile(
    rf"(?P<number>(?<![\w.#/-])[−+-]?\d(?:[\d,.]*\d)?\b)(?:[ -]?(?P<unit>(?:{UNITS})\b|%|×))?"
    rf"|\b(?P<word>(?:{WORDS})\b(?: (?:{UNITS})\b)?)|(?P<alone>\b(?:(?:micro|milli|nano)seconds?|[KMG]iB)\b)",
    re.IGNORECASE,
)
MADE = re.compile(r"<!-- (figures|servers) ([\w-]+) -->.*?<!-- end of \2 -->", re.DOTALL)


def figures(path: Path, text: str) -> Iterator[tuple[str, int, str]]:
    """The figures of a page: the section, the line, and the figure with its unit."""
    if path.suffix == ".py":
        yield from _figures_of_docstrings(text)
        return
    # What is made from results is empty here; the lines count.
    text = MADE.sub(lambda made: "\n" * made[0].count("\n"), text)
    section = ""
    for part in parts(path, text):
        heading = re.match(r"#+ (.+)", part.text)
        if heading and part.kind == "text":
            section = re.sub(r" *\{.*\}$", "", heading[1])
        if part.kind == "fence" or heading:
            continue
        for number, line in enumerate(part.text.split("\n"), part.line):
            # An address, an anchor and the number of an item are no figures.
            bare = re.sub(r"\]\([^)]*\)|https?://\S+|\{ *[#.][^}]*\}|^\s*\d+\. ", " ", line)
            for said in _figures_in(bare):
                yield section, number, said


def _figures_in(text: str) -> Iterator[str]:
    for found in FIGURE.finditer(text):
        yield " ".join(filter(None, [found["number"], found["unit"], found["word"], found["alone"]])).lower()


def _figures_of_docstrings(source: str) -> Iterator[tuple[str, int, str]]:
    for name, start, text in named_docstrings(source):
        if name.partition(".")[0] in SHOWN and "._" not in name:
            for number, line in enumerate(text.split("\n"), start):
                for said in _figures_in(line):
                    yield name, number, said


def recorded() -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = tomlkit.parse(RECORD.read_text(encoding="utf-8")).unwrap()
    return found


def problems(path: Path, text: str, record: dict[str, list[str]]) -> list[str]:
    """The figures that are not recorded, and the recorded ones that are gone."""
    there: dict[str, list[tuple[int, str]]] = {}
    for section, line, figure in figures(path, text):
        there.setdefault(section, []).append((line, figure))
    found = []
    for section in dict.fromkeys([*there, *record]):
        missing = Counter(record.get(section, ()))
        more = []
        for line, figure in there.get(section, ()):
            if missing[figure]:
                missing[figure] -= 1
            else:
                more.append((line, figure))
        gone = ", ".join(repr(figure) for figure in missing.elements())
        hint = "if it is right: pytest tests/docs/test_figures.py --ws-update"
        instead = f" (recorded, and not there: {gone})" if gone else ""
        found += [
            f"{name_of(path)}:{line}: {figure!r} is not recorded{instead}; {hint}" for line, figure in more
        ]
        if gone and not more:
            where = section if path.suffix == ".md" else section.rpartition(".")[2]
            found.append(f"{at(path, where, text)}: the section no longer says {gone}; {hint}")
    return found


def record_anew() -> None:
    document = tomlkit.document()
    for line in (__doc__ or "").strip().split("\n")[2:]:
        document.add(tomlkit.comment(line) if line else tomlkit.nl())
    for path in SOURCES:
        sections: dict[str, list[str]] = {}
        for section, _, figure in figures(path, path.read_text(encoding="utf-8")):
            sections.setdefault(section, []).append(figure)
        if sections:
            table = tomlkit.table()
            for section, said in sections.items():
                table[section] = tomlkit.array(str(sorted(said)).replace("'", '"'))
            document[name_of(path)] = table
    RECORD.write_text(tomlkit.dumps(document), encoding="utf-8")


def test_each_figure_is_recorded(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("ws_update", False):
        record_anew()
    record = recorded()
    found = [
        problem
        for path in SOURCES
        for problem in problems(path, path.read_text(encoding="utf-8"), record.get(name_of(path), {}))
    ]
    assert not found, "\n".join(found)
    assert set(record) <= {name_of(path) for path in SOURCES}


@pytest.mark.parametrize(
    ("page", "old", "new"),
    [
        ("project/conformance.md", "its 517 cases fails", "its 571 cases fails"),
        ("project/conformance.md", "Eleven of them", "Twelve of them"),
        ("project/performance.md", "Microseconds per connection.", "Milliseconds per connection."),
        ("project/performance.md", "KiB per connection", "MiB per connection"),
        ("project/performance.md", "| echo text | 7,166 |", "| echo text | 7,616 |"),
        ("guides/testing.md", "after 5 s |", "after 50 s |"),
        ("guides/typed.md", "One message of 186 bytes", "One message of 168 bytes"),
        ("guides/deploying.md", "every 20 seconds", "every 20 minutes"),
    ],
)
def test_planted_figure(page: str, old: str, new: str) -> None:
    path = ROOT / "docs" / page
    text = path.read_text(encoding="utf-8")
    assert old in text
    record = recorded()[name_of(path)]
    assert problems(path, text, record) == []
    found = problems(path, text.replace(old, new, 1), record)
    assert found
    assert all(re.match(rf"docs/{page}:\d+: ", each) for each in found)
    gone = problems(path, text.replace(old, "", 1), record)
    assert gone
    assert all(re.match(rf"docs/{page}:\d+: ", each) for each in gone)


def test_planted_figure_in_a_docstring() -> None:
    (path,) = [path for path in MODULES if path.name == "_websocket.py"]
    text = path.read_text(encoding="utf-8")
    record = recorded()[name_of(path)]
    assert problems(path, text, record) == []
    assert "closes with 1009" in text
    (found,) = problems(path, text.replace("closes with 1009", "closes with 1008", 1), record)
    assert re.match(r"packages/lilya-websockets/src/lilya/websockets/_websocket\.py:\d+: '1008' ", found)


def test_what_is_a_figure() -> None:
    text = (
        "# One\n\nIt takes 5 s, or 1.5 MiB: [see](x.md#a-9), step-2, RFC 6455.\n\n1. twice, 30 %\n\n"
        "<!-- figures x -->\n\n| 7 |\n\n<!-- end of x -->\n\n## Two { #two }\n\nMicroseconds; three clients\n"
    )
    found = [(section, line, said) for section, line, said in figures(ROOT / "x.md", text)]
    assert found == [
        ("One", 3, "5 s"),
        ("One", 3, "1.5 mib"),
        ("One", 3, "6455"),
        ("One", 5, "twice"),
        ("One", 5, "30 %"),
        ("Two", 15, "microseconds"),
        ("Two", 15, "three clients"),
    ]
